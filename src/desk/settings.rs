//! From the configuration to what each stage is told.

use crate::bus::{Address, BrokerUrl, BusConfig, Declare, QueueType, UrlError};
use crate::config::{self, Config};
use crate::desk::Reasons;
use crate::engine::{Retention, Settings};

/// Messages that the broker may have without having confirmed them: enough for its batches, little to send again.
const WINDOW: usize = 1_024;

pub fn engine(config: &Config) -> Settings {
    let retention = &config.retention;
    Settings {
        max_batch: config.engine.max_batch,
        timer_rate: config.engine.timer_rate,
        window: WINDOW,
        grace_ms: config.engine.grace.as_ms(),
        shutdown_after_ms: config.engine.shutdown_after.as_ms(),
        lifecycle_events: config.bus.lifecycle_events,
        retention: Retention {
            ended_ms: retention.ended.as_ms(),
            inbox_ms: retention.inbox.as_ms(),
            orders_ms: retention.orders.as_ms(),
            aside_ms: retention.aside.as_ms(),
            aside_rows: retention.aside_rows,
        },
    }
}

pub fn bus(config: &Config) -> Result<BusConfig, UrlError> {
    let bus = &config.bus;
    Ok(BusConfig {
        url: BrokerUrl::parse(bus.url.reveal())?,
        ca_file: bus.ca_file.clone(),
        cert_file: bus.cert_file.clone(),
        key_file: bus.key_file.clone(),
        queue: bus.queue.clone(),
        queue_type: match bus.queue_type {
            config::QueueType::Quorum => QueueType::Quorum,
            config::QueueType::Classic => QueueType::Classic,
        },
        events_exchange: bus.events_exchange.clone(),
        commands_exchange: bus.commands_exchange.clone(),
        dead: bus.dead.clone(),
        declare: if bus.declare { Declare::Ours } else { Declare::Nothing },
        delivery_limit: bus.delivery_limit,
        prefetch: bus.prefetch,
        max_body: bus.max_body,
        max_depth: bus.max_depth,
        lifecycle_events: bus.lifecycle_events,
        addresses: bus.addresses.iter().map(|(name, address)| (name.clone(), address_of(address))).collect(),
    })
}

fn address_of(address: &config::Address) -> Address {
    Address { exchange: address.exchange.clone(), routing_key: address.routing_key.clone() }
}

pub fn reasons(config: &Config) -> Reasons {
    if config.admin.require_reason { Reasons::Required } else { Reasons::Optional }
}
