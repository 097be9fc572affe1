//! The world's course: what is due now happens, and when nothing is due the clock jumps to what is next. One engine, one
//! database in memory, any number of participants; deterministic, as long as its fate is.

mod daemon;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::broker::{Binding, Broker};
use super::fate::{Fate, Point};
use super::{LocalMessage, Participant, Reply, Unclaimed};
use crate::bus::envelope::{Types, Wire};
use crate::engine::{
    AckToken, Answer, Engine, EngineError, Input, MessageRef, Now, OrderFor, OrderResult, Published, Raw, Settings,
    Ticket,
};
use crate::saga::effect::Outgoing;
use crate::saga::ids::DatabaseId;
use crate::saga::json::Limits;
use crate::saga::machine::Machine;
use crate::saga::time::Timestamp;
use crate::store::{Memory, Reader, Store, StoreError};

/// What a participant may be sent, and what it may say: the limits that the daemon has by default.
const LIMITS: Limits = Limits { bytes: 1024 * 1024, depth: 64, values: 100_000 };
/// Steps without the clock moving on after which the world is going round in circles.
const STILL_AT_MOST: u32 = 1_000_000;

#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("nothing comes to rest at {at}: {STILL_AT_MOST} steps and the clock stands still")]
    Circles { at: Timestamp },
    /// The engine broke a promise that the world watches.
    #[error("{what}")]
    Broken { what: String },
}

impl From<StoreError> for WorldError {
    fn from(error: StoreError) -> WorldError {
        WorldError::Engine(EngineError::Store(error))
    }
}

/// How a world begins.
#[derive(Clone, Debug)]
pub struct Setup {
    pub machines: Vec<Arc<Machine>>,
    pub settings: Settings,
    /// Every id is derived from it.
    pub database: DatabaseId,
    pub start: Timestamp,
    pub unclaimed: Unclaimed,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A batch of the engine's was committed.
    Batch,
    /// Something else happened: a participant handled a message, a message arrived.
    Happened,
    /// The clock went on, for nothing was due.
    Waited,
    /// The daemon died and lies dead: `World::start` wakes it.
    Died(Point),
    /// Nothing will ever happen by itself.
    Rest,
}

/// A message that the broker has seen, in the order of its coming; repetitions too.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub at: MessageRef,
    pub message: Outgoing,
    pub outcome: Published,
}

/// Something that happens at its time.
#[derive(Debug)]
enum Due {
    /// A message comes to the daemon's queue.
    Inbox(Raw),
    /// A message comes to a participant and is handled.
    Handled { participant: usize, message: Box<LocalMessage> },
    /// A participant's message comes to the broker.
    Said(Box<Reply>),
    /// The broker tells what became of a message; on the connection with this number.
    Told { connection: u64, at: MessageRef, outcome: Published },
}

pub struct World {
    memory: Memory,
    setup: Setup,
    now: Now,
    engine: Option<Engine>,
    broker: Broker,
    participants: Vec<Box<dyn Participant>>,
    bindings: Vec<Binding>,
    fate: Box<dyn Fate>,
    /// By time, then by the order in which they were set.
    due: BTreeMap<(u64, u64), Due>,
    counter: u64,
    /// Counts connections of the daemon: what an older one would have told is never heard.
    connection: u64,
    /// Whether the broker is there.
    is_away: bool,
    /// What happens when it is back.
    postponed: Vec<Due>,
    /// For the next batch.
    inputs: Vec<Input>,
    /// Acknowledgements that are not sent yet.
    acks: Vec<AckToken>,
    /// Messages in flight whose fate is not told yet.
    in_flight: BTreeSet<MessageRef>,
    seen: Vec<Seen>,
    /// Events that the broker has seen, by type.
    heard: Vec<Raw>,
    still: u32,
}

