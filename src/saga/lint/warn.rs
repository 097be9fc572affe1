//! Warnings: what loads, and will hardly do what its author wants.

use super::super::compile::facts::Facts;
use super::super::diagnostic::Problem;
use super::super::machine::{InDoubt, Machine, UndoRule};
use super::graph::Graph;

/// Those that no error can cause.
pub(super) fn always(machine: &Machine, facts: &Facts, problems: &mut Vec<Problem>) {
    if machine.about.is_none() && !machine.name.is_empty() {
        let hint = "say in a sentence what the process is for: `about: …`";
        problems.push(Problem::warning("no-about", facts.name, "the saga does not say what it is for", hint));
    }
    for (state, step) in machine.steps() {
        let UndoRule::Send(undo) = &step.undo else { continue };
        if undo.success.is_empty() {
            let message = format!("nobody will know whether the undo of `{}` worked", state.name);
            let hint = "write `undo: { send, success }` with the event that says it was taken back";
            problems.push(Problem::warning("undo-without-success", undo.place, message, hint));
        }
        if undo.in_doubt == InDoubt::Leave {
            let message = format!("what a silence of `{}` may have left behind is never taken back", state.name);
            let hint = "leave `in_doubt` out, so that a step in doubt is undone like one that is done";
            problems.push(Problem::warning("in-doubt-left", undo.place, message, hint));
        }
    }
}

/// Those that could follow from an error.
pub(super) fn of_sound(machine: &Machine, facts: &Facts, _graph: &Graph, problems: &mut Vec<Problem>) {
    for (event, rule) in &machine.events {
        let is_handled =
            facts.handlers.iter().any(|handler| handler.event == *event) || machine.starts.contains_key(event);
        if !is_handled {
            let message = format!("`{event}` is declared and handled nowhere");
            let hint = "handle it under `on`, or remove it from `events`";
            problems.push(Problem::warning("unused-event", rule.place, message, hint));
        }
    }
}
