//! Runs every scenario file of the tree: those of the shipped sagas, and the cases of the decider.

use std::path::{Path, PathBuf};

use sagad::saga::compile::{SourceFile, load};
use sagad::scenario::run_file;

fn run_folder(folder: &Path) -> (usize, Vec<String>) {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is part of the tree")
        .map(|entry| entry.expect("an entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.sort();
    let (tests, definitions): (Vec<PathBuf>, Vec<PathBuf>) =
        paths.into_iter().partition(|path| path.to_string_lossy().ends_with(".test.yaml"));
    let read = |path: &PathBuf| std::fs::read_to_string(path).expect("the file can be read");
    let sources: Vec<SourceFile> =
        definitions.iter().map(|path| SourceFile { path: path.display().to_string(), text: read(path) }).collect();
    let loaded = load(&sources);
    let errors: Vec<_> = loaded.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let mut passed = 0;
    let mut failed = Vec::new();
    for path in &tests {
        match run_file(path, &read(path), &loaded.machines, std::env::var("SAGAD_SCENARIO").ok().as_deref()) {
            Ok(outcomes) => {
                for outcome in outcomes {
                    match outcome.failure {
                        None => passed += 1,
                        Some(what) => failed.push(format!(
                            "{}:{}: {}/{}: {what}",
                            outcome.file, outcome.place.line, outcome.saga, outcome.name
                        )),
                    }
                }
            }
            Err(mistakes) => failed.extend(mistakes.iter().map(|mistake| format!("{mistake:?}"))),
        }
    }
    (passed, failed)
}

#[test]
fn each_cell_of_the_table_of_answers_holds() {
    let (passed, failed) = run_folder(Path::new("tests/cases/answers"));
    assert!(failed.is_empty(), "{passed} passed, {} failed:\n{}", failed.len(), failed.join("\n\n"));
    assert!(passed > 0);
}

#[test]
fn the_scenarios_of_the_shipped_sagas_hold() {
    let (passed, failed) = run_folder(Path::new("sagas"));
    assert!(failed.is_empty(), "{passed} passed, {} failed:\n{}", failed.len(), failed.join("\n\n"));
    assert!(passed > 0);
}

#[test]
fn what_was_found_once_in_the_decider_stays_mended() {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("tests/cases/decider")
        .expect("the folder is part of the tree")
        .map(|entry| entry.expect("an entry can be read").path())
        .collect();
    folders.sort();
    let (mut passed, mut failed) = (0, Vec::new());
    for folder in folders {
        let (more, failures) = run_folder(&folder);
        passed += more;
        failed.extend(failures);
    }
    assert!(failed.is_empty(), "{passed} passed, {} failed:\n{}", failed.len(), failed.join("\n\n"));
    assert!(passed > 0);
}
