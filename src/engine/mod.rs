//! Where saga and store meet: one thread, one transaction a batch. This file holds the words that the stages say to
//! each other; `run` is the thread, `turn` one input.
//!
//! Nothing calls backwards: whatever must come back (a confirm, a reconnect, an order, a due timer) enters at the
//! front as another [`Input`].

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::saga::effect::Outgoing;
use crate::saga::event::{Message, Order};
use crate::saga::ids::InstanceId;
use crate::saga::time::Timestamp;
pub use crate::store::MessageRef;

/// What comes in at the front.
#[derive(Debug)]
pub enum Input {
    Delivery(Delivery),
    /// What became of messages that were handed out; on a lane of its own, as long as what may be unconfirmed.
    Published(Vec<(MessageRef, Published)>),
    /// The daemon began or ceased to consume and publish.
    Bus(BusState),
    /// Orders for instances, carried out in one batch, each for itself.
    Orders(Vec<OrderFor>),
}

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
    Returned { reason: String },
    Nacked,
    /// The connection went before it was told: it will be published again, with the same id.
    Unknown,
    /// The broker closes the channel over this very message, again and again.
    Rejected { reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusState {
    /// It consumes and publishes; `waiting` messages stood in the queue when it began.
    Up { waiting: u64 },
    Down { error: String },
}

/// An order, and where its result goes.
#[derive(Debug)]
pub struct OrderFor {
    pub instance: InstanceId,
    pub order: Order,
    /// Done for real and rolled back.
    pub dry_run: bool,
}

/// What a committed batch asks of the stages around the engine.
#[derive(Debug, Default)]
pub struct Output {
    /// To be acknowledged: their consequence is durable.
    pub acks: Vec<AckToken>,
    /// To be published, in this order.
    pub publish: Vec<(MessageRef, Outgoing)>,
}

/// The time at which a batch is handled. The only source of time below `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub wall: Timestamp,
    /// Milliseconds of a clock that never goes back, for the listening clock.
    pub monotonic_ms: u64,
}
