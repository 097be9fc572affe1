//! The daemon: wires the stages, starts them in order, stops them in order. Any stage that ends stops the whole, and
//! nothing that failed is tried again in this process.
//!
//! Order of start: configuration and definitions, lock and database, socket, broker. The broker is waited for and never
//! an error; looking and orders work without it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bus::BusConfig;
use crate::bus::amqp::{self, Bus};
use crate::bus::envelope::{Addresses, Binding, Types};
use crate::config::Config;
use crate::desk::definitions::{self, Read};
use crate::desk::{Desk, Parts, settings};
use crate::engine::{self, EngineError, EngineHandle, Running, wall_clock};
use crate::http;
use crate::saga::compile;
use crate::saga::diagnostic::{Diagnostic, Severity};
use crate::saga::machine::{Machine, Place};
use crate::store::{Holder, Lock, Store, StoreError};
use crate::telemetry;

/// Threads of the stages around the engine; the engine has one of its own.
const WORKERS: usize = 2;
/// Beyond `shutdown_after`, for a commit on a slow disk and for closing; then the process ends all the same.
const STOP_SLACK: Duration = Duration::from_secs(20);
/// How often it is looked whether the bus's tasks are all there.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// Requests under way when the daemon stops.
const HTTP_STOP: Duration = Duration::from_secs(2);

/// How the daemon came to its end.
#[derive(Debug)]
pub enum Stopped {
    InOrder,
    /// Exit code 78, with everything that is wrong.
    Definitions {
        diagnostics: String,
    },
    /// Exit code 78.
    Configuration {
        message: String,
        hint: String,
    },
    /// Exit code 74.
    Database {
        message: String,
        hint: Option<String>,
    },
    /// Exit code 70.
    Bug {
        message: String,
    },
}

/// Runs until it is told to stop, or until a stage ends.
pub fn run(config: Config) -> Stopped {
    telemetry::start(&config.telemetry);
    let bus = match settings::bus(&config) {
        Ok(bus) => bus,
        Err(error) => return wrong_url(&error.to_string()),
    };
    let read = match definitions::configured(&config) {
        Ok(read) => read,
        Err(missing) => {
            return Stopped::Configuration {
                message: format!("the folder of the definitions: {missing}"),
                hint: "name it with --sagas DIR or sagas.dir".to_owned(),
            };
        }
    };
    if read.has_errors() {
        return Stopped::Definitions { diagnostics: read.text() };
    }
    for warning in &read.diagnostics {
        let Diagnostic { file, place, code, message, .. } = warning;
        tracing::warn!(code, "{file}:{}:{}: {message}", place.line, place.column);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Stopped::Bug { message: format!("cannot start the runtime: {error}") },
    };
    let stopped = runtime.block_on(async {
        match start(config, bus, read) {
            Ok(stages) => stages.watch().await,
            Err(stopped) => stopped,
        }
    });
    // Whatever still hangs must not keep the process.
    runtime.shutdown_background();
    stopped
}

/// What `check --broker` finds.
pub fn check_broker(config: &Config, machines: &[Arc<Machine>]) -> Vec<Diagnostic> {
    let finding = |severity, message: String, hint: &str| Diagnostic {
        severity,
        code: "broker",
        message,
        hint: hint.to_owned(),
        file: config.bus.url.masked(),
        place: Place { line: 1, column: 1, end_line: 1, end_column: 1 },
    };
    let bus = match settings::bus(config) {
        Ok(bus) => bus,
        Err(error) => return vec![finding(Severity::Error, error.to_string(), "write amqp://user@host:5672/vhost")],
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![finding(Severity::Error, error.to_string(), "free some memory or processes")],
    };
    match runtime.block_on(amqp::check(&bus, &Types::of(machines))) {
        Err(error) => {
            vec![finding(
                Severity::Error,
                error.to_string(),
                "is the broker there, and are bus.url and its user right?",
            )]
        }
        Ok(found) => found
            .iter()
            .map(|found| match found.weight {
                amqp::Weight::Fatal => finding(Severity::Error, found.to_string(), "the daemon cannot work so"),
                amqp::Weight::Lacking => {
                    finding(Severity::Error, found.to_string(), "something will not come in; declare it")
                }
                amqp::Weight::Note => finding(Severity::Warning, found.to_string(), "sagad run mends what it can"),
            })
            .collect(),
    }
}

/// Everything that runs.
struct Stages {
    /// Held until the very end.
    _lock: Lock,
    engine: EngineHandle,
    engine_ended: JoinHandle<std::thread::Result<Result<(), StoreError>>>,
    bus: Bus,
    desk: Arc<Desk>,
    http: JoinHandle<std::io::Result<()>>,
    stop_http: CancellationToken,
    socket: PathBuf,
    shutdown_after: Duration,
}

