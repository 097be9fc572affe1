//! Definitions as data: `tests/cases/definitions/<code>/` holds files with one mistake each, and beside each a list of
//! what must be said of it, `<line>:<column> <code>`. A folder inside is a set of files that are loaded together; its
//! list is called `expect` and names the files too. `valid/` holds what must load.
//!
//! `UPDATE_EXPECT=1` writes the lists anew; read them before you believe them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sagad::saga::compile::{Loaded, SourceFile, compile_stored, load};
use sagad::saga::diagnostic::Diagnostic;

/// A case of what the engine cannot do yet says so on top of everything else; only its own folder tests that.
const NOT_YET: &str = "not-yet";

#[test]
fn every_mistake_is_told_once_at_its_place() {
    let mut failures = String::new();
    let mut told: BTreeSet<String> = BTreeSet::new();
    let mut cases = 0;
    for folder in entries(&cases_folder()) {
        let code = name(&folder);
        for case in entries(&folder) {
            let (sources, list) = if case.is_dir() {
                (sources_in(&case), case.join("expect"))
            } else if case.extension().is_some_and(|extension| extension == "yaml") {
                (vec![source(&case)], case.with_extension("expect"))
            } else {
                continue;
            };
            cases += 1;
            let loaded = load(&sources);
            let with_names = case.is_dir();
            let found: Vec<&Diagnostic> =
                loaded.diagnostics.iter().filter(|diagnostic| code == NOT_YET || diagnostic.code != NOT_YET).collect();
            for diagnostic in &found {
                told.insert(diagnostic.code.to_owned());
                assert!(!diagnostic.message.is_empty() && !diagnostic.hint.is_empty(), "{diagnostic:?}");
                assert!(diagnostic.place.line > 0 && diagnostic.place.column > 0, "{diagnostic:?}");
            }
            if code != "valid" && found.iter().all(|diagnostic| diagnostic.code != code) {
                let _ = writeln!(failures, "{} does not show {code}", case.display());
            }
            let found: String = found.iter().map(|diagnostic| line_of(diagnostic, with_names)).collect();
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                fs::write(&list, &found).expect("the list can be written");
            }
            let expected = fs::read_to_string(&list).unwrap_or_else(|error| panic!("{}: {error}", list.display()));
            if expected != found {
                let rendered = render(&loaded, &sources);
                let _ = writeln!(failures, "{}\nexpected:\n{expected}found:\n{found}{rendered}", case.display());
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(cases > 100, "only {cases} cases were found");
    let pages: BTreeSet<String> = entries(&root().join("docs/diagnostics"))
        .iter()
        .map(|page| page.file_stem().expect("a page has a name").to_string_lossy().into_owned())
        .filter(|page| page != "README")
        .collect();
    let without_page: Vec<&String> = told.difference(&pages).collect();
    assert!(without_page.is_empty(), "these codes have no page: {without_page:?}");
    let without_case: Vec<&String> = pages.difference(&told).collect();
    assert!(without_case.is_empty(), "no case shows these: {without_case:?}");
}

#[test]
fn twenty_mistakes_in_three_files_are_twenty_diagnostics() {
    let folder = root().join("tests/cases/twenty-mistakes");
    let sources = sources_in(&folder);
    assert_eq!(sources.len(), 3);
    let loaded = load(&sources);
    let rendered = render(&loaded, &sources);
    assert_eq!(loaded.diagnostics.len(), 20, "{rendered}");
    assert!(loaded.machines.is_empty());
    let codes: BTreeSet<&str> = loaded.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    assert!(codes.len() >= 15, "{codes:?}");
    let expected = fs::read_to_string(folder.join("expect")).expect("the list is there");
    let found: String = loaded.diagnostics.iter().map(|diagnostic| line_of(diagnostic, true)).collect();
    assert_eq!(found, expected, "{rendered}");
}

#[test]
fn the_shipped_sagas_load_without_a_word() {
    let sources = sources_in(&root().join("sagas"));
    assert!(sources.len() >= 2);
    let loaded = load(&sources);
    assert!(loaded.diagnostics.is_empty(), "{}", render(&loaded, &sources));
    assert_eq!(loaded.machines.len(), sources.iter().filter(|source| !source.is_scenario()).count());
    for machine in &loaded.machines {
        let stored = compile_stored(&machine.source, &machine.file).expect("what loads can be read back");
        assert_eq!(stored.digest, machine.digest);
    }
}

#[test]
fn the_sagas_in_the_documentation_load() {
    let mut pages = entries(&root().join("docs"));
    pages.push(root().join("README.md"));
    let mut sagas = 0;
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(page).expect("a page can be read");
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            let Some(name) = block.strip_prefix("saga: ").and_then(|rest| rest.lines().next()) else { continue };
            if !block.contains("\nstates:") {
                continue;
            }
            sagas += 1;
            let source = SourceFile { path: format!("{name}.yaml"), text: block.to_owned() };
            let loaded = load(std::slice::from_ref(&source));
            let rendered = render(&loaded, std::slice::from_ref(&source));
            assert!(!loaded.has_errors(), "{}\n{rendered}", page.display());
        }
    }
    assert!(sagas >= 2, "only {sagas} sagas were found");
}