impl World {
    pub fn new(setup: Setup, fate: Box<dyn Fate>) -> Result<World, WorldError> {
        let memory = Memory::new(setup.database)?;
        let mut world = World {
            memory,
            now: Now { wall: setup.start, monotonic_ms: 0 },
            engine: None,
            broker: Broker::new(setup.unclaimed),
            participants: Vec::new(),
            bindings: Vec::new(),
            fate,
            due: BTreeMap::new(),
            counter: 0,
            connection: 0,
            is_away: false,
            postponed: Vec::new(),
            inputs: Vec::new(),
            acks: Vec::new(),
            in_flight: BTreeSet::new(),
            seen: Vec::new(),
            heard: Vec::new(),
            still: 0,
            setup,
        };
        world.start()?;
        Ok(world)
    }

    /// A service joins: its queue is bound.
    pub fn join(&mut self, participant: Box<dyn Participant>) {
        self.bindings.push(Binding { address: participant.address().to_owned(), hears: participant.hears() });
        self.participants.push(participant);
    }

    pub fn now(&self) -> Timestamp {
        self.now.wall
    }

    /// Milliseconds since the world began.
    pub fn elapsed_ms(&self) -> u64 {
        self.now.monotonic_ms
    }

    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// A look into the database.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        Reader::open_in(&self.memory)
    }

    /// Messages that the broker has seen since this was asked last.
    pub fn take_seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    /// What came to the events exchange since this was asked last, from whomever.
    pub fn take_heard(&mut self) -> Vec<Raw> {
        std::mem::take(&mut self.heard)
    }

    /// Puts an event on the bus, after its delay.
    pub fn say(&mut self, reply: Reply) {
        let at = self.now.monotonic_ms.saturating_add(reply.after_ms);
        self.at(at, Due::Said(Box::new(reply)));
    }

    /// Puts a message into the daemon's queue as it is.
    pub fn enqueue(&mut self, raw: Raw) {
        self.broker.enqueue(raw);
    }

    /// Carries out orders, in a batch of their own.
    pub fn order(&mut self, orders: Vec<OrderFor>) -> Result<Vec<OrderResult>, WorldError> {
        let ticket = Ticket(0);
        let mut inputs = std::mem::take(&mut self.inputs);
        inputs.push(Input::Orders(ticket, orders));
        let Some(engine) = self.engine.as_mut() else { return Ok(Vec::new()) };
        let output = engine.batch(inputs, self.now)?;
        let answers = output.answers.clone();
        self.carry_out(output)?;
        let results = answers.into_iter().find_map(|(_, answer)| match answer {
            Answer::Orders(results) => Some(results),
            _ => None,
        });
        Ok(results.unwrap_or_default())
    }

    /// These are the definitions from now on, as after `sagad reload`.
    pub fn reload(&mut self, machines: Vec<Arc<Machine>>) -> Result<(), WorldError> {
        self.setup.machines = machines.clone();
        let mut inputs = std::mem::take(&mut self.inputs);
        inputs.push(Input::Reload(Ticket(0), machines));
        let Some(engine) = self.engine.as_mut() else { return Ok(()) };
        let output = engine.batch(inputs, self.now)?;
        self.broker.types = Types::listed(engine.consumed().clone());
        self.carry_out(output).map(drop)
    }

    /// The broker goes: nothing is delivered, published or confirmed until it is back. What it has, it keeps.
    pub fn broker_away(&mut self) {
        if !self.is_away {
            self.is_away = true;
            self.lose_connection();
        }
    }

    pub fn broker_back(&mut self) {
        if self.is_away {
            self.is_away = false;
            for due in std::mem::take(&mut self.postponed) {
                self.at(self.now.monotonic_ms, due);
            }
            self.connect();
        }
    }

    /// The daemon's connection goes and comes back.
    pub fn reconnect(&mut self) {
        if !self.is_away {
            self.lose_connection();
            self.connect();
        }
    }

    /// The daemon dies, wherever it is.
    pub fn kill(&mut self) {
        self.engine = None;
        self.inputs.clear();
        self.acks.clear();
        self.in_flight.clear();
        self.connection += 1;
        self.broker.disconnect();
    }

    /// The daemon starts from its database.
    pub fn start(&mut self) -> Result<(), WorldError> {
        if self.engine.is_some() {
            return Ok(());
        }
        let store = Store::open_in(&self.memory)?;
        let engine = Engine::open(store, self.setup.machines.clone(), self.setup.settings.clone(), self.now)?;
        self.broker.types = Types::listed(engine.consumed().clone());
        self.engine = Some(engine);
        if !self.is_away {
            self.connect();
        }
        Ok(())
    }

    pub fn restart(&mut self) -> Result<(), WorldError> {
        self.kill();
        self.start()
    }

    /// What is due now happens, one piece of it; if nothing is, the clock goes on, but not past `until_ms`.
    pub fn step(&mut self, until_ms: u64) -> Result<Step, WorldError> {
        if self.happen()? {
            return self.stirred(Step::Happened);
        }
        if self.take_deliveries() || self.engine_is_due()? {
            let step = self.batch()?;
            return self.stirred(step);
        }
        let next = self.next()?;
        match next {
            Some(next) if next <= until_ms => {
                self.forward(next);
                Ok(Step::Waited)
            }
            _ if next.is_none() => Ok(Step::Rest),
            _ => {
                self.forward(until_ms);
                Ok(Step::Rest)
            }
        }
    }

    /// Lets everything happen that happens within `ms`; a daemon that dies is started again.
    pub fn run(&mut self, ms: u64) -> Result<(), WorldError> {
        let until_ms = self.now.monotonic_ms.saturating_add(ms);
        loop {
            match self.step(until_ms)? {
                Step::Rest => break,
                Step::Died(_) => self.start()?,
                Step::Batch | Step::Happened | Step::Waited => {}
            }
        }
        self.forward(until_ms.min(self.now.monotonic_ms.saturating_add(ms)));
        Ok(())
    }

    /// Lets the engine do its chores: the sweep, forgetting, writing down what had time. Takes a few minutes.
    pub fn tidy(&mut self) -> Result<(), WorldError> {
        for _ in 0..3 {
            self.forward(self.now.monotonic_ms.saturating_add(61_000));
            if self.engine.is_some() {
                self.batch()?;
            }
        }
        self.settle()
    }

    /// Lets everything happen that happens without time going by.
    pub fn settle(&mut self) -> Result<(), WorldError> {
        self.run(0)
    }

    /// Somebody sets the wall clock; no other clock minds.
    pub fn set_clock(&mut self, by_ms: i64) {
        self.now.wall = Timestamp(self.now.wall.0.saturating_add(by_ms));
    }

    // ---- the clock ----------------------------------------------------------------------------------------------

    fn forward(&mut self, to_ms: u64) {
        let by = to_ms.saturating_sub(self.now.monotonic_ms);
        if by > 0 {
            self.still = 0;
            self.now.monotonic_ms = to_ms;
            self.now.wall = Timestamp(self.now.wall.0.saturating_add_unsigned(by));
        }
    }

    fn stirred(&mut self, step: Step) -> Result<Step, WorldError> {
        self.still += 1;
        if self.still > STILL_AT_MOST {
            return Err(WorldError::Circles { at: self.now.wall });
        }
        Ok(step)
    }

    fn at(&mut self, at_ms: u64, due: Due) {
        self.counter += 1;
        self.due.insert((at_ms, self.counter), due);
    }

    /// When something happens next.
    fn next(&mut self) -> Result<Option<u64>, WorldError> {
        let happens = self.due.keys().next().map(|(at, _)| *at);
        let now = self.now;
        let engine = match self.engine.as_mut() {
            Some(engine) => engine.next_due(now)?.map(|left| now.monotonic_ms.saturating_add(left.max(1))),
            None => None,
        };
        Ok(happens.into_iter().chain(engine).min())
    }

    // ---- what happens -------------------------------------------------------------------------------------------

    /// Lets the first thing that is due happen; says whether there was one.
    fn happen(&mut self) -> Result<bool, WorldError> {
        let Some(entry) = self.due.first_entry() else { return Ok(false) };
        if entry.key().0 > self.now.monotonic_ms {
            return Ok(false);
        }
        let due = entry.remove();
        if self.is_away {
            self.postponed.push(due);
            return Ok(true);
        }
        match due {
            Due::Inbox(raw) => self.broker.enqueue(raw),
            Due::Handled { participant, message } => self.handle(participant, &message),
            Due::Said(reply) => self.said(*reply),
            Due::Told { connection, at, outcome } => {
                if connection == self.connection && self.in_flight.remove(&at) {
                    self.inputs.push(Input::Published(vec![(at, outcome)]));
                }
            }
        }
        Ok(true)
    }

    fn handle(&mut self, participant: usize, message: &LocalMessage) {
        let replies = self.participants[participant].handle(message, self.now.wall);
        for reply in replies {
            for after_ms in self.fate.reply(&reply).copies_after_ms {
                let at = self.now.monotonic_ms.saturating_add(reply.after_ms).saturating_add(after_ms);
                self.at(at, Due::Said(Box::new(reply.clone())));
            }
        }
    }

    /// A message of a participant's (or of the test's) comes to the events exchange.
    fn said(&mut self, reply: Reply) {
        self.counter += 1;
        let id = reply.message_id.unwrap_or_else(|| format!("said-{}", self.counter));
        let mut properties = Map::new();
        properties.insert("type".to_owned(), Value::from(reply.kind.as_str()));
        properties.insert("message_id".to_owned(), Value::from(id));
        if let Some(correlation) = reply.correlation_id {
            properties.insert("correlation_id".to_owned(), Value::from(correlation));
        }
        if !reply.source.is_empty() {
            properties.insert("app_id".to_owned(), Value::from(reply.source));
        }
        let raw = Raw {
            exchange: self.broker.addresses.events_exchange.clone(),
            routing_key: reply.kind,
            properties,
            headers: reply.headers,
            body: reply.body.to_string().into_bytes(),
            redelivered: false,
        };
        self.publish_event(raw);
    }

    fn publish_event(&mut self, raw: Raw) {
        let wire = Wire {
            exchange: raw.exchange.clone(),
            routing_key: raw.routing_key.clone(),
            mandatory: false,
            properties: crate::bus::envelope::Properties::default(),
            headers: Map::new(),
            body: Vec::new(),
        };
        let routed = self.broker.route(&wire, &self.bindings);
        self.arrive(&raw, routed.daemon, &routed.participants);
        self.heard.push(raw);
    }

    /// A message goes to the queues that are bound.
    fn arrive(&mut self, raw: &Raw, daemon: bool, participants: &[usize]) {
        let now = self.now.monotonic_ms;
        if daemon {
            for after_ms in self.fate.to_daemon(raw).copies_after_ms {
                self.at(now.saturating_add(after_ms), Due::Inbox(raw.clone()));
            }
        }
        for participant in participants {
            let message = local(raw);
            for after_ms in self.fate.to_participant(&message).copies_after_ms {
                let due = Due::Handled { participant: *participant, message: Box::new(message.clone()) };
                self.at(now.saturating_add(after_ms), due);
            }
        }
    }

    /// Deliveries that the daemon has and has not acknowledged, and messages that wait in its queue.
    pub fn undelivered(&self) -> usize {
        self.broker.waiting() + self.broker.unacknowledged()
    }
}

