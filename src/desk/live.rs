//! The desk of a running daemon: many may look at once, orders go to the engine like any other input.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};

use super::definitions::{self, Read};
use super::words::{Arriving, DeskError, Look, Order, Publish, View};
use super::{Looker, Reasons, Scene, orders};
use crate::api::{self, Format, Time};
use crate::bus::amqp::BusStatus;
use crate::bus::envelope::Addresses;
use crate::config::Config;
use crate::engine::{Delivery, EngineGone, EngineHandle, EventToPublish, Raw};
use crate::saga::event::Message;
use crate::saga::json::{self, Limits};
use crate::saga::time::Timestamp;
use crate::store::StoreError;

/// Looks at once. Each is short; more than this would only share the same two disks.
const LOOKS_AT_ONCE: usize = 4;

/// What the desk stands on.
#[derive(Debug)]
pub struct Parts {
    pub config: Config,
    pub engine: EngineHandle,
    pub broker: watch::Receiver<BusStatus>,
    pub pid: u32,
    pub since: Timestamp,
    pub clock: fn() -> Timestamp,
    pub loaded: u64,
    pub limits: Limits,
    pub addresses: Addresses,
}

#[derive(Debug)]
pub struct Desk {
    parts: Parts,
    path: PathBuf,
    reasons: Reasons,
    /// Connections that nobody looks through just now.
    lookers: Arc<Mutex<Vec<Looker>>>,
    looks: Arc<Semaphore>,
    definitions: Mutex<api::DefinitionsLoaded>,
    /// One reload after the other.
    reloading: tokio::sync::Mutex<()>,
}

impl Desk {
    pub fn new(parts: Parts) -> Desk {
        Desk {
            path: parts.config.store.path.clone(),
            reasons: super::settings::reasons(&parts.config),
            lookers: Arc::default(),
            looks: Arc::new(Semaphore::new(LOOKS_AT_ONCE)),
            definitions: Mutex::new(api::DefinitionsLoaded { loaded: parts.loaded, error: None }),
            reloading: tokio::sync::Mutex::default(),
            parts,
        }
    }

    /// The broker is there.
    pub fn is_ready(&self) -> bool {
        self.parts.broker.borrow().connected
    }

    pub async fn look(&self, look: Look) -> Result<View, DeskError> {
        self.with_looker(move |looker, scene| looker.look(scene, &look)).await
    }

    pub async fn order(&self, order: Order) -> Result<api::Orders, DeskError> {
        let reasons = self.reasons;
        let dry_run = order.dry_run;
        let planned = self.with_looker(move |looker, scene| looker.plan(scene, &order, reasons)).await?;
        let results = self.parts.engine.order(orders::with_mode(planned, dry_run)).await.map_err(gone)?;
        Ok(orders::document(results, dry_run, &self.parts.addresses))
    }

    pub async fn publish(&self, event: Publish) -> Result<api::Published, DeskError> {
        let event = prepared(event)?;
        let message_id = self.parts.engine.publish(event).await.map_err(gone)?;
        Ok(api::Published { format: Format, message_id })
    }

    /// An event that came in beside the bus. Durable when this returns.
    pub async fn accept(&self, event: Arriving) -> Result<api::Published, DeskError> {
        let body = event.data.to_string().into_bytes();
        let data = json::parse(&body, &self.parts.limits)
            .map_err(|error| DeskError::usage(format!("'data': {error}"), "send a smaller body"))?;
        let message_id = event.id.map_or_else(new_id, Ok)?;
        let mut properties = Map::new();
        properties.insert("type".to_owned(), Value::from(event.kind.as_str()));
        properties.insert("message_id".to_owned(), Value::from(message_id.as_str()));
        let message = Message {
            kind: event.kind.clone(),
            id: Some(message_id.clone()),
            source: event.source,
            correlation_id: event.correlation_id,
            reply_to: None,
            time: (self.parts.clock)(),
            traceparent: None,
            headers: Map::new(),
            routing_key: event.kind.clone(),
            body: data,
        };
        let raw = Raw { routing_key: event.kind, properties, body, ..Raw::default() };
        let delivery = Delivery { ack: None, raw: Arc::new(raw), message: Ok(message), dead: false };
        self.parts.engine.accept(delivery).await.map_err(gone)?;
        Ok(api::Published { format: Format, message_id })
    }

