//! Answers, whenever they come: the table of a step's effect and what arrives, as `semantics` in the docs has it.

use serde_json::Value;

use super::effect::{Effect, Unmatched};
use super::event::{Message, Subject};
use super::ids::CommandId;
use super::incident::{IncidentKind, Way};
use super::instance::{FailureKind, Instance, Status, StepEffect, UndoPhase};
use super::machine::{LateSuccess, Machine, Then, Transition, UndoRule};
use super::path::{Cause, Otherwise};
use super::step::Outcome;
use super::walk::{Result, Vars, Walk, rule};

/// Which command of an instance an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Step { index: u32 },
    Undo { index: u32, question: u32 },
}

/// Finds the command with this id; `None` where the instance never sent it.
pub fn asked(instance: &Instance, command: CommandId) -> Option<Asked> {
    for (index, step) in (0_u32..).zip(&instance.steps) {
        if instance.command_id(step) == command {
            return Some(Asked::Step { index });
        }
        let undos = step.undo.as_ref().map_or(0, |undo| undo.question);
        for question in 1..=undos {
            if instance.undo_command_id(step, question) == command {
                return Some(Asked::Undo { index, question });
            }
        }
    }
    None
}

/// Whether a type is one of the answers of the command with this id, or of that command's undo.
pub fn is_answer(machine: &Machine, instance: &Instance, command: CommandId, kind: &str) -> bool {
    let Some(Asked::Step { index } | Asked::Undo { index, .. }) = asked(instance, command) else { return false };
    let Some(rule) = instance.step(index).and_then(|step| rule(machine, step)) else { return false };
    let undo = match &rule.undo {
        UndoRule::Send(undo) => undo.success.iter().chain(&undo.failure).any(|event| event == kind),
        UndoRule::Absent | UndoRule::Nothing => false,
    };
    undo || rule.success.contains_key(kind) || rule.failure.contains_key(kind)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Success,
    Failure,
}

impl<'a> Walk<'a> {
    /// An answer to one of this instance's commands, or at least a message that names one.
    pub fn answer(&mut self, command: CommandId, message: &'a Message) -> Result<Outcome> {
        self.take_in_hand(message);
        match asked(&self.it, command) {
            Some(Asked::Step { index }) => match self.verdict(index, &message.kind)? {
                Some(verdict) => self.step_answer(index, verdict, message),
                None => self.event(message),
            },
            Some(Asked::Undo { index, question }) => {
                let found = self.undo_rule(index).map(|rule| {
                    let kind = &message.kind;
                    (rule.success.contains(kind), rule.failure.contains(kind))
                });
                match found {
                    Some((true, _)) => self.undo_answer(index, question, Verdict::Success, message),
                    Some((_, true)) => self.undo_answer(index, question, Verdict::Failure, message),
                    _ => self.event(message),
                }
            }
            None => self.event(message),
        }
    }

    /// An event that reached the instance otherwise and is an answer of a step that is open now.
    pub fn answer_by_type(&mut self, message: &'a Message) -> Result<Option<Outcome>> {
        let open: Vec<u32> = self.it.open_steps().collect();
        for index in open {
            if let Some(verdict) = self.verdict(index, &message.kind)? {
                return self.step_answer(index, verdict, message).map(Some);
            }
        }
        Ok(None)
    }

    /// One event may be both, told apart by the `when`s of the success.
    pub fn verdict(&self, index: u32, kind: &str) -> Result<Option<Verdict>> {
        let Some(rule) = self.rule_at(index) else { return Ok(None) };
        Ok(match (rule.success.get(kind), rule.failure.get(kind)) {
            (None, None) => None,
            (Some(_), None) => Some(Verdict::Success),
            (None, Some(_)) => Some(Verdict::Failure),
            (Some(success), Some(_)) => {
                let step = self.step(index);
                let vars = Vars { item: step.item.as_ref(), attempt: Some(step.tries), ..Vars::default() };
                let success = success.is_empty() || self.choose(success, vars)?.is_some();
                Some(if success { Verdict::Success } else { Verdict::Failure })
            }
        })
    }