/// A message as a participant sees it.
fn local(raw: &Raw) -> LocalMessage {
    let text = |name: &str| raw.properties.get(name).and_then(Value::as_str).map(str::to_owned);
    let seconds = raw.properties.get("timestamp").and_then(Value::as_i64).unwrap_or_default();
    LocalMessage {
        kind: text("type").unwrap_or_default(),
        routing_key: raw.routing_key.clone(),
        message_id: text("message_id").unwrap_or_default(),
        correlation_id: text("correlation_id").unwrap_or_default(),
        reply_to: text("reply_to"),
        headers: raw.headers.clone(),
        body: serde_json::from_slice(&raw.body).unwrap_or(Value::Null),
        time: Timestamp(seconds.saturating_mul(1000)),
        redelivered: raw.redelivered,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::engine::verify;
    use crate::saga::compile::{SourceFile, load};
    use crate::saga::incident::IncidentKind;
    use crate::saga::instance::Status;
    use crate::store::InstanceRow;
    use crate::world::Calm;

    const SAGA: &str = "\
saga: hire
start:
  HireRequested: { key: event.id, data: { who: \"${event.who}\" } }
defaults: { timeout: 30s, retry: { attempts: 2, delay: 1s } }
states:
  reserve:
    send: desks.Reserve
    with: { who: \"${data.who}\" }
    success: Reserved
    failure: Full
    undo: { send: desks.Release, success: Released }
  enrol:
    send: people.Enrol
    success: Enrolled
    failure: Refused
    undo: { send: people.Dismiss, success: Dismissed }
completed:
  publish: { event: Hired, with: { who: \"${data.who}\" } }
compensated:
  publish: { event: NotHired, with: { why: \"${saga.failure.reason}\" } }
";

    /// Answers each command with the event it was told to.
    struct Service {
        address: &'static str,
        answers: Vec<(&'static str, &'static str)>,
    }

    impl Participant for Service {
        fn address(&self) -> &str {
            self.address
        }

        fn handle(&mut self, message: &LocalMessage, _now: Timestamp) -> Vec<Reply> {
            let answer = self.answers.iter().find(|(command, _)| *command == message.kind);
            answer.map(|(_, event)| Reply::to(message, event, json!({}))).into_iter().collect()
        }
    }

    fn world(services: Vec<Service>) -> World {
        let source = SourceFile { path: "hire.yaml".to_owned(), text: SAGA.to_owned() };
        let loaded = load(&[source]);
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let setup = Setup {
            machines: loaded.machines,
            settings: Settings::default(),
            database: DatabaseId(Uuid::from_u128(7)),
            start: Timestamp(1_893_456_000_000),
            unclaimed: Unclaimed::Return,
        };
        let mut world = World::new(setup, Box::new(Calm)).unwrap();
        for service in services {
            world.join(Box::new(service));
        }
        world
    }

    fn request(id: &str) -> Reply {
        Reply {
            after_ms: 0,
            kind: "HireRequested".to_owned(),
            message_id: Some(format!("request-{id}")),
            correlation_id: None,
            source: String::new(),
            headers: Map::new(),
            body: json!({ "id": id, "who": "ada" }),
        }
    }

    fn only(world: &World) -> InstanceRow {
        let reader = world.reader().unwrap();
        let rows = reader.instances(&crate::store::Selector::default(), None, 10).unwrap().rows;
        assert_eq!(rows.len(), 1);
        let verified = verify(&reader, rows[0].id.no()).unwrap().unwrap();
        assert_eq!(verified.broken, []);
        rows.into_iter().next().unwrap()
    }

    #[test]
    fn a_request_is_granted_when_all_say_yes() {
        let desks = Service { address: "desks", answers: vec![("Reserve", "Reserved")] };
        let people = Service { address: "people", answers: vec![("Enrol", "Enrolled")] };
        let mut world = world(vec![desks, people]);
        world.say(request("1"));
        world.run(60_000).unwrap();
        assert_eq!(only(&world).status, Status::Completed);
        assert!(world.take_heard().iter().any(|raw| raw.routing_key == "Hired"));
        assert_eq!(world.undelivered(), 0);
    }

    #[test]
    fn a_refusal_takes_everything_back() {
        let desks = Service { address: "desks", answers: vec![("Reserve", "Reserved"), ("Release", "Released")] };
        let people = Service { address: "people", answers: vec![("Enrol", "Refused")] };
        let mut world = world(vec![desks, people]);
        world.say(request("1"));
        world.run(60_000).unwrap();
        assert_eq!(only(&world).status, Status::Compensated);
        let sent: Vec<String> = world.take_seen().into_iter().map(|seen| seen.message.kind).collect();
        let commands: Vec<&String> = sent.iter().filter(|kind| !kind.starts_with("sagad.")).collect();
        assert_eq!(commands, ["Reserve", "Enrol", "Release", "NotHired"]);
    }

    #[test]
    fn silence_is_answered_by_the_undo_of_what_may_have_happened() {
        let desks = Service { address: "desks", answers: vec![("Reserve", "Reserved"), ("Release", "Released")] };
        let people = Service { address: "people", answers: vec![("Dismiss", "Dismissed")] };
        let mut world = world(vec![desks, people]);
        world.say(request("1"));
        world.run(300_000).unwrap();
        assert_eq!(only(&world).status, Status::Compensated);
        let sent: Vec<String> = world.take_seen().into_iter().map(|seen| seen.message.kind).collect();
        let commands: Vec<&String> = sent.iter().filter(|kind| !kind.starts_with("sagad.")).collect();
        assert_eq!(commands, ["Reserve", "Enrol", "Enrol", "Dismiss", "Release", "NotHired"]);
    }

    #[test]
    fn a_repeated_message_changes_nothing() {
        let desks = Service { address: "desks", answers: vec![("Reserve", "Reserved")] };
        let people = Service { address: "people", answers: vec![("Enrol", "Enrolled")] };
        let mut world = world(vec![desks, people]);
        world.say(request("1"));
        world.run(60_000).unwrap();
        let turn = only(&world).turn;
        for raw in world.take_heard() {
            world.enqueue(raw);
        }
        world.run(60_000).unwrap();
        assert_eq!(only(&world).turn, turn);
    }

    #[test]
    fn while_the_broker_is_away_no_step_times_out() {
        let desks = Service { address: "desks", answers: vec![("Reserve", "Reserved")] };
        let people = Service { address: "people", answers: vec![] };
        let mut world = world(vec![desks, people]);
        world.say(request("1"));
        world.run(10_000).unwrap();
        let turn = only(&world).turn;
        world.broker_away();
        world.run(3_600_000).unwrap();
        assert_eq!(only(&world).turn, turn);
        world.broker_back();
        world.run(20_000).unwrap();
        assert_eq!(only(&world).turn, turn);
        world.run(300_000).unwrap();
        assert!(only(&world).turn > turn);
    }

    #[test]
    fn a_command_that_nobody_takes_is_an_incident_until_somebody_does() {
        let people = Service { address: "people", answers: vec![("Enrol", "Enrolled")] };
        let mut world = world(vec![people]);
        world.say(request("1"));
        world.run(60_000).unwrap();
        let row = only(&world);
        assert_eq!(row.incident.map(IncidentKind::name), Some("unroutable"));
        world.join(Box::new(Service { address: "desks", answers: vec![("Reserve", "Reserved")] }));
        world.run(60_000).unwrap();
        let row = only(&world);
        assert_eq!((row.status, row.incident), (Status::Completed, None));
    }

    #[test]
    fn a_restart_at_any_moment_loses_nothing() {
        for after in 0..60 {
            let desks = Service { address: "desks", answers: vec![("Reserve", "Reserved")] };
            let people = Service { address: "people", answers: vec![("Enrol", "Enrolled")] };
            let mut world = world(vec![desks, people]);
            world.say(request("1"));
            for _ in 0..after {
                world.step(60_000).unwrap();
            }
            world.restart().unwrap();
            world.run(600_000).unwrap();
            assert_eq!(only(&world).status, Status::Completed, "restarted after {after} steps");
        }
    }
}
