//! The decider: what an instance does next. A pure function of machine, instance, input and time: no clock, no
//! randomness, no logging, no I/O.
//!
//! `step` tells the inputs apart; `path` walks forward, `answer` holds the table of answers, `unwind` walks back,
//! `order` carries out what a person asked for.

use xxhash_rust::xxh3::xxh3_64;

use super::answer::{leads_back, reason_of};
use super::effect::{Effect, Unmatched};
use super::event::{Fault, Given, Input, Message, Subject};
use super::incident::{IncidentKind, Way};
use super::instance::{FailureKind, Instance, Status, StepEffect, Timer, TimerKind, TimerStart, UndoPhase};
use super::machine::{Due, Machine, Then, Transition};
use super::path::{Cause, Otherwise};
use super::unwind::silence;
use super::walk::{MAX_DATA_BYTES, Result, Vars, Walk};

/// Version of the rules of a turn: a journal row names the one that made it.
pub const RULES: u16 = 1;

/// Answers that an instance remembers; an older one that comes once more counts as a note by the table of answers.
pub const MAX_SEEN: usize = 10_000;

/// What one input made of an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// As it is afterwards; the one before where nothing came of it.
    pub instance: Instance,
    pub effects: Vec<Effect>,
    pub notes: Vec<String>,
    /// Paths of `data` that changed.
    pub changed: Vec<String>,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A row of the journal that moved the instance.
    Moved,
    /// A row of the journal that moved nothing.
    Noted,
    /// Nothing at all, no row: a stale timer, a repetition, a confirm that only starts a limit.
    Nothing,
    /// The event is not handled here: held, or recorded as unmatched with this reason.
    Unhandled(Unmatched),
    /// The order does not fit.
    Refused { code: Refusal, message: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Exit code 4.
    Conflict,
    /// Exit code 2.
    Usage,
}

/// Handles one input. Never fails: what goes wrong in it is an incident of the instance.
pub fn step(machine: &Machine, instance: &Instance, given: &Given) -> Turn {
    if let Some(outcome) = repeated(instance, &given.input) {
        return match outcome {
            Outcome::Noted => {
                let mut walk = Walk::new(machine, instance, given);
                let outcome = walk.noted("id-reused: an answer with this id was seen with another body".to_owned());
                finish(walk, outcome)
            }
            outcome => unchanged(instance, outcome),
        };
    }
    let mut walk = Walk::new(machine, instance, given);
    match walk.handle(&given.input).and_then(|outcome| walk.check_limits().map(|()| outcome)) {
        Ok(outcome @ (Outcome::Moved | Outcome::Noted)) => {
            remember(&mut walk.it, &given.input);
            finish(walk, outcome)
        }
        Ok(outcome) => unchanged(instance, outcome),
        Err(fault) => faulted(machine, instance, given, fault),
    }
}

fn unchanged(instance: &Instance, outcome: Outcome) -> Turn {
    Turn { instance: instance.clone(), effects: Vec::new(), notes: Vec::new(), changed: Vec::new(), outcome }
}

fn finish(mut walk: Walk<'_>, outcome: Outcome) -> Turn {
    let was_stuck = !walk.before.incidents.is_empty();
    let is_stuck = !walk.it.incidents.is_empty();
    if is_stuck && !was_stuck {
        walk.tell("stuck");
    } else if ((was_stuck && !is_stuck) || walk.tell_resumed) && walk.it.status != Status::Abandoned {
        walk.tell("resumed");
    }
    if outcome == Outcome::Moved {
        walk.it.moved = walk.it.turn;
        walk.it.updated_at = walk.at;
    }
    Turn { instance: walk.it, effects: walk.effects, notes: walk.notes, changed: walk.changed, outcome }
}

