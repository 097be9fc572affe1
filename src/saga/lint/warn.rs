//! Warnings: what loads, and will hardly do what its author wants.

use super::super::compile::facts::Facts;
use super::super::compile::quoted;
use super::super::diagnostic::Problem;
use super::super::machine::{All, Body, InDoubt, Machine, Route, State, Then, Transition, UndoRule};
use super::graph::Graph;

/// Those that no error can cause.
pub(super) fn always(machine: &Machine, facts: &Facts, problems: &mut Vec<Problem>) {
    if machine.about.is_none() && !machine.name.is_empty() {
        let hint = "say in a sentence what the process is for: `about: …`";
        problems.push(Problem::warning("no-about", facts.name, "the saga does not say what it is for", hint));
    }
    for (state, step) in machine.steps() {
        let UndoRule::Send(undo) = &step.undo else { continue };
        if undo.success.is_empty() && undo.failure.is_empty() && !facts.doubtful_undos.contains(&undo.place) {
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
    for (field, at) in &facts.reply_reads {
        let message = format!("`reply.{field}` is read, and after a silence there is no reply");
        let hint = format!("ask first: `reply == null ? … : reply.{field}`");
        problems.push(Problem::warning("reply-may-be-null", *at, message, hint));
    }
    for state in machine.states.values() {
        if let Body::All(all) = &state.body {
            same_field(all, problems);
        }
    }
}

/// Two branches that set the same field: which of the two stays is a matter of chance.
fn same_field(all: &All, problems: &mut Vec<Problem>) {
    let mut known: Vec<(&str, &[String])> = Vec::new();
    for (branch, step) in &all.branches {
        let transitions = step.success.values().chain(step.failure.values()).flatten();
        for transition in transitions {
            for (path, _) in &transition.set {
                let clash = known.iter().find(|(other, theirs)| {
                    *other != branch.as_str() && theirs.iter().zip(path).all(|(theirs, ours)| theirs == ours)
                });
                if let Some((other, _)) = clash {
                    let message = format!("the branches `{other}` and `{branch}` both set `{}`", path.join("."));
                    let hint = "give each branch a field of its own, or use `collect`";
                    problems.push(Problem::warning("same-field-in-branches", transition.place, message, hint));
                }
                known.push((branch, path));
            }
        }
    }
}

/// Those that could follow from an error.
pub(super) fn of_sound(machine: &Machine, facts: &Facts, graph: &Graph, problems: &mut Vec<Problem>) {
    for (event, rule) in &machine.events {
        let is_handled =
            facts.handlers.iter().any(|handler| handler.event == *event) || machine.starts.contains_key(event);
        if !is_handled {
            let message = format!("`{event}` is declared and handled nowhere");
            let hint = "handle it under `on`, or remove it from `events`";
            problems.push(Problem::warning("unused-event", rule.place, message, hint));
            continue;
        }
        let comes_any_time = matches!(rule.route, Route::Key(_)) && rule.hold.is_none();
        if !comes_any_time || machine.starts.contains_key(event) {
            continue;
        }
        let deaf: Vec<&str> = machine
            .states
            .values()
            .enumerate()
            .filter(|(number, state)| graph.is_reached(*number) && is_deaf(machine, state, event))
            .map(|(_, state)| state.name.as_str())
            .collect();
        if !deaf.is_empty() {
            let message = format!("`{event}` can come in {} and is neither handled nor ignored there", quoted(&deaf));
            let hint = format!("handle it there, write `{event}: ignore`, or hold it: `hold: 1h`");
            problems.push(Problem::warning("unhandled-event", rule.place, message, hint));
        }
    }
}

/// Whether an instance can stay in this state and does nothing with that event.
fn is_deaf(machine: &Machine, state: &State, event: &str) -> bool {
    if matches!(state.body, Body::Pass | Body::Choose(_)) || state.on.contains_key(event) {
        return false;
    }
    if state.steps().any(|step| step.success.contains_key(event) || step.failure.contains_key(event)) {
        return false;
    }
    let stays = |transition: &Transition| matches!(transition.then, Then::Stay | Then::Ignore);
    match machine.on.get(event) {
        // Past the pivot a way out at the top counts no more.
        Some(transitions) => state.past_pivot && !transitions.iter().any(stays),
        None => true,
    }
}
