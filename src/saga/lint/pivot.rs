//! Before the pivot everything can be taken back; while it is open only its answer leads on; past it nothing fails.

use super::super::compile::facts::{Facts, Goes, Spot, StepFact, Way};
use super::super::diagnostic::Problem;
use super::super::machine::{Body, Machine, State, Step, UndoRule};
use super::graph::Graph;

pub(super) fn check(machine: &Machine, facts: &Facts, graph: &Graph, problems: &mut Vec<Problem>) {
    for fact in &facts.steps {
        undo(machine, facts, graph, fact, problems);
    }
    for way in &facts.ways {
        let Some((name, state)) = way.state.and_then(|number| machine.states.get_index(number)) else { continue };
        if is_pivot(state) {
            way_out_of_pivot(name, way, problems);
        }
        fail_past_pivot(name, state, graph, way, problems);
    }
}

fn is_pivot(state: &State) -> bool {
    matches!(&state.body, Body::Send(step) if step.pivot)
}

/// A step that may have to be taken back says how.
fn undo(machine: &Machine, facts: &Facts, graph: &Graph, fact: &StepFact, problems: &mut Vec<Problem>) {
    let Some((name, state)) = machine.states.get_index(fact.state) else { return };
    let Some(step) = step_of(state, fact) else { return };
    if step.pivot || fact.undo_broken || !matches!(step.undo, UndoRule::Absent) {
        return;
    }
    let hint = "add `undo: <address>.<Command>`, or `undo: none` where there is never anything to take back";
    if graph.is_reached_before(fact.state) {
        let whose = match &fact.part {
            Some(branch) => format!("the branch `{branch}` of `{name}`"),
            None => format!("the step `{name}`"),
        };
        let message = format!("{whose} may have to be taken back and has no `undo`");
        problems.push(Problem::new("missing-undo", fact.at, message, hint));
    } else if graph.is_reached_after(fact.state) && !step.success.is_empty() && can_be_given_up(facts, fact, state) {
        let message = format!("the step `{name}` can be left without its answer and has no `undo`");
        problems.push(Problem::new("missing-undo", fact.at, message, hint));
    }
}

fn step_of<'m>(state: &'m State, fact: &StepFact) -> Option<&'m Step> {
    match (&state.body, &fact.part) {
        (Body::Send(step), None) => Some(step),
        (Body::Each(each), None) => Some(&each.step),
        (Body::All(all), Some(branch)) => all.branches.get(branch),
        _ => None,
    }
}

/// Whether the state can be left while this step has no answer yet.
fn can_be_given_up(facts: &Facts, fact: &StepFact, state: &State) -> bool {
    if matches!(&state.body, Body::All(all) if all.any) {
        return true;
    }
    facts.ways.iter().filter(|way| way.state == Some(fact.state)).any(|way| {
        // A `fail` out there is a mistake of its own.
        let leaves = matches!(way.goes, Goes::State(_) | Goes::End);
        match way.spot {
            Spot::On | Spot::Timer | Spot::Timeout => (leaves || way.goes == Goes::Next) && way.written,
            // A branch or an item that fails takes the others with it.
            Spot::PartFailure => leaves,
            _ => false,
        }
    })
}

fn way_out_of_pivot(name: &str, way: &Way, problems: &mut Vec<Problem>) {
    match way.spot {
        Spot::On | Spot::Timer if !matches!(way.goes, Goes::Stay | Goes::Ignore | Goes::Nowhere) => {
            let message = format!("while the pivot `{name}` is open, its answer is the only way out");
            let hint =
                format!("here `{}` may only `stay` or `ignore`; let what follows the pivot handle it", way.spot.key());
            problems.push(Problem::new("pivot-way-out", way.at, message, hint));
        }
        Spot::Timeout if way.written && way.goes != Goes::Nowhere => {
            let message = format!("the `timeout` of the pivot `{name}` cannot lead anywhere: nobody knows what it did");
            let hint = "write `timeout: <duration>` alone; when its attempts are used up, a person is told";
            problems.push(Problem::new("pivot-way-out", way.at, message, hint));
        }
        _ => {}
    }
}

fn fail_past_pivot(name: &str, state: &State, graph: &Graph, way: &Way, problems: &mut Vec<Problem>) {
    let Some(number) = way.state else { return };
    if way.goes != Goes::Fail || !way.written {
        return;
    }
    // A way out of the pivot was told already.
    if is_pivot(state) && matches!(way.spot, Spot::On | Spot::Timer | Spot::Timeout) {
        return;
    }
    let by_success = is_pivot(state) && matches!(way.spot, Spot::Success | Spot::Confirm);
    if graph.is_reached_after(number) || by_success {
        let message = format!("`{name}` can be reached after the pivot, and there nothing can `fail` any more");
        let hint = "lead it forward to another state, or write `incident: <text>` so that a person is told";
        problems.push(Problem::new("fail-past-pivot", way.at, message, hint));
    }
}
