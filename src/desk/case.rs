//! One instance with its definition and its timers at hand, and the small questions that every view of it asks.

use std::collections::HashMap;

use crate::api::{self, Time};
use crate::saga::event::{Given, Input, Order, Verb, Verdict};
use crate::saga::instance::{Instance, Part, Step, StepEffect, Timer, TimerKind, Undo, UndoPhase};
use crate::saga::machine::{self, Body, Machine, UndoRule};
use crate::saga::step::{Outcome, step};
use crate::saga::time::Timestamp;

/// An instance, and what is needed to tell of it.
pub struct Case<'a> {
    pub instance: &'a Instance,
    /// `None`: its definition cannot be loaded by this version.
    pub machine: Option<&'a Machine>,
    /// When each timer is due, by its serial; as far as that can be told now.
    pub due: HashMap<u32, Timestamp>,
}

impl<'a> Case<'a> {
    /// What the definition says of a step.
    pub fn rule(&self, step: &Step) -> Option<&'a machine::Step> {
        let state = self.machine?.state(&step.state)?;
        match (&state.body, &step.part) {
            (Body::Send(rule), Part::Whole) => Some(rule),
            (Body::All(all), Part::Branch(branch)) => all.branches.get(branch),
            (Body::Each(each), Part::Item(_)) => Some(&each.step),
            _ => None,
        }
    }

    pub fn undo_rule(&self, step: &Step) -> Option<&'a machine::Undo> {
        match &self.rule(step)?.undo {
            UndoRule::Send(undo) => Some(undo),
            UndoRule::Absent | UndoRule::Nothing => None,
        }
    }

    pub fn command(&self, step: &Step) -> Option<String> {
        self.rule(step).map(|rule| format!("{}.{}", rule.address, rule.command))
    }

    /// The timer of a step or of its undo, by its place.
    pub fn timer_of(&self, index: usize, of_undo: bool) -> Option<&'a Timer> {
        self.instance.timers.iter().find(|timer| match timer.what {
            TimerKind::StepLimit { index: at } | TimerKind::StepDelay { index: at } => !of_undo && at as usize == index,
            TimerKind::UndoLimit { index: at } | TimerKind::UndoDelay { index: at } => of_undo && at as usize == index,
            TimerKind::Deadline | TimerKind::State { .. } => false,
        })
    }

    pub fn due_of(&self, timer: Option<&Timer>) -> Option<Timestamp> {
        self.due.get(&timer?.serial).copied()
    }

    /// As `fire` takes it.
    pub fn timer_name(&self, timer: &Timer) -> String {
        timer_name(&timer.what, self.instance)
    }

    pub fn steps(&self) -> Vec<api::Step> {
        self.instance.steps.iter().enumerate().map(|(index, step)| self.step_view(index, step)).collect()
    }

    fn step_view(&self, index: usize, step: &Step) -> api::Step {
        api::Step {
            name: step.name(),
            effect: step.effect.name().to_owned(),
            command: self.command(step),
            command_id: self.instance.command_id(step).to_string(),
            attempt: step.attempt,
            attempts: self.rule(step).and_then(|rule| rule.retry.attempts),
            sent_at: Time(step.sent_at),
            next_at: self.due_of(self.timer_of(index, false)).map(Time),
            undo: step.undo.as_ref().map(|undo| self.undo_view(index, step, undo)),
        }
    }

    fn undo_view(&self, index: usize, step: &Step, undo: &Undo) -> api::Undo {
        let sent = undo.question > 0;
        api::Undo {
            command: self.undo_rule(step).map(|rule| format!("{}.{}", rule.address, rule.command)),
            command_id: sent.then(|| self.instance.undo_command_id(step, undo.question).to_string()),
            effect: match undo.phase {
                UndoPhase::Needless => "needless",
                UndoPhase::Ready => "ready",
                UndoPhase::Open => "sent",
                UndoPhase::Failed => "failed",
                UndoPhase::Done => "done",
                UndoPhase::Skipped => "skipped",
            }
            .to_owned(),
            attempt: undo.attempt,
            next_at: self.due_of(self.timer_of(index, true)).map(Time),
        }
    }

    pub fn timers(&self) -> Vec<api::Timer> {
        let view = |timer| api::Timer { name: self.timer_name(timer), due_at: self.due_of(Some(timer)).map(Time) };
        self.instance.timers.iter().map(view).collect()
    }

    pub fn decision(&self) -> Option<api::Decision> {
        let open = self.instance.decision.as_ref()?;
        let state = self.machine.and_then(|machine| machine.state(&self.instance.state));
        let choices = match state.map(|state| &state.body) {
            Some(Body::Decide(decision)) => decision
                .choices
                .iter()
                .map(|(name, choice)| api::Choice { name: name.clone(), needs: choice.needs.keys().cloned().collect() })
                .collect(),
            _ => Vec::new(),
        };
        Some(api::Decision { number: open.number, ask: open.ask.clone(), choices, since: Time(open.since) })
    }

    /// Events that would move it now, each with since when it is waited for.
    pub fn waiting(&self) -> Vec<api::Waiting> {
        let mut waiting = Vec::new();
        let mut add = |event: &str, since: Timestamp| {
            if !waiting.iter().any(|known: &api::Waiting| known.event == event) {
                waiting.push(api::Waiting { event: event.to_owned(), since: Time(since), place: None });
            }
        };
        for step in &self.instance.steps {
            if let Some(rule) = self.rule(step).filter(|_| step.open) {
                rule.success.keys().chain(rule.failure.keys()).for_each(|event| add(event, step.sent_at));
            }
            let open = step.undo.as_ref().filter(|undo| matches!(undo.phase, UndoPhase::Open | UndoPhase::Failed));
            if let (Some(undo), Some(rule)) = (open, self.undo_rule(step)) {
                let since = undo.sent_at.unwrap_or(self.instance.updated_at);
                rule.success.iter().chain(&rule.failure).for_each(|event| add(event, since));
            }
        }
        if self.instance.status == crate::saga::instance::Status::Running
            && let Some(machine) = self.machine
        {
            let own = machine.state(&self.instance.state).into_iter().flat_map(|state| state.on.keys());
            own.chain(machine.on.keys()).for_each(|event| add(event, self.instance.entered_at));
        }
        waiting
    }

    /// The verbs that would not be refused now, found by trying: the core alone knows.
    pub fn may(&self) -> Vec<String> {
        let Some(machine) = self.machine else { return Vec::new() };
        let mut may = Vec::new();
        if self.would_do(machine, Verb::Retry { step: None })
            || self.any_step(machine, |step| Verb::Retry { step: Some(step) })
        {
            may.push("retry".to_owned());
        }
        if self.would_do(machine, Verb::Compensate) {
            may.push("compensate".to_owned());
        }
        let settle = [Verdict::Done { body: serde_json::Value::Null }, Verdict::Refused, Verdict::Undone];
        let resolves =
            |verdict: &Verdict| self.any_step(machine, |step| Verb::Resolve { step, verdict: verdict.clone() });
        if settle.iter().any(resolves) {
            may.push("resolve".to_owned());
        }
        may
    }

    fn any_step(&self, machine: &Machine, verb: impl Fn(String) -> Verb) -> bool {
        let unsettled = |step: &&Step| {
            step.open || matches!(step.effect, StepEffect::Sent | StepEffect::InDoubt | StepEffect::Undoing)
        };
        self.instance.steps.iter().filter(unsettled).any(|step| self.would_do(machine, verb(step.name())))
    }

    fn would_do(&self, machine: &Machine, verb: Verb) -> bool {
        let order = Order { verb, by: String::new(), reason: None, request_id: None, expect_turn: None };
        let given = Given { at: self.instance.updated_at, input: Input::Order(order), unreached: Vec::new() };
        matches!(step(machine, self.instance, &given).outcome, Outcome::Moved | Outcome::Noted)
    }
}

/// As `fire` takes it.
pub(super) fn timer_name(what: &TimerKind, instance: &Instance) -> String {
    let step = |index: u32| instance.steps.get(index as usize).map_or_else(String::new, Step::name);
    match what {
        TimerKind::Deadline => "deadline".to_owned(),
        TimerKind::State { name, .. } => format!("{}.timers.{name}", instance.state),
        TimerKind::StepLimit { index } => format!("{}.timeout", step(*index)),
        TimerKind::StepDelay { index } => format!("{}.retry", step(*index)),
        TimerKind::UndoLimit { index } => format!("{}.undo.timeout", step(*index)),
        TimerKind::UndoDelay { index } => format!("{}.undo.retry", step(*index)),
    }
}
