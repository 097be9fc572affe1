//! One batch: all inputs that have queued up, and what is due by itself, in one transaction with one fsync. What goes
//! out is told only after the commit.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::catalog::Catalog;
use super::clock::{Allowance, Clocks};
use super::outbox::Outbox;
use super::recent::Recent;
use super::sweep::Sweep;
use super::{Answer, BusState, Consumed, EngineError, Input, MessageRef, Now, Output, Report, Settings};
use crate::saga::effect::Outgoing;
use crate::saga::ids::{DatabaseId, InstanceNo};
use crate::saga::machine::Machine;
use crate::store::{Batch, Clock, SagaNo, Store, StoreError};

/// A running listening clock is written down at least this often.
const LISTENING_KEPT_MS: u64 = 10_000;
/// A cursor that moved by confirms alone waits so long for a commit that there is anyway, for it would cost one.
const CURSOR_KEPT_MS: u64 = 1_000;

/// The engine without its thread: what `run` and the world drive. Owns the database's writer.
#[derive(Debug)]
pub struct Engine {
    store: Store,
    core: Core,
}

/// What the engine keeps in memory between batches; all of it can be had again from the store.
#[derive(Debug)]
pub(super) struct Core {
    pub settings: Settings,
    pub database: DatabaseId,
    pub catalog: Catalog,
    pub clocks: Clocks,
    pub allowance: Allowance,
    pub outbox: Outbox,
    pub sweep: Sweep,
    /// Instances as they are in the store, those handled lately.
    pub cache: Recent,
    /// Instances that go on, whose parked inputs have not all been handled.
    pub draining: BTreeSet<InstanceNo>,
    /// How many messages are published again beside the others.
    pub stragglers: u64,
    pub report: Report,
    /// When the next timer of a clock is due, where that is known.
    next: HashMap<Clock, Option<i64>>,
    listening_kept: Kept,
    cursor_kept: Kept,
}

/// What was written down last, and when.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    value: i64,
    at_ms: u64,
}

/// One batch under way.
pub(super) struct Work<'w, 's> {
    pub core: &'w mut Core,
    pub tx: Batch<'s>,
    pub now: Now,
    pub out: Output,
    /// Messages of this batch's turns, in order.
    pub fresh: Vec<(MessageRef, Outgoing)>,
    /// The last row of the log that this batch wrote.
    pub last_seq: Option<i64>,
    /// Sagas whose timers or clocks this batch touched.
    pub touched: BTreeSet<SagaNo>,
}

impl Engine {
    /// Takes the database over. `machines` are the definitions as they are to be from now on.
    pub fn open(
        mut store: Store,
        machines: Vec<Arc<Machine>>,
        settings: Settings,
        now: Now,
    ) -> Result<Engine, EngineError> {
        let catalog = super::load::catalog(&mut store, machines, now.wall)?;
        let outbox = Outbox::new(settings.window, settings.lifecycle_events, store.cursor(), store.opened_at_seq());
        let core = Core {
            database: store.database(),
            catalog,
            clocks: Clocks::new(settings.grace_ms, store.listening()?),
            allowance: Allowance::new(settings.timer_rate),
            outbox,
            sweep: Sweep::new(now),
            cache: Recent::default(),
            draining: store.instances_with_parked()?.into_iter().collect(),
            stragglers: store.count_stragglers()?,
            report: Report::default(),
            next: HashMap::new(),
            listening_kept: Kept::default(),
            cursor_kept: Kept { value: store.cursor(), at_ms: now.monotonic_ms },
            settings,
        };
        Ok(Engine { store, core })
    }

