//! Everything that can happen to an instance. A new outside cause is a new variant here, nothing else.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::exact;
use super::ids::CommandId;
use super::incident::IncidentKind;
use super::machine::Place;
use super::time::Timestamp;

/// A message from the bus, decoded; as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    pub time: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty", deserialize_with = "exact::fields")]
    pub headers: Map<String, Value>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub routing_key: String,
    #[serde(deserialize_with = "exact::value")]
    pub body: Value,
}

/// What one turn is given: the input, the time at which it is handled, and what the outbox knows of returned commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Given {
    pub at: Timestamp,
    pub input: Input,
    /// Commands whose every publish was returned, with none under way or unknown: nobody can have acted on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<Subject>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// The event that starts the instance; its first turn.
    Start(Message),
    /// An event that found the instance by `events`, or that is none of the answers of the command it names.
    Event(Message),
    /// An answer to the command with this id.
    Answer {
        command: CommandId,
        message: Message,
    },
    /// A timer of the instance's is due; `serial` names it for good, so that a stale one is known.
    Timer {
        serial: u32,
    },
    /// The broker has the message that carries this.
    Confirmed(Subject),
    /// The broker returned it: no queue takes it.
    Returned {
        subject: Subject,
        reason: String,
    },
    Order(Order),
    /// What went wrong in the turn of `kept`, found outside of the core (a panic, a definition that cannot be loaded).
    Fault {
        fault: Fault,
        kept: Box<Input>,
    },
    /// The sweep found that nothing will ever move this instance.
    Stalled,
}

/// Which question of an instance a message carries; `index` is the place in `Instance::steps`, which never shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Subject {
    Step {
        index: u32,
        attempt: u32,
    },
    Undo {
        index: u32,
        question: u32,
        attempt: u32,
    },
    /// A command that nobody waits for: sent in a transition or at the end.
    Loose {
        turn: u64,
        place: u32,
    },
}

/// Why a turn could not be taken; opens the incident of that kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub kind: IncidentKind,
    pub error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub verb: Verb,
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Refused if the instance has been moved since this turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_turn: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Verb {
    /// Resolve what is open by trying again; `step` (as in the header `saga-state`) names one of several.
    Retry {
        step: Option<String>,
    },
    Compensate,
    Resolve {
        step: String,
        verdict: Verdict,
    },
    Skip,
    Decide {
        choice: String,
        question: Option<u32>,
        #[serde(deserialize_with = "exact::fields")]
        fields: Map<String, Value>,
    },
    Set {
        #[serde(deserialize_with = "exact::pairs")]
        values: Vec<(Vec<String>, Value)>,
    },
    Goto {
        state: String,
    },
    Send {
        message: Message,
    },
    Fire {
        timer: String,
    },
    Pause,
    Resume,
    Abandon,
}

/// What a person found out about a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Verdict {
    /// It happened; `body` counts as the success's body.
    Done {
        #[serde(deserialize_with = "exact::value")]
        body: Value,
    },
    Refused,
    /// A person took it back.
    Undone,
}

impl Input {
    /// In a few words, for a person.
    pub fn describe(&self) -> String {
        match self {
            Input::Start(message) => format!("start by {}", message.kind),
            Input::Event(message) => format!("event {}", message.kind),
            Input::Answer { message, .. } => format!("answer {}", message.kind),
            Input::Timer { serial } => format!("timer {serial}"),
            Input::Confirmed(_) => "confirm".to_owned(),
            Input::Returned { reason, .. } => format!("returned: {reason}"),
            Input::Order(order) => format!("order {} by {}", order.verb.name(), order.by),
            Input::Fault { fault, .. } => format!("fault {}: {}", fault.kind, fault.error),
            Input::Stalled => "sweep".to_owned(),
        }
    }
}

impl Verb {
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Retry { .. } => "retry",
            Verb::Compensate => "compensate",
            Verb::Resolve { .. } => "resolve",
            Verb::Skip => "skip",
            Verb::Decide { .. } => "decide",
            Verb::Set { .. } => "set",
            Verb::Goto { .. } => "goto",
            Verb::Send { .. } => "send",
            Verb::Fire { .. } => "fire",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Abandon => "abandon",
        }
    }
}
