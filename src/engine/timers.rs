//! Due timers, in order of due time, at a bounded rate, and never before the messages that were waiting.

use super::batch::Work;
use super::turn::Came;
use crate::saga::event::Input;
use crate::store::{Clock, DueTimer, StoreError};

impl Work<'_, '_> {
    /// Fires what is due, as much as the rate and the batch allow.
    pub(super) fn fire_timers(&mut self) -> Result<(), StoreError> {
        if !self.core.clocks.timers_may_fire(self.now) {
            return Ok(());
        }
        let limit = self.core.allowance.available(self.now).min(self.core.settings.max_batch);
        if limit == 0 {
            return Ok(());
        }
        let due = self.due(limit)?;
        for (clock, timer) in due {
            self.core.allowance.spend_one();
            self.fire(clock, timer)?;
        }
        Ok(())
    }

    /// What is due on all clocks, the longest overdue first.
    fn due(&mut self, limit: usize) -> Result<Vec<(Clock, DueTimer)>, StoreError> {
        let mut due: Vec<(i64, Clock, DueTimer)> = Vec::new();
        let clocks = self.core.catalog.sagas().map(|saga| (Clock::Listening(saga.no), self.core.listening(saga.no)));
        let clocks: Vec<(Clock, i64)> = clocks.chain([(Clock::Wall, self.now.wall.0)]).collect();
        for (clock, now) in clocks {
            if self.core.next_on(&self.tx, clock)?.is_none_or(|next| next > now) {
                continue;
            }
            let timers = self.tx.due_timers(clock, now, limit)?;
            due.extend(timers.into_iter().map(|timer| (now.saturating_sub(timer.due), clock, timer)));
        }
        due.sort_by_key(|(late, _, timer)| (std::cmp::Reverse(*late), timer.instance, timer.serial));
        due.truncate(limit);
        Ok(due.into_iter().map(|(_, clock, timer)| (clock, timer)).collect())
    }

    fn fire(&mut self, clock: Clock, timer: DueTimer) -> Result<(), StoreError> {
        // First, for a turn may set it anew; and a timer fires once, whatever comes of it.
        self.tx.spend_timer(timer.instance, timer.serial)?;
        if let Clock::Listening(saga) = clock {
            self.touched.insert(saga);
        }
        self.core.report.timers += 1;
        match self.give(timer.instance, Input::Timer { serial: timer.serial })? {
            Came::Taken | Came::Parked | Came::Missed(_) | Came::Refused { .. } | Came::Gone => Ok(()),
        }
    }
}
