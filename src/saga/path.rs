//! The forward path: entering and leaving states, and where a transition leads.

use serde_json::Value;

use super::answer::leads_back;
use super::event::Fault;
use super::incident::{IncidentKind, Way};
use super::instance::{
    Failure, FailureKind, OpenDecision, Part, Parts, Status, Step, StepEffect, TimerKind, TimerStart,
};
use super::machine::{self, Body, Due, Each, Next, Place, State, StateNo, Then, Timer, Transition};
use super::time::Timestamp;
use super::walk::{MAX_HOPS, MAX_ITEMS, MAX_STEPS, Result, Vars, Walk};

/// What a transition is taken for: it names the place in the definition, and what a bare `fail` says.
pub(super) struct Cause<'c> {
    pub way: Way,
    /// The step that was answered or fell silent.
    pub step: Option<u32>,
    pub vars: Vars<'c>,
    pub kind: FailureKind,
    pub reason: String,
}

/// What holds where no transition was written, or none applies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    Next,
    Fail,
}

impl<'a> Walk<'a> {
    /// The first transition whose `when` holds.
    pub fn choose(&self, list: &'a [Transition], vars: Vars<'_>) -> Result<Option<&'a Transition>> {
        for transition in list {
            if self.holds(transition.when.as_ref(), vars, transition.place)? {
                return Ok(Some(transition));
            }
        }
        Ok(None)
    }

    /// Takes a transition: `set`, messages, and where it leads.
    pub fn take(&mut self, transition: Option<&'a Transition>, otherwise: Otherwise, cause: &Cause<'_>) -> Result<()> {
        let Some(transition) = transition else {
            return match otherwise {
                Otherwise::Next => self.go_next(),
                Otherwise::Fail => self.fail(cause.kind, cause.reason.clone(), cause.step, cause.way.clone()),
            };
        };
        self.set(&transition.set, cause.vars, transition.place)?;
        self.take_after_set(transition, cause)
    }

    pub fn take_after_set(&mut self, transition: &'a Transition, cause: &Cause<'_>) -> Result<()> {
        self.send_all(&transition.messages, cause.vars)?;
        match &transition.then {
            Then::State(no) => {
                self.leave()?;
                self.enter(*no)
            }
            Then::Next => self.go_next(),
            Then::Stay | Then::Ignore => Ok(()),
            Then::Retry => match cause.step {
                Some(index) => self.ask_again_later(index, cause),
                None => Ok(()),
            },
            Then::Fail(reason) => {
                let reason = match reason {
                    Some(template) => super::json::text(&self.render(template, cause.vars, transition.place)?),
                    None => cause.reason.clone(),
                };
                self.fail(cause.kind, reason, cause.step, cause.way.clone())
            }
            Then::End(label) => {
                self.leave()?;
                self.complete(Some(label.clone()))
            }
            Then::Incident(text) => {
                let text = super::json::text(&self.render(text, cause.vars, transition.place)?);
                let step = cause.step.filter(|_| matches!(cause.way, Way::Failure { .. } | Way::Timeout { .. }));
                if let Some(index) = step {
                    self.step_mut(index).open = true;
                }
                self.raise(step, cause.way.clone(), text);
                Ok(())
            }
        }
    }

    /// The transition `next` of the present state.
    pub fn go_next(&mut self) -> Result<()> {
        let next = self.state().map(|state| state.next.clone());
        self.leave()?;
        match next {
            Some(Next::State(no)) => self.enter(no),
            Some(Next::End(label)) => self.complete(label),
            None => self.complete(None),
        }
    }

    /// Enters a state, and what follows it at once.
    pub fn enter(&mut self, no: StateNo) -> Result<()> {
        self.hops += 1;
        if self.hops > MAX_HOPS {
            let error = format!("more than {MAX_HOPS} states in one turn, the last was {}", self.it.state);
            return Err(Fault { kind: IncidentKind::Endless, error, place: None });
        }
        let state = &self.machine.states[no];
        self.it.state.clone_from(&state.name);
        self.it.entry += 1;
        self.it.entered_at = self.at;
        self.act(&state.entry, state.place)?;
        self.start_state_timers(&state.timers)?;
        match &state.body {
            Body::Wait => Ok(()),
            Body::Pass => self.go_next(),
            Body::Send(rule) => self.open_step(rule, Part::Whole, None, 1).map(|_| ()),
            Body::All(all) => {
                let total = u32::try_from(all.branches.len()).unwrap_or(u32::MAX);
                self.it.parts = Some(Parts { total, ..Parts::default() });
                for (branch, rule) in &all.branches {
                    self.open_step(rule, Part::Branch(branch.clone()), None, 1)?;
                }
                Ok(())
            }
            Body::Each(each) => self.open_items(state, each),
            Body::Decide(decision) => {
                self.it.decision_number += 1;
                let ask = super::json::text(&self.render(&decision.ask, Vars::default(), state.place)?);
                self.it.decision = Some(OpenDecision { number: self.it.decision_number, ask, since: self.at });
                self.tell("decision-needed");
                Ok(())
            }
            Body::Choose(ways) => self.take_choose(ways),
        }
    }

    pub fn take_choose(&mut self, ways: &'a [Transition]) -> Result<()> {
        let transition = self.choose(ways, Vars::default())?;
        let cause = Cause {
            way: Way::Choose,
            step: None,
            vars: Vars::default(),
            kind: FailureKind::Fail,
            reason: self.it.state.clone(),
        };
        self.take(transition, Otherwise::Next, &cause)
    }

    fn open_items(&mut self, state: &State, each: &'a Each) -> Result<()> {
        let list = self.eval(&each.list, Vars::default(), state.place)?;
        let Value::Array(items) = list else {
            let error = format!("`{}` is {}, not a list", each.list.source(), super::json::type_name(&list));
            return Err(Fault { kind: IncidentKind::Expression, error, place: Some(state.place) });
        };
        if items.len() > MAX_ITEMS {
            let error = format!("`{}` has {} items, more than {MAX_ITEMS}", each.list.source(), items.len());
            return Err(Fault { kind: IncidentKind::TooLarge, error, place: Some(state.place) });
        }
        let total = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let mut waiting: Vec<(u32, Value)> = (0_u32..).zip(items).collect();
        let now = usize::try_from(each.at_once.unwrap_or(u32::MAX)).unwrap_or(usize::MAX).min(waiting.len());
        let later = waiting.split_off(now);
        self.it.parts = Some(Parts { waiting: later, total, ..Parts::default() });
        for (place, item) in waiting {
            self.open_step(&each.step, Part::Item(place), Some(item), 1)?;
        }
        if total == 0 { self.leave_parts() } else { Ok(()) }
    }

    /// A branch or item has its answer (`body` where it counts as a success): the next item goes out, or the state is left.
    pub fn settle_part(&mut self, part: &Part, body: Option<&Value>) -> Result<()> {
        let Some(state) = self.state() else { return Ok(()) };
        let Some(parts) = &mut self.it.parts else { return Ok(()) };
        parts.settled.push(part.clone());
        let (any, collect) = match &state.body {
            Body::All(all) => (all.any, all.collect.is_some()),
            Body::Each(each) => (false, each.collect.is_some()),
            _ => (false, false),
        };
        if let Some(body) = body.filter(|_| collect) {
            parts.collected.push((part.clone(), body.clone()));
        }
        let all_settled = u32::try_from(parts.settled.len()).unwrap_or(u32::MAX) >= parts.total;
        let next = (!parts.waiting.is_empty()).then(|| parts.waiting.remove(0));
        if let (Body::Each(each), Some((place, item))) = (&state.body, next) {
            self.open_step(&each.step, Part::Item(place), Some(item), 1)?;
        }
        if all_settled || (any && body.is_some()) { self.leave_parts() } else { Ok(()) }
    }

    /// Leaves an `all` or `each` by `next`, with what it collected.
    fn leave_parts(&mut self) -> Result<()> {
        let Some(state) = self.state() else { return Ok(()) };
        let parts = self.it.parts.take().unwrap_or_default();
        let collected = match &state.body {
            Body::All(all) => all.collect.as_ref().map(|field| {
                let named = all.branches.keys().filter_map(|branch| {
                    let found = parts.collected.iter().find(|(part, _)| part.branch() == Some(branch));
                    found.map(|(_, body)| (branch.clone(), body.clone()))
                });
                (field, Value::Object(named.collect()))
            }),
            Body::Each(each) => each.collect.as_ref().map(|field| {
                let listed = (0..parts.total).map(|place| {
                    let found = parts.collected.iter().find(|(part, _)| part.item() == Some(place));
                    found.map_or(Value::Null, |(_, body)| body.clone())
                });
                (field, Value::Array(listed.collect()))
            }),
            _ => None,
        };
        if let Some((field, value)) = collected {
            let path: Vec<String> = field.split('.').map(str::to_owned).collect();
            self.store(&path, value).map_err(|error| Fault {
                kind: IncidentKind::Expression,
                error,
                place: Some(state.place),
            })?;
        }
        self.go_next()
    }

    /// A new question to a participant: a new command, on the undo list from now on.
    pub fn open_step(&mut self, rule: &'a machine::Step, part: Part, item: Option<Value>, tries: u32) -> Result<u32> {
        if self.it.steps.iter().filter(|step| !step.kept).count() >= MAX_STEPS {
            let error = format!("more than {MAX_STEPS} commands on the undo list");
            return Err(Fault { kind: IncidentKind::TooLarge, error, place: Some(rule.place) });
        }
        let vars = Vars { item: item.as_ref(), attempt: Some(tries), ..Vars::default() };
        let body = self.body(rule.with.as_ref(), vars, rule.place)?;
        let headers = self.headers(&rule.headers, vars, rule.place)?;
        let entry = self.it.entry;
        let asked = self.it.steps.iter().filter(|step| step.entry == entry && step.part == part).count();
        let index = u32::try_from(self.it.steps.len()).unwrap_or(u32::MAX);
        self.it.steps.push(Step {
            state: self.it.state.clone(),
            entry,
            part,
            question: u32::try_from(asked).unwrap_or(u32::MAX) + 1,
            effect: StepEffect::Sent,
            open: true,
            kept: false,
            body,
            headers,
            attempt: 0,
            tries,
            sent_at: self.at,
            item,
            undo: None,
            refusal: None,
        });
        self.send_step(index)?;
        Ok(index)
    }

    fn start_state_timers(&mut self, timers: &'a [Timer]) -> Result<()> {
        for timer in timers {
            let due = match &timer.due {
                Due::After(span) | Due::Every { span, .. } => self.at.plus(*span),
                Due::AfterStart(span) => self.it.started_at.plus(*span),
                Due::At(expression) => {
                    let value = self.eval(expression, Vars::default(), timer.place)?;
                    timestamp(&value).map_err(|error| Fault {
                        kind: IncidentKind::Expression,
                        error: format!("{error} in `{}`", expression.source()),
                        place: Some(timer.place),
                    })?
                }
            };
            let what = TimerKind::State { name: timer.name.clone(), fired: 0 };
            self.start_timer(what, TimerStart::At(due));
        }
        Ok(())
    }

    /// Leaves the present state on the way forward: what was not answered is given up and taken back at once.
    pub fn leave(&mut self) -> Result<()> {
        self.close_state();
        let open: Vec<u32> = self.it.open_steps().collect();
        for index in open {
            if self.give_up(index)? {
                self.start_undo(index)?;
            }
        }
        Ok(())
    }

    /// What ends with a state however it is left: its timers, its decision, its incidents, what was to be asked again.
    pub fn close_state(&mut self) {
        self.stop_timers(|what| matches!(what, TimerKind::State { .. }));
        self.it.decision = None;
        self.it.parts = None;
        let waiting: Vec<u32> =
            (0_u32..).zip(&self.it.steps).filter(|(_, step)| step.refusal.is_some()).map(|(index, _)| index).collect();
        for index in waiting {
            self.step_mut(index).refusal = None;
            self.stop_step_timers(index);
        }
        self.close_incidents(|incident| {
            incident.step.is_none() && matches!(incident.kind, IncidentKind::Raised | IncidentKind::NoWayBack)
        });
    }

    /// The saga has reached its end on the way forward.
    pub fn complete(&mut self, outcome: Option<String>) -> Result<()> {
        self.it.status = Status::Completed;
        self.it.outcome = outcome;
        self.it.ended_at = Some(self.at);
        self.stop_timers(|what| matches!(what, TimerKind::Deadline));
        let machine = self.machine;
        self.act(&machine.completed, Place::default())?;
        self.tell("completed");
        Ok(())
    }

    /// What would turn the instance back. Past the pivot it cannot, and a person is told.
    pub fn fail(&mut self, kind: FailureKind, reason: String, step: Option<u32>, way: Way) -> Result<()> {
        if self.it.past_pivot {
            return self.no_way_back(step, way, reason);
        }
        if self.it.failure.is_none() {
            let of = step.map(|index| self.step(index));
            self.it.failure = Some(Failure {
                kind,
                state: self.it.state.clone(),
                branch: of.and_then(|step| step.part.branch().map(str::to_owned)),
                item: of.and_then(|step| step.part.item()),
                reason,
            });
        }
        self.compensate()
    }

    /// The state stays as it is, and so does the step: an answer that still comes is the answer.
    pub fn no_way_back(&mut self, step: Option<u32>, way: Way, error: String) -> Result<()> {
        if let Some(index) = step {
            self.step_mut(index).open = true;
            if self.has_incident(IncidentKind::NoWayBack, index) {
                return Ok(());
            }
        }
        let kept = self.message.map(|message| Box::new(super::event::Input::Event(message.clone())));
        let incident = self.open_incident(IncidentKind::NoWayBack, step, error);
        incident.way = Some(way);
        incident.kept = kept;
        Ok(())
    }

    /// The transition would turn back where there is no way back: what it sets and sends counts all the same.
    pub fn stay_without_way_back(
        &mut self,
        transition: Option<&'a Transition>,
        index: u32,
        cause: &Cause<'_>,
        error: String,
    ) -> Result<()> {
        if let Some(transition) = transition {
            self.set(&transition.set, cause.vars, transition.place)?;
            self.send_all(&transition.messages, cause.vars)?;
        }
        self.no_way_back(Some(index), cause.way.clone(), error)
    }

    /// `retry` in a transition: a refusal has closed the command, so a new one goes out after the step's delay.
    fn ask_again_later(&mut self, index: u32, cause: &Cause<'_>) -> Result<()> {
        let Some(rule) = self.rule_at(index) else { return Ok(()) };
        let step = self.step(index);
        let tries = step.tries;
        if rule.retry.allows_more(tries) {
            let seed = self.it.command_id(step).message_id(step.attempt);
            let after_ms = rule.retry.delay_after(tries, seed).0;
            self.step_mut(index).refusal = Some(cause.reason.clone());
            self.start_timer(TimerKind::StepDelay { index }, TimerStart::Listening { after_ms });
            return Ok(());
        }
        let error = match &cause.way {
            Way::Failure { event, .. } => format!("{event}: {}", cause.reason),
            _ => cause.reason.clone(),
        };
        let ways = rule.timeout.as_ref().map_or(&[][..], |timeout| &timeout.ways);
        let transition = self.choose(ways, cause.vars)?;
        if (rule.pivot || self.it.past_pivot) && leads_back(transition) {
            return self.stay_without_way_back(transition, index, cause, error);
        }
        let cause = Cause {
            way: Way::Timeout { index },
            step: Some(index),
            vars: Vars { item: cause.vars.item, attempt: cause.vars.attempt, ..Vars::default() },
            kind: FailureKind::Refused,
            reason: cause.reason.clone(),
        };
        self.take(transition, Otherwise::Fail, &cause)
    }
}

/// What `at` gives: RFC 3339 text.
fn timestamp(value: &Value) -> std::result::Result<Timestamp, String> {
    match value {
        Value::String(text) => Timestamp::parse(text).map_err(|error| error.to_string()),
        other => Err(format!("{} is not a time", super::json::type_name(other))),
    }
}