    fn step_answer(&mut self, index: u32, verdict: Verdict, message: &'a Message) -> Result<Outcome> {
        let step = self.step(index);
        let (open, effect, name) = (step.open, step.effect, step.name());
        if open && !self.it.status.is_end() && self.it.status != Status::Compensating {
            return match verdict {
                Verdict::Success => self.success(index, Some((&message.kind, &message.body))).map(|()| Outcome::Moved),
                Verdict::Failure if effect == StepEffect::Refused => {
                    Ok(self.noted(format!("{} for {name} again", message.kind)))
                }
                Verdict::Failure => self.failure(index, message).map(|()| Outcome::Moved),
            };
        }
        match verdict {
            Verdict::Success => self.late_success(index, &message.kind, &message.body),
            Verdict::Failure => self.late_failure(index, &message.kind),
        }
    }

    pub fn noted(&mut self, text: String) -> Outcome {
        self.notes.push(text);
        Outcome::Noted
    }

    /// The way of an open step that was done; without a reply where nobody answers and the broker has the command.
    pub fn success(&mut self, index: u32, reply: Option<(&str, &Value)>) -> Result<()> {
        let Some(rule) = self.rule_at(index) else { return Ok(()) };
        self.close_step(index, StepEffect::Done);
        let item = self.step(index).item.clone();
        let vars = Vars { item: item.as_ref(), attempt: Some(self.step(index).tries), ..Vars::default() };
        let ways = reply.and_then(|(kind, _)| rule.success.get(kind)).map_or(&[][..], Vec::as_slice);
        let transition = self.choose(ways, vars)?;
        if rule.pivot {
            self.pass_pivot();
        }
        if let Some(transition) = transition {
            self.set(&transition.set, vars, transition.place)?;
        }
        if self.it.past_pivot {
            self.step_mut(index).keep();
        } else {
            self.make_undo(index, reply)?;
        }
        let part = self.step(index).part.clone();
        if !part.is_whole() {
            if let Some(transition) = transition {
                self.send_all(&transition.messages, vars)?;
            }
            return self.settle_part(&part, Some(reply.map_or(&Value::Null, |(_, body)| body)));
        }
        let cause = Cause {
            way: Way::Success { index, event: reply.map(|(kind, _)| kind.to_owned()).unwrap_or_default() },
            step: None,
            vars,
            kind: FailureKind::Fail,
            reason: reply.map(|(kind, body)| reason_of(kind, body)).unwrap_or_default(),
        };
        match transition {
            Some(transition) => self.take_after_set(transition, &cause),
            None => self.take(None, Otherwise::Next, &cause),
        }
    }

    /// Once the pivot has succeeded the undo list is empty. What is being taken back already goes on.
    pub fn pass_pivot(&mut self) {
        self.it.past_pivot = true;
        self.it.deadline_noted = false;
        for (index, step) in (0_u32..).zip(&mut self.it.steps) {
            let told = self
                .it
                .incidents
                .iter()
                .any(|incident| incident.kind == IncidentKind::LateSuccess && incident.step == Some(index));
            if matches!(step.effect, StepEffect::Done | StepEffect::Skipped) && !told {
                step.keep();
            }
        }
        self.stop_timers(|what| matches!(what, super::instance::TimerKind::Deadline));
    }

    fn failure(&mut self, index: u32, message: &'a Message) -> Result<()> {
        let reason = reason_of(&message.kind, &message.body);
        self.refuse(index, &message.kind, reason)
    }

