//! Definitions from disk: which files a path stands for, read and compiled, with every diagnostic of all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::api;
use crate::config::{Config, Problem};
use crate::saga::compile::{self, SourceFile};
use crate::saga::diagnostic::{Diagnostic, Severity};
use crate::saga::machine::{Machine, Place};

/// A definition is text that a person wrote; more than this is something else.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// What stands in the files, right or wrong.
#[derive(Debug, Default)]
pub struct Read {
    pub machines: Vec<Arc<Machine>>,
    pub diagnostics: Vec<Diagnostic>,
    /// The text of each file, so that diagnostics can show the line.
    pub sources: BTreeMap<String, String>,
    /// Scenario files that stand beside the definitions.
    pub scenarios: Vec<PathBuf>,
}

impl Read {
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// The errors of one file.
    pub fn errors_of(&self, file: &Path) -> Vec<Diagnostic> {
        let name = file.display().to_string();
        self.diagnostics.iter().filter(|found| found.file == name && found.is_error()).cloned().collect()
    }

    /// For a terminal: place, severity, code, message, the line, and the hint of each.
    pub fn text(&self) -> String {
        crate::saga::diagnostic::render_all(&self.diagnostics, |file| self.sources.get(file).map(String::as_str))
    }
}

/// A path that was given and is not there, or cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct NoPath {
    pub path: PathBuf,
    pub reason: String,
}

/// Definitions as the configuration names them. A folder that nobody named may be missing.
pub fn configured(config: &Config) -> Result<Read, NoPath> {
    let dir = &config.sagas.dir;
    if !config.sagas.named && !dir.exists() {
        return Ok(Read::default());
    }
    read(std::slice::from_ref(dir))
}

/// A file stands for itself, a folder for its `*.yaml`.
pub fn read(paths: &[PathBuf]) -> Result<Read, NoPath> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(files_of(path)?);
    }
    files.dedup();
    let mut read = Read::default();
    let mut sources = Vec::new();
    for file in files {
        if is_scenario(&file) {
            read.scenarios.push(file);
            continue;
        }
        let name = file.display().to_string();
        match text_of(&file) {
            Ok(text) => {
                read.sources.insert(name.clone(), text.clone());
                sources.push(SourceFile { path: name, text });
            }
            Err(reason) => read.diagnostics.push(unreadable(name, &reason)),
        }
    }
    let loaded = compile::load(&sources);
    read.diagnostics.extend(loaded.diagnostics);
    read.diagnostics
        .sort_by(|a, b| (&a.file, a.place.line, a.place.column).cmp(&(&b.file, b.place.line, b.place.column)));
    read.machines = loaded.machines;
    Ok(read)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, NoPath> {
    let failed = |error: std::io::Error| NoPath { path: path.to_owned(), reason: error.to_string() };
    let about = std::fs::metadata(path).map_err(failed)?;
    if !about.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if file.extension().is_some_and(|extension| extension == "yaml") && !hidden && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// The definition that a scenario file belongs to.
pub fn definition_of(scenarios: &Path) -> PathBuf {
    let name = scenarios.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let stem = name.strip_suffix(".test.yaml").unwrap_or(name);
    scenarios.with_file_name(format!("{stem}.yaml"))
}

/// The folder that a file stands in.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_scenario(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b".test.yaml"))
}

pub fn text_of(file: &Path) -> Result<String, String> {
    let about = std::fs::metadata(file).map_err(|error| error.to_string())?;
    if about.len() > FILE_BYTES {
        return Err(format!("it has {} bytes, a definition has at most {FILE_BYTES}", about.len()));
    }
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|byte| *byte == b'\n').count();
        format!("line {line} is not UTF-8")
    })
}

const START: Place = Place { line: 1, column: 1, end_line: 1, end_column: 1 };

pub fn unreadable(file: String, reason: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: "unreadable",
        message: format!("the file cannot be read: {reason}"),
        hint: "make it a readable file of UTF-8 text, or take it out of the folder".to_owned(),
        file,
        place: START,
    }
}

/// A mistake in the configuration, told like one in a definition.
pub fn of_problem(problem: &Problem) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: "bad-configuration",
        message: problem.message.clone(),
        hint: problem.hint.clone(),
        file: problem.file.clone(),
        place: problem.place,
    }
}

pub fn view(diagnostic: &Diagnostic) -> api::Diagnostic {
    let Diagnostic { severity, code, message, hint, file, place } = diagnostic;
    api::Diagnostic {
        severity: severity.name().to_owned(),
        code: (*code).to_owned(),
        message: message.clone(),
        hint: hint.clone(),
        file: file.clone(),
        line: place.line,
        column: place.column,
        end_line: place.end_line,
        end_column: place.end_column,
    }
}
