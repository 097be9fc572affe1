//! What a person ordered: each order is a turn, or is refused with its reason.

use serde_json::{Map, Value};

use super::effect::{Effect, Unmatched};
use super::event::{Input, Message, Order, Verb, Verdict};
use super::ids::CommandId;
use super::incident::{Incident, IncidentKind, Way};
use super::instance::{FailureKind, Status, StepEffect, TimerKind, TimerStart, UndoPhase};
use super::machine::Body;
use super::path::{Cause, Otherwise};
use super::step::{Outcome, Refusal};
use super::walk::{Result, Vars, Walk};

impl<'a> Walk<'a> {
    pub fn order(&mut self, order: &'a Order) -> Result<Outcome> {
        if let Some(turn) = order.expect_turn.filter(|turn| *turn < self.before.moved) {
            let now = self.before.moved;
            return Ok(conflict(format!("it has moved on: turn {now}, and turn {turn} was expected")));
        }
        match &order.verb {
            Verb::Retry { step } => self.order_retry(step.as_deref()),
            Verb::Compensate => self.order_compensate(order),
            Verb::Resolve { step, verdict } => self.order_resolve(step, verdict),
            Verb::Skip => self.order_skip(),
            Verb::Decide { choice, question, fields } => self.order_decide(choice, *question, fields),
            Verb::Set { values } => self.order_set(values),
            Verb::Goto { state } => self.order_goto(state),
            Verb::Send { message } => match self.event(message)? {
                Outcome::Unhandled(reason) => {
                    Ok(conflict(format!("{} is not handled here: {}", message.kind, reason.name())))
                }
                outcome => Ok(outcome),
            },
            Verb::Fire { timer } => self.order_fire(timer),
            Verb::Pause => Ok(self.order_pause()),
            Verb::Resume => Ok(self.order_resume()),
            Verb::Abandon => Ok(self.order_abandon()),
        }
    }

    // ---- retry --------------------------------------------------------------------------------------------------

    fn order_retry(&mut self, step: Option<&str>) -> Result<Outcome> {
        let before = self.before;
        let of_step = |incident: &&Incident| {
            let of = incident.step.and_then(|index| before.step(index));
            step.is_none_or(|name| of.is_some_and(|step| step.name() == name))
        };
        let mut named: Vec<&'a Incident> = before.incidents.iter().filter(of_step).collect();
        if named.is_empty() {
            // A stop of the whole instance belongs to the state that it came from.
            named =
                before.incidents.iter().filter(|incident| step.is_some_and(|name| incident.state == name)).collect();
        }
        if named.is_empty() {
            return Ok(conflict("no incident is open that could be tried again".to_owned()));
        }
        if let Some(incident) = named.iter().find(|incident| incident.kind.stops_instance()) {
            return self.handle_again(incident);
        }
        let tried: Vec<_> = named.into_iter().filter(|incident| incident.kind != IncidentKind::LateSuccess).collect();
        if tried.is_empty() {
            return Ok(conflict("a late success is settled by resolve, not by retry".to_owned()));
        }
        for incident in tried {
            if self.it.incidents.iter().any(|open| open.number == incident.number) {
                self.retry_incident(incident)?;
            }
        }
        Ok(Outcome::Moved)
    }

    /// The input that the incident kept, handled again.
    fn handle_again(&mut self, incident: &'a Incident) -> Result<Outcome> {
        self.close_number(incident.number);
        let Some(kept) = incident.kept.as_deref() else { return Ok(Outcome::Moved) };
        match self.handle(kept)? {
            Outcome::Unhandled(reason) => {
                if let Some(message) = message_of(kept) {
                    self.effects.push(Effect::SetAside { reason, message: message.clone() });
                }
                Ok(Outcome::Moved)
            }
            Outcome::Refused { code, message } => Ok(Outcome::Refused { code, message }),
            Outcome::Moved | Outcome::Noted | Outcome::Nothing => Ok(Outcome::Moved),
        }
    }

