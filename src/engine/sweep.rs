//! Chores, in small pieces between the inputs: promise 6 (every live instance has something that will move it), and
//! forgetting what has been kept long enough.

use super::Now;
use super::batch::Work;
use crate::saga::event::Input;
use crate::saga::ids::InstanceNo;
use crate::saga::instance::{Instance, Status};
use crate::saga::machine::Machine;
use crate::saga::time::Timestamp;
use crate::store::{StoreError, TimerRow};

/// Pause between two pieces, so that a pass over a million instances takes little of any second.
const PIECE_EVERY_MS: u64 = 100;
/// Pause between two passes.
const PASS_EVERY_MS: u64 = 60_000;
/// Instances looked at, and rows removed of each kind, in one piece.
const PIECE: usize = 100;
/// Pages given back to the file system in one piece.
const PAGES: u32 = 256;

/// Where the sweep is.
#[derive(Debug)]
pub(super) struct Sweep {
    /// On the monotonic clock.
    next_ms: u64,
    /// The last instance that this pass has looked at; `None`: a pass begins.
    after: Option<InstanceNo>,
}

impl Sweep {
    pub fn new(now: Now) -> Sweep {
        Sweep { next_ms: now.monotonic_ms.saturating_add(PIECE_EVERY_MS), after: None }
    }

    pub fn until(&self, now: Now) -> u64 {
        self.next_ms.saturating_sub(now.monotonic_ms)
    }
}

impl Work<'_, '_> {
    pub(super) fn chores(&mut self) -> Result<(), StoreError> {
        if self.core.sweep.until(self.now) > 0 {
            return Ok(());
        }
        let more = self.sweep()? | self.forget()?;
        let pause = if more { PIECE_EVERY_MS } else { PASS_EVERY_MS };
        self.core.sweep.next_ms = self.now.monotonic_ms.saturating_add(pause);
        Ok(())
    }

    /// Looks at a page of live instances. What the broker does not have yet moves its instance: so nothing is swept
    /// while it is away or behind. Returns whether the pass goes on.
    fn sweep(&mut self) -> Result<bool, StoreError> {
        if !self.core.clocks.is_up() || self.core.outbox.has_backlog() {
            return Ok(false);
        }
        let page = self.tx.live_after(self.core.sweep.after, PIECE)?;
        let unsent = self.tx.instances_unsent()?;
        for no in &page {
            if !unsent.contains(no) && self.is_stalled(*no)? {
                self.give(*no, Input::Stalled)?;
            }
        }
        let whole = page.len() < PIECE;
        self.core.sweep.after = if whole { None } else { page.last().copied() };
        if whole {
            self.forget_versions()?;
        }
        Ok(!whole)
    }

    fn is_stalled(&mut self, no: InstanceNo) -> Result<bool, StoreError> {
        let stored = match self.core.cache.get(no) {
            Some(stored) => stored,
            // Not into the cache: a pass would drive everything else out.
            None => match self.tx.instance(no)? {
                Some(stored) => std::sync::Arc::new(stored),
                None => return Ok(false),
            },
        };
        if self.core.draining.contains(&no) || stored.instance.is_held() {
            return Ok(false);
        }
        let definition = self.definition(stored.instance.definition)?;
        if definition.machine().is_none() {
            // The turn will be the fault that says so, before anything has to wait for it.
            return Ok(true);
        }
        let timers = self.tx.timers_of(no)?;
        Ok(!moves_by_itself(definition.machine(), &stored.instance, &timers))
    }

    /// Older versions whose last instance has ended are asked no more.
    fn forget_versions(&mut self) -> Result<(), StoreError> {
        let live = self.tx.live_definitions()?;
        self.core.catalog.retain_versions(&live);
        Ok(())
    }

    /// Removes what has been kept long enough; returns whether there is more.
    fn forget(&mut self) -> Result<bool, StoreError> {
        let now = self.now.wall;
        let retention = self.core.settings.retention;
        let before = |kept_ms: u64| Timestamp(now.0.saturating_sub_unsigned(kept_ms));
        self.tx.turn_inbox(now, retention.inbox_ms)?;
        let ended = self.tx.purge_ended(before(retention.ended_ms), PIECE)?;
        if ended.items > 0 {
            // Which of them were in memory is not told; they come back from the store.
            self.core.cache.clear();
        }
        let pieces = [
            ended,
            self.tx.purge_loose(before(retention.ended_ms), PIECE)?,
            self.tx.purge_orders(before(retention.orders_ms), PIECE)?,
            self.tx.purge_aside(before(retention.aside_ms), retention.aside_rows, PIECE)?,
        ];
        if pieces.iter().any(|piece| piece.items > 0) {
            self.tx.give_back_pages(PAGES)?;
        }
        Ok(pieces.iter().any(|piece| piece.more))
    }
}

/// Promise 6 for one instance of which the broker has every message: a timer that runs, an event that its state
/// handles, an open decision or an open incident.
pub(super) fn moves_by_itself(machine: Option<&Machine>, instance: &Instance, timers: &[TimerRow]) -> bool {
    let marks = instance.marks();
    if marks.stuck || marks.paused || instance.decision.is_some() {
        return true;
    }
    if instance.status.is_end() && !marks.settling {
        return true;
    }
    if timers.iter().any(|timer| timer.due.is_some()) {
        return true;
    }
    let handles = |machine: &Machine| {
        let state = machine.state(&instance.state).is_some_and(|state| !state.on.is_empty());
        state || !machine.on.is_empty()
    };
    instance.status == Status::Running && machine.is_some_and(handles)
}
