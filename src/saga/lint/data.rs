//! What expressions read: fields of `data` that something sets, and `event` where there is one.

use std::collections::{BTreeMap, BTreeSet};

use super::super::compile::facts::{Entered, Facts, FieldRead, Goes};
use super::super::compile::quoted;
use super::super::diagnostic::Problem;
use super::super::expression::closest;
use super::super::machine::{Machine, Place, StateNo};
use super::graph::{Graph, Message, Target};

pub(super) fn check(machine: &Machine, facts: &Facts, graph: &Graph, problems: &mut Vec<Problem>) {
    never_set(facts, problems);
    without_event(machine, facts, graph, problems);
}

/// Told once for each field: it is one mistake, however often the field is read.
fn never_set(facts: &Facts, problems: &mut Vec<Problem>) {
    if facts.open_data {
        return;
    }
    let mut reads: Vec<&FieldRead> = facts.reads.iter().filter(|read| !facts.set.contains(&read.field)).collect();
    reads.sort_by_key(|read| (read.at.line, read.at.column));
    let mut told: BTreeSet<&str> = BTreeSet::new();
    for read in reads {
        if !told.insert(&read.field) {
            continue;
        }
        let message = format!("nothing ever sets `data.{}`", read.field);
        let fields: Vec<&String> = facts.set.iter().collect();
        let hint = match closest(&read.field, facts.set.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if fields.is_empty() => "set it in `start`, under `data`, or with `set`".to_owned(),
            None => format!("set it in `start`, under `data`, or with `set`; set are {}", quoted(&fields)),
        };
        problems.push(Problem::new("unknown-data", read.at, message, hint));
    }
}

/// `event` read on entry, though the state is also entered by a timer, a person, or a broker's confirm.
fn without_event(machine: &Machine, facts: &Facts, graph: &Graph, problems: &mut Vec<Problem>) {
    let (states, completed) = entered_without_message(graph);
    let mut told: Vec<Entered> = Vec::new();
    for read in &facts.entry_reads {
        let from = match read.entered {
            Entered::State(state) => states.get(&state).copied(),
            Entered::Command(state) => states.get(&state).copied().or_else(|| asked_again(facts, state)),
            Entered::Completed => completed,
        };
        let Some(from) = from.filter(|_| !told.contains(&read.entered)) else { continue };
        told.push(read.entered);
        let where_ = match read.entered {
            Entered::State(state) | Entered::Command(state) => {
                machine.states.get_index(state).map_or("this state", |(name, _)| name.as_str())
            }
            Entered::Completed => "the end",
        };
        let message = format!("`{}` is not always there: `{where_}` is also entered without an event", read.what);
        let hint = format!("line {} leads there without one; keep what is needed in `data` with `set`", from.line);
        problems.push(Problem::new("no-event", read.at, message, hint));
    }
}

/// Where a refusal is asked again: after a delay, when its event is gone.
fn asked_again(facts: &Facts, state: StateNo) -> Option<Place> {
    facts.ways.iter().find(|way| way.state == Some(state) && way.goes == Goes::Retry).map(|way| way.at)
}

/// The states that can be entered with no message in hand, and from where; the same for completion.
fn entered_without_message(graph: &Graph) -> (BTreeMap<StateNo, Place>, Option<Place>) {
    let mut states: BTreeMap<StateNo, Place> = BTreeMap::new();
    let mut completed = None;
    loop {
        let before = (states.len(), completed.is_some());
        for (state, edges) in graph.edges.iter().enumerate() {
            if !graph.is_reached(state) {
                continue;
            }
            for edge in edges {
                let is_without = match edge.message {
                    Message::Absent => true,
                    Message::AsBefore => states.contains_key(&state),
                    Message::There => false,
                };
                match edge.target {
                    Target::State(target) if is_without => {
                        states.entry(target).or_insert(edge.at);
                    }
                    Target::Completed if is_without => completed = completed.or(Some(edge.at)),
                    Target::State(_) | Target::Completed => {}
                }
            }
        }
        if before == (states.len(), completed.is_some()) {
            return (states, completed);
        }
    }
}
