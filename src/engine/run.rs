//! The engine's thread: wait → batch → commit → hand on. The only place of the engine that reads the clock, and that
//! knows of channels.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::oneshot;

use super::handle::{Inflow, Request, channels};
use super::{
    AckToken, Answer, Engine, EngineError, EngineHandle, Input, MessageRef, Now, Outflow, Output, Published, Settings,
    Ticket,
};
use crate::saga::machine::Machine;
use crate::saga::time::Timestamp;
use crate::store::{Store, StoreError};

/// However long nothing is due, so often the engine looks whether something is.
const IDLE_AT_MOST: Duration = Duration::from_secs(10);
/// How long confirms alone wait for company: what they change costs a commit of its own, and nobody waits for it.
const CONFIRMS_WAIT: Duration = Duration::from_millis(5);
/// How soon acknowledgements are offered again that the consumer had no room for.
const ACKS_AGAIN: Duration = Duration::from_millis(20);

/// A started engine: what the daemon keeps of it.
#[derive(Debug)]
pub struct Running {
    pub handle: EngineHandle,
    pub outflow: Outflow,
    /// Ends when it was asked to stop, or when the database failed.
    pub thread: JoinHandle<Result<(), StoreError>>,
}

/// Opens the engine on its database and starts its thread.
pub fn start(store: Store, machines: Vec<Arc<Machine>>, settings: Settings) -> Result<Running, EngineError> {
    let clock = RealClock::start();
    let engine = Engine::open(store, machines, settings.clone(), clock.now())?;
    let (handle, inflow, outflow) = channels(&settings, engine.consumed().clone());
    // Its own, so that nothing that happens to the other stages keeps it from waking up.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| EngineError::Thread { reason: error.to_string() })?;
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            let state = Loop {
                engine,
                clock,
                inflow,
                settings,
                waiting: HashMap::new(),
                tickets: 0,
                acks: Vec::new(),
                unread: Vec::new(),
            };
            runtime.block_on(state.run())
        })
        .map_err(|error| EngineError::Thread { reason: error.to_string() })?;
    Ok(Running { handle, outflow, thread })
}

/// The time of day, for those who only tell it: the desk, the bus's status, what an operator does without a daemon.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn wall_clock() -> Timestamp {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX))
}

/// Wall time, and time since the start.
#[derive(Clone, Copy, Debug)]
struct RealClock {
    start: Instant,
}

impl RealClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn start() -> RealClock {
        RealClock { start: Instant::now() }
    }

    fn now(&self) -> Now {
        Now { wall: wall_clock(), monotonic_ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX) }
    }
}

/// Whether a confirm ends a wait.
#[derive(Clone, Copy)]
enum Confirms {
    Wake,
    Wait,
}

/// Why the loop woke up.
enum Woken {
    Work,
    Stop,
}

struct Loop {
    engine: Engine,
    clock: RealClock,
    inflow: Inflow,
    settings: Settings,
    /// Who waits for an answer.
    waiting: HashMap<Ticket, oneshot::Sender<Answer>>,
    tickets: u64,
    /// Acknowledgements that the consumer had no room for; at most as many as it has deliveries.
    acks: Vec<AckToken>,
    /// What the bus had no room for: the next batch knows that it did not go out. At most a window of them.
    unread: Vec<(MessageRef, Published)>,
}

impl Loop {
    async fn run(mut self) -> Result<(), StoreError> {
        let mut inputs = Vec::new();
        loop {
            let woken = self.wait(&mut inputs).await?;
            self.batch(&mut inputs)?;
            if matches!(woken, Woken::Stop) {
                return self.wind_down().await;
            }
        }
    }

    /// Waits until there is something to do, and takes what has queued up.
    async fn wait(&mut self, inputs: &mut Vec<Input>) -> Result<Woken, StoreError> {
        let now = self.clock.now();
        let due = self.engine.next_due(now)?;
        let chore = self.engine.next_chore(now);
        let due = due.map_or(chore, |due| due.min(chore));
        let mut patience = Duration::from_millis(due).min(IDLE_AT_MOST);
        if !self.acks.is_empty() {
            patience = patience.min(ACKS_AGAIN);
        }
        if !self.unread.is_empty() {
            inputs.push(Input::Published(std::mem::take(&mut self.unread)));
            self.take_queued(inputs);
            return Ok(Woken::Work);
        }
        let mut woken = self.next(patience, Confirms::Wake, inputs).await;
        let confirms_alone = !inputs.is_empty() && inputs.iter().all(|input| matches!(input, Input::Published(_)));
        if confirms_alone && matches!(woken, Woken::Work) && !self.engine.report().backlog {
            woken = self.next(CONFIRMS_WAIT, Confirms::Wait, inputs).await;
        }
        self.take_queued(inputs);
        Ok(woken)
    }