    fn retry_incident(&mut self, incident: &'a Incident) -> Result<()> {
        match (incident.kind, incident.step) {
            (IncidentKind::UndoFailed, Some(index)) => {
                let refused = self.step(index).undo.as_ref().is_some_and(|undo| undo.refused);
                self.close_number(incident.number);
                if refused { self.start_undo(index) } else { self.repeat_undo(index, 1) }
            }
            (IncidentKind::Unroutable, _) => {
                if let Some(Input::Returned { subject, .. }) = incident.kept.as_deref() {
                    self.effects.push(Effect::Republish(*subject));
                }
                Ok(())
            }
            (IncidentKind::NoWayBack | IncidentKind::Raised, Some(index)) => {
                self.close_number(incident.number);
                if self.step(index).effect == StepEffect::Sent {
                    self.step_mut(index).tries = 1;
                    self.send_step(index)
                } else {
                    self.ask_anew(index, 1)
                }
            }
            (IncidentKind::NoWayBack | IncidentKind::Raised, None) => {
                self.close_number(incident.number);
                self.take_again(incident)
            }
            _ => {
                self.close_number(incident.number);
                Ok(())
            }
        }
    }

    /// The transition that raised the incident, with the event that it was taken for.
    fn take_again(&mut self, incident: &'a Incident) -> Result<()> {
        if let Some(message) = incident.kept.as_deref().and_then(message_of) {
            self.take_in_hand(message);
        }
        let Some(way) = &incident.way else { return Ok(()) };
        let (ways, otherwise, reason): (&'a [_], _, String) = match way {
            Way::Success { index, event } => {
                let ways = self.rule_at(*index).and_then(|rule| rule.success.get(event));
                (ways.map_or(&[], Vec::as_slice), Otherwise::Next, event.clone())
            }
            Way::Failure { index, event } => {
                let ways = self.rule_at(*index).and_then(|rule| rule.failure.get(event));
                (ways.map_or(&[], Vec::as_slice), Otherwise::Fail, event.clone())
            }
            Way::Timeout { index } => {
                let ways = self.rule_at(*index).and_then(|rule| rule.timeout.as_ref());
                (ways.map_or(&[], |timeout| &timeout.ways), Otherwise::Fail, "timeout".to_owned())
            }
            Way::On { .. } => {
                let Some(message) = incident.kept.as_deref().and_then(message_of) else { return Ok(()) };
                if let Outcome::Unhandled(reason) = self.event(message)? {
                    self.effects.push(Effect::SetAside { reason, message: message.clone() });
                }
                return Ok(());
            }
            Way::Timer { name } => {
                let timer = self.state().and_then(|state| state.timers.iter().find(|timer| timer.name == *name));
                let ways: &'a [_] = timer.map_or(&[], |timer| &timer.ways);
                match self.choose(ways, Vars::default())? {
                    Some(transition) => self.take_timer(transition, name)?,
                    None => self.noted(format!("timer {name}: no transition applies")),
                };
                return Ok(());
            }
            Way::Deadline => {
                let deadline = self.machine.deadline.as_ref();
                (deadline.map_or(&[], |deadline| &deadline.ways), Otherwise::Fail, "deadline".to_owned())
            }
            Way::Choose => match self.state().map(|state| &state.body) {
                Some(Body::Choose(ways)) => (ways, Otherwise::Next, self.it.state.clone()),
                _ => (&[], Otherwise::Next, self.it.state.clone()),
            },
            Way::Choice { name } => (&[], Otherwise::Next, name.clone()),
        };
        let transition = self.choose(ways, Vars::default())?;
        let cause = Cause { way: way.clone(), step: None, vars: Vars::default(), kind: FailureKind::Fail, reason };
        self.take(transition, otherwise, &cause)
    }

    fn close_number(&mut self, number: u32) {
        self.close_incidents(|incident| incident.number == number);
    }

