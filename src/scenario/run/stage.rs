//! The stage of one scenario: engine, database, clock and what has been said so far.

use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::engine::{
    BusState, Delivery, Engine, Input, MessageRef, Now, OrderFor, OrderMode, OrderVerdict, Published, Raw, Settings,
    Ticket,
};
use crate::saga::answer::{Asked, asked, is_answer};
use crate::saga::effect::{Destination, Outgoing};
use crate::saga::event::{Message, Order};
use crate::saga::ids::{CommandId, DatabaseId, InstanceId};
use crate::saga::instance::{Instance, StepEffect, UndoPhase};
use crate::saga::machine::Machine;
use crate::saga::time::Timestamp;
use crate::store::{AsideFilter, JournalOrder, Memory, Reader, Selector, Store};

/// What time it is where a scenario does not say so: 2030-01-01T00:00:00Z.
const FIRST_OF_2030: Timestamp = Timestamp(1_893_456_000_000);
/// Rounds that one step of a scenario may take until nothing more happens by itself.
const MAX_ROUNDS: usize = 100_000;
/// Instances, and rows of what was set aside, that a scenario can look at.
const MAX_SEEN: usize = 1_000;

pub struct Stage {
    saga: String,
    machines: Vec<Arc<Machine>>,
    memory: Memory,
    /// `None` only while it is started again.
    engine: Option<Engine>,
    reader: Reader,
    now: Now,
    away: bool,
    /// Messages that the broker has not confirmed, for it is away.
    unconfirmed: Vec<MessageRef>,
    /// All that went out, in order; `expected` of them have been looked at.
    pub sent: Vec<Outgoing>,
    pub expected: usize,
    last: Option<Message>,
    messages: u64,
    ticket: u64,
    started: bool,
}

impl Stage {
    pub fn open(saga: &str, machines: &[Arc<Machine>]) -> Result<Stage, String> {
        let database = DatabaseId(Uuid::from_u128(0x5a6a_d000_0000_4000_8000_0000_0000_5ce0));
        let memory = Memory::new(database).map_err(text)?;
        let now = Now { wall: FIRST_OF_2030, monotonic_ms: 0 };
        let engine = start(&memory, machines, now)?;
        let reader = Reader::open_in(&memory).map_err(text)?;
        let mut stage = Stage {
            saga: saga.to_owned(),
            machines: machines.to_vec(),
            memory,
            engine: Some(engine),
            reader,
            now,
            away: false,
            unconfirmed: Vec::new(),
            sent: Vec::new(),
            expected: 0,
            last: None,
            messages: 0,
            ticket: 0,
            started: false,
        };
        stage.feed(vec![Input::Bus(BusState::Up { waiting: 0 })])?;
        Ok(stage)
    }

    // ---- what the scenario does ---------------------------------------------------------------------------------

    pub fn set_clock(&mut self, time: Timestamp) -> Result<(), String> {
        if self.started {
            return Err("`clock` stands first in a scenario".to_owned());
        }
        self.now.wall = time;
        self.restart()
    }

    pub fn receive(
        &mut self,
        event: &str,
        body: Value,
        id: Option<String>,
        correlation_id: Option<String>,
        headers: Map<String, Value>,
    ) -> Result<(), String> {
        let message = self.message(event, body, id, correlation_id, headers);
        self.deliver(message)
    }

    pub fn again(&mut self) -> Result<(), String> {
        let message = self.last.clone().ok_or("no message has come yet that could come again")?;
        self.deliver(message)
    }

    pub fn reply(
        &mut self,
        of: Option<&str>,
        event: &str,
        to: Option<&str>,
        body: Value,
        id: Option<String>,
    ) -> Result<(), String> {
        let instance = self.instance(of)?;
        let command = match to {
            Some(to) => self.command_named(&instance, event, to)?,
            None => self.command_open(&instance, event)?,
        };
        let message = self.message(event, body, id, Some(command.to_string()), Map::new());
        self.deliver(message)
    }

    pub fn advance(&mut self, ms: u64) -> Result<(), String> {
        self.started = true;
        let mut left = ms;
        for _ in 0..MAX_ROUNDS {
            let now = self.now;
            let due = self.engine()?.next_due(now).map_err(text)?;
            let step = due.unwrap_or(left).min(left);
            self.pass(step);
            left -= step;
            if step == 0 && left == 0 && due.is_none_or(|due| due > 0) {
                return self.feed(Vec::new());
            }
            self.feed(Vec::new())?;
            if left == 0 && due.is_none_or(|due| due > step) {
                return Ok(());
            }
        }
        Err("the clock does not get on: timers fire without end".to_owned())
    }

