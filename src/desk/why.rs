//! Why an instance is where it is, in sentences made from its state alone.

use super::case::Case;
use crate::api::{Next, Time};
use crate::saga::incident::{Incident, IncidentKind};
use crate::saga::instance::{Status, Step, StepEffect, TimerKind, UndoPhase};
use crate::saga::machine::Body;
use crate::saga::time::Timestamp;

/// The paragraph of `why` and `show`.
pub fn paragraph(case: &Case<'_>, may: &[String]) -> String {
    let mut text = Vec::new();
    text.push(standing(case));
    for incident in &case.instance.incidents {
        text.push(stuck(case, incident));
    }
    if case.instance.paused {
        text.push("It is paused: events are kept and not handled, and nothing new is sent.".to_owned());
    }
    text.extend(case.instance.steps.iter().enumerate().filter_map(|(index, step)| open_step(case, index, step)));
    text.extend(case.instance.steps.iter().enumerate().filter_map(|(index, step)| open_undo(case, index, step)));
    text.extend(state_waits(case));
    text.extend(deadline(case));
    if !case.instance.incidents.is_empty() && !may.is_empty() {
        text.push(format!("A person may {}.", either(may)));
    }
    text.join(" ")
}

/// What happens next by itself: the timer that is due first.
pub fn next(case: &Case<'_>) -> Option<Next> {
    let timers = case.instance.timers.iter();
    let (due, timer) = timers
        .filter_map(|timer| Some((*case.due.get(&timer.serial)?, timer)))
        .min_by_key(|(due, timer)| (*due, timer.serial))?;
    let what = match &timer.what {
        TimerKind::StepLimit { index } => match case.instance.steps.get(*index as usize) {
            Some(step) => after_silence(case, step),
            None => "a time limit ends".to_owned(),
        },
        TimerKind::StepDelay { index } | TimerKind::UndoDelay { index } => {
            let name = case.instance.steps.get(*index as usize).map_or_else(String::new, Step::name);
            let what = if matches!(timer.what, TimerKind::UndoDelay { .. }) { "the undo of " } else { "" };
            format!("{what}{name} is sent again")
        }
        TimerKind::UndoLimit { index } => {
            let name = case.instance.steps.get(*index as usize).map_or_else(String::new, Step::name);
            format!("the undo of {name} counts as unanswered")
        }
        TimerKind::Deadline => "the deadline".to_owned(),
        TimerKind::State { name, .. } => format!("the timer {name} of {}", case.instance.state),
    };
    Some(Next { what, at: Some(Time(due)) })
}

fn standing(case: &Case<'_>) -> String {
    let instance = case.instance;
    let ended = instance.ended_at.unwrap_or(instance.updated_at);
    let because = instance.failure.as_ref().map_or_else(String::new, |failure| {
        format!(", because of {}: {} ({})", failure.state, failure.reason, failure.kind.name())
    });
    let settling = if instance.is_settling() {
        " It is settling: something that it gave up is still being taken back."
    } else {
        ""
    };
    match instance.status {
        Status::Running => format!("It is running, in {} since {}.", instance.state, instance.entered_at),
        Status::Compensating => format!("It is compensating{because}."),
        Status::Completed => {
            let label = instance.outcome.as_ref().map_or_else(String::new, |label| format!(" as {label}"));
            format!("It was completed{label} at {ended}.{settling}")
        }
        Status::Compensated => format!("It was compensated at {ended}{because}.{settling}"),
        Status::Abandoned => format!("A person gave it up at {ended}; nothing more is done."),
    }
}

fn stuck(case: &Case<'_>, incident: &Incident) -> String {
    let step = incident.step.and_then(|index| case.instance.steps.get(index as usize)).map(Step::name);
    let place = step.unwrap_or_else(|| incident.state.clone());
    let what = match incident.kind {
        IncidentKind::UndoFailed => "could not be taken back",
        IncidentKind::NoWayBack => "failed where there is no way back",
        IncidentKind::Unroutable => "sent a command that no queue takes; it is published again and again",
        IncidentKind::LateSuccess => "succeeded after it had been given up",
        IncidentKind::Raised => "raised an incident",
        IncidentKind::Stalled => "waits for nothing that could come",
        IncidentKind::Expression => "has an expression that failed",
        IncidentKind::Endless => "passed through too many states in one turn",
        IncidentKind::TooLarge => "would pass a limit of size",
        IncidentKind::Panic => "met a defect of the daemon's",
        IncidentKind::Definition => "has a definition that this version cannot load",
    };
    let all = if incident.kind.stops_instance() { " The whole instance is stopped." } else { "" };
    format!(
        "It is stuck since {}: {place} {what} ({}: {}).{all}",
        incident.opened_at,
        incident.kind.name(),
        incident.error
    )
}

