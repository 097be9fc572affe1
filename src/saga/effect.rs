//! Everything an instance can ask for. A new outside action is a new variant here, nothing else.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::event::{Message, Subject};
use super::ids::InstanceId;
use super::json::{self, Limits};
use super::time::Timestamp;

/// JSON text as it goes out, byte for byte.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    pub fn of(value: &Value) -> Json {
        let text = serde_json::to_string(value).expect("a JSON value always serialises");
        Json(RawValue::from_string(text).expect("serialised JSON is JSON"))
    }

    pub fn text(&self) -> &str {
        self.0.get()
    }

    pub fn value(&self) -> Value {
        json::parse(self.0.get().as_bytes(), &Limits::STORED).expect("kept JSON is JSON")
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        self.text() == other.text()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Send(Outgoing),
    /// Nobody can have acted on this message: it is not to be published again.
    Withdraw(Subject),
    /// A message that the broker returned is to be published again now.
    Republish(Subject),
    /// A message that had been kept and now finds nobody waiting.
    SetAside {
        reason: Unmatched,
        message: Message,
    },
}

/// A message that goes out: a row of the journal before it is a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outgoing {
    pub to: Destination,
    /// The property `type`.
    #[serde(rename = "type")]
    pub kind: String,
    pub message_id: Uuid,
    pub correlation_id: String,
    /// The time of the turn.
    pub at: Timestamp,
    pub body: Json,
    /// The definition's own headers.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub headers: Map<String, Value>,
    /// The trace id (32 hex digits) where one was inherited; else the instance's id is the trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Present for commands and undos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandPart>,
    /// Present for an event that an operator puts on the bus: what a person may choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Chosen>,
    /// Whose message it is; from the instance's row, not kept with the message. `None`: an operator's `publish`.
    #[serde(skip)]
    pub stamp: Option<Stamp>,
}

/// What an operator's event has instead of what is derived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    pub message_id: String,
    /// The property `app_id`, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Outgoing {
    /// The property `message_id`.
    pub fn id(&self) -> String {
        match &self.chosen {
            Some(chosen) => chosen.message_id.clone(),
            None => self.message_id.to_string(),
        }
    }
}

/// What a command carries beside what every message carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandPart {
    /// Who hears of its confirm or return.
    pub subject: Subject,
    /// Header `saga-state`; `None` for one that was sent in a transition (its state is then `state`).
    pub state: String,
    /// Header `saga-attempt`.
    pub attempt: u32,
    /// Header `saga-undoes`: there for an undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<String>,
    /// What starts when the broker has it: the limit, as the header `saga-timeout-ms` tells it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Somebody answers, so `reply_to` is given.
    pub awaits: bool,
}

/// A timer on the listening clock that begins with the broker's confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// [`super::instance::Timer::serial`].
    pub serial: u32,
    pub after_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub id: InstanceId,
    pub saga: String,
    pub key: String,
}

/// Where a message goes; exchange and routing key are looked up when it is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Destination {
    /// Exchange `commands` (or where the configuration leads the address), key `<address>.<Command>`; mandatory.
    Command { address: String },
    /// Exchange `events`, key = type.
    Event,
    /// Through the default exchange to the `reply_to` of the message that is answered.
    Queue { name: String },
    /// Exchange `events`, key = type, as a structured CloudEvent; left out where lifecycle events are turned off.
    Lifecycle,
}

/// Why a message found nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unmatched {
    UnknownType,
    NoInstance,
    Ended,
    NotWaiting,
    Ambiguous,
    IdReused,
    Expired,
    Overflow,
}

impl Unmatched {
    pub fn name(self) -> &'static str {
        match self {
            Unmatched::UnknownType => "unknown-type",
            Unmatched::NoInstance => "no-instance",
            Unmatched::Ended => "ended",
            Unmatched::NotWaiting => "not-waiting",
            Unmatched::Ambiguous => "ambiguous",
            Unmatched::IdReused => "id-reused",
            Unmatched::Expired => "expired",
            Unmatched::Overflow => "overflow",
        }
    }
}
