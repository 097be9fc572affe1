//! AMQP 0-9-1 over lapin: the only place that knows the client library.
//!
//! Four tasks: `consumer` (with its `reader`) takes deliveries in, `acks` carries acknowledgements back to it,
//! `publisher` sends out, `dead` reads what passed the delivery limit; the first, the third and the fourth have a
//! connection each, for the broker blocks publishing connections, and a message that cannot be parsed ends one. Each
//! reconnects for ever by itself; the engine hears one state, which is up when the daemon both consumes and publishes.

mod acks;
mod backoff;
mod connect;
mod consumer;
mod convert;
mod dead;
mod once;
mod publisher;
mod pulse;
mod reader;
mod status;
mod topology;
pub(super) mod url;
mod words;

pub use connect::ConnectError;
pub use once::{OnceError, check, publish_once};
pub use status::BusStatus;
pub use topology::{Finding, Weight};

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use acks::Acks;
use backoff::Backoff;
use connect::Connector;
use consumer::{Consumer, Prefetch};
use dead::DeadReader;
use publisher::{Publisher, Sending};
use status::Board;

use super::BusConfig;
use super::envelope::Binding;
use crate::engine::{EngineHandle, Outflow};
use crate::saga::ids::DatabaseId;
use crate::saga::time::Timestamp;

/// How long a task may take to close its connection once everything is done.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// What the bus stands on.
pub struct Parts {
    pub config: BusConfig,
    /// Stands in the consumer tag, so that a copy of a database is seen.
    pub database: DatabaseId,
    pub engine: EngineHandle,
    pub outflow: Outflow,
    /// What earlier runs have bound: of it, what no type needs any more is taken away.
    pub bound: BTreeSet<Binding>,
    /// Told by whoever may read a clock.
    pub clock: fn() -> Timestamp,
}

/// The running bus.
#[derive(Debug)]
pub struct Bus {
    status: watch::Receiver<BusStatus>,
    stop_intake: CancellationToken,
    stop_all: CancellationToken,
    intake: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

impl Bus {
    /// Begins to connect; needs a runtime. A broker that is not there is waited for.
    pub fn start(parts: Parts) -> Bus {
        let Parts { config, database, engine, outflow, bound, clock } = parts;
        let (board, status) = Board::new(clock);
        let (sending, sending_seen) = watch::channel(Sending::Trying);
        let (consuming, consuming_seen) = watch::channel(false);
        let (stop_intake, stop_all) = (CancellationToken::new(), CancellationToken::new());
        let acks = Arc::new(Acks::default());
        let seed = |salt: &str| Backoff::new(xxh3_64(format!("{}{salt}{}", database.0, std::process::id()).as_bytes()));
        let connector = |purpose: &str| Connector::new(&config, &format!("sagad {} {purpose}", database.0));
        let consumer = Consumer {
            config: config.clone(),
            database,
            connector: connector("consume"),
            engine: engine.clone(),
            acks: Arc::clone(&acks),
            sending: sending_seen,
            consuming,
            board: board.clone(),
            bound,
            backoff: seed("consume"),
            prefetch: Prefetch::Normal,
            stop: stop_intake.clone(),
        };
        let publisher = Publisher {
            config: config.clone(),
            connector: connector("publish"),
            engine: engine.clone(),
            from_engine: outflow.publish,
            sending,
            backoff: seed("publish"),
            stop: stop_all.clone(),
        };
        let dead = DeadReader {
            config: config.clone(),
            database,
            connector: connector("dead"),
            engine,
            acks: Arc::clone(&acks),
            board,
            consuming: consuming_seen,
            backoff: seed("dead"),
            stop: stop_intake.clone(),
            stuck_at: None,
        };
        let others =
            vec![tokio::spawn(acks.carry(outflow.acks)), tokio::spawn(publisher.run()), tokio::spawn(dead.run())];
        Bus { status, stop_intake, stop_all, intake: tokio::spawn(consumer.run()), others }
    }

    pub fn status(&self) -> BusStatus {
        self.status.borrow().clone()
    }

    /// The same, for those who wait for a change.
    pub fn watch(&self) -> watch::Receiver<BusStatus> {
        self.status.clone()
    }

    /// Whether one of its tasks has come to an end, which none does before it is told to.
    pub fn has_ended(&self) -> bool {
        self.intake.is_finished() || self.others.iter().any(JoinHandle::is_finished)
    }

    /// Takes no more deliveries; returns when what was prefetched has been handled and acknowledged, at the latest
    /// after `patience`. The engine must still run.
    pub async fn stop_intake(&mut self, patience: Duration) {
        self.stop_intake.cancel();
        // What was not acknowledged by then comes again.
        if tokio::time::timeout(patience, &mut self.intake).await.is_err() {
            self.intake.abort();
        }
    }

    /// Closes everything. After the engine has ended: it waits for confirms itself.
    pub async fn close(self) {
        self.stop_intake.cancel();
        self.stop_all.cancel();
        self.intake.abort();
        for task in self.others {
            let abort = task.abort_handle();
            if tokio::time::timeout(CLOSE_TIME, task).await.is_err() {
                abort.abort();
            }
        }
    }
}