    fn pass(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.wall = self.now.wall.plus(crate::saga::duration::Span(ms));
    }

    pub fn broker(&mut self, away: bool) -> Result<(), String> {
        if self.away == away {
            return Ok(());
        }
        self.away = away;
        if away {
            return self.feed(vec![Input::Bus(BusState::Down { error: "away".to_owned() })]);
        }
        let unknown = std::mem::take(&mut self.unconfirmed).into_iter().map(|at| (at, Published::Unknown)).collect();
        self.feed(vec![Input::Published(unknown), Input::Bus(BusState::Up { waiting: 0 })])
    }

    pub fn restart(&mut self) -> Result<(), String> {
        self.engine = None;
        self.unconfirmed.clear();
        self.engine = Some(start(&self.memory, &self.machines, self.now)?);
        if self.away { Ok(()) } else { self.feed(vec![Input::Bus(BusState::Up { waiting: 0 })]) }
    }

    pub fn order(&mut self, of: Option<&str>, order: Order) -> Result<(), String> {
        let instance = self.instance(of)?.id;
        self.ticket += 1;
        let ticket = Ticket(self.ticket);
        let order = OrderFor { instance, order, mode: OrderMode::ForReal };
        let verdict = self.feed_and_hear(vec![Input::Orders(ticket, vec![order])])?;
        match verdict {
            Some(OrderVerdict::Done) | None => Ok(()),
            Some(OrderVerdict::DoneBefore) => Err("the order was given before".to_owned()),
            Some(OrderVerdict::NoSuchInstance) => Err("there is no such instance".to_owned()),
            Some(OrderVerdict::Refused { message, .. }) => Err(format!("the order was refused: {message}")),
        }
    }

    // ---- the engine and the broker ------------------------------------------------------------------------------

    fn deliver(&mut self, message: Message) -> Result<(), String> {
        self.started = true;
        self.last = Some(message.clone());
        self.feed(vec![Input::Delivery(delivery(message))])
    }

    fn feed(&mut self, inputs: Vec<Input>) -> Result<(), String> {
        self.feed_and_hear(inputs).map(|_| ())
    }

    /// One batch after another, until nothing more comes of it at this moment.
    fn feed_and_hear(&mut self, mut inputs: Vec<Input>) -> Result<Option<OrderVerdict>, String> {
        let mut heard = None;
        for _ in 0..MAX_ROUNDS {
            let now = self.now;
            let out = self.engine()?.batch(inputs, now).map_err(text)?;
            for (_, answer) in out.answers {
                if let crate::engine::Answer::Orders(results) = answer {
                    heard = results.into_iter().next().map(|result| result.verdict);
                }
            }
            inputs = Vec::new();
            let mut confirmed = Vec::new();
            for (at, message) in out.publish {
                if self.away {
                    self.unconfirmed.push(at);
                } else {
                    confirmed.push((at, Published::Confirmed));
                }
                if let Some(message) = self.come_back(&message) {
                    inputs.push(Input::Delivery(delivery(message)));
                }
                self.sent.push(message);
            }
            if !confirmed.is_empty() {
                inputs.insert(0, Input::Published(confirmed));
            }
            let due = self.engine()?.next_due(now).map_err(text)?;
            if inputs.is_empty() && due != Some(0) {
                return Ok(heard);
            }
        }
        Err("the sagas go on without end".to_owned())
    }

    fn engine(&mut self) -> Result<&mut Engine, String> {
        self.engine.as_mut().ok_or_else(|| "the engine is gone".to_owned())
    }

    /// An event that a saga published, as it comes back to the daemon where a definition consumes it.
    fn come_back(&self, message: &Outgoing) -> Option<Message> {
        let to_all = matches!(message.to, Destination::Event | Destination::Lifecycle);
        let consumed = self.machines.iter().any(|machine| machine.consumed().contains(message.kind.as_str()));
        (to_all && consumed).then(|| Message {
            kind: message.kind.clone(),
            id: Some(message.id()),
            source: "sagad".to_owned(),
            correlation_id: Some(message.correlation_id.clone()),
            reply_to: None,
            time: message.at,
            traceparent: None,
            headers: message.headers.clone(),
            routing_key: message.kind.clone(),
            body: message.body.value(),
        })
    }

