//! Time: deadlines that come before everything could have been tried, and loops that take none.

use super::super::diagnostic::Problem;
use super::super::duration::Span;
use super::super::machine::{Body, Machine, State, StateNo, Step};
use super::graph::{Graph, Target};

/// As many attempts outlast any deadline: beyond this the sum no longer changes what is said.
const MOST_ATTEMPTS: u32 = 10_000;

pub(super) fn check(machine: &Machine, graph: &Graph, problems: &mut Vec<Problem>) {
    short_deadline(machine, graph, problems);
    endless_loops(machine, graph, problems);
}

fn short_deadline(machine: &Machine, graph: &Graph, problems: &mut Vec<Problem>) {
    let Some(deadline) = &machine.deadline else { return };
    if machine.pivot_at_start || machine.states.is_empty() {
        return;
    }
    let mut longest = vec![None; machine.states.len()];
    let mut open = vec![false; machine.states.len()];
    let chain = longest_from(0, machine, graph, &mut longest, &mut open);
    if deadline.after < chain {
        let message = format!(
            "the deadline comes before all could have been tried: time limits and retries add up to {} seconds",
            chain.as_ms().div_ceil(1_000)
        );
        let hint = "allow a longer deadline, or shorter time limits and fewer attempts";
        problems.push(Problem::warning("short-deadline", deadline.place, message, hint));
    }
}

/// How long silence can last from here up to the pivot; ways back to a state on the way count once.
fn longest_from(
    state: StateNo,
    machine: &Machine,
    graph: &Graph,
    longest: &mut [Option<Span>],
    open: &mut [bool],
) -> Span {
    if let Some(known) = longest[state] {
        return known;
    }
    if std::mem::replace(&mut open[state], true) {
        return Span::ZERO;
    }
    let here = &machine.states[state];
    let is_pivot = matches!(&here.body, Body::Send(step) if step.pivot);
    let mut rest = Span::ZERO;
    if !is_pivot {
        for edge in &graph.edges[state] {
            if let Target::State(target) = edge.target {
                rest = rest.max(longest_from(target, machine, graph, longest, open));
            }
        }
        rest = rest.saturating_add(silence(here));
    }
    open[state] = false;
    longest[state] = Some(rest);
    rest
}

/// How long the step of a state may take before it is given up; of several at once, the longest.
fn silence(state: &State) -> Span {
    state.steps().map(silence_of).max().unwrap_or(Span::ZERO)
}

fn silence_of(step: &Step) -> Span {
    let Some(timeout) = &step.timeout else { return Span::ZERO };
    let attempts = step.retry.attempts.unwrap_or(1).min(MOST_ATTEMPTS);
    let mut total = timeout.after;
    let mut delay = step.retry.delay;
    for _ in 1..attempts {
        total = total.saturating_add(delay.min(step.retry.max_delay)).saturating_add(timeout.after);
        delay = delay.saturating_mul_f64(step.retry.factor).min(step.retry.max_delay);
    }
    total
}

/// States that lead back to themselves with nothing to wait for in between. Of a loop, the first is told.
fn endless_loops(machine: &Machine, graph: &Graph, problems: &mut Vec<Problem>) {
    let mut told = vec![false; machine.states.len()];
    for (number, state) in machine.states.values().enumerate() {
        if told[number] || !graph.is_reached(number) {
            continue;
        }
        let around = instant_from(number, graph);
        if !around.contains(&number) {
            continue;
        }
        for other in around.into_iter().filter(|other| instant_from(*other, graph).contains(&number)) {
            told[other] = true;
        }
        let message = format!("`{}` leads back to itself without waiting for anything", state.name);
        let hint = "put a timer, an answer, a decision or an event into the loop, or lead out of it";
        problems.push(Problem::warning("endless-loop", state.place, message, hint));
    }
}

/// The states that are reached from here, in one step or more, without waiting.
fn instant_from(state: StateNo, graph: &Graph) -> Vec<StateNo> {
    let mut found: Vec<StateNo> = Vec::new();
    let mut open = vec![state];
    while let Some(from) = open.pop() {
        for edge in graph.edges[from].iter().filter(|edge| edge.is_instant) {
            if let Target::State(target) = edge.target
                && !found.contains(&target)
            {
                found.push(target);
                open.push(target);
            }
        }
    }
    found
}