    /// Handles a batch. After an error the engine is of no use any more: nothing of the batch was kept, and what is
    /// in memory may be ahead of it.
    pub fn batch(&mut self, inputs: Vec<Input>, now: Now) -> Result<Output, StoreError> {
        let core = &mut self.core;
        core.clocks.advance(now);
        let mut work = Work {
            tx: self.store.batch()?,
            core,
            now,
            out: Output::default(),
            fresh: Vec::new(),
            last_seq: None,
            touched: BTreeSet::new(),
        };
        work.all(inputs)?;
        let Work { core, tx, mut out, fresh, last_seq, touched, .. } = work;
        tx.commit()?;
        // Persisted before published: only now may anybody hear of it.
        let handed = core.outbox.committed(fresh, last_seq, core.clocks.is_up());
        out.publish.extend(handed);
        core.after_commit(&touched);
        Ok(out)
    }

    /// How long until there is something to do by itself, in milliseconds; `None`: nothing, until an input comes.
    pub fn next_due(&mut self, now: Now) -> Result<Option<u64>, StoreError> {
        self.core.clocks.advance(now);
        if !self.core.draining.is_empty() {
            return Ok(Some(0));
        }
        let mut soonest = self.until_timer(now)?;
        if self.core.clocks.is_up() && self.core.outbox.room() > 0 {
            if self.core.outbox.has_backlog() {
                let pause = self.core.outbox.pause(now.monotonic_ms);
                soonest = soonest.into_iter().chain([pause]).min();
            }
            if self.core.stragglers > 0
                && let Some(due) = self.store.next_straggler()?
            {
                soonest = soonest.into_iter().chain([due.saturating_sub(now.monotonic_ms)]).min();
            }
        }
        Ok(soonest)
    }

    /// How long until the next sweep or tidying; beside `next_due`, for it moves no saga.
    pub fn next_chore(&self, now: Now) -> u64 {
        let kept = self.core.cursor_kept;
        let sweep = self.core.sweep.until(now);
        if self.core.outbox.peek_cursor() == kept.value {
            return sweep;
        }
        sweep.min(kept.at_ms.saturating_add(CURSOR_KEPT_MS).saturating_sub(now.monotonic_ms))
    }

    pub fn consumed(&self) -> &Consumed {
        self.core.catalog.consumed()
    }

    /// Whether the daemon consumes and publishes.
    pub fn is_up(&self) -> bool {
        self.core.clocks.is_up()
    }

    pub fn report(&self) -> Report {
        self.core.report.clone()
    }

    /// The definitions in memory.
    pub fn catalog(&self) -> &Catalog {
        &self.core.catalog
    }

    /// The database, to look into.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// When the next timer fires, in milliseconds from now; `None`: none does by itself.
    fn until_timer(&mut self, now: Now) -> Result<Option<u64>, StoreError> {
        let Some(gate) = self.core.clocks.until_timers_may_fire(now) else { return Ok(None) };
        let mut soonest = self.core.next_on(&self.store, Clock::Wall)?.map(|due| until(due, now.wall.0));
        let sagas: Vec<SagaNo> = self.core.catalog.sagas().map(|saga| saga.no).collect();
        for saga in sagas {
            let Some(due) = self.core.next_on(&self.store, Clock::Listening(saga))? else { continue };
            let left = match until(due, self.core.listening(saga)) {
                0 => Some(0),
                left => self.core.clocks.until_listened(now, left),
            };
            soonest = soonest.into_iter().chain(left).min();
        }
        Ok(soonest.map(|soonest| soonest.max(gate).max(self.core.allowance.until_available())))
    }
}

impl Core {
    /// When the next timer of a clock is due, as of the last commit.
    pub fn next_on(&mut self, store: &Store, clock: Clock) -> Result<Option<i64>, StoreError> {
        if let Some(next) = self.next.get(&clock) {
            return Ok(*next);
        }
        let next = store.next_due(clock)?;
        self.next.insert(clock, next);
        Ok(next)
    }

    pub fn listening(&self, saga: SagaNo) -> i64 {
        i64::try_from(self.clocks.listening_ms(saga)).unwrap_or(i64::MAX)
    }