    // ---- compensate ---------------------------------------------------------------------------------------------

    fn order_compensate(&mut self, order: &Order) -> Result<Outcome> {
        let status = self.it.status;
        if status != Status::Running {
            return Ok(conflict(format!("it is {} already", status.name())));
        }
        if self.it.past_pivot {
            return Ok(conflict("it is past its pivot: there is no way back".to_owned()));
        }
        if let Some(index) = self.open_pivot() {
            let name = self.step(index).name();
            return Ok(conflict(format!("the pivot {name} is open: only its answer leads on")));
        }
        self.settle_stops()?;
        let reason = order.reason.clone().unwrap_or_else(|| "compensate".to_owned());
        self.fail(FailureKind::Operator, reason, None, Way::Deadline)?;
        Ok(Outcome::Moved)
    }

    /// An order moves a stopped instance on: what the stop kept counts as late.
    fn settle_stops(&mut self) -> Result<()> {
        let stops: Vec<&'a Incident> =
            self.before.incidents.iter().filter(|incident| incident.kind.stops_instance()).collect();
        for incident in stops {
            self.close_number(incident.number);
            match incident.kept.as_deref() {
                Some(Input::Answer { command, message }) => self.late_answer(*command, message)?,
                Some(Input::Event(message)) => match self.answered_by(message)? {
                    Some(command) => self.late_answer(command, message)?,
                    None => self.set_aside(message),
                },
                Some(Input::Timer { serial }) => self.start_timer_anew(*serial),
                _ => {}
            }
        }
        self.close_incidents(|incident| incident.kind == IncidentKind::Stalled);
        Ok(())
    }

    /// The command of an open step that this event answers, whatever way it came.
    fn answered_by(&mut self, message: &'a Message) -> Result<Option<CommandId>> {
        self.take_in_hand(message);
        let open: Vec<u32> = self.it.open_steps().collect();
        for index in open {
            if self.verdict(index, &message.kind)?.is_some() {
                return Ok(Some(self.it.command_id(self.step(index))));
            }
        }
        Ok(None)
    }

    fn set_aside(&mut self, message: &Message) {
        self.effects.push(Effect::SetAside { reason: Unmatched::NotWaiting, message: message.clone() });
    }

    /// It was due and the stop kept it: where it still stands after the order it is due at once.
    fn start_timer_anew(&mut self, serial: u32) {
        let Some(place) = self.it.timers.iter().position(|timer| timer.serial == serial) else { return };
        let timer = self.it.timers.remove(place);
        let start = match timer.start {
            TimerStart::At(_) => TimerStart::At(self.at),
            TimerStart::Listening { .. } | TimerStart::Confirm { .. } => TimerStart::Listening { after_ms: 0 },
        };
        self.start_timer(timer.what, start);
    }

    // ---- resolve ------------------------------------------------------------------------------------------------

    fn order_resolve(&mut self, name: &str, verdict: &'a Verdict) -> Result<Outcome> {
        let Some(index) = self.step_to_resolve(name) else { return Ok(conflict(format!("no step {name} was sent"))) };
        let Some(rule) = self.rule_at(index) else {
            return Ok(conflict(format!("the definition has no step {name}")));
        };
        self.settle_stops()?;
        let step = self.step(index);
        let (open, effect) = (step.open && self.it.status == Status::Running, step.effect);
        match verdict {
            Verdict::Done { body } => {
                self.message = None;
                self.event = Some(body);
                let kind = rule.success.keys().next().map_or("", String::as_str);
                if self.has_incident(IncidentKind::LateSuccess, index) {
                    return self.let_stand(index, (kind, body));
                }
                if open {
                    return self.success(index, Some((kind, body))).map(|()| Outcome::Moved);
                }
                match effect {
                    StepEffect::InDoubt | StepEffect::Refused | StepEffect::Skipped => {
                        self.late_success(index, kind, body).map(|_| Outcome::Moved)
                    }
                    _ => Ok(conflict(format!("{name} is {}", effect.name()))),
                }
            }
            Verdict::Refused => {
                let kind = rule.failure.keys().next().map_or("refused", String::as_str);
                if open && effect == StepEffect::Sent {
                    return self.refuse(index, kind, kind.to_owned()).map(|()| Outcome::Moved);
                }
                match effect {
                    StepEffect::InDoubt | StepEffect::Skipped => self.late_failure(index, kind).map(|_| Outcome::Moved),
                    _ => Ok(conflict(format!("{name} is {}", effect.name()))),
                }
            }
            Verdict::Undone => self.resolve_undone(index, open, effect),
        }
    }

