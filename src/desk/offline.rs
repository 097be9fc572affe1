//! The desk without a daemon: looks through its own connection; for an order it opens the database, takes the lock,
//! acts through a real engine without a bus, and leaves. What that caused goes out when the daemon starts.

use std::path::Path;
use std::sync::Arc;

use super::live::prepared;
use super::words::{DeskError, Look, Order, Publish, View};
use super::{Looker, Scene, orders, settings};
use crate::api::{self, Format};
use crate::bus::amqp::publish_once;
use crate::bus::envelope::Addresses;
use crate::config::Config;
use crate::engine::{Answer, Engine, EngineError, EventToPublish, Input, Now, OrderFor, OrderResult, Ticket};
use crate::saga::compile;
use crate::saga::effect::{Chosen, Destination, Json, Outgoing};
use crate::saga::machine::Machine;
use crate::saga::time::Timestamp;
use crate::store::{Holder, Lock, Store, StoreError};

/// The scene without a daemon.
pub fn scene(config: &Config, now: Timestamp) -> Result<Scene, DeskError> {
    Ok(Scene {
        now,
        addresses: addresses(config)?,
        daemon: None,
        broker: api::Broker {
            connected: false,
            since: None,
            blocked: false,
            error: None,
            findings: Vec::new(),
            dead: None,
        },
        definitions: None,
    })
}

pub fn look(config: &Config, scene: &Scene, look: &Look) -> Result<View, DeskError> {
    Looker::open(&config.store.path)?.look(scene, look)
}

pub fn order(config: &Config, scene: &Scene, order: &Order) -> Result<api::Orders, DeskError> {
    let path = &config.store.path;
    let planned = Looker::open(path)?.plan(scene, order, settings::reasons(config))?;
    let holder = Holder { pid: std::process::id(), started_at: scene.now.to_string(), socket: None, database: None };
    let _lock = Lock::take(path, &holder)?;
    let results = act(config, path, orders::with_mode(planned, order.dry_run), scene.now)?;
    Ok(orders::document(results, order.dry_run, &scene.addresses))
}

/// One batch of a real engine, with the definitions that the database holds.
fn act(config: &Config, path: &Path, orders: Vec<OrderFor>, wall: Timestamp) -> Result<Vec<OrderResult>, DeskError> {
    let store = Store::create_or_open(path)?;
    let stored = store.definitions()?;
    let newest = stored.iter().filter(|definition| definition.newest);
    let machines: Vec<Arc<Machine>> = newest
        .filter_map(|definition| compile::compile_stored(&definition.source, &definition.file).ok().map(Arc::new))
        .collect();
    let now = Now { wall, monotonic_ms: 0 };
    let ticket = Ticket(1);
    let mut engine = Engine::open(store, machines, settings::engine(config), now).map_err(failed)?;
    let output = engine.batch(vec![Input::Orders(ticket, orders)], now)?;
    let answer = output.answers.into_iter().find(|(given, _)| *given == ticket);
    match answer {
        Some((_, Answer::Orders(results))) => Ok(results),
        _ => Err(DeskError::Failed { message: "the engine gave no answer".to_owned(), hint: None }),
    }
}

/// An event straight to the broker.
pub fn publish(config: &Config, event: Publish, now: Timestamp) -> Result<api::Published, DeskError> {
    let bus = settings::bus(config).map_err(|error| DeskError::Failed {
        message: format!("bus.url: {error}"),
        hint: Some("write amqp://user@host:5672/vhost".to_owned()),
    })?;
    let event = prepared(event)?;
    let message_id = event.message_id.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| DeskError::Failed { message: error.to_string(), hint: None })?;
    runtime.block_on(publish_once(&bus, &outgoing(event, now))).map_err(|error| DeskError::Failed {
        message: format!("the event was not published: {error}"),
        hint: Some("no daemon runs, so the broker has to be there; bus.url says where".to_owned()),
    })?;
    Ok(api::Published { format: Format, message_id })
}

fn outgoing(event: EventToPublish, at: Timestamp) -> Outgoing {
    Outgoing {
        to: Destination::Event,
        kind: event.kind,
        message_id: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, event.message_id.as_bytes()),
        correlation_id: event.correlation_id.unwrap_or_default(),
        at,
        body: Json::of(&event.body),
        headers: event.headers,
        trace: None,
        command: None,
        chosen: Some(Chosen { message_id: event.message_id, source: event.source }),
        stamp: None,
    }
}

pub fn addresses(config: &Config) -> Result<Addresses, DeskError> {
    let bus = settings::bus(config).map_err(|error| DeskError::Failed {
        message: format!("bus.url: {error}"),
        hint: Some("write amqp://user@host:5672/vhost".to_owned()),
    })?;
    Ok(Addresses::from(&bus))
}

fn failed(error: EngineError) -> DeskError {
    match error {
        EngineError::Store(error) => DeskError::Store(error),
        EngineError::Thread { reason } => DeskError::Failed { message: reason, hint: None },
    }
}

/// Whether a daemon, or another verb, has the database, and where it listens.
pub fn holder(config: &Config) -> Result<Option<Holder>, StoreError> {
    Lock::holder(&config.store.path)
}