    /// Waits for the first thing that comes in, at most so long.
    async fn next(&mut self, patience: Duration, confirms: Confirms, inputs: &mut Vec<Input>) -> Woken {
        let inflow = &mut self.inflow;
        let request = tokio::select! {
            biased;
            // Also where it is closed: nobody holds the handle any more.
            _ = inflow.stop.recv() => return Woken::Stop,
            outcomes = inflow.outcomes.recv(), if matches!(confirms, Confirms::Wake) => {
                inputs.extend(outcomes.map(Input::Published));
                None
            }
            asked = inflow.requests.recv() => asked,
            input = inflow.deliveries.recv() => {
                inputs.extend(input);
                None
            }
            () = tokio::time::sleep(patience) => None,
        };
        if let Some(request) = request {
            self.take_request(request, inputs);
        }
        Woken::Work
    }

    /// What queued up while the last commit was under way is one batch. What the broker said of messages goes first:
    /// what was told before a reconnect must be known before it.
    fn take_queued(&mut self, inputs: &mut Vec<Input>) {
        while inputs.len() < self.settings.max_batch {
            match self.inflow.deliveries.try_recv() {
                Ok(input) => inputs.push(input),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        while inputs.len() < self.settings.max_batch {
            match self.inflow.requests.try_recv() {
                Ok(request) => self.take_request(request, inputs),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let mut outcomes = Vec::new();
        while let Ok(told) = self.inflow.outcomes.try_recv() {
            outcomes.extend(told);
        }
        if !outcomes.is_empty() {
            let at = inputs.iter().take_while(|input| matches!(input, Input::Published(_))).count();
            inputs.insert(at, Input::Published(outcomes));
        }
    }

    fn take_request(&mut self, request: Request, inputs: &mut Vec<Input>) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.insert(ticket, request.answer);
        inputs.push(request.what.into_input(ticket));
    }

    fn batch(&mut self, inputs: &mut Vec<Input>) -> Result<(), StoreError> {
        let output = self.engine.batch(std::mem::take(inputs), self.clock.now())?;
        self.hand_on(output);
        Ok(())
    }

    /// After the commit: publish, acknowledge, answer.
    fn hand_on(&mut self, output: Output) {
        let Output { acks, publish, answers } = output;
        if !publish.is_empty() {
            match self.inflow.publish.try_send(publish) {
                // Closed: the bus has ended, and with it the daemon; the rows go out at the next start.
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                // The bus has not read what it was handed before its connection went.
                Err(TrySendError::Full(publish)) => {
                    self.unread.extend(publish.into_iter().map(|(at, _)| (at, Published::Unknown)));
                }
            }
        }
        self.acks.extend(acks);
        if !self.acks.is_empty() {
            match self.inflow.acks.try_send(std::mem::take(&mut self.acks)) {
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(acks)) => self.acks = acks,
            }
        }
        for (ticket, answer) in answers {
            if let Some(waiting) = self.waiting.remove(&ticket) {
                // Who asked may have gone; what was done stays done.
                drop(waiting.send(answer));
            }
        }
        let consumed = self.engine.consumed();
        self.inflow.consumed.send_if_modified(|known| {
            let changed = **known != *consumed;
            if changed {
                *known = Arc::new(consumed.clone());
            }
            changed
        });
        self.inflow.report.send_replace(self.engine.report());
    }

    /// No more deliveries: what is queued is handled, then confirms are waited for, but not for ever.
    async fn wind_down(mut self) -> Result<(), StoreError> {
        self.inflow.requests.close();
        self.inflow.deliveries.close();
        let mut inputs = Vec::new();
        let until = tokio::time::Instant::from_std(self.clock.start)
            + Duration::from_millis(self.clock.now().monotonic_ms.saturating_add(self.settings.shutdown_after_ms));
        loop {
            self.take_queued(&mut inputs);
            let idle = inputs.is_empty();
            self.batch(&mut inputs)?;
            if idle && (self.engine.report().unconfirmed == 0 || !self.engine.is_up()) {
                return Ok(());
            }
            let told = tokio::time::timeout_at(until, self.inflow.outcomes.recv()).await;
            match told {
                Ok(Some(outcomes)) => inputs.push(Input::Published(outcomes)),
                Ok(None) | Err(_) => return Ok(()),
            }
        }
    }
}
