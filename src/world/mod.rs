//! A virtual clock and a local broker, in which demo, tests and scenarios run the real engine: the same two channels
//! as AMQP, no threads, no sleeping, no chance but what a caller seeds. Nothing here decides anything about sagas.

mod broker;
mod fate;
mod run;

use serde_json::{Map, Value};

pub use fate::{Calm, Carriage, Fate, Point, Verdict};
pub use run::{Seen, Setup, Step, World, WorldError};

use crate::saga::time::Timestamp;

/// What the broker does with a command that no participant's queue takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclaimed {
    /// As on the wire: it is returned.
    Return,
    /// Somebody outside of the world has it: a scenario, which answers in its own time.
    Take,
}

/// A message as a participant gets it from its queue.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalMessage {
    /// The property `type`.
    pub kind: String,
    pub routing_key: String,
    pub message_id: String,
    /// Of a command: the command id, the same for each attempt and redelivery.
    pub correlation_id: String,
    pub reply_to: Option<String>,
    /// `saga`, `saga-id`, `saga-key`, `saga-op`, `saga-attempt`, `saga-undoes`, …, as on the wire.
    pub headers: Map<String, Value>,
    pub body: Value,
    /// The property `timestamp`.
    pub time: Timestamp,
    pub redelivered: bool,
}

/// A message that a participant publishes to the events exchange, some time after it handled what it answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub after_ms: u64,
    /// The property `type`, and the routing key.
    pub kind: String,
    /// `None`: one is made that is unique in the world. The same text twice is a repetition.
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    /// The property `app_id`.
    pub source: String,
    pub headers: Map<String, Value>,
    pub body: Value,
}

impl Reply {
    /// The ordinary answer: at once, with the command's correlation id.
    pub fn to(command: &LocalMessage, kind: &str, body: Value) -> Reply {
        Reply {
            after_ms: 0,
            kind: kind.to_owned(),
            message_id: None,
            correlation_id: Some(command.correlation_id.clone()),
            source: String::new(),
            headers: Map::new(),
            body,
        }
    }
}

/// A service in the world: a queue bound to `<address>.*` of the commands exchange and to the event types it hears.
pub trait Participant {
    fn address(&self) -> &str;

    /// Event types of the events exchange that come to its queue too.
    fn hears(&self) -> Vec<String> {
        Vec::new()
    }

    /// Handles one message whole; what it answers goes out after its own commit, so to speak.
    fn handle(&mut self, message: &LocalMessage, now: Timestamp) -> Vec<Reply>;
}