/// Why the daemon leaves its loop.
enum Leaving {
    Asked(&'static str),
    Engine(Result<std::thread::Result<Result<(), StoreError>>, tokio::task::JoinError>),
    Http(String),
    Bus,
    Watchdog,
}

fn start(config: Config, bus_config: BusConfig, read: Read) -> Result<Stages, Stopped> {
    let path = config.store.path.clone();
    let since = wall_clock();
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let socket = http::socket::path_for(&path, config.socket(), runtime_dir.as_deref());
    let mut holder =
        Holder { pid: std::process::id(), started_at: since.to_string(), socket: Some(socket.clone()), database: None };
    let mut lock = Lock::take(&path, &holder).map_err(|error| database(&error))?;
    let store = Store::create_or_open(&path).map_err(|error| database(&error))?;
    let database_id = store.database();
    holder.database = Some(database_id.0.to_string());
    lock.tell(&holder).map_err(|error| database(&error))?;
    let bound = bound_before(&store, &bus_config.events_exchange).map_err(|error| database(&error))?;
    let loaded = read.machines.len() as u64;
    let Running { handle, outflow, thread } =
        engine::start(store, read.machines, settings::engine(&config)).map_err(|error| match &error {
            EngineError::Store(error) => database(error),
            EngineError::Thread { .. } => Stopped::Bug { message: error.to_string() },
        })?;
    let listener = match listen(&socket) {
        Ok(listener) => listener,
        Err(stopped) => {
            handle.stop();
            drop(thread.join());
            return Err(stopped);
        }
    };
    let addresses = Addresses::from(&bus_config);
    let limits = bus_config.limits();
    let bus = Bus::start(amqp::Parts {
        config: bus_config,
        database: database_id,
        engine: handle.clone(),
        outflow,
        bound,
        clock: wall_clock,
    });
    let shutdown_after = Duration::from_millis(config.engine.shutdown_after.as_ms());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        definitions = loaded,
        database = %path.display(),
        socket = %socket.display(),
        broker = %config.bus.url.masked(),
        "started"
    );
    if loaded == 0 {
        let dir = config.sagas.dir.display();
        tracing::warn!(%dir, "no definition is loaded: nothing will start, and no event is known");
    }
    let desk = Arc::new(Desk::new(Parts {
        engine: handle.clone(),
        broker: bus.watch(),
        pid: std::process::id(),
        since,
        clock: wall_clock,
        loaded,
        limits,
        addresses,
        config,
    }));
    let stop_http = CancellationToken::new();
    let http = tokio::spawn(http::serve(listener, Arc::clone(&desk), stop_http.clone()));
    Ok(Stages {
        _lock: lock,
        engine: handle,
        engine_ended: tokio::task::spawn_blocking(move || thread.join()),
        bus,
        desk,
        http,
        stop_http,
        socket,
        shutdown_after,
    })
}

fn listen(socket: &Path) -> Result<tokio::net::UnixListener, Stopped> {
    http::socket::listen(socket).map_err(|error| Stopped::Configuration {
        message: format!("cannot listen at {}: {error}", socket.display()),
        hint: "name another place with admin.socket".to_owned(),
    })
}

/// Every binding that an earlier run may have made: one for each type that any stored definition consumes.
fn bound_before(store: &Store, events_exchange: &str) -> Result<BTreeSet<Binding>, StoreError> {
    let stored = store.definitions()?;
    let compiled = stored.iter().filter_map(|stored| compile::compile_stored(&stored.source, &stored.file).ok());
    let machines: Vec<Arc<Machine>> = compiled.map(Arc::new).collect();
    Ok(Types::of(&machines).bindings(events_exchange))
}