/// The index of the pages about codes is made of the pages: title and kind stand at the top of each.
#[test]
fn the_index_of_codes_names_every_page() {
    let folder = root().join("docs/diagnostics");
    let mut index = String::from(
        "# What `sagad check` says\n\nA page for each code. This list is made of the pages; \
         `UPDATE_EXPECT=1 cargo test --test it definitions` writes it anew.\n\n| code | | what it means |\n|---|---|---|\n",
    );
    for page in entries(&folder).iter().filter(|page| name(page) != "README.md") {
        let code = page.file_stem().expect("a page has a name").to_string_lossy();
        let text = fs::read_to_string(page).expect("a page can be read");
        let mut lines = text.lines();
        let title = lines.next().and_then(|line| line.strip_prefix("# ")).expect("a page begins with its title");
        let kind = lines.nth(1).expect("a page names its code");
        let kind = match kind.strip_prefix(&format!("`{code}`, ")) {
            Some("an error.") => "error",
            Some("a warning.") => "warning",
            other => panic!("{code}: {other:?}"),
        };
        let _ = writeln!(index, "| [{code}]({code}.md) | {kind} | {title} |");
    }
    let path = folder.join("README.md");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &index).expect("the index can be written");
    }
    assert_eq!(fs::read_to_string(&path).expect("the index is there"), index);
}

/// What is done to a text: which line, what, and with which word.
type Change = (prop::sample::Index, u8, prop::sample::Index);

/// Words that mean something somewhere, or nothing anywhere.
const WORDS: [&str; 32] = [
    "next",
    "stay",
    "fail",
    "retry",
    "ignore",
    "end:",
    "then:",
    "incident:",
    "when:",
    "set:",
    "send:",
    "undo:",
    "none",
    "pivot: true",
    "success:",
    "failure:",
    "timeout:",
    "30s",
    "30",
    "${data.user}",
    "${",
    "}",
    "{",
    "[",
    "]",
    "'",
    "\"",
    "- ",
    "\t",
    "&a",
    "*a",
    "\u{fe0f}ä",
];

fn changed(text: &str, changes: &[Change]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (line, what, word) in changes {
        if lines.is_empty() {
            break;
        }
        let at = line.index(lines.len());
        let word = WORDS[word.index(WORDS.len())];
        let letters: Vec<char> = lines[at].chars().collect();
        let middle = letters.len() / 2;
        match what {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => lines.swap(at, 0),
            3 => lines[at].insert_str(0, "  "),
            4 => lines[at] = lines[at].trim_start().to_string(),
            5 => lines[at] = letters[..middle].iter().collect(),
            6 => lines[at] = format!("{}{word}", lines[at]),
            7 => {
                lines[at] = letters[..middle]
                    .iter()
                    .chain(&word.chars().collect::<Vec<_>>())
                    .chain(&letters[middle..])
                    .collect();
            }
            8 => lines[at] = lines[at].split_once(':').map_or(String::new(), |(key, _)| format!("{key}: {word}")),
            9 => lines[at] = lines[at].replacen(|letter: char| letter.is_alphabetic(), word, 1),
            _ => lines.truncate(at + 1),
        }
    }
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_spoilt_saga_is_refused_in_order(
        which in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..11_u8, any::<prop::sample::Index>()), 1..6),
    ) {
        let valid = cases_folder().join("valid/everything.yaml");
        let mut shipped = sources_in(&root().join("sagas"));
        shipped.retain(|source| !source.is_scenario());
        let original = if which < shipped.len() { shipped[which].clone() } else { source(&valid) };
        let spoilt = SourceFile { text: changed(&original.text, &changes), ..original };
        let loaded = load(std::slice::from_ref(&spoilt));
        let lines = u32::try_from(spoilt.text.lines().count().max(1)).expect("a short text");
        for diagnostic in &loaded.diagnostics {
            prop_assert!(!diagnostic.message.is_empty() && !diagnostic.hint.is_empty(), "{diagnostic:?}");
            let place = diagnostic.place;
            prop_assert!(place.line >= 1 && place.line <= lines && place.column >= 1, "{diagnostic:?}\n{}", spoilt.text);
            prop_assert!((place.end_line, place.end_column) >= (place.line, place.column), "{diagnostic:?}");
        }
        prop_assert_eq!(loaded.has_errors(), loaded.machines.is_empty());
        for machine in &loaded.machines {
            let stored = compile_stored(&machine.source, &machine.file);
            prop_assert_eq!(stored.map(|stored| stored.digest).map_err(|_| ()), Ok(machine.digest));
        }
        render(&loaded, std::slice::from_ref(&spoilt));
    }
}

/// One line of a list.
fn line_of(diagnostic: &Diagnostic, with_name: bool) -> String {
    let Diagnostic { code, file, place, .. } = diagnostic;
    let name = if with_name { format!("{}:", file.rsplit('/').next().unwrap_or(file)) } else { String::new() };
    format!("{name}{}:{} {code}\n", place.line, place.column)
}

fn render(loaded: &Loaded, sources: &[SourceFile]) -> String {
    let text_of = |file: &str| sources.iter().find(|source| source.path == file).map(|source| source.text.as_str());
    sagad::saga::diagnostic::render_all(&loaded.diagnostics, text_of)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn cases_folder() -> PathBuf {
    root().join("tests/cases/definitions")
}

fn sources_in(folder: &Path) -> Vec<SourceFile> {
    entries(folder)
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| source(path))
        .collect()
}

fn source(path: &Path) -> SourceFile {
    let text = fs::read_to_string(path).expect("a case can be read");
    SourceFile { path: path.display().to_string(), text }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be listed").path())
        .collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().expect("it has a name").to_string_lossy().into_owned()
}