    /// The way of an open step that was refused.
    pub fn refuse(&mut self, index: u32, kind: &str, reason: String) -> Result<()> {
        let Some(rule) = self.rule_at(index) else { return Ok(()) };
        self.close_step(index, StepEffect::Refused);
        let item = self.step(index).item.clone();
        let vars = Vars { item: item.as_ref(), attempt: Some(self.step(index).tries), ..Vars::default() };
        let cause = Cause {
            way: Way::Failure { index, event: kind.to_owned() },
            step: Some(index),
            vars,
            kind: FailureKind::Refused,
            reason: reason.clone(),
        };
        if rule.pivot && self.it.deadline_noted {
            return self.fail(FailureKind::Refused, reason, Some(index), cause.way);
        }
        let ways = rule.failure.get(kind).map_or(&[][..], Vec::as_slice);
        let transition = self.choose(ways, vars)?;
        if self.it.past_pivot && leads_back(transition) {
            return self.stay_without_way_back(transition, index, &cause, format!("{kind}: {reason}"));
        }
        let part = self.step(index).part.clone();
        if !part.is_whole() && self.goes_on_beside(transition) {
            if let Some(transition) = transition {
                self.set(&transition.set, vars, transition.place)?;
                self.send_all(&transition.messages, vars)?;
            }
            return self.settle_part(&part, None);
        }
        self.take(transition, Otherwise::Fail, &cause)
    }

    /// In a branch or item: the refusal settles it, and the others go on. In `until: any` that is so until the last.
    fn goes_on_beside(&self, transition: Option<&Transition>) -> bool {
        if transition.is_some_and(|transition| matches!(transition.then, Then::Next | Then::Ignore)) {
            return true;
        }
        let any = matches!(self.state().map(|state| &state.body), Some(super::machine::Body::All(all)) if all.any);
        let last = self
            .it
            .parts
            .as_ref()
            .is_none_or(|parts| u32::try_from(parts.settled.len()).unwrap_or(u32::MAX) + 1 >= parts.total);
        any && !last && !transition.is_some_and(|transition| matches!(transition.then, Then::Retry))
    }

    /// Its question is answered: nothing is awaited any more.
    pub fn close_step(&mut self, index: u32, effect: StepEffect) {
        let step = self.step_mut(index);
        step.effect = effect;
        step.open = false;
        step.refusal = None;
        self.stop_step_timers(index);
        self.withdraw_returned(index);
        self.close_step_incidents(index);
    }

    /// A publish that the broker gave back is not made again once its question is closed.
    fn withdraw_returned(&mut self, index: u32) {
        if self.has_incident(IncidentKind::Unroutable, index) {
            let attempt = self.step(index).attempt;
            self.effects.push(Effect::Withdraw(Subject::Step { index, attempt }));
        }
    }

    /// An answer that a stop had kept and that an order made late: by the table, without its transition.
    pub fn late_answer(&mut self, command: CommandId, message: &'a Message) -> Result<()> {
        match asked(&self.it, command) {
            Some(Asked::Step { index }) => match (self.verdict(index, &message.kind)?, self.step(index).effect) {
                (Some(Verdict::Success), StepEffect::Sent) => {
                    self.close_step(index, StepEffect::Done);
                    if self.rule_at(index).is_some_and(|rule| rule.pivot) {
                        self.pass_pivot();
                    }
                    self.make_undo(index, Some((&message.kind, &message.body)))
                }
                (Some(Verdict::Failure), StepEffect::Sent) => {
                    self.close_step(index, StepEffect::Refused);
                    Ok(())
                }
                (Some(Verdict::Success), _) => self.late_success(index, &message.kind, &message.body).map(|_| ()),
                (Some(Verdict::Failure), _) => self.late_failure(index, &message.kind).map(|_| ()),
                (None, _) => {
                    let message = message.clone();
                    self.effects.push(Effect::SetAside { reason: Unmatched::NotWaiting, message });
                    Ok(())
                }
            },
            _ => self.answer(command, message).map(|_| ()),
        }
    }