impl Stages {
    async fn watch(mut self) -> Stopped {
        let signals = || -> std::io::Result<(Signal, Signal, Signal)> {
            Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?))
        };
        let (mut terminate, mut interrupt, mut hangup) = match signals() {
            Ok(signals) => signals,
            Err(error) => return Stopped::Bug { message: format!("cannot listen to signals: {error}") },
        };
        notify(&[NotifyState::Ready]);
        let watchdog = sd_notify::watchdog_enabled();
        let mut beat = tokio::time::interval(watchdog.map_or(Duration::from_secs(3_600), |limit| limit / 3));
        let mut health = tokio::time::interval(HEALTH_EVERY);
        let leaving = loop {
            tokio::select! {
                _ = terminate.recv() => break Leaving::Asked("SIGTERM"),
                _ = interrupt.recv() => break Leaving::Asked("SIGINT"),
                _ = hangup.recv() => self.reload().await,
                ended = &mut self.engine_ended => break Leaving::Engine(ended),
                ended = &mut self.http => {
                    let why = match ended {
                        Ok(Ok(())) => "it ended".to_owned(),
                        Ok(Err(error)) => error.to_string(),
                        Err(error) => error.to_string(),
                    };
                    break Leaving::Http(why);
                }
                _ = health.tick() => {
                    if self.bus.has_ended() {
                        break Leaving::Bus;
                    }
                }
                _ = beat.tick(), if watchdog.is_some() => {
                    if !self.engine_answers(watchdog.unwrap_or_default()).await {
                        break Leaving::Watchdog;
                    }
                    notify(&[NotifyState::Watchdog]);
                }
            }
        };
        self.leave(leaving).await
    }

    async fn reload(&self) {
        notify(&[NotifyState::Status("loading definitions")]);
        match self.desk.reload().await {
            Ok(reloaded) => {
                for diagnostic in &reloaded.diagnostics {
                    let crate::api::Diagnostic { file, line, column, code, message, .. } = diagnostic;
                    tracing::warn!(code, "{file}:{line}:{column}: {message}");
                }
            }
            Err(error) => tracing::warn!(%error, "the definitions were not loaded again"),
        }
        notify(&[NotifyState::Status("running")]);
    }

    /// An empty order takes the way of every other: through the channel, a batch, and back.
    async fn engine_answers(&self, limit: Duration) -> bool {
        matches!(tokio::time::timeout(limit, self.engine.order(Vec::new())).await, Ok(Ok(_)))
    }

    async fn leave(self, leaving: Leaving) -> Stopped {
        notify(&[NotifyState::Stopping]);
        match leaving {
            Leaving::Asked(signal) => {
                tracing::info!(signal, "stopping");
                self.stop_in_order().await
            }
            Leaving::Engine(ended) => {
                drop(std::fs::remove_file(&self.socket));
                engine_stopped(ended)
            }
            Leaving::Http(why) => self.stop_over(format!("the socket's server ended: {why}")).await,
            Leaving::Bus => self.stop_over("a task of the bus ended by itself".to_owned()).await,
            Leaving::Watchdog => Stopped::Bug { message: "the engine does not answer any more".to_owned() },
        }
    }

    /// A stage has ended that should not have: the others stop in order.
    async fn stop_over(self, message: String) -> Stopped {
        tracing::error!("{message}; stopping");
        match self.stop_in_order().await {
            Stopped::InOrder => Stopped::Bug { message },
            other => other,
        }
    }

    /// No more deliveries; the batch is finished; confirms are waited for; everything is closed.
    async fn stop_in_order(mut self) -> Stopped {
        self.bus.stop_intake(self.shutdown_after).await;
        self.engine.stop();
        let ended = tokio::time::timeout(self.shutdown_after + STOP_SLACK, &mut self.engine_ended).await;
        self.stop_http.cancel();
        drop(std::fs::remove_file(&self.socket));
        let Ok(ended) = ended else {
            return Stopped::Bug { message: "the engine did not stop; what it had committed is safe".to_owned() };
        };
        let in_order = matches!(ended, Ok(Ok(Ok(()))));
        if in_order {
            self.bus.close().await;
            drop(tokio::time::timeout(HTTP_STOP, self.http).await);
            tracing::info!("stopped");
            return Stopped::InOrder;
        }
        engine_stopped(ended)
    }
}

fn engine_stopped(ended: Result<std::thread::Result<Result<(), StoreError>>, tokio::task::JoinError>) -> Stopped {
    match ended {
        Ok(Ok(Err(error))) => database(&error),
        Ok(Ok(Ok(()))) => Stopped::Bug { message: "the engine ended by itself".to_owned() },
        Ok(Err(_)) | Err(_) => Stopped::Bug { message: "the engine's thread panicked".to_owned() },
    }
}

fn database(error: &StoreError) -> Stopped {
    let hint = match error {
        StoreError::Held { .. } => "stop that one first, or give this one a database of its own with --db",
        StoreError::Full { .. } => "make room and start the daemon again: it goes on where it was, nothing is lost",
        StoreError::Io { .. } => "look after the disk, then start the daemon again: what was committed is safe",
        StoreError::ReadOnly { .. } => "give the daemon's user the right to write the file and its folder",
        StoreError::Open { .. } => "the folder has to be there, and writable for the daemon's user",
        StoreError::Corrupt { .. } => "the file is as it was found; restore a copy of it, and look after the disk",
        StoreError::Foreign { .. } => "name another file with --db or store.path",
        _ => return Stopped::Database { message: error.to_string(), hint: None },
    };
    Stopped::Database { message: error.to_string(), hint: Some(hint.to_owned()) }
}

fn wrong_url(error: &str) -> Stopped {
    Stopped::Configuration {
        message: format!("bus.url: {error}"),
        hint: "write amqp://user@host:5672/vhost, or amqps:// for TLS".to_owned(),
    }
}

/// Without systemd there is nobody to tell.
fn notify(state: &[NotifyState<'_>]) {
    drop(sd_notify::notify(state));
}