    fn message(
        &mut self,
        event: &str,
        body: Value,
        id: Option<String>,
        correlation_id: Option<String>,
        headers: Map<String, Value>,
    ) -> Message {
        self.messages += 1;
        Message {
            kind: event.to_owned(),
            id: Some(id.unwrap_or_else(|| format!("message-{}", self.messages))),
            source: String::new(),
            correlation_id,
            reply_to: None,
            time: self.now.wall,
            traceparent: None,
            headers,
            routing_key: event.to_owned(),
            body,
        }
    }

    // ---- looking ------------------------------------------------------------------------------------------------

    pub fn instances(&self) -> Result<Vec<Instance>, String> {
        let rows = self.reader.instances(&Selector::default(), None, MAX_SEEN).map_err(text)?.rows;
        let mut found = Vec::new();
        for row in rows {
            if let Some(stored) = self.reader.instance(row.no).map_err(text)? {
                found.push(stored.instance.clone());
            }
        }
        Ok(found)
    }

    /// The instance that a step is about: the one named, or the only one of this saga.
    pub fn instance(&self, of: Option<&str>) -> Result<Instance, String> {
        let (saga, key) = match of {
            Some(name) => {
                name.split_once('/').map_or((self.saga.as_str(), Some(name)), |(saga, key)| (saga, Some(key)))
            }
            None => (self.saga.as_str(), None),
        };
        let mut found: Vec<Instance> = self.instances()?;
        found.retain(|it| it.saga == saga && key.is_none_or(|key| it.key == key));
        match (found.len(), key) {
            (0, Some(key)) => Err(format!("there is no instance {saga}/{key}")),
            (0, None) => Err(format!("no instance of {saga} has started")),
            (1, _) | (_, Some(_)) => Ok(found.swap_remove(0)),
            (many, None) => Err(format!("there are {many} instances of {saga}: say which with `for: <key>`")),
        }
    }

    pub fn last_unmatched(&self) -> Result<Vec<String>, String> {
        let rows = self.reader.aside(&AsideFilter::default(), None, MAX_SEEN).map_err(text)?;
        Ok(rows.into_iter().map(|row| row.reason).collect())
    }

    fn machine(&self, instance: &Instance) -> Result<&Arc<Machine>, String> {
        self.machines
            .iter()
            .find(|machine| machine.name == instance.saga)
            .ok_or_else(|| format!("there is no saga {}", instance.saga))
    }

    /// The command that is open and has this event among its answers.
    fn command_open(&self, instance: &Instance, event: &str) -> Result<CommandId, String> {
        let machine = self.machine(instance)?;
        let mut open = Vec::new();
        for step in &instance.steps {
            if step.open {
                open.push((step.name(), instance.command_id(step)));
            }
            if let Some(undo) = &step.undo {
                let waits = matches!(undo.phase, UndoPhase::Open | UndoPhase::Failed);
                if waits && step.effect == StepEffect::Undoing {
                    let name = format!("the undo of {}", step.name());
                    open.push((name, instance.undo_command_id(step, undo.question)));
                }
            }
        }
        let mut takers: Vec<&(String, CommandId)> =
            open.iter().filter(|(_, id)| answers(machine, instance, *id, event)).collect();
        if takers.is_empty() && open.len() == 1 {
            takers = open.iter().collect();
        }
        match takers.as_slice() {
            [] if open.is_empty() => Err(format!("no command is open that {event} could answer")),
            [] => Err(format!("{event} is no answer of what is open: {}", names(&open))),
            [(_, id)] => Ok(*id),
            _ => Err(format!("several commands are open: say which with `to`: {}", names(&open))),
        }
    }