/// The turn that could not be taken leaves the instance as it was, with an incident that keeps the input.
fn faulted(machine: &Machine, instance: &Instance, given: &Given, fault: Fault) -> Turn {
    if let Input::Order(_) = given.input {
        return unchanged(instance, Outcome::Refused { code: Refusal::Conflict, message: fault.error });
    }
    let mut walk = Walk::new(machine, instance, given);
    if matches!(given.input, Input::Start(_)) && instance.entry == 0 {
        walk.begin();
    }
    walk.stop(fault, given.input.clone());
    remember(&mut walk.it, &given.input);
    finish(walk, Outcome::Moved)
}

/// An answer that was seen before changes nothing; with another body it is a note.
fn repeated(instance: &Instance, input: &Input) -> Option<Outcome> {
    let (id, body) = fingerprint(input)?;
    let (_, seen) = instance.seen.iter().find(|(seen, _)| *seen == id)?;
    Some(if *seen == body { Outcome::Nothing } else { Outcome::Noted })
}

fn remember(instance: &mut Instance, input: &Input) {
    let Some((id, body)) = fingerprint(input) else { return };
    if instance.seen.len() >= MAX_SEEN {
        instance.seen.remove(0);
    }
    instance.seen.push((id, body));
}

fn fingerprint(input: &Input) -> Option<(u64, u64)> {
    let Input::Answer { message, .. } = input else { return None };
    let id = message.id.as_ref()?;
    let name = format!("{}\0{}\0{id}", message.source, message.kind);
    Some((xxh3_64(name.as_bytes()), xxh3_64(message.body.to_string().as_bytes())))
}

impl<'a> Walk<'a> {
    pub fn handle(&mut self, input: &'a Input) -> Result<Outcome> {
        match input {
            Input::Start(message) if self.it.entry == 0 => {
                self.take_in_hand(message);
                if self.it.turn == 1 {
                    self.begin();
                }
                self.enter(0).map(|()| Outcome::Moved)
            }
            Input::Start(message) => match self.event(message)? {
                Outcome::Unhandled(_) => Ok(self.noted(format!("started-already: {} came again", message.kind))),
                outcome => Ok(outcome),
            },
            Input::Event(message) => {
                self.take_in_hand(message);
                if self.it.status == Status::Running
                    && let Some(outcome) = self.answer_by_type(message)?
                {
                    return Ok(outcome);
                }
                self.event(message)
            }
            Input::Answer { command, message } => self.answer(*command, message),
            Input::Timer { serial } => self.timer(*serial),
            Input::Confirmed(subject) => self.confirmed(*subject),
            Input::Returned { subject, reason } => Ok(self.returned(*subject, reason)),
            Input::Order(order) => self.order(order),
            Input::Fault { fault, kept } => {
                if matches!(**kept, Input::Start(_)) && self.it.entry == 0 && self.it.turn == 1 {
                    self.begin();
                }
                self.stop(fault.clone(), (**kept).clone());
                Ok(Outcome::Moved)
            }
            Input::Stalled => {
                if self.it.incidents.is_empty() {
                    let error = format!("nothing will ever move it out of {}", self.it.state);
                    self.open_incident(IncidentKind::Stalled, None, error);
                    return Ok(Outcome::Moved);
                }
                Ok(Outcome::Nothing)
            }
        }
    }

    /// What a new instance has before it enters its first state.
    fn begin(&mut self) {
        self.it.past_pivot = self.machine.pivot_at_start;
        if let Some(deadline) = self.machine.deadline.as_ref().filter(|_| !self.it.past_pivot) {
            let due = self.it.started_at.plus(deadline.after);
            self.start_timer(TimerKind::Deadline, TimerStart::At(due));
        }
        self.tell("started");
    }

    fn stop(&mut self, fault: Fault, kept: Input) {
        let incident = self.open_incident(fault.kind, None, fault.error);
        incident.place = fault.place;
        incident.kept = Some(Box::new(kept));
    }

    fn check_limits(&self) -> Result<()> {
        if self.changed.is_empty() && self.it.turn > 1 {
            return Ok(());
        }
        let size = super::effect::Json::of(&self.it.data).text().len();
        if size > MAX_DATA_BYTES {
            let error = format!("data would have {size} bytes, more than {MAX_DATA_BYTES}");
            return Err(Fault { kind: IncidentKind::TooLarge, error, place: None });
        }
        Ok(())
    }

