//! Why an instance cannot go on by itself, what that stops, and what `retry` means for it.

use serde::{Deserialize, Serialize};

use super::event::Input;
use super::machine::Place;
use super::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IncidentKind {
    UndoFailed,
    NoWayBack,
    Unroutable,
    LateSuccess,
    Raised,
    Stalled,
    Expression,
    Endless,
    TooLarge,
    Panic,
    Definition,
}

impl IncidentKind {
    pub const ALL: [IncidentKind; 11] = [
        IncidentKind::UndoFailed,
        IncidentKind::NoWayBack,
        IncidentKind::Unroutable,
        IncidentKind::LateSuccess,
        IncidentKind::Raised,
        IncidentKind::Stalled,
        IncidentKind::Expression,
        IncidentKind::Endless,
        IncidentKind::TooLarge,
        IncidentKind::Panic,
        IncidentKind::Definition,
    ];

    pub fn name(self) -> &'static str {
        match self {
            IncidentKind::UndoFailed => "undo-failed",
            IncidentKind::NoWayBack => "no-way-back",
            IncidentKind::Unroutable => "unroutable",
            IncidentKind::LateSuccess => "late-success",
            IncidentKind::Raised => "raised",
            IncidentKind::Stalled => "stalled",
            IncidentKind::Expression => "expression",
            IncidentKind::Endless => "endless",
            IncidentKind::TooLarge => "too-large",
            IncidentKind::Panic => "panic",
            IncidentKind::Definition => "definition",
        }
    }

    pub fn parse(name: &str) -> Option<IncidentKind> {
        IncidentKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Stops the whole instance: its events, timers and deadline wait, in order, until the incident closes.
    pub fn stops_instance(self) -> bool {
        matches!(
            self,
            IncidentKind::Expression
                | IncidentKind::Endless
                | IncidentKind::TooLarge
                | IncidentKind::Panic
                | IncidentKind::Definition
        )
    }
}

impl std::fmt::Display for IncidentKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An open incident; closed ones live in the store's history alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Counts up within the instance, from 1.
    pub number: u32,
    pub kind: IncidentKind,
    /// The state that the incident belongs to.
    pub state: String,
    /// Place in `Instance::steps` of the step that it stops, where it stops one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    pub error: String,
    /// Where in the definition, for an expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    pub opened_at: Timestamp,
    /// The transition that `retry` takes again, where the incident is one that a transition raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// What `retry` handles again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Box<Input>>,
}

/// A place in the definition that leads somewhere: what a raised incident came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    Success { index: u32, event: String },
    Failure { index: u32, event: String },
    Timeout { index: u32 },
    On { event: String },
    Timer { name: String },
    Deadline,
    Choose,
    Choice { name: String },
}
