//! The words of the desk: what may be looked at and ordered, and why that may fail. They mean the same whether they
//! come over the socket or from the command line's own process.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::api;
use crate::saga::duration::Span;
use crate::saga::event;
use crate::saga::incident::IncidentKind;
use crate::saga::instance::Status;
use crate::store::StoreError;

/// Which instances. Without anything: all of them, ended ones too.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "they are the flags of the selector, one for each")]
pub struct Select {
    /// Ids, unique prefixes of at least eight characters, or `saga/key`.
    pub ids: Vec<String>,
    pub saga: Option<String>,
    pub key: Option<String>,
    pub status: Vec<Status>,
    pub state: Option<String>,
    pub incident: Option<IncidentKind>,
    pub error: Option<String>,
    pub stuck: bool,
    pub paused: bool,
    pub settling: bool,
    pub older_than: Option<Span>,
    pub stuck_for: Option<Span>,
    pub all: bool,
    pub limit: Option<u64>,
}

impl Select {
    pub fn one(id: &str) -> Select {
        Select { ids: vec![id.to_owned()], ..Select::default() }
    }

    /// Whether nothing was said: an acting verb then refuses.
    pub fn is_empty(&self) -> bool {
        Select { limit: None, ..self.clone() } == Select::default()
    }
}

/// What somebody wants to see.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// `after`: the last id of the page before.
    List {
        select: Select,
        after: Option<String>,
    },
    Show {
        id: String,
    },
    Why {
        id: String,
    },
    /// `GET /v1/sagas/{saga}/{key}`.
    Process {
        saga: String,
        key: String,
    },
    /// `after`: the number of the last turn that was seen, in the order that was asked for.
    Journal {
        id: String,
        reverse: bool,
        after: Option<u64>,
        limit: Option<u64>,
    },
    /// Replays journals: those selected.
    Verify {
        select: Select,
    },
    Status,
    Count {
        select: Select,
        by: Vec<CountBy>,
    },
    Inbox(InboxLook),
    Outbox,
    Definitions,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboxLook {
    /// One message, by its number.
    pub n: Option<i64>,
    /// Neither of the two: both kinds.
    pub unmatched: bool,
    pub dead: bool,
    pub reason: Option<String>,
    /// The message's type.
    pub kind: Option<String>,
    pub older_than: Option<Span>,
    pub limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountBy {
    Saga,
    Status,
    State,
    Incident,
}

impl CountBy {
    pub const ALL: [CountBy; 4] = [CountBy::Saga, CountBy::Status, CountBy::State, CountBy::Incident];

    pub fn name(self) -> &'static str {
        match self {
            CountBy::Saga => "saga",
            CountBy::Status => "status",
            CountBy::State => "state",
            CountBy::Incident => "incident",
        }
    }

    pub fn parse(name: &str) -> Option<CountBy> {
        CountBy::ALL.into_iter().find(|by| by.name() == name)
    }
}

/// What is seen. Each is a document of the contract.
#[derive(Clone, Debug, PartialEq)]
pub enum View {
    Instances(api::Instances),
    Detail(Box<api::Detail>),
    Why(api::Why),
    Process(Box<api::Process>),
    Turns(api::Turns),
    Verified(api::Verified),
    Status(Box<api::Status>),
    Counts(api::Counts),
    Inbox(api::Inbox),
    Outbox(api::Outbox),
    Definitions(api::Definitions),
}

impl View {
    /// The document's text, on one line.
    pub fn json(&self) -> String {
        fn text(document: &impl Serialize) -> String {
            serde_json::to_string(document).expect("documents always serialise")
        }
        match self {
            View::Instances(document) => text(document),
            View::Detail(document) => text(document),
            View::Why(document) => text(document),
            View::Process(document) => text(document),
            View::Turns(document) => text(document),
            View::Verified(document) => text(document),
            View::Status(document) => text(document),
            View::Counts(document) => text(document),
            View::Inbox(document) => text(document),
            View::Outbox(document) => text(document),
            View::Definitions(document) => text(document),
        }
    }

    /// Reads the document that answers this look.
    pub fn read(look: &Look, text: &str) -> Result<View, serde_json::Error> {
        Ok(match look {
            Look::List { .. } => View::Instances(serde_json::from_str(text)?),
            Look::Show { .. } => View::Detail(serde_json::from_str(text)?),
            Look::Why { .. } => View::Why(serde_json::from_str(text)?),
            Look::Process { .. } => View::Process(serde_json::from_str(text)?),
            Look::Journal { .. } => View::Turns(serde_json::from_str(text)?),
            Look::Verify { .. } => View::Verified(serde_json::from_str(text)?),
            Look::Status => View::Status(serde_json::from_str(text)?),
            Look::Count { .. } => View::Counts(serde_json::from_str(text)?),
            Look::Inbox(_) => View::Inbox(serde_json::from_str(text)?),
            Look::Outbox => View::Outbox(serde_json::from_str(text)?),
            Look::Definitions => View::Definitions(serde_json::from_str(text)?),
        })
    }
}

/// An order, as a person gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub select: Select,
    pub verb: event::Verb,
    pub by: String,
    pub reason: Option<String>,
    pub request_id: Option<String>,
    pub expect_turn: Option<u64>,
    pub dry_run: bool,
}

/// An event that a person puts on the bus.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    pub kind: String,
    /// `None`: a new one.
    pub id: Option<String>,
    pub correlation_id: Option<String>,
    pub source: Option<String>,
    pub headers: Map<String, Value>,
    pub body: Value,
    pub by: String,
    pub reason: Option<String>,
}

/// An event that comes in beside the bus: `POST /v1/events`.
#[derive(Clone, Debug, PartialEq)]
pub struct Arriving {
    pub kind: String,
    pub id: Option<String>,
    pub source: String,
    pub correlation_id: Option<String>,
    pub data: Value,
}

/// Why the desk did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    #[error("{message}")]
    Usage { message: String, hint: Option<String> },
    #[error("{message}")]
    NotFound { message: String, hint: Option<String> },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{message}")]
    Failed { message: String, hint: Option<String> },
    /// The daemon is about to stop.
    #[error("the daemon is stopping")]
    Stopping,
}

impl DeskError {
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> DeskError {
        DeskError::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    pub fn not_found(message: impl Into<String>, hint: impl Into<String>) -> DeskError {
        DeskError::NotFound { message: message.into(), hint: Some(hint.into()) }
    }

    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            DeskError::Usage { .. } => "usage",
            DeskError::NotFound { .. } => "not-found",
            DeskError::Store(StoreError::TooMuch) => "too-much",
            DeskError::Store(StoreError::Missing { .. }) => "no-database",
            DeskError::Store(_) => "database",
            DeskError::Failed { .. } => "failed",
            DeskError::Stopping => "stopping",
        }
    }

    pub fn hint(&self) -> Option<&str> {
        match self {
            DeskError::Usage { hint, .. } | DeskError::NotFound { hint, .. } | DeskError::Failed { hint, .. } => {
                hint.as_deref()
            }
            DeskError::Store(StoreError::TooMuch) => Some("name a saga, a status or a --limit"),
            DeskError::Store(_) => None,
            DeskError::Stopping => Some("ask again when it runs"),
        }
    }

    /// As the admin interface tells it.
    pub fn document(&self) -> api::Error {
        api::Error {
            format: api::Format,
            error: api::ErrorBody {
                code: self.code().to_owned(),
                message: self.to_string(),
                hint: self.hint().map(str::to_owned),
            },
        }
    }
}
