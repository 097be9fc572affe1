//! The two ends of the engine's channels: the handle by which the other stages speak to it, and the outflow that they
//! read. Every channel has a limit; nothing in here decides anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    AckToken, Answer, BusState, Delivery, EventToPublish, Input, MessageRef, OrderFor, OrderResult, Published,
    Settings, Ticket,
};
use crate::saga::effect::Outgoing;
use crate::saga::machine::{Machine, Origin};

/// Batches of acknowledgements that may wait for the consumer; more stay with the engine, which never waits for it.
const ACKS_LIMIT: usize = 64;
/// Requests of operators and of HTTP that may wait for their turn; who asks beyond that waits to ask.
const REQUESTS_LIMIT: usize = 64;

/// The engine has stopped; why, its thread tells who joins it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct EngineGone;

/// The event types that the definitions consume, those with live instances among them, and where each comes in when
/// that is not the events exchange with its type as routing key.
pub type Consumed = BTreeMap<String, Option<Origin>>;

/// What the engine tells of itself after each batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub batches: u64,
    pub inputs: u64,
    pub turns: u64,
    pub timers: u64,
    /// Messages that came without an id and cannot be told from a repetition.
    pub without_id: u64,
    pub repeated: u64,
    /// Start events whose `when` did not hold, and others that are counted and nothing else.
    pub counted_only: u64,
    /// Handed out and not confirmed.
    pub unconfirmed: usize,
    /// Rows older than what has been handed out wait in the database.
    pub backlog: bool,
}

/// By this the other stages speak to the engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    deliveries: mpsc::Sender<Input>,
    outcomes: mpsc::Sender<Vec<(MessageRef, Published)>>,
    requests: mpsc::Sender<Request>,
    stop: mpsc::Sender<()>,
    consumed: watch::Receiver<Arc<Consumed>>,
    report: watch::Receiver<Report>,
}

/// What the engine wants done; read by the bus.
#[derive(Debug)]
pub struct Outflow {
    /// To be acknowledged, in batches.
    pub acks: mpsc::Receiver<Vec<AckToken>>,
    /// To be published, in order: messages of one commit together.
    pub publish: mpsc::Receiver<Vec<(MessageRef, Outgoing)>>,
}

/// The engine's own ends; also for a test that stands in for the engine.
#[derive(Debug)]
pub struct Inflow {
    pub deliveries: mpsc::Receiver<Input>,
    pub outcomes: mpsc::Receiver<Vec<(MessageRef, Published)>>,
    pub requests: mpsc::Receiver<Request>,
    pub stop: mpsc::Receiver<()>,
    pub acks: mpsc::Sender<Vec<AckToken>>,
    pub publish: mpsc::Sender<Vec<(MessageRef, Outgoing)>>,
    pub consumed: watch::Sender<Arc<Consumed>>,
    pub report: watch::Sender<Report>,
}

/// What somebody waits for.
#[derive(Debug)]
pub struct Request {
    pub what: Asked,
    pub answer: oneshot::Sender<Answer>,
}

#[derive(Debug)]
pub enum Asked {
    Accept(Delivery),
    Orders(Vec<OrderFor>),
    Publish(EventToPublish),
    Reload(Vec<Arc<Machine>>),
}

impl Asked {
    pub fn into_input(self, ticket: Ticket) -> Input {
        match self {
            Asked::Accept(delivery) => Input::Accept(ticket, delivery),
            Asked::Orders(orders) => Input::Orders(ticket, orders),
            Asked::Publish(event) => Input::Publish(ticket, event),
            Asked::Reload(machines) => Input::Reload(ticket, machines),
        }
    }
}