    /// The newest command (or the n-th, with `#n`) of a state, branch, item, or with this name.
    fn command_named(&self, instance: &Instance, event: &str, to: &str) -> Result<CommandId, String> {
        let machine = self.machine(instance)?;
        let (name, number) = match to.split_once('#') {
            Some((name, number)) => {
                let number: usize = number.parse().map_err(|_| format!("'{number}' after # is no number"))?;
                (name, Some(number))
            }
            None => (to, None),
        };
        let mut ids: Vec<CommandId> = Vec::new();
        for message in &self.sent {
            let Some(part) = &message.command else { continue };
            let own = message.stamp.as_ref().is_some_and(|stamp| stamp.id == instance.id);
            if !own || !(part.state == name || message.kind == name) {
                continue;
            }
            let Some(id) = CommandId::parse(&message.correlation_id) else { continue };
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let answering: Vec<CommandId> =
            ids.iter().copied().filter(|id| answers(machine, instance, *id, event)).collect();
        let ids = if answering.is_empty() { ids } else { answering };
        let chosen = match number {
            Some(number) => number.checked_sub(1).and_then(|place| ids.get(place)),
            None => ids.last(),
        };
        chosen.copied().ok_or_else(|| format!("no command '{to}' has gone out"))
    }

    pub fn unexpected(&self) -> Vec<String> {
        let rest = &self.sent[self.expected..];
        rest.iter().filter(|message| message.to != Destination::Lifecycle).map(shown).collect()
    }

    pub fn check_invariants(&mut self) -> Result<(), String> {
        for instance in self.instances()? {
            instance.invariants().map_err(|what| format!("{}/{}: {what}", instance.saga, instance.key))?;
        }
        Ok(())
    }

    /// The journal so far, a line a turn.
    pub fn journal(&self) -> String {
        let mut out = String::from("the journal so far:");
        for instance in self.instances().unwrap_or_default() {
            out.push_str(&format!("\n  {}/{} ({})", instance.saga, instance.key, instance.status.name()));
            let rows = self.reader.journal(instance.id.no(), JournalOrder::OldestFirst, None, MAX_SEEN);
            for row in rows.unwrap_or_default() {
                let cause = row.given().map(|given| given.input.describe()).unwrap_or_default();
                let to = row.to.as_ref().map_or(("", ""), |to| (to.status.name(), to.state.as_str()));
                out.push_str(&format!("\n    {:>3} {cause}: {} {}", row.turn, to.0, to.1));
                for mut message in row.messages().unwrap_or_default() {
                    message.stamp = Some(instance.stamp());
                    if message.to != Destination::Lifecycle {
                        out.push_str(&format!("\n        {}", shown(&message)));
                    }
                }
            }
        }
        out
    }
}

/// Whether an event is among the answers of exactly this command: of the step's own, or of its undo's.
fn answers(machine: &Machine, instance: &Instance, id: CommandId, event: &str) -> bool {
    let Some(found) = asked(instance, id) else { return false };
    let (Asked::Step { index } | Asked::Undo { index, .. }) = found;
    let Some(step) = instance.step(index) else { return false };
    let rule = machine.state(&step.state).and_then(|state| {
        state.steps().find(|rule| rule.success.contains_key(event) || rule.failure.contains_key(event))
    });
    is_answer(machine, instance, id, event) && matches!(found, Asked::Step { .. }) == rule.is_some()
}

fn names(open: &[(String, CommandId)]) -> String {
    open.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// A message as an `expect` would have it.
pub fn shown(message: &Outgoing) -> String {
    let (word, name) = match &message.to {
        Destination::Command { address } => ("send", format!("{address}.{}", message.kind)),
        Destination::Event if message.correlation_id != own_id(message) => ("reply", message.kind.clone()),
        Destination::Event | Destination::Lifecycle => ("publish", message.kind.clone()),
        Destination::Queue { .. } => ("reply", message.kind.clone()),
    };
    format!("{word}: {name}, with: {}", message.body.text())
}

/// An event of the instance itself carries its id; a reply carries what it answers.
pub fn own_id(message: &Outgoing) -> String {
    message.stamp.as_ref().map(|stamp| stamp.id).map(|id: InstanceId| id.to_string()).unwrap_or_default()
}

fn start(memory: &Memory, machines: &[Arc<Machine>], now: Now) -> Result<Engine, String> {
    let store = Store::open_in(memory).map_err(text)?;
    let settings = Settings { grace_ms: 0, ..Settings::default() };
    Engine::open(store, machines.to_vec(), settings, now).map_err(|error| error.to_string())
}

fn delivery(message: Message) -> Delivery {
    let raw = Raw {
        exchange: "events".to_owned(),
        routing_key: message.routing_key.clone(),
        headers: message.headers.clone(),
        body: message.body.to_string().into_bytes(),
        ..Raw::default()
    };
    Delivery { ack: None, raw: Arc::new(raw), message: Ok(message), dead: false }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
