//! What could not be handled: dead letters and unmatched messages, with their reasons. Kept whole, bounded in number,
//! and a message that comes again adds no second row.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::batch::Batch;
use super::chain::cut;
use super::codes;
use super::error::StoreError;
use crate::saga::effect::Unmatched;
use crate::saga::ids::InstanceId;
use crate::saga::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AsideKind {
    /// It could not be read.
    Dead,
    /// It could be read, and nobody takes it.
    Unmatched,
}

impl AsideKind {
    pub fn name(self) -> &'static str {
        match self {
            AsideKind::Dead => "dead",
            AsideKind::Unmatched => "unmatched",
        }
    }
}

/// An instance that nearly took a message, and why it did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Near {
    pub id: InstanceId,
    pub why: String,
}

/// A message to be set aside.
#[derive(Clone, Copy, Debug)]
pub struct Aside<'a> {
    pub kind: AsideKind,
    pub reason: &'a str,
    /// What was wrong with it, in words.
    pub error: Option<&'a str>,
    pub message_type: Option<&'a str>,
    pub message_id: Option<&'a str>,
    pub source: &'a str,
    pub correlation_id: Option<&'a str>,
    pub exchange: &'a str,
    pub routing_key: &'a str,
    pub received_at: Timestamp,
    pub properties: &'a Map<String, Value>,
    pub headers: &'a Map<String, Value>,
    pub body: &'a [u8],
    pub near: &'a [Near],
}

impl Aside<'_> {
    /// What a repetition is known by; `None` without a message id. Of messages that share an id each body counts.
    fn known_by(&self) -> Option<[u8; 16]> {
        let id = self.message_id?;
        let mut hash = Sha256::new();
        for part in [self.kind.name(), self.reason, self.source, self.message_type.unwrap_or_default(), id] {
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        if self.reason == Unmatched::IdReused.name() {
            hash.update(self.body);
        }
        Some(cut(hash).0)
    }
}

impl Batch<'_> {
    /// Sets a message aside; says whether it is a new row (not the repetition of one).
    pub fn set_aside(&mut self, aside: &Aside<'_>) -> Result<bool, StoreError> {
        let text = |map: &Map<String, Value>| serde_json::to_string(map).expect("JSON always serialises");
        let near = serde_json::to_string(aside.near).expect("near misses always serialise");
        let added = self.run(
            "INSERT INTO aside (kind, reason, known, type, message_id, source, correlation_id, exchange, routing_key,
                                received_at, error, properties, headers, near, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT DO NOTHING",
            rusqlite::params![
                codes::aside(aside.kind),
                aside.reason,
                aside.known_by(),
                aside.message_type,
                aside.message_id,
                aside.source,
                aside.correlation_id,
                aside.exchange,
                aside.routing_key,
                aside.received_at.0,
                aside.error,
                text(aside.properties),
                text(aside.headers),
                near,
                aside.body,
            ],
        )?;
        Ok(added == 1)
    }
}