pub fn channels(settings: &Settings, consumed: Consumed) -> (EngineHandle, Inflow, Outflow) {
    let window = settings.window.max(1);
    // Twice a batch: one is being handled while the next queues up.
    let (deliveries, deliveries_in) = mpsc::channel(settings.max_batch.max(1) * 2);
    // As long as what may be unconfirmed, so that who confirms never waits for the engine, nor the engine for him.
    let (outcomes, outcomes_in) = mpsc::channel(window);
    let (requests, requests_in) = mpsc::channel(REQUESTS_LIMIT);
    let (stop, stop_in) = mpsc::channel(1);
    let (acks_out, acks) = mpsc::channel(ACKS_LIMIT);
    let (publish_out, publish) = mpsc::channel(window);
    let (consumed_out, consumed) = watch::channel(Arc::new(consumed));
    let (report_out, report) = watch::channel(Report::default());
    (
        EngineHandle { deliveries, outcomes, requests, stop, consumed, report },
        Inflow {
            deliveries: deliveries_in,
            outcomes: outcomes_in,
            requests: requests_in,
            stop: stop_in,
            acks: acks_out,
            publish: publish_out,
            consumed: consumed_out,
            report: report_out,
        },
        Outflow { acks, publish },
    )
}

impl EngineHandle {
    /// Hands over one delivery; waits while the engine has enough to do. Whoever reads `Outflow::acks` must go on
    /// reading meanwhile.
    pub async fn deliver(&self, delivery: Delivery) -> Result<(), EngineGone> {
        self.deliveries.send(Input::Delivery(delivery)).await.map_err(|_| EngineGone)
    }

    /// What the broker said of messages that were handed out; never waits, as long as each is told once.
    pub async fn published(&self, outcomes: Vec<(MessageRef, Published)>) -> Result<(), EngineGone> {
        if outcomes.is_empty() {
            return Ok(());
        }
        self.outcomes.send(outcomes).await.map_err(|_| EngineGone)
    }

    /// The daemon began or ceased to consume and publish. `Up` must be told before the first delivery that follows it;
    /// what a lost connection left unknown, before `Down` or at the latest before the next `Up`.
    pub async fn bus(&self, state: BusState) -> Result<(), EngineGone> {
        self.deliveries.send(Input::Bus(state)).await.map_err(|_| EngineGone)
    }

    /// Takes a message that came in beside the bus; returns once it and its consequence are durable.
    pub async fn accept(&self, delivery: Delivery) -> Result<(), EngineGone> {
        match self.ask(Asked::Accept(delivery)).await? {
            Answer::Accepted => Ok(()),
            _ => Err(EngineGone),
        }
    }

    /// Carries out orders, each for itself, and returns one result for each, in the same order.
    pub async fn order(&self, orders: Vec<OrderFor>) -> Result<Vec<OrderResult>, EngineGone> {
        match self.ask(Asked::Orders(orders)).await? {
            Answer::Orders(results) => Ok(results),
            _ => Err(EngineGone),
        }
    }

    /// Puts an event on the bus through the outbox; returns its message id once the row is durable.
    pub async fn publish(&self, event: EventToPublish) -> Result<String, EngineGone> {
        match self.ask(Asked::Publish(event)).await? {
            Answer::Published(id) => Ok(id),
            _ => Err(EngineGone),
        }
    }

    /// These are the definitions from now on (all of them, compiled and checked); returns how many are loaded.
    pub async fn reload(&self, machines: Vec<Arc<Machine>>) -> Result<usize, EngineGone> {
        match self.ask(Asked::Reload(machines)).await? {
            Answer::Reloaded(loaded) => Ok(loaded),
            _ => Err(EngineGone),
        }
    }

    /// Finish the batch, wait for confirms, end. Returns at once; join the thread to know when it is done.
    pub fn stop(&self) {
        // Full means that a stop is on its way already; closed, that it has ended.
        let _ = self.stop.try_send(());
    }

    /// The event types to be bound; changes with a reload and when the last instance of an old version has ended.
    pub fn consumed(&self) -> watch::Receiver<Arc<Consumed>> {
        self.consumed.clone()
    }

    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    async fn ask(&self, what: Asked) -> Result<Answer, EngineGone> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request { what, answer }).await.map_err(|_| EngineGone)?;
        answered.await.map_err(|_| EngineGone)
    }
}