    /// The definitions as they are on disk now; where one of them is wrong, nothing changes.
    pub async fn reload(&self) -> Result<api::Reloaded, DeskError> {
        let _one_at_a_time = self.reloading.lock().await;
        let config = self.parts.config.clone();
        let read = tokio::task::spawn_blocking(move || definitions::configured(&config)).await;
        let read = read.map_err(|error| DeskError::Failed { message: error.to_string(), hint: None })?;
        let read = read.map_err(|error| {
            let message = error.to_string();
            self.note_definitions(|known| known.error = Some(message.clone()));
            DeskError::Failed { message, hint: Some("nothing was changed".to_owned()) }
        })?;
        let diagnostics = read.diagnostics.iter().map(definitions::view).collect();
        if read.has_errors() {
            let first = first_error(&read);
            tracing::warn!(error = %first, "the definitions are wrong; the old ones stay");
            self.note_definitions(|known| known.error = Some(first));
            let loaded = self.known_definitions().loaded;
            return Ok(api::Reloaded { format: Format, loaded, diagnostics });
        }
        let loaded = self.parts.engine.reload(read.machines).await.map_err(gone)? as u64;
        self.note_definitions(|known| *known = api::DefinitionsLoaded { loaded, error: None });
        tracing::info!(loaded, "definitions loaded again");
        Ok(api::Reloaded { format: Format, loaded, diagnostics })
    }

    async fn with_looker<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Looker, &Scene) -> Result<T, DeskError> + Send + 'static,
    ) -> Result<T, DeskError> {
        let _permit = self.looks.acquire().await.map_err(|_| DeskError::Stopping)?;
        let scene = self.scene();
        let (lookers, path) = (Arc::clone(&self.lookers), self.path.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let free = lock(&lookers).pop();
            let mut looker = match free {
                Some(looker) => looker,
                None => Looker::open(&path)?,
            };
            let seen = work(&mut looker, &scene);
            // After an error of the database's the connection is not trusted again.
            if !matches!(&seen, Err(DeskError::Store(error)) if !matches!(error, StoreError::TooMuch)) {
                lock(&lookers).push(looker);
            }
            seen
        });
        looking
            .await
            .unwrap_or_else(|error| Err(DeskError::Failed { message: format!("looking failed: {error}"), hint: None }))
    }

    fn scene(&self) -> Scene {
        let broker = self.parts.broker.borrow();
        Scene {
            now: (self.parts.clock)(),
            addresses: self.parts.addresses.clone(),
            daemon: Some(api::Daemon {
                pid: self.parts.pid,
                since: Some(Time(self.parts.since)),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            broker: api::Broker {
                connected: broker.connected,
                since: broker.since.map(Time),
                blocked: broker.blocked.is_some(),
                error: broker.error.clone().or_else(|| broker.blocked.clone()),
                findings: broker.findings.iter().map(ToString::to_string).collect(),
                dead: broker.dead,
            },
            definitions: Some(self.known_definitions()),
        }
    }

    fn known_definitions(&self) -> api::DefinitionsLoaded {
        lock(&self.definitions).clone()
    }

    fn note_definitions(&self, change: impl FnOnce(&mut api::DefinitionsLoaded)) {
        change(&mut lock(&self.definitions));
    }
}

/// What the engine is given to publish.
pub(super) fn prepared(event: Publish) -> Result<EventToPublish, DeskError> {
    Ok(EventToPublish {
        kind: event.kind,
        message_id: event.id.map_or_else(new_id, Ok)?,
        correlation_id: event.correlation_id,
        source: event.source,
        headers: event.headers,
        body: event.body,
        by: if event.by.is_empty() { "unnamed".to_owned() } else { event.by },
        reason: event.reason,
    })
}

/// A random id: it names a message of a person's, which no turn makes again.
fn new_id() -> Result<String, DeskError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| DeskError::Failed { message: format!("no random bytes: {error}"), hint: None })?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
}

fn first_error(read: &Read) -> String {
    let first = read.diagnostics.iter().find(|diagnostic| diagnostic.is_error());
    first.map_or_else(String::new, |diagnostic| {
        format!("{}:{}:{}: {}", diagnostic.file, diagnostic.place.line, diagnostic.place.column, diagnostic.message)
    })
}

fn gone(_: EngineGone) -> DeskError {
    DeskError::Stopping
}

/// What is behind these locks stays whole whatever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