    fn after_commit(&mut self, touched: &BTreeSet<SagaNo>) {
        self.next.remove(&Clock::Wall);
        for saga in touched {
            self.next.remove(&Clock::Listening(*saga));
        }
        self.report.batches += 1;
        self.report.unconfirmed = self.outbox.unconfirmed();
        self.report.backlog = self.outbox.has_backlog();
    }
}

impl Work<'_, '_> {
    fn all(&mut self, inputs: Vec<Input>) -> Result<(), StoreError> {
        self.drain()?;
        for input in inputs {
            self.one(input)?;
            self.drain()?;
        }
        self.fire_timers()?;
        self.drain()?;
        self.chores()?;
        self.keep_cursor()?;
        self.keep_listening()?;
        self.hand_out()
    }

    fn one(&mut self, input: Input) -> Result<(), StoreError> {
        match input {
            Input::Delivery(delivery) => self.delivery(delivery),
            Input::Accept(ticket, delivery) => {
                self.delivery(delivery)?;
                self.out.answers.push((ticket, Answer::Accepted));
                Ok(())
            }
            Input::Published(outcomes) => {
                outcomes.into_iter().try_for_each(|(at, outcome)| self.published(at, outcome))
            }
            Input::Bus(BusState::Up { waiting }) => self.bus_up(waiting),
            Input::Bus(BusState::Down { .. }) => {
                self.core.clocks.down(self.now);
                Ok(())
            }
            Input::Orders(ticket, orders) => self.orders(ticket, orders),
            Input::Publish(ticket, event) => self.publish(ticket, event),
            Input::Reload(ticket, machines) => {
                self.core.catalog = super::load::reload(&mut self.tx, machines, self.now.wall)?;
                self.out.answers.push((ticket, Answer::Reloaded(self.core.catalog.loaded())));
                Ok(())
            }
        }
    }

    /// Everything that was not confirmed goes first, in order; what was returned may find its queue again.
    fn bus_up(&mut self, waiting: u64) -> Result<(), StoreError> {
        self.core.clocks.up(self.now, waiting);
        let cursor = self.core.outbox.cursor();
        self.core.outbox.reconnected(cursor);
        if self.core.stragglers > 0 {
            self.tx.stragglers_due(self.now.monotonic_ms)?;
        }
        Ok(())
    }

    fn keep_cursor(&mut self) -> Result<(), StoreError> {
        let cursor = self.core.outbox.cursor();
        let kept = self.core.cursor_kept;
        let waits = self.last_seq.is_none()
            && self.touched.is_empty()
            && self.now.monotonic_ms.saturating_sub(kept.at_ms) < CURSOR_KEPT_MS;
        if cursor == kept.value || waits {
            return Ok(());
        }
        self.core.cursor_kept = Kept { value: cursor, at_ms: self.now.monotonic_ms };
        self.tx.keep_cursor(cursor)
    }

    /// With the commits, and at least every 10 s while a limit runs.
    fn keep_listening(&mut self) -> Result<(), StoreError> {
        let kept = self.core.listening_kept;
        let all = self.now.monotonic_ms.saturating_sub(kept.at_ms) >= LISTENING_KEPT_MS;
        let sagas: Vec<SagaNo> = if all {
            self.core.listening_kept.at_ms = self.now.monotonic_ms;
            self.core.next.iter().filter_map(|(clock, next)| running(*clock, *next)).collect()
        } else {
            Vec::new()
        };
        for saga in sagas.into_iter().chain(self.touched.iter().copied()).collect::<BTreeSet<_>>() {
            self.tx.keep_listening(saga, self.core.clocks.listening_ms(saga))?;
        }
        Ok(())
    }
}

/// The saga of a listening clock on which a limit runs.
fn running(clock: Clock, next: Option<i64>) -> Option<SagaNo> {
    match clock {
        Clock::Listening(saga) => next.map(|_| saga),
        Clock::Wall => None,
    }
}

fn until(due: i64, now: i64) -> u64 {
    if due > now { due.abs_diff(now) } else { 0 }
}
