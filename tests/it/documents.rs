//! Keeps what the documents say in step with what is there: links, shown code, and the tests that guarantees name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tidy::{all_sources, files, none, read, relative, root};

#[test]
fn links_in_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for path in documents() {
        let text = read(&path);
        for link in links(&text) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let folder = path.parent().expect("a document is in a folder");
            if !folder.join(target).exists() {
                wrong.push(format!("{}: {link} is not there", relative(&path)));
            }
        }
    }
    none(&wrong);
}

#[test]
fn participants_in_the_readme_are_the_ones_that_run() {
    let readme = read(&root().join("README.md"));
    for (language, example) in [("python", "examples/participant.py"), ("rust", "examples/participant.rs")] {
        let blocks = fenced(&readme, language);
        let file = read(&root().join(example));
        assert!(
            blocks.iter().any(|block| block.trim() == file.trim()),
            "no ```{language} block of README.md equals {example}"
        );
    }
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let guarantees = read(&root().join("docs/guarantees.md"));
    let mut functions = BTreeMap::new();
    for source in all_sources() {
        functions.insert(source.path.clone(), source.text);
    }
    let mut wrong = Vec::new();
    let mut named = 0;
    for code in inline_code(&guarantees) {
        let Some((file, function)) = code.split_once("::") else { continue };
        if Path::new(file).extension().is_none_or(|ending| ending != "rs") {
            continue;
        }
        named += 1;
        if !functions.get(file).is_some_and(|text| text.contains(&format!("fn {function}("))) {
            wrong.push(format!("docs/guarantees.md: there is no {code}"));
        }
    }
    none(&wrong);
    assert!(named > 0, "docs/guarantees.md names no test");
}

#[test]
fn sagas_in_documents_load_and_their_scenarios_pass() {
    for document in ["README.md", "docs/language.md"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = sagas_in(document);
        assert!(!files.is_empty(), "{document} shows no saga");
        for (name, text) in &files {
            fs::write(folder.path().join(name), text).expect("a file in a temporary folder");
        }
        sagad(&["check", "--deny", "warnings"], folder.path());
        if files.iter().any(|(name, _)| name.ends_with(".test.yaml")) {
            sagad(&["test"], folder.path());
        }
    }
}

/// Whole definitions and scenario files that a document shows, by the names that they must have.
pub fn sagas_in(document: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for block in fenced(&read(&root().join(document)), "yaml") {
        let Some(name) = block.strip_prefix("saga: ").and_then(|rest| rest.lines().next()) else { continue };
        let ending = if block.contains("\nscenarios:") { "test.yaml" } else { "yaml" };
        files.push((format!("{name}.{ending}"), block));
    }
    files
}

/// Runs the binary on a folder of definitions; anything but success is told with what it said.
fn sagad(verb: &[&str], folder: &Path) {
    let run = Command::new(env!("CARGO_BIN_EXE_sagad")).args(verb).arg(folder).output().expect("sagad starts");
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{verb:?} {}: {}\n{said}", folder.display(), run.status);
}

fn documents() -> Vec<PathBuf> {
    let mut found = files(&root().join("docs"), "md");
    found.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    found
}

/// Targets of `[text](target)` outside of code.
fn links(markdown: &str) -> Vec<&str> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if !in_code {
            found.extend(
                line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split_once(')').map(|(target, _)| target)),
            );
        }
    }
    found
}

/// Insides of the blocks fenced as this language.
fn fenced(markdown: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if line.trim() == format!("```{language}") {
            let block: Vec<_> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

fn inline_code(markdown: &str) -> Vec<&str> {
    markdown.split('`').skip(1).step_by(2).collect()
}