    /// A success that no state waits for.
    pub fn late_success(&mut self, index: u32, kind: &str, body: &Value) -> Result<Outcome> {
        let step = self.step(index);
        let (effect, kept, name) = (step.effect, step.kept, step.name());
        let repeated = effect == StepEffect::Done || kept || self.it.status == Status::Abandoned;
        if repeated {
            if matches!(effect, StepEffect::Sent | StepEffect::InDoubt) {
                self.step_mut(index).effect = StepEffect::Done;
            }
            return Ok(self.noted(format!("{kind} for {name}: known, or of no account any more")));
        }
        let Some(rule) = self.rule_at(index) else {
            return Ok(self.noted(format!("{kind} for {name}, which the definition has no longer")));
        };
        let skipped_forward = effect == StepEffect::Skipped && self.it.status == Status::Running;
        if skipped_forward {
            return Ok(self.noted(format!("{kind} for {name}, which was skipped")));
        }
        self.note(format!("late success: {kind} for {name}, which was {}", effect.name()));
        if rule.pivot || rule.late_success == LateSuccess::Incident {
            if self.has_incident(IncidentKind::LateSuccess, index) {
                return Ok(Outcome::Noted);
            }
            if effect != StepEffect::Undoing {
                self.step_mut(index).effect = StepEffect::Done;
            }
            self.open_incident(IncidentKind::LateSuccess, Some(index), format!("{kind} for {name} came late"));
            return Ok(Outcome::Moved);
        }
        self.make_undo(index, Some((kind, body)))?;
        self.take_back_late(index, effect)?;
        Ok(Outcome::Moved)
    }

    /// The undo of a late success: at once, in its turn, or once the open one is answered.
    pub fn take_back_late(&mut self, index: u32, before: StepEffect) -> Result<()> {
        let phase = self.step(index).undo.as_ref().map(|undo| undo.phase);
        match (before, phase) {
            // Its next undo was made ready; it goes out once the open one is answered.
            (StepEffect::Undoing, _) => Ok(()),
            (_, None | Some(UndoPhase::Needless)) => {
                if before != StepEffect::Undone {
                    self.step_mut(index).effect = StepEffect::Done;
                }
                self.go_on_back()
            }
            (StepEffect::Undone, _) => self.start_undo(index),
            (_, _) => {
                self.step_mut(index).effect = StepEffect::Done;
                if self.it.status == Status::Compensating { self.go_on_back() } else { self.start_undo(index) }
            }
        }
    }

    /// A refusal that no state waits for.
    pub fn late_failure(&mut self, index: u32, kind: &str) -> Result<Outcome> {
        let step = self.step(index);
        let (effect, name) = (step.effect, step.name());
        match effect {
            StepEffect::Sent | StepEffect::InDoubt | StepEffect::Skipped => {
                self.note(format!("late refusal: {kind} for {name}"));
                let step = self.step_mut(index);
                step.effect = StepEffect::Refused;
                step.undo = None;
                self.go_on_back()?;
                Ok(Outcome::Moved)
            }
            StepEffect::Done | StepEffect::Refused | StepEffect::Undoing | StepEffect::Undone => {
                Ok(self.noted(format!("{kind} for {name}, which was {}", effect.name())))
            }
        }
    }

    fn undo_answer(&mut self, index: u32, question: u32, verdict: Verdict, message: &Message) -> Result<Outcome> {
        let step = self.step(index);
        let name = step.name();
        let open = step.effect == StepEffect::Undoing
            && step.undo.as_ref().is_some_and(|undo| {
                undo.question == question && matches!(undo.phase, UndoPhase::Open | UndoPhase::Failed)
            });
        if !open {
            return Ok(self.noted(format!("{} for the undo of {name}: none is open", message.kind)));
        }
        match verdict {
            Verdict::Success => self.undone(index).map(|()| Outcome::Moved),
            Verdict::Failure => {
                let failed = self.step(index).undo.as_ref().is_some_and(|undo| undo.phase == UndoPhase::Failed);
                if failed {
                    return Ok(self.noted(format!("{} for the undo of {name} again", message.kind)));
                }
                let reason = reason_of(&message.kind, &message.body);
                self.undo_failed(index, format!("{}: {reason}", message.kind), true);
                Ok(Outcome::Moved)
            }
        }
    }
}

/// `event.reason` if there is one, else the event's type; always a text.
pub(super) fn reason_of(kind: &str, body: &Value) -> String {
    match body.get("reason") {
        Some(Value::Null) | None => kind.to_owned(),
        Some(reason) => super::json::text(reason),
    }
}

/// Whether a refusal would turn the instance back: by default, or because the transition says `fail`.
pub(super) fn leads_back(transition: Option<&Transition>) -> bool {
    transition.is_none_or(|transition| matches!(transition.then, Then::Fail(_)))
}
