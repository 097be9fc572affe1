//! Events: that each finds its instance, and that a state has one handler for each.

use std::collections::BTreeSet;

use super::super::compile::facts::{Facts, Handler, Spot};
use super::super::diagnostic::Problem;
use super::super::expression::closest;

pub(super) fn check(facts: &Facts, problems: &mut Vec<Problem>) {
    without_way(facts, problems);
    for later in &facts.handlers {
        if let Some(earlier) = facts.handlers.iter().find(|earlier| hides(earlier, later)) {
            let message = format!(
                "`{}` is handled under `{}` in line {} already, and no `when` tells the two apart",
                later.event,
                earlier.spot.key(),
                earlier.at.line
            );
            let hint =
                format!("give each transition under `{}` a `when`, or remove one of the two", earlier.spot.key());
            problems.push(Problem::new("overlapping-handlers", later.at, message, hint));
        }
    }
}

/// Tried in the order success, failure, `on`: whether `later` is never asked.
fn hides(earlier: &Handler, later: &Handler) -> bool {
    if earlier.state != later.state || earlier.event != later.event || earlier.guarded {
        return false;
    }
    match (rank(earlier.spot), rank(later.spot)) {
        (Some(first), Some(second)) if first < second => second == 2 || earlier.part == later.part,
        _ => false,
    }
}

fn rank(spot: Spot) -> Option<u8> {
    match spot {
        Spot::Success | Spot::PartSuccess => Some(0),
        Spot::Failure | Spot::PartFailure => Some(1),
        Spot::On => Some(2),
        _ => None,
    }
}

/// An event under `on` comes from the bus, and `start` or `events` says whom it is for. Told once for each type.
fn without_way(facts: &Facts, problems: &mut Vec<Problem>) {
    if facts.routes_broken {
        return;
    }
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut handlers: Vec<&Handler> =
        facts.handlers.iter().filter(|handler| matches!(handler.spot, Spot::On | Spot::TopOn)).collect();
    handlers.sort_by_key(|handler| (handler.at.line, handler.at.column));
    for handler in handlers {
        if facts.declared.contains(&handler.event) || !told.insert(&handler.event) {
            continue;
        }
        let message = format!("nothing says how `{}` finds its instance", handler.event);
        let hint = match closest(&handler.event, facts.declared.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("add it to `events`: `{}: {{ key: event.<field> }}`", handler.event),
        };
        problems.push(Problem::new("event-without-way", handler.at, message, hint));
    }
}