    // ---- events -------------------------------------------------------------------------------------------------

    /// An event that is no answer: what the state says to it, else what the whole saga says.
    pub fn event(&mut self, message: &'a Message) -> Result<Outcome> {
        self.take_in_hand(message);
        let kind = &message.kind;
        if self.it.status.is_end() {
            return Ok(Outcome::Unhandled(Unmatched::Ended));
        }
        let running = self.it.status == Status::Running;
        let of_state = self.state().filter(|_| running).and_then(|state| state.on.get(kind));
        if let Some(list) = of_state
            && let Some(transition) = self.choose(list, Vars::default())?
        {
            return self.take_on(transition, message);
        }
        let Some(list) = self.machine.on.get(kind) else {
            return Ok(Outcome::Unhandled(Unmatched::NotWaiting));
        };
        let Some(transition) = self.choose(list, Vars::default())? else {
            return Ok(Outcome::Unhandled(Unmatched::NotWaiting));
        };
        if !matches!(transition.then, Then::Stay | Then::Ignore) {
            if !running || self.it.past_pivot {
                return Ok(Outcome::Unhandled(Unmatched::NotWaiting));
            }
            if self.open_pivot().is_some() {
                return Ok(self.noted(format!("{kind}: the pivot is open, only its answer leads on")));
            }
        }
        self.take_on(transition, message)
    }

    fn take_on(&mut self, transition: &'a Transition, message: &Message) -> Result<Outcome> {
        let cause = Cause {
            way: Way::On { event: message.kind.clone() },
            step: None,
            vars: Vars::default(),
            kind: FailureKind::Fail,
            reason: reason_of(&message.kind, &message.body),
        };
        let before = self.effects.len();
        self.take(Some(transition), Otherwise::Next, &cause)?;
        let ignored =
            matches!(transition.then, Then::Ignore) && before == self.effects.len() && self.changed.is_empty();
        Ok(if ignored { self.noted(format!("{} is ignored here", message.kind)) } else { Outcome::Moved })
    }

    /// The step of the present state that is a pivot whose command is open: one that was refused is not, for nothing
    /// happened there.
    pub fn open_pivot(&self) -> Option<u32> {
        self.it.open_steps().find(|index| {
            self.step(*index).effect == StepEffect::Sent && self.rule_at(*index).is_some_and(|rule| rule.pivot)
        })
    }

    // ---- timers -------------------------------------------------------------------------------------------------

    fn timer(&mut self, serial: u32) -> Result<Outcome> {
        let Some(place) = self.it.timers.iter().position(|timer| timer.serial == serial) else {
            return Ok(Outcome::Nothing);
        };
        let timer = self.it.timers.remove(place);
        self.fire(timer)
    }

    /// What a timer does, be it due or be it fired by a person.
    pub fn fire(&mut self, timer: Timer) -> Result<Outcome> {
        match timer.what {
            TimerKind::Deadline => self.deadline(),
            TimerKind::State { name, fired } => self.state_timer(&name, fired, timer.start),
            TimerKind::StepLimit { index } => self.silent(index),
            TimerKind::StepDelay { index } => self.ask_again(index),
            TimerKind::UndoLimit { index } => {
                self.undo_silent(index);
                Ok(Outcome::Moved)
            }
            TimerKind::UndoDelay { index } => {
                let open = self.step(index).undo.as_ref().filter(|undo| undo.phase == UndoPhase::Open);
                if let Some(tries) = open.map(|undo| undo.tries + 1) {
                    self.repeat_undo(index, tries)?;
                }
                Ok(Outcome::Moved)
            }
        }
    }

