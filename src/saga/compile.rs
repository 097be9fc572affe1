//! A definition to a machine, or every diagnostic at once.
//!
//! Reading a part never stops at a mistake: it is reported, and the best that can be made of the part is handed on.
//! What concerns several parts (ways through the states, handlers, fields of `data`) is judged by `lint`, from the
//! facts gathered here. Only a file without errors becomes a machine.

mod context;
pub(in crate::saga) mod facts;
mod file;
mod finding;
mod folder;
mod message;
mod scope;
mod state;
mod step;
mod transition;
mod value;

use std::sync::Arc;

use super::definition;
use super::diagnostic::{Diagnostic, Problem};
use super::lint;
use super::machine::Machine;

use context::Context;
pub(in crate::saga) use context::{NOWHERE, quoted};
use facts::Facts;
use file::Named;

/// A file as it was found; the path is as it was given, for messages and for the saga's name.
#[derive(Clone, Debug)]
pub struct SourceFile {
    pub path: String,
    pub text: String,
}

impl SourceFile {
    /// What the saga must be called: the file's name without `.yaml`.
    pub fn stem(&self) -> &str {
        let name = self.path.rsplit(['/', '\\']).next().unwrap_or(&self.path);
        name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).unwrap_or(name)
    }

    /// `*.test.yaml` holds scenarios, no saga.
    pub fn is_scenario(&self) -> bool {
        self.stem().ends_with(".test")
    }
}

#[derive(Debug, Default)]
pub struct Loaded {
    /// The sagas without errors, in the order of their files.
    pub machines: Vec<Arc<Machine>>,
    /// By file, in the order in which they were given, then by place.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Loads definitions with every check. Scenario files among them are left alone.
pub fn load(sources: &[SourceFile]) -> Loaded {
    let mut files: Vec<folder::File<'_>> =
        sources.iter().filter(|source| !source.is_scenario()).map(folder::File::read).collect();
    folder::check_together(&mut files);
    let mut loaded = Loaded::default();
    for file in files {
        let folder::File { source, machine, mut problems, .. } = file;
        problems.sort_by_key(|problem| (problem.place.line, problem.place.column, problem.severity));
        let is_sound = problems.iter().all(|problem| problem.severity != super::diagnostic::Severity::Error);
        loaded.machines.extend(machine.filter(|_| is_sound).map(Arc::new));
        loaded.diagnostics.extend(problems.into_iter().map(|problem| problem.in_file(&source.path)));
    }
    loaded
}

/// Compiles what is stored, without the checks of loading: a stricter daemon does not stop old instances.
pub fn compile_stored(source: &str, file: &str) -> Result<Machine, Vec<Diagnostic>> {
    let (machine, facts, problems) = compile(source, file);
    match machine {
        Some(mut machine) if problems.is_empty() => {
            lint::mark_pivot(&mut machine, &facts);
            Ok(machine)
        }
        _ => Err(problems.into_iter().map(|problem| problem.in_file(file)).collect()),
    }
}

/// What can be made of a text, the facts for `lint`, and what is wrong with it so far.
fn compile(text: &str, file: &str) -> (Option<Machine>, Facts, Vec<Problem>) {
    let (root, problems) = match definition::read(text) {
        Ok(read) => read,
        Err(problem) => return (None, Facts::default(), vec![problem]),
    };
    let mut context = Context::new(text, problems);
    let machine = context.file(&root, &Named { file, source: text });
    (machine, context.facts, context.problems)
}
