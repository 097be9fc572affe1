//! The broker side of the daemon: what a message looks like on the wire, and how it gets there and back.
//!
//! `envelope` is pure and knows no broker; `amqp` is the only place that knows lapin. Nothing here decides anything
//! about sagas, and nothing here reads a clock.

pub mod amqp;
pub mod envelope;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use amqp::url::{BrokerUrl, UrlError};

use crate::config;
pub use crate::config::{Address, QueueType};
use crate::saga::json::Limits;

/// The section `bus` of the configuration; every key, with its default.
#[derive(Clone, Debug)]
pub struct BusConfig {
    pub url: BrokerUrl,
    /// Certificates (PEM) that the broker's is checked against, beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// The daemon's own certificate and key (PEM), where the broker asks for one.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub queue: String,
    pub queue_type: QueueType,
    pub events_exchange: String,
    pub commands_exchange: String,
    /// Exchange and queue for what passes the delivery limit.
    pub dead: String,
    /// Whether what is ours is declared, or only checked.
    pub declare: Declare,
    pub delivery_limit: u32,
    /// Deliveries that may be with the daemon unacknowledged: bounds its memory, and feeds its batches.
    pub prefetch: u16,
    pub max_body: usize,
    pub max_depth: usize,
    pub lifecycle_events: bool,
    /// Where the commands of an address go, if not to `commands`.
    pub addresses: BTreeMap<String, Address>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declare {
    /// Exchanges, queues and bindings that are ours are made.
    Ours,
    /// They are the operator's: it is only checked that they stand.
    Nothing,
}

/// Enough to keep the engine's batches full while one is being committed, little enough to come again after a crash.
pub const DEFAULT_PREFETCH: u16 = 512;

impl Default for BusConfig {
    fn default() -> BusConfig {
        BusConfig {
            url: BrokerUrl::default(),
            ca_file: None,
            cert_file: None,
            key_file: None,
            queue: "sagad".to_owned(),
            queue_type: QueueType::Quorum,
            events_exchange: "events".to_owned(),
            commands_exchange: "commands".to_owned(),
            dead: "sagad.dead".to_owned(),
            declare: Declare::Ours,
            delivery_limit: 50,
            prefetch: DEFAULT_PREFETCH,
            max_body: Limits::default().bytes,
            max_depth: Limits::default().depth,
            lifecycle_events: true,
            addresses: BTreeMap::new(),
        }
    }
}

impl BusConfig {
    /// What a body may be at most.
    pub fn limits(&self) -> Limits {
        Limits { bytes: self.max_body, depth: self.max_depth, ..Limits::default() }
    }
}

impl TryFrom<&config::Bus> for BusConfig {
    type Error = UrlError;

    fn try_from(section: &config::Bus) -> Result<BusConfig, UrlError> {
        let section = section.clone();
        Ok(BusConfig {
            url: BrokerUrl::parse(section.url.reveal())?,
            ca_file: section.ca_file,
            cert_file: section.cert_file,
            key_file: section.key_file,
            queue: section.queue,
            queue_type: section.queue_type,
            events_exchange: section.events_exchange,
            commands_exchange: section.commands_exchange,
            dead: section.dead,
            declare: if section.declare { Declare::Ours } else { Declare::Nothing },
            delivery_limit: section.delivery_limit,
            prefetch: section.prefetch,
            max_body: section.max_body,
            max_depth: section.max_depth,
            lifecycle_events: section.lifecycle_events,
            addresses: section.addresses.into_iter().collect(),
        })
    }
}
