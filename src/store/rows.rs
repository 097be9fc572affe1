//! The words in which the store speaks of instances, turns and timers. Plain data; no SQL.

use serde::{Deserialize, Serialize};

use crate::saga::effect::Outgoing;
use crate::saga::event::Given;
use crate::saga::ids::InstanceNo;
use crate::saga::instance::{Instance, Status};

/// The store's number of a saga's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SagaNo(pub i64);

/// SHA-256, cut to 16 bytes: enough to find rot and carelessness, which is what it is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainDigest(pub [u8; 16]);

impl std::fmt::Display for ChainDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for ChainDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The last row of an instance's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub seq: i64,
    pub digest: ChainDigest,
}

/// An instance as it was read: its row's checksum held.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub instance: Instance,
    pub head: Head,
}

/// Whether a row of the journal moved its instance or is a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    Moved,
    Noted,
}

/// One turn, to be written.
#[derive(Clone, Copy, Debug)]
pub struct TurnRow<'a> {
    /// `None`: this turn starts the instance.
    pub before: Option<&'a Stored>,
    pub after: &'a Instance,
    pub given: &'a Given,
    pub messages: &'a [Outgoing],
    pub weight: Weight,
    pub changed: &'a [String],
    pub notes: &'a [String],
    /// The listening clock of the instance's saga, now.
    pub listening_ms: u64,
}

/// What a timer runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clock {
    /// Due times are milliseconds since 1970.
    Wall,
    /// Due times are milliseconds of this saga's listening clock.
    Listening(SagaNo),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueTimer {
    pub instance: InstanceNo,
    pub serial: u32,
    pub due: i64,
}

/// A timer's row, whatever its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerRow {
    pub serial: u32,
    pub clock: Clock,
    /// `None`: not started, or held.
    pub due: Option<i64>,
    /// What was left when its instance was held.
    pub left_ms: Option<u64>,
}

/// Where an instance stands, or stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    pub status: Status,
    pub state: String,
}

impl Stand {
    pub fn of(instance: &Instance) -> Stand {
        Stand { status: instance.status, state: instance.state.clone() }
    }
}