    /// Of several commands with this name: the one whose settling a person is waited for, else the newest.
    fn step_to_resolve(&self, name: &str) -> Option<u32> {
        let named = || (0_u32..).zip(&self.it.steps).filter(|(_, step)| step.name() == name).map(|(index, _)| index);
        let told = |kind| move |index: &u32| self.has_incident(kind, *index);
        let doubtful = |index: &u32| matches!(self.step(*index).effect, StepEffect::InDoubt | StepEffect::Undoing);
        named()
            .filter(told(IncidentKind::LateSuccess))
            .last()
            .or_else(|| named().filter(told(IncidentKind::UndoFailed)).last())
            .or_else(|| named().filter(|index| self.step(*index).open).last())
            .or_else(|| named().filter(doubtful).last())
            .or_else(|| named().last())
    }

    /// The late success stands. Of a pivot that was to be asked again, it is the answer.
    fn let_stand(&mut self, index: u32, reply: (&str, &Value)) -> Result<Outcome> {
        self.close_incidents(|incident| incident.kind == IncidentKind::LateSuccess && incident.step == Some(index));
        let awaited = self.step(index).refusal.is_some() && self.it.status == Status::Running;
        if awaited && self.rule_at(index).is_some_and(|rule| rule.pivot) {
            return self.success(index, Some(reply)).map(|()| Outcome::Moved);
        }
        self.close_undo(index, UndoPhase::Skipped);
        let step = self.step_mut(index);
        step.effect = StepEffect::Done;
        step.keep();
        self.go_on_back().map(|()| Outcome::Moved)
    }

    /// A person took it back: it counts like the undo's success.
    fn resolve_undone(&mut self, index: u32, open: bool, effect: StepEffect) -> Result<Outcome> {
        let name = self.step(index).name();
        let late = self.has_incident(IncidentKind::LateSuccess, index);
        if open || (self.step(index).kept && !late) {
            let why = if open { "open: resolve it as done or refused" } else { "settled" };
            return Ok(conflict(format!("{name} is {why}")));
        }
        let may = match effect {
            StepEffect::InDoubt | StepEffect::Undoing | StepEffect::Skipped => true,
            StepEffect::Done => late || self.it.status == Status::Compensating,
            StepEffect::Sent | StepEffect::Refused | StepEffect::Undone => late,
        };
        if !may {
            return Ok(conflict(format!("{name} is {}", effect.name())));
        }
        self.close_incidents(|incident| incident.kind == IncidentKind::LateSuccess && incident.step == Some(index));
        if let Some(undo) = &mut self.step_mut(index).undo {
            undo.next = None;
        }
        self.undone(index)?;
        Ok(Outcome::Moved)
    }

    // ---- the path -----------------------------------------------------------------------------------------------

    fn order_skip(&mut self) -> Result<Outcome> {
        if self.it.status.is_end() {
            return Ok(conflict(format!("it is {} already", self.it.status.name())));
        }
        if self.it.status == Status::Compensating {
            return self.skip_undo();
        }
        self.settle_stops()?;
        let open: Vec<u32> = self.it.open_steps().collect();
        for index in open {
            // One that was refused had no effect: there is nothing to take back.
            if self.step(index).effect == StepEffect::Refused {
                self.close_step(index, StepEffect::Refused);
                continue;
            }
            self.close_step(index, StepEffect::Skipped);
            self.make_undo(index, None)?;
        }
        if self.state().is_some_and(|state| state.steps().any(|rule| rule.pivot)) {
            self.pass_pivot();
        }
        self.go_next()?;
        Ok(Outcome::Moved)
    }