    pub fn deadline(&mut self) -> Result<Outcome> {
        let Some(deadline) = self.machine.deadline.as_ref() else { return Ok(Outcome::Noted) };
        if self.it.status != Status::Running || self.it.past_pivot {
            return Ok(self.noted("the deadline counts no more".to_owned()));
        }
        if self.open_pivot().is_some() {
            self.it.deadline_noted = true;
            return Ok(self.noted("the deadline came while the pivot is open".to_owned()));
        }
        let transition = self.choose(&deadline.ways, Vars::default())?;
        let cause = Cause {
            way: Way::Deadline,
            step: None,
            vars: Vars::default(),
            kind: FailureKind::Deadline,
            reason: "deadline".to_owned(),
        };
        self.take(transition, Otherwise::Fail, &cause)?;
        Ok(Outcome::Moved)
    }

    fn state_timer(&mut self, name: &str, fired: u32, start: TimerStart) -> Result<Outcome> {
        let Some(timer) = self.state().and_then(|state| state.timers.iter().find(|timer| timer.name == name)) else {
            return Ok(self.noted(format!("timer {name}: the definition has it no longer")));
        };
        if let (Due::Every { span, times }, TimerStart::At(due)) = (&timer.due, start)
            && times.is_none_or(|times| fired + 1 < times)
        {
            let what = TimerKind::State { name: name.to_owned(), fired: fired + 1 };
            self.start_timer(what, TimerStart::At(due.plus(*span)));
        }
        match self.choose(&timer.ways, Vars::default())? {
            Some(transition) => self.take_timer(transition, name),
            None => Ok(self.noted(format!("timer {name}: no transition applies"))),
        }
    }

    pub fn take_timer(&mut self, transition: &'a Transition, name: &str) -> Result<Outcome> {
        let cause = Cause {
            way: Way::Timer { name: name.to_owned() },
            step: None,
            vars: Vars::default(),
            kind: FailureKind::Fail,
            reason: name.to_owned(),
        };
        self.take(Some(transition), Otherwise::Next, &cause)?;
        Ok(Outcome::Moved)
    }

    /// The limit of an attempt has passed: the next one, or the step's outcome is in doubt.
    pub fn silent(&mut self, index: u32) -> Result<Outcome> {
        let step = self.step(index);
        let Some(rule) = self.rule_at(index).filter(|_| step.open && step.effect == StepEffect::Sent) else {
            return Ok(self.noted("a limit that nobody waits for any more".to_owned()));
        };
        if rule.retry.allows_more(step.tries) {
            let seed = self.it.command_id(step).message_id(step.attempt);
            let after_ms = rule.retry.delay_after(step.tries, seed).0;
            self.start_timer(TimerKind::StepDelay { index }, TimerStart::Listening { after_ms });
            return Ok(Outcome::Moved);
        }
        self.time_out(index).map(|()| Outcome::Moved)
    }

    /// Attempts are used up.
    pub fn time_out(&mut self, index: u32) -> Result<()> {
        let Some(rule) = self.rule_at(index) else { return Ok(()) };
        let item = self.step(index).item.clone();
        let vars = Vars { item: item.as_ref(), attempt: Some(self.step(index).tries), ..Vars::default() };
        let ways = rule.timeout.as_ref().map_or(&[][..], |timeout| &timeout.ways);
        let transition = self.choose(ways, vars)?;
        let way = Way::Timeout { index };
        let reason = "timeout".to_owned();
        let cause = Cause { way, step: Some(index), vars, kind: FailureKind::Timeout, reason };
        if (rule.pivot || self.it.past_pivot) && leads_back(transition) {
            let error = silence(rule.success.keys().map(String::as_str), self.step(index).attempt);
            return self.stay_without_way_back(transition, index, &cause, error);
        }
        self.take(transition, Otherwise::Fail, &cause)
    }

    /// The delay is over: after silence the same command again, after a refusal a new one.
    pub fn ask_again(&mut self, index: u32) -> Result<Outcome> {
        let step = self.step(index);
        let tries = step.tries + 1;
        if step.refusal.is_some() {
            self.ask_anew(index, tries)?;
        } else if step.open && step.effect == StepEffect::Sent {
            self.step_mut(index).tries = tries;
            self.send_step(index)?;
        }
        Ok(Outcome::Moved)
    }