fn open_step(case: &Case<'_>, index: usize, step: &Step) -> Option<String> {
    let rule = case.rule(step).filter(|_| step.open)?;
    let timer = case.timer_of(index, false);
    let due = case.due_of(timer);
    let attempts =
        rule.retry.attempts.map_or_else(|| "as many as it takes".to_owned(), |attempts| attempts.to_string());
    if let Some(timer) = timer
        && matches!(timer.what, TimerKind::StepDelay { .. })
    {
        let when = due.map_or_else(String::new, |due| format!(" at {due}"));
        return Some(format!("{} is sent again{when}, attempt {} of {attempts}.", step.name(), step.attempt + 1));
    }
    if rule.success.is_empty() {
        return Some(format!("It waits for the broker to take {}, sent at {}.", step.name(), step.sent_at));
    }
    let events: Vec<String> = rule.success.keys().chain(rule.failure.keys()).cloned().collect();
    let command = case.instance.command_id(step);
    let mut text = format!(
        "{} waits for {} with correlation id {command}, since {}, attempt {} of {attempts}.",
        step.name(),
        either(&events),
        step.sent_at,
        step.attempt
    );
    match due {
        Some(due) => {
            let then = after_silence(case, step);
            text = format!("{text} If nothing comes until {due}, {then}.");
        }
        None if timer.is_some() && case.instance.is_held() => {
            text.push_str(" Its time limit stands still until the instance goes on.");
        }
        None if timer.is_some() => {
            text.push_str(" Its time limit does not run: the broker does not have the command yet, or is away.");
        }
        None => {}
    }
    Some(text)
}

/// What the silence of a step leads to.
fn after_silence(case: &Case<'_>, step: &Step) -> String {
    let Some(rule) = case.rule(step) else { return "its time limit ends".to_owned() };
    if rule.retry.attempts.is_none_or(|attempts| step.tries < attempts) {
        return format!("{} is sent again", step.name());
    }
    let own_way = rule.timeout.as_ref().is_some_and(|timeout| !timeout.ways.is_empty());
    if own_way {
        format!("the timeout of {} takes its way", step.name())
    } else if case.instance.past_pivot || rule.pivot {
        "an incident opens, for there is no way back".to_owned()
    } else {
        "everything is taken back".to_owned()
    }
}

fn open_undo(case: &Case<'_>, index: usize, step: &Step) -> Option<String> {
    let undo = step.undo.as_ref()?;
    let name = step.name();
    match undo.phase {
        UndoPhase::Open => {}
        UndoPhase::Ready if case.instance.status == Status::Compensating && step.effect != StepEffect::Undone => {
            return Some(format!("{name} is still to be taken back."));
        }
        _ => return None,
    }
    let due = case.due_of(case.timer_of(index, true));
    let attempts = case.undo_rule(step).and_then(|rule| rule.retry.attempts);
    let attempts = attempts.map_or_else(|| "as many as it takes".to_owned(), |attempts| attempts.to_string());
    let delayed = case.timer_of(index, true).is_some_and(|timer| matches!(timer.what, TimerKind::UndoDelay { .. }));
    if delayed {
        let when = due.map_or_else(String::new, |due| format!(" at {due}"));
        return Some(format!("The undo of {name} is sent again{when}, attempt {} of {attempts}.", undo.attempt + 1));
    }
    let events = case.undo_rule(step).map(|rule| rule.success.clone()).unwrap_or_default();
    let since = undo.sent_at.unwrap_or(case.instance.updated_at);
    if events.is_empty() {
        return Some(format!("It waits for the broker to take the undo of {name}, sent at {since}."));
    }
    let command = case.instance.undo_command_id(step, undo.question);
    let mut text = format!(
        "{name} is being taken back: it waits for {} with correlation id {command}, since {since}, attempt {} of {attempts}.",
        either(&events),
        undo.attempt
    );
    if let Some(due) = due {
        text = format!("{text} The attempt ends at {due}.");
    }
    Some(text)
}

/// What the state itself waits for, beside its steps.
fn state_waits(case: &Case<'_>) -> Option<String> {
    if case.instance.status != Status::Running {
        return None;
    }
    if let Some(decision) = &case.instance.decision {
        return Some(format!("A person is to decide, since {}: {}", decision.since, decision.ask));
    }
    let state = case.machine?.state(&case.instance.state)?;
    let mut text = Vec::new();
    if matches!(state.body, Body::Wait) && !state.on.is_empty() {
        let events: Vec<String> = state.on.keys().cloned().collect();
        text.push(format!("It waits for {} since {}.", either(&events), case.instance.entered_at));
    }
    for timer in &case.instance.timers {
        if let TimerKind::State { name, .. } = &timer.what {
            text.push(match case.due_of(Some(timer)) {
                Some(due) => format!("Its timer {name} is due at {due}."),
                None => format!("Its timer {name} does not run."),
            });
        }
    }
    (!text.is_empty()).then(|| text.join(" "))
}

fn deadline(case: &Case<'_>) -> Option<String> {
    let timer = case.instance.timers.iter().find(|timer| timer.what == TimerKind::Deadline)?;
    let due: Timestamp = case.due_of(Some(timer))?;
    Some(format!("Its deadline is {due}."))
}

/// `a`, `a or b`, `a, b or c`.
fn either(words: &[String]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
