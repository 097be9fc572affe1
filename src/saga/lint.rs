//! What loading checks beyond the single part: ways through the states, handlers, undos, the pivot, fields of `data`.
//!
//! It judges the machine and the facts that the compiler gathered; it reads no YAML and changes nothing but the marks
//! that follow from the ways (`past_pivot`). Where a part could not be read, what would only follow from that is not
//! said.

mod data;
mod flow;
mod graph;
mod handlers;
mod pivot;
mod time;
mod warn;

use super::compile::facts::Facts;
use super::diagnostic::{Problem, Severity};
use super::machine::{Body, Hold, Machine, Route};
use graph::Graph;

/// Marks the states that are past the pivot.
pub(in crate::saga) fn mark_pivot(machine: &mut Machine, facts: &Facts) {
    let graph = Graph::new(machine, facts);
    for (number, state) in machine.states.values_mut().enumerate() {
        state.past_pivot = graph.is_reached_after(number) && !graph.is_reached_before(number);
    }
}

/// Everything that is wrong with one file. `is_sound`: nothing was reported before, so that warnings are no
/// consequences of errors.
pub(in crate::saga) fn check(machine: &Machine, facts: &Facts, is_sound: bool) -> Vec<Problem> {
    let graph = Graph::new(machine, facts);
    let mut problems = Vec::new();
    graph.check(machine, &mut problems);
    pivot::check(machine, facts, &graph, &mut problems);
    handlers::check(facts, &mut problems);
    data::check(machine, facts, &graph, &mut problems);
    warn::always(machine, facts, &mut problems);
    let is_sound = is_sound && problems.iter().all(|problem| problem.severity != Severity::Error);
    if is_sound {
        warn::of_sound(machine, facts, &graph, &mut problems);
        flow::check(machine, facts, &mut problems);
        time::check(machine, &graph, &mut problems);
    }
    problems
}

/// What the language has and the engine does not carry out yet: refused, never silently ignored.
pub(in crate::saga) fn unsupported(machine: &Machine) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |place, what: &str| {
        let message = format!("{what} is not carried out by this version");
        problems.push(Problem::new("not-yet", place, message, "leave it out, or use a later version"));
    };
    for rule in machine.events.values() {
        match (&rule.route, rule.hold) {
            (Route::Find { .. }, _) => refuse(rule.place, "`find`"),
            (_, Some(Hold::For(_) | Hold::Always)) => refuse(rule.place, "`hold`"),
            (Route::Key(_) | Route::Instance | Route::ReplyOnly, None) => {}
        }
    }
    for state in machine.states.values() {
        match &state.body {
            Body::All(_) => refuse(state.place, "`all`"),
            Body::Each(_) => refuse(state.place, "`each`"),
            Body::Decide(_) => refuse(state.place, "`decide`"),
            Body::Wait | Body::Pass | Body::Send(_) | Body::Choose(_) => {}
        }
    }
    problems
}