    /// The undo whose turn it is is given up; the rest goes on.
    fn skip_undo(&mut self) -> Result<Outcome> {
        let undoing = || {
            (0_u32..)
                .zip(&self.it.steps)
                .filter(|(_, step)| step.effect == StepEffect::Undoing)
                .filter_map(|(index, step)| step.undo.as_ref().map(|undo| (index, undo)))
        };
        let open = undoing()
            .filter(|(_, undo)| undo.phase == UndoPhase::Failed)
            .last()
            .or_else(|| undoing().filter(|(_, undo)| undo.in_turn).last())
            .or_else(|| undoing().last())
            .map(|(index, _)| index);
        let Some(index) = open else { return Ok(conflict("no undo is open".to_owned())) };
        if let Some(undo) = &mut self.step_mut(index).undo {
            undo.next = None;
        }
        self.close_undo(index, UndoPhase::Skipped);
        self.step_mut(index).effect = StepEffect::Undone;
        self.go_on_back()?;
        Ok(Outcome::Moved)
    }

    fn order_goto(&mut self, state: &str) -> Result<Outcome> {
        if self.it.status != Status::Running {
            return Ok(conflict(format!("it is {}", self.it.status.name())));
        }
        if let Some(index) = self.open_pivot() {
            let name = self.step(index).name();
            return Ok(conflict(format!("the pivot {name} is open: only its answer leads on")));
        }
        let Some(no) = self.machine.states.get_index_of(state) else {
            return Ok(conflict(format!("there is no state {state}")));
        };
        self.settle_stops()?;
        self.leave()?;
        if self.machine.states[no].past_pivot && !self.it.past_pivot {
            self.pass_pivot();
        }
        self.enter(no)?;
        Ok(Outcome::Moved)
    }

    fn order_set(&mut self, values: &[(Vec<String>, Value)]) -> Result<Outcome> {
        if self.it.status.is_end() && !self.it.is_settling() {
            return Ok(conflict(format!("it is {} already", self.it.status.name())));
        }
        for (path, value) in values {
            if let Err(error) = self.store(path, value.clone()) {
                return Ok(conflict(error));
            }
        }
        Ok(Outcome::Moved)
    }

    fn order_decide(&mut self, choice: &str, question: Option<u32>, fields: &'a Map<String, Value>) -> Result<Outcome> {
        let Some(decision) = &self.it.decision else {
            return Ok(conflict("no decision is open".to_owned()));
        };
        if let Some(question) = question.filter(|question| *question != decision.number) {
            let open = decision.number;
            return Ok(conflict(format!("question {question} is closed, question {open} is open")));
        }
        let Some(Body::Decide(rule)) = self.state().map(|state| &state.body) else {
            return Ok(conflict("the definition has no decision here any longer".to_owned()));
        };
        let Some(chosen) = rule.choices.get(choice) else {
            let known: Vec<&str> = rule.choices.keys().map(String::as_str).collect();
            return Ok(usage(format!("there is no choice {choice}; there are {}", known.join(", "))));
        };
        if let Some(missing) = chosen.needs.keys().find(|field| !fields.contains_key(*field)) {
            return Ok(usage(format!("{choice} needs {missing}: give --set {missing}=…")));
        }
        if let Some(extra) = fields.keys().find(|field| !chosen.needs.contains_key(*field)) {
            return Ok(usage(format!("{choice} does not ask for {extra}")));
        }
        let fields = Value::Object(fields.clone());
        let vars = Vars { choice: Some(&fields), ..Vars::default() };
        if !self.holds(chosen.way.when.as_ref(), vars, chosen.way.place)? {
            return Ok(conflict(format!("{choice} is not offered as things are")));
        }
        let way = Way::Choice { name: choice.to_owned() };
        let cause = Cause { way, step: None, vars, kind: FailureKind::Fail, reason: choice.to_owned() };
        self.take(Some(&chosen.way), Otherwise::Next, &cause)?;
        Ok(Outcome::Moved)
    }

