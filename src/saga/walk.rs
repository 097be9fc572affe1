//! One turn under way: the working copy of the instance, what it has asked for so far, and how values are made.
//! The parts of the core (`step`, `answer`, `unwind`, `order`) are its methods, each in a file of its own.

use serde_json::{Map, Value, json};

use super::effect::Effect;
use super::event::{Fault, Given, Message, Subject};
use super::expression::{Env, EvalError, Expression};
use super::incident::{Incident, IncidentKind, Way};
use super::instance::{Instance, Part, Step, Timer, TimerKind, TimerStart};
use super::machine::{self, Body, Machine, Place, State};
use super::template::Template;
use super::time::Timestamp;

/// `data`, as JSON text.
pub const MAX_DATA_BYTES: usize = 256 * 1024;
/// States passed through in one turn.
pub const MAX_HOPS: u32 = 100;
/// Commands on an undo list.
pub const MAX_STEPS: usize = 10_000;
/// Items in an `each`.
pub const MAX_ITEMS: usize = 1_000;

pub(super) type Result<T, E = Fault> = std::result::Result<T, E>;

pub(super) struct Walk<'a> {
    pub machine: &'a Machine,
    pub at: Timestamp,
    pub unreached: &'a [Subject],
    /// The message in hand, where the input is one.
    pub message: Option<&'a Message>,
    /// Its body; or what an operator gave in the place of one.
    pub event: Option<&'a Value>,
    /// As the instance was when the turn began.
    pub before: &'a Instance,
    pub it: Instance,
    pub effects: Vec<Effect>,
    pub notes: Vec<String>,
    pub changed: Vec<String>,
    /// States entered in this turn.
    pub hops: u32,
    /// `resume` tells it even where no incident closes.
    pub tell_resumed: bool,
}

/// The variables that differ from place to place.
#[derive(Clone, Copy, Default)]
pub(super) struct Vars<'v> {
    pub item: Option<&'v Value>,
    pub attempt: Option<u32>,
    pub choice: Option<&'v Value>,
    pub reply: Option<&'v Value>,
    pub reply_type: Option<&'v str>,
}

impl<'a> Walk<'a> {
    pub fn new(machine: &'a Machine, instance: &'a Instance, given: &'a Given) -> Walk<'a> {
        let mut it = instance.clone();
        it.turn += 1;
        Walk {
            machine,
            at: given.at,
            unreached: &given.unreached,
            message: None,
            event: None,
            before: instance,
            it,
            effects: Vec::new(),
            notes: Vec::new(),
            changed: Vec::new(),
            hops: 0,
            tell_resumed: false,
        }
    }

    pub fn take_in_hand(&mut self, message: &'a Message) {
        self.message = Some(message);
        self.event = Some(&message.body);
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub fn state(&self) -> Option<&'a State> {
        self.machine.state(&self.it.state)
    }

    /// The rule behind a step; `None` where the definition has it no longer.
    pub fn rule(&self, step: &Step) -> Option<&'a machine::Step> {
        rule(self.machine, step)
    }