    /// A new command in the place of one that was refused.
    pub fn ask_anew(&mut self, index: u32, tries: u32) -> Result<()> {
        let Some(rule) = self.rule_at(index) else { return Ok(()) };
        let step = self.step_mut(index);
        step.refusal = None;
        step.open = false;
        let (part, item) = (step.part.clone(), step.item.clone());
        self.open_step(rule, part, item, tries).map(|_| ())
    }

    // ---- what the broker says -----------------------------------------------------------------------------------

    fn confirmed(&mut self, subject: Subject) -> Result<Outcome> {
        let incidents = self.it.incidents.len();
        match subject {
            Subject::Step { index, .. } => {
                self.close_incidents(|incident| {
                    incident.kind == IncidentKind::Unroutable && incident.step == Some(index)
                });
                let step = self.step(index);
                let nobody_answers = self.rule_at(index).is_some_and(|rule| rule.success.is_empty());
                let waits = step.open && step.effect == StepEffect::Sent && self.it.status == Status::Running;
                if nobody_answers && waits {
                    return self.success(index, None).map(|()| Outcome::Moved);
                }
                if nobody_answers && step.effect == StepEffect::InDoubt && self.it.status != Status::Abandoned {
                    // It was given up, and now it is known that the broker has it.
                    self.make_undo(index, None)?;
                    self.take_back_late(index, StepEffect::InDoubt)?;
                    return Ok(Outcome::Moved);
                }
            }
            Subject::Undo { index, question, .. } => {
                self.close_incidents(|incident| {
                    incident.kind == IncidentKind::Unroutable && incident.step == Some(index)
                });
                let undo = self.step(index).undo.as_ref();
                let open = undo.is_some_and(|undo| {
                    undo.question == question && matches!(undo.phase, UndoPhase::Open | UndoPhase::Failed)
                });
                let nobody_answers = self.undo_rule(index).is_some_and(|rule| rule.success.is_empty());
                if nobody_answers && open {
                    return self.undone(index).map(|()| Outcome::Moved);
                }
            }
            Subject::Loose { .. } => self.close_incidents(|incident| {
                matches!(incident.kept.as_deref(), Some(Input::Returned { subject: kept, .. }) if *kept == subject)
            }),
        }
        Ok(if self.it.incidents.len() == incidents { Outcome::Nothing } else { Outcome::Moved })
    }

    /// No queue takes a command: a person is told, and the incident closes by itself when one does.
    fn returned(&mut self, subject: Subject, reason: &str) -> Outcome {
        let step = match subject {
            Subject::Step { index, .. } => {
                let step = self.step(index);
                if !(step.open && step.effect == StepEffect::Sent) {
                    return self.returned_in_vain(subject);
                }
                Some(index)
            }
            Subject::Undo { index, question, .. } => {
                let step = self.step(index);
                let open = step.effect == StepEffect::Undoing
                    && step.undo.as_ref().is_some_and(|undo| {
                        undo.question == question && matches!(undo.phase, UndoPhase::Open | UndoPhase::Failed)
                    });
                if !open {
                    return self.returned_in_vain(subject);
                }
                Some(index)
            }
            Subject::Loose { .. } => None,
        };
        let known = self.it.incidents.iter().any(|incident| {
            incident.kind == IncidentKind::Unroutable
                && match step {
                    Some(_) => incident.step == step,
                    None => matches!(
                        incident.kept.as_deref(),
                        Some(Input::Returned { subject: kept, .. }) if *kept == subject
                    ),
                }
        });
        if known {
            return Outcome::Nothing;
        }
        let kept = Input::Returned { subject, reason: reason.to_owned() };
        self.open_incident(IncidentKind::Unroutable, step, reason.to_owned()).kept = Some(Box::new(kept));
        Outcome::Moved
    }

    fn returned_in_vain(&mut self, subject: Subject) -> Outcome {
        self.effects.push(Effect::Withdraw(subject));
        self.noted("a command came back that nobody waits for any more".to_owned())
    }
}
