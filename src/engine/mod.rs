//! Where saga and store meet: one thread, one transaction a batch. This file holds the words that the stages say to
//! each other; `run` is the thread, `batch` one transaction, `turn` one input.
//!
//! Nothing calls backwards: whatever must come back (a confirm, a reconnect, an order, a due timer) enters at the
//! front as another [`Input`]. Nothing in here but `run` reads a clock, and nothing knows AMQP or SQL.

mod batch;
mod catalog;
mod clock;
mod confirms;
mod handle;
mod intake;
mod load;
mod orders;
mod outbox;
mod recent;
mod run;
mod sweep;
mod timers;
mod turn;
mod verify;

use std::sync::Arc;

pub use batch::Engine;
pub use catalog::{Catalog, Loaded, Saga};
pub use handle::{Asked, Consumed, EngineGone, EngineHandle, Inflow, Outflow, Report, Request, channels};
pub use run::{Running, start, wall_clock};
pub use verify::{BrokenTurn, Verified, verify};

use serde_json::{Map, Value};

use crate::saga::effect::Outgoing;
use crate::saga::event::{Message, Order};
use crate::saga::ids::InstanceId;
use crate::saga::instance::{Marks, Status};
use crate::saga::machine::Machine;
use crate::saga::step::Refusal;
use crate::saga::time::Timestamp;
pub use crate::store::MessageRef;
use crate::store::StoreError;

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot start the engine's thread: {reason}")]
    Thread { reason: String },
}

/// What comes in at the front.
#[derive(Debug)]
pub enum Input {
    Delivery(Delivery),
    /// A message that came in beside the bus (HTTP); the ticket is answered once it is durable.
    Accept(Ticket, Delivery),
    /// What became of messages that were handed out; on a lane of its own, as long as what may be unconfirmed.
    Published(Vec<(MessageRef, Published)>),
    /// The daemon began or ceased to consume and publish.
    Bus(BusState),
    /// Orders for instances, carried out in one batch, each for itself.
    Orders(Ticket, Vec<OrderFor>),
    /// An operator's event, through the outbox.
    Publish(Ticket, EventToPublish),
    /// The definitions as they are to be from now on; whole, checked before.
    Reload(Ticket, Vec<Arc<Machine>>),
}

/// Names who waits for the answer to an input; chosen by who asks, unique among what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A message as the broker delivered it, decoded where that was possible.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What acknowledges it; `None` for a message that came in otherwise (HTTP, a scenario).
    pub ack: Option<AckToken>,
    pub raw: Arc<Raw>,
    pub message: Result<Message, Bad>,
    /// It came from the queue of what passed the delivery limit: kept as a dead letter.
    pub dead: bool,
}

/// Names one delivery on one channel: after a reconnect an old one says nothing to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AckToken {
    pub channel: u64,
    pub tag: u64,
}

/// The bytes and properties as they came, for what has to be set aside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Raw {
    pub exchange: String,
    pub routing_key: String,
    pub properties: Map<String, Value>,
    pub headers: Map<String, Value>,
    pub body: Vec<u8>,
    pub redelivered: bool,
}

/// Why a delivery is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub reason: BadReason,
    pub error: String,
    /// What could be told of it nevertheless.
    pub kind: Option<String>,
    pub message_id: Option<String>,
    pub source: String,
    pub correlation_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadReason {
    NotJson,
    TooLarge,
    TooDeep,
    NoType,
    BadProperty,
    /// An expression failed before an instance was found.
    Expression,
    DeliveryLimit,
}

impl BadReason {
    pub fn name(self) -> &'static str {
        match self {
            BadReason::NotJson => "not-json",
            BadReason::TooLarge => "too-large",
            BadReason::TooDeep => "too-deep",
            BadReason::NoType => "no-type",
            BadReason::BadProperty => "bad-property",
            BadReason::Expression => "expression",
            BadReason::DeliveryLimit => "delivery-limit",
        }
    }
}

/// What the broker said of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    Confirmed,
    /// No queue takes it.
    Returned {
        reason: String,
    },
    Nacked,
    /// The connection went before it was told: it will be published again, with the same id.
    Unknown,
    /// The broker closes the channel over this very message, again and again.
    Rejected {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusState {
    /// It consumes and publishes; `waiting` messages stood in the queue when it began.
    Up {
        waiting: u64,
    },
    Down {
        error: String,
    },
}

/// An order for one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderFor {
    pub instance: InstanceId,
    pub order: Order,
    pub mode: OrderMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderMode {
    ForReal,
    /// What would happen; nothing changes, nothing is recorded.
    DryRun,
}

/// An event that an operator puts on the bus.
#[derive(Clone, Debug, PartialEq)]
pub struct EventToPublish {
    pub kind: String,
    pub message_id: String,
    pub correlation_id: Option<String>,
    pub source: Option<String>,
    pub headers: Map<String, Value>,
    pub body: Value,
    pub by: String,
    pub reason: Option<String>,
}

/// What an instance looks like from outside, before and after an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub status: Status,
    pub state: String,
    pub marks: Marks,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OrderResult {
    pub instance: InstanceId,
    pub saga: String,
    pub key: String,
    pub verdict: OrderVerdict,
    pub from: Option<Standing>,
    pub to: Option<Standing>,
    /// Commands and events that go out; lifecycle events are left out.
    pub messages: Vec<Outgoing>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderVerdict {
    Done,
    /// The same request id has acted already; nothing was done now.
    DoneBefore,
    NoSuchInstance,
    Refused {
        code: Refusal,
        message: String,
    },
}

/// What an input with a ticket came to, told after its commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Orders(Vec<OrderResult>),
    /// The event is in the outbox, under this message id.
    Published(String),
    /// The message and its consequence are durable.
    Accepted,
    /// How many definitions are loaded now.
    Reloaded(usize),
}

/// What a committed batch asks of the stages around the engine.
#[derive(Debug, Default)]
pub struct Output {
    /// To be acknowledged: their consequence is durable.
    pub acks: Vec<AckToken>,
    /// To be published, in this order.
    pub publish: Vec<(MessageRef, Outgoing)>,
    pub answers: Vec<(Ticket, Answer)>,
}

/// The time at which a batch is handled. The only source of time below `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub wall: Timestamp,
    /// Milliseconds of a clock that never goes back, for the listening clock.
    pub monotonic_ms: u64,
}

/// How the engine works; the daemon fills it in from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Inputs of one transaction: enough that they share the fsync, few enough that nobody waits long.
    pub max_batch: usize,
    /// Timers fired a second at most, so that many due at once are no storm.
    pub timer_rate: u32,
    /// Messages that the broker may have without having confirmed them.
    pub window: usize,
    /// How long after the daemon consumes again the listening clock still stands.
    pub grace_ms: u64,
    /// How long a stop waits for confirms.
    pub shutdown_after_ms: u64,
    /// Whether lifecycle events go out.
    pub lifecycle_events: bool,
    pub retention: Retention,
}

/// How long what is over is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub ended_ms: u64,
    pub inbox_ms: u64,
    pub orders_ms: u64,
    pub aside_ms: u64,
    pub aside_rows: u64,
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_batch: 256,
            timer_rate: 2_000,
            window: 1_024,
            grace_ms: 5_000,
            shutdown_after_ms: 5_000,
            lifecycle_events: true,
            retention: Retention::default(),
        }
    }
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            ended_ms: 30 * DAY_MS,
            inbox_ms: 7 * DAY_MS,
            orders_ms: 400 * DAY_MS,
            aside_ms: 30 * DAY_MS,
            aside_rows: 100_000,
        }
    }
}