    pub fn rule_at(&self, index: u32) -> Option<&'a machine::Step> {
        self.rule(self.step(index))
    }

    pub fn step(&self, index: u32) -> &Step {
        &self.it.steps[place(index)]
    }

    pub fn step_mut(&mut self, index: u32) -> &mut Step {
        &mut self.it.steps[place(index)]
    }

    // ---- values -------------------------------------------------------------------------------------------------

    pub fn render(&self, template: &Template, vars: Vars<'_>, place: Place) -> Result<Value> {
        self.with_env(vars, |name| template.mentions(name), |env| template.render(env))
            .map_err(|error| expression_fault(&error, None, place))
    }

    pub fn eval(&self, expression: &Expression, vars: Vars<'_>, place: Place) -> Result<Value> {
        self.with_env(vars, |name| expression.mentions(name), |env| expression.eval(env))
            .map_err(|error| expression_fault(&error, Some(expression), place))
    }

    pub fn holds(&self, when: Option<&Expression>, vars: Vars<'_>, place: Place) -> Result<bool> {
        let Some(when) = when else { return Ok(true) };
        self.with_env(vars, |name| when.mentions(name), |env| when.holds(env))
            .map_err(|error| expression_fault(&error, Some(when), place))
    }

    /// `saga` and `message` are made for those alone who read them.
    fn with_env<T>(&self, vars: Vars<'_>, mentions: impl Fn(&str) -> bool, evaluate: impl FnOnce(&Env<'_>) -> T) -> T {
        let saga = mentions("saga").then(|| self.saga_value());
        let message = self.message.filter(|_| mentions("message")).map(message_value);
        evaluate(&Env {
            event: self.event,
            message: message.as_ref(),
            data: Some(&self.it.data),
            saga: saga.as_ref(),
            now: Some(self.at),
            item: vars.item,
            attempt: vars.attempt,
            choice: vars.choice,
            reply: vars.reply,
            reply_type: vars.reply_type,
        })
    }

    /// The variable `saga`.
    fn saga_value(&self) -> Value {
        json!({
            "id": self.it.id.to_string(),
            "key": self.it.key,
            "name": self.it.saga,
            "status": self.it.status.name(),
            "state": self.it.state,
            "started_at": self.it.started_at.to_string(),
            "outcome": self.it.outcome,
            "failure": self.failure_value(),
        })
    }

    pub fn failure_value(&self) -> Value {
        let Some(failure) = &self.it.failure else { return Value::Null };
        let mut value = Map::new();
        value.insert("kind".to_owned(), failure.kind.name().into());
        value.insert("state".to_owned(), failure.state.clone().into());
        if let Some(branch) = &failure.branch {
            value.insert("branch".to_owned(), branch.clone().into());
        }
        if let Some(item) = failure.item {
            value.insert("item".to_owned(), item.into());
        }
        value.insert("reason".to_owned(), failure.reason.clone().into());
        Value::Object(value)
    }

    /// Applies `set`: all values are computed before any is stored.
    pub fn set(&mut self, set: &[(Vec<String>, Template)], vars: Vars<'_>, at: Place) -> Result<()> {
        let values = set
            .iter()
            .map(|(path, template)| Ok((path, self.render(template, vars, at)?)))
            .collect::<Result<Vec<_>>>()?;
        for (path, value) in values {
            self.store(path, value).map_err(|error| Fault {
                kind: IncidentKind::Expression,
                error,
                place: Some(at),
            })?;
        }
        Ok(())
    }

    pub fn store(&mut self, path: &[String], value: Value) -> std::result::Result<(), String> {
        let (last, way) = path.split_last().ok_or_else(|| "a path is empty".to_owned())?;
        let mut place = &mut self.it.data;
        for name in way {
            place = object(place, name)?.entry(name.clone()).or_insert(Value::Null);
        }
        object(place, last)?.insert(last.clone(), value);
        self.changed.push(format!("data.{}", path.join(".")));
        Ok(())
    }

    // ---- timers -------------------------------------------------------------------------------------------------

    pub fn start_timer(&mut self, what: TimerKind, start: TimerStart) -> u32 {
        let serial = self.it.serial;
        self.it.serial += 1;
        self.it.timers.push(Timer { serial, what, start });
        serial
    }

    pub fn stop_timers(&mut self, which: impl Fn(&TimerKind) -> bool) {
        self.it.timers.retain(|timer| !which(&timer.what));
    }

    pub fn stop_step_timers(&mut self, of: u32) {
        self.stop_timers(
            |what| matches!(what, TimerKind::StepLimit { index } | TimerKind::StepDelay { index } if *index == of),
        );
    }

    pub fn stop_undo_timers(&mut self, of: u32) {
        self.stop_timers(
            |what| matches!(what, TimerKind::UndoLimit { index } | TimerKind::UndoDelay { index } if *index == of),
        );
    }

    // ---- incidents ----------------------------------------------------------------------------------------------

    pub fn open_incident(&mut self, kind: IncidentKind, step: Option<u32>, error: String) -> &mut Incident {
        let state = step.map_or_else(|| self.it.state.clone(), |index| self.step(index).state.clone());
        self.it.incident_number += 1;
        self.it.incidents.push(Incident {
            number: self.it.incident_number,
            kind,
            state,
            step,
            error,
            place: None,
            opened_at: self.at,
            way: None,
            kept: None,
        });
        self.it.incidents.last_mut().expect("one was just pushed")
    }

    pub fn raise(&mut self, step: Option<u32>, way: Way, error: String) {
        let open = |incident: &&Incident| incident.step == step && incident.way.as_ref() == Some(&way);
        if self.it.incidents.iter().any(|incident| open(&incident)) {
            return self.note(format!("raised once more: {error}"));
        }
        let kept = self.message.map(|message| Box::new(super::event::Input::Event(message.clone())));
        let incident = self.open_incident(IncidentKind::Raised, step, error);
        incident.way = Some(way);
        incident.kept = kept;
    }

    pub fn close_incidents(&mut self, which: impl Fn(&Incident) -> bool) {
        self.it.incidents.retain(|incident| !which(incident));
    }

    /// Incidents that stop the forward way of a step: an answer, or its being given up, settles them.
    pub fn close_step_incidents(&mut self, index: u32) {
        self.close_incidents(|incident| {
            incident.step == Some(index)
                && matches!(incident.kind, IncidentKind::NoWayBack | IncidentKind::Raised | IncidentKind::Unroutable)
        });
    }

    pub fn has_incident(&self, kind: IncidentKind, index: u32) -> bool {
        self.it.incidents.iter().any(|incident| incident.kind == kind && incident.step == Some(index))
    }
}

pub(super) fn rule<'m>(machine: &'m Machine, step: &Step) -> Option<&'m machine::Step> {
    match (&machine.state(&step.state)?.body, &step.part) {
        (Body::Send(rule), Part::Whole) => Some(rule),
        (Body::All(all), Part::Branch(branch)) => all.branches.get(branch),
        (Body::Each(each), Part::Item(_)) => Some(&each.step),
        _ => None,
    }
}

pub(super) fn place(index: u32) -> usize {
    usize::try_from(index).expect("a place in a list of 10,000 fits")
}

/// The variable `message`; what is absent in it is null.
pub(super) fn message_value(message: &Message) -> Value {
    json!({
        "id": message.id,
        "type": message.kind,
        "time": message.time.to_string(),
        "correlation_id": message.correlation_id,
        "headers": message.headers,
    })
}

pub(super) fn expression_fault(error: &EvalError, expression: Option<&Expression>, place: Place) -> Fault {
    let error = match expression {
        Some(expression) => format!("{error} in `{}`", expression.source()),
        None => error.to_string(),
    };
    Fault { kind: IncidentKind::Expression, error, place: Some(place) }
}

fn object<'v>(value: &'v mut Value, name: &str) -> std::result::Result<&'v mut Map<String, Value>, String> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    let found = super::json::type_name(value);
    value.as_object_mut().ok_or_else(|| format!("cannot set '{name}' in {found}"))
}
