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
mod meant;
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
        self.stem().strip_suffix(".test").is_some()
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

#[cfg(test)]
mod tests {
    use super::super::duration::Span;
    use super::super::machine::{Body, Next, Retry, Step, Then, UndoRule};
    use super::*;

    const JOIN_GROUP: &str = include_str!("../../sagas/join-group.yaml");

    fn machine(text: &str) -> Machine {
        compile_stored(text, "sagas/x.yaml").unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    fn step<'m>(machine: &'m Machine, state: &str) -> &'m Step {
        match &machine.state(state).expect("the state is there").body {
            Body::Send(step) => step,
            other => panic!("{state} is no step: {other:?}"),
        }
    }

    #[test]
    fn what_is_not_said_is_filled_in() {
        let machine = machine(JOIN_GROUP);
        let reserve = step(&machine, "reserve-slot");
        assert_eq!((reserve.address.as_str(), reserve.command.as_str()), ("groups", "ReserveSlot"));
        let retry = Retry { attempts: Some(5), delay: Span(1_000), factor: 2.0, max_delay: Span(30_000), jitter: 0.1 };
        assert_eq!(reserve.retry, retry);
        let timeout = reserve.timeout.as_ref().expect("that of `defaults`");
        assert_eq!((timeout.after, timeout.ways.len()), (Span(30_000), 0));
        let UndoRule::Send(undo) = &reserve.undo else { panic!("{:?}", reserve.undo) };
        assert_eq!((undo.timeout, undo.retry.attempts, undo.retry.max_delay), (Span(30_000), Some(20), Span(600_000)));
        assert_eq!(undo.success, ["SlotReleased"]);
        assert!(reserve.success["SlotReserved"].is_empty(), "the default transition is none that was written");
    }

    #[test]
    fn next_is_resolved_and_the_pivot_is_known() {
        let machine = machine(JOIN_GROUP);
        let next: Vec<&Next> = machine.states.values().map(|state| &state.next).collect();
        assert_eq!(next, [&Next::State(1), &Next::State(2), &Next::End(None)]);
        let text = "saga: x\nstart: { A: { key: event.id } }\nstates:\n  a: { choose: [ { when: event.x, then: b }, c ] }\n  b: { pivot: true, send: p.B, success: C, timeout: 1s }\n  d: {}\n  e: { end: done }\n  c: { next: f }\n  f: {}\n";
        let machine = self::machine(text);
        let past: Vec<(&str, bool)> =
            machine.states.values().map(|state| (state.name.as_str(), state.past_pivot)).collect();
        assert_eq!(past, [("a", false), ("b", false), ("d", true), ("e", true), ("c", false), ("f", false)]);
        assert_eq!(machine.states["e"].next, Next::End(Some("done".to_owned())));
    }

    #[test]
    fn a_long_transition_says_what_holds_without_then() {
        let text = "saga: x\nstart: { A: { key: event.id } }\nstates:\n  a:\n    send: p.A\n    success: { B: { set: { x: 1 } } }\n    failure: { C: { set: { x: 2 } } }\n    timeout: { after: 1s, set: { x: 3 } }\n    undo: none\n";
        let machine = machine(text);
        let step = step(&machine, "a");
        assert!(matches!(step.success["B"][0].then, Then::Next));
        assert!(matches!(step.failure["C"][0].then, Then::Fail(None)));
        let timeout = step.timeout.as_ref().expect("it is there");
        assert!(matches!(&timeout.ways[0].then, Then::Fail(Some(_))));
    }

    #[test]
    fn what_is_stored_is_compiled_without_the_checks_of_loading() {
        let text = "saga: another\nstart: { A: { key: event.id } }\nstates:\n  a: { send: p.A }\n  b: { end: done }\n  c: {}\n";
        assert_eq!(machine(text).states.len(), 3);
        let source = SourceFile { path: "sagas/x.yaml".to_owned(), text: text.to_owned() };
        let codes: Vec<&str> = load(&[source]).diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
        assert_eq!(codes, ["name-mismatch", "no-about", "missing-undo", "unreachable-state"]);
        assert!(compile_stored("saga: x\nstates: {}\n", "x").is_err());
    }

    #[test]
    fn scenarios_beside_definitions_are_left_alone() {
        let source = SourceFile { path: "sagas/x.test.yaml".to_owned(), text: "scenarios: {}".to_owned() };
        let loaded = load(&[source]);
        assert!(loaded.machines.is_empty() && loaded.diagnostics.is_empty());
    }

    #[test]
    fn two_files_with_one_name_are_told_at_the_second() {
        let file = |folder: &str| SourceFile { path: format!("{folder}/join-group.yaml"), text: JOIN_GROUP.to_owned() };
        let loaded = load(&[file("a"), file("b")]);
        let told: Vec<(&str, &str)> =
            loaded.diagnostics.iter().map(|diagnostic| (diagnostic.file.as_str(), diagnostic.code)).collect();
        assert_eq!(told, [("b/join-group.yaml", "duplicate-name")]);
        assert_eq!(loaded.machines.len(), 1);
    }
}
