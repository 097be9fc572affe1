//! Fields of `data` that are read where not every way has set them.

use std::collections::BTreeSet;

use super::super::compile::facts::{Facts, FieldRead};
use super::super::diagnostic::Problem;
use super::super::machine::{All, Body, Machine, Next, State, StateNo, Step, Then, Transition};
use super::super::template::Template;

/// Names of fields.
type Fields = BTreeSet<String>;

/// Once for each field, where it is first read.
pub(super) fn check(machine: &Machine, facts: &Facts, problems: &mut Vec<Problem>) {
    let Some(first) = first_fields(machine) else { return };
    if machine.states.is_empty() {
        return;
    }
    let entered = fields_on_entry(machine, first);
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut reads: Vec<&FieldRead> = facts.reads.iter().filter(|read| !read.guarded).collect();
    reads.sort_by_key(|read| (read.at.line, read.at.column));
    for read in reads {
        let Some(number) = read.state else { continue };
        let (Some(Some(known)), Some((name, state))) = (entered.get(number), machine.states.get_index(number)) else {
            continue;
        };
        if known.contains(&read.field) || set_within(state).contains(&read.field) || !told.insert(&read.field) {
            continue;
        }
        let message = format!("`data.{}` is not set on every way to `{name}`", read.field);
        let hint = format!("set it on the way, or ask first: `default(data.{}, …)`", read.field);
        problems.push(Problem::warning("data-not-always-set", read.at, message, hint));
    }
}

/// What every start event sets; `None` where that is not known before it runs.
fn first_fields(machine: &Machine) -> Option<Fields> {
    let mut common: Option<Fields> = None;
    for start in machine.starts.values() {
        let Template::Object(fields) = &start.data else { return None };
        let fields: Fields = fields.iter().map(|(name, _)| name.clone()).collect();
        common = Some(common.map_or(fields.clone(), |common| common.intersection(&fields).cloned().collect()));
    }
    common
}

/// For each state what is set on every way to it; `None` where no way was found.
fn fields_on_entry(machine: &Machine, first: Fields) -> Vec<Option<Fields>> {
    let mut entered: Vec<Option<Fields>> = vec![None; machine.states.len()];
    entered[0] = Some(first);
    loop {
        let mut changed = false;
        for (number, state) in machine.states.values().enumerate() {
            let Some(mut here) = entered[number].clone() else { continue };
            here.extend(names(&state.entry.set));
            for (target, set) in ways_out(machine, state) {
                let arriving: Fields = here.iter().cloned().chain(set).collect();
                let merged = match &entered[target] {
                    Some(known) => known.intersection(&arriving).cloned().collect(),
                    None => arriving,
                };
                if entered[target].as_ref() != Some(&merged) {
                    entered[target] = Some(merged);
                    changed = true;
                }
            }
        }
        if !changed {
            return entered;
        }
    }
}

/// Where a state leads, and what is set on the way.
fn ways_out(machine: &Machine, state: &State) -> Vec<(StateNo, Vec<String>)> {
    let mut out = Vec::new();
    let next = match state.next {
        Next::State(next) => Some(next),
        Next::End(_) => None,
    };
    let mut follow = |transitions: &[Transition], may_be_default: bool| {
        for transition in transitions {
            let target = match transition.then {
                Then::State(target) => Some(target),
                Then::Next => next,
                _ => None,
            };
            out.extend(target.map(|target| (target, names(&transition.set).collect())));
        }
        if may_be_default && transitions.iter().all(|transition| transition.when.is_some()) {
            out.extend(next.map(|next| (next, Vec::new())));
        }
    };
    match &state.body {
        Body::Send(step) => {
            step.success.values().for_each(|transitions| follow(transitions, true));
            step.failure.values().for_each(|transitions| follow(transitions, false));
            follow(step.timeout.as_ref().map_or(&[], |timeout| timeout.ways.as_slice()), false);
            if step.success.is_empty() {
                follow(&[], true);
            }
        }
        Body::Choose(transitions) => follow(transitions, false),
        Body::Decide(decision) => {
            decision.choices.values().for_each(|choice| follow(std::slice::from_ref(&choice.way), false));
        }
        Body::Pass => follow(&[], true),
        Body::Wait | Body::All(_) | Body::Each(_) => {}
    }
    for step in state.steps().filter(|_| matches!(state.body, Body::All(_) | Body::Each(_))) {
        for transition in step.failure.values().flatten() {
            // `next` settles the branch or item alone.
            if matches!(transition.then, Then::State(_)) {
                follow(std::slice::from_ref(transition), false);
            }
        }
        follow(step.timeout.as_ref().map_or(&[], |timeout| timeout.ways.as_slice()), false);
    }
    state.on.values().for_each(|transitions| follow(transitions, false));
    state.timers.iter().for_each(|timer| follow(&timer.ways, false));
    if let Some(deadline) = machine.deadline.as_ref().filter(|_| !state.past_pivot) {
        follow(&deadline.ways, false);
    }
    let from_top = machine.on.iter().filter(|(event, _)| !state.on.contains_key(*event) && !state.past_pivot);
    from_top.for_each(|(_, transitions)| follow(transitions, false));
    let collected = match &state.body {
        Body::All(all) => Some(set_by_branches(all)),
        Body::Each(each) => Some(each.collect.iter().cloned().collect()),
        _ => None,
    };
    if let (Some(collected), Some(next)) = (collected, next) {
        out.push((next, collected));
    }
    out
}

/// What all branches together set when each has succeeded.
fn set_by_branches(all: &All) -> Vec<String> {
    let mut set: Vec<String> = all.collect.iter().cloned().collect();
    if !all.any {
        set.extend(all.branches.values().flat_map(always_set));
    }
    set
}

/// What every success of a step sets.
fn always_set(step: &Step) -> Fields {
    let mut common: Option<Fields> = None;
    for transitions in step.success.values() {
        let has_default = transitions.iter().all(|transition| transition.when.is_some());
        let sets = transitions.iter().map(|transition| names(&transition.set).collect::<Fields>());
        for fields in sets.chain(has_default.then(Fields::new)) {
            common = Some(common.map_or(fields.clone(), |common| common.intersection(&fields).cloned().collect()));
        }
    }
    // A refusal that counts as settled sets something else, or nothing.
    if step.failure.values().flatten().any(|transition| matches!(transition.then, Then::Next | Then::Ignore)) {
        return Fields::new();
    }
    common.unwrap_or_default()
}

/// Everything that is set in a state, on entry and by what happens in it: when, is not told apart.
fn set_within(state: &State) -> Fields {
    let mut set: Fields = names(&state.entry.set).collect();
    let mut add = |transitions: &[Transition]| {
        for transition in transitions {
            set.extend(names(&transition.set));
        }
    };
    for step in state.steps() {
        step.success.values().chain(step.failure.values()).for_each(|transitions| add(transitions));
        add(step.timeout.as_ref().map_or(&[], |timeout| timeout.ways.as_slice()));
    }
    state.on.values().for_each(|transitions| add(transitions));
    state.timers.iter().for_each(|timer| add(&timer.ways));
    match &state.body {
        Body::Choose(transitions) => add(transitions),
        Body::Decide(decision) => decision.choices.values().for_each(|choice| add(std::slice::from_ref(&choice.way))),
        Body::Wait | Body::Pass | Body::Send(_) | Body::All(_) | Body::Each(_) => {}
    }
    set
}

fn names(set: &[(Vec<String>, Template)]) -> impl Iterator<Item = String> {
    set.iter().filter_map(|(path, _)| path.first().cloned())
}