    /// A timer now: `<state>.timers.<name>`, `<state>.timeout`, `deadline`.
    fn order_fire(&mut self, name: &str) -> Result<Outcome> {
        let found = self.it.timers.iter().position(|timer| match &timer.what {
            TimerKind::Deadline => name == "deadline",
            TimerKind::State { name: own, .. } => name == format!("{}.timers.{own}", self.it.state),
            TimerKind::StepLimit { index } | TimerKind::StepDelay { index } => {
                let step = self.step(*index);
                name == format!("{}.timeout", step.name())
            }
            TimerKind::UndoLimit { .. } | TimerKind::UndoDelay { .. } => false,
        });
        let Some(place) = found else {
            return Ok(conflict(format!("no timer {name} is running")));
        };
        if self.it.is_held() {
            return Ok(conflict("the instance is paused or stopped: its timers wait".to_owned()));
        }
        let timer = self.it.timers.remove(place);
        self.fire(timer)
    }

    // ---- pause, resume, abandon ---------------------------------------------------------------------------------

    fn order_pause(&mut self) -> Outcome {
        if self.it.status.is_end() && !self.it.is_settling() {
            return conflict(format!("it is {} already", self.it.status.name()));
        }
        if self.it.paused {
            return conflict("it is paused already".to_owned());
        }
        self.it.paused = true;
        Outcome::Moved
    }

    fn order_resume(&mut self) -> Outcome {
        if !self.it.paused {
            return conflict("it is not paused".to_owned());
        }
        self.it.paused = false;
        self.tell_resumed = true;
        Outcome::Moved
    }

    fn order_abandon(&mut self) -> Outcome {
        if self.it.status.is_end() && !self.it.is_settling() && self.it.incidents.is_empty() {
            return conflict(format!("it is {} already", self.it.status.name()));
        }
        self.let_go_of_what_was_kept();
        self.close_state();
        for step in &mut self.it.steps {
            step.open = false;
            if step.effect == StepEffect::Undoing {
                step.effect = StepEffect::InDoubt;
                if let Some(undo) = &mut step.undo {
                    undo.phase = UndoPhase::Skipped;
                }
            }
        }
        self.it.timers.clear();
        self.it.incidents.clear();
        self.it.paused = false;
        if !self.it.status.is_end() {
            self.it.status = Status::Abandoned;
            self.it.ended_at = Some(self.at);
            self.tell("abandoned");
        }
        Outcome::Moved
    }
}

impl Walk<'_> {
    /// What open incidents kept finds nobody any more: events are set aside, returned commands are not sent again.
    fn let_go_of_what_was_kept(&mut self) {
        for incident in &self.before.incidents {
            match incident.kept.as_deref() {
                Some(Input::Event(message)) if incident.kind.stops_instance() => self.set_aside(message),
                Some(Input::Answer { message, .. }) => self.note(format!("{} had been kept", message.kind)),
                Some(Input::Returned { subject, .. }) => self.effects.push(Effect::Withdraw(*subject)),
                _ => {}
            }
        }
    }
}

pub(super) fn conflict(message: String) -> Outcome {
    Outcome::Refused { code: Refusal::Conflict, message }
}

fn usage(message: String) -> Outcome {
    Outcome::Refused { code: Refusal::Usage, message }
}

fn message_of(input: &Input) -> Option<&Message> {
    match input {
        Input::Start(message) | Input::Event(message) | Input::Answer { message, .. } => Some(message),
        _ => None,
    }
}
