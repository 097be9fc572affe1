//! The listening clock, and when timers may fire at all. Arithmetic only: what time it is, it is told.

use std::collections::HashMap;

use super::Now;
use crate::store::SagaNo;

/// After this long timers fire though messages that waited have not all been handled: one that the broker counted may
/// never come.
const WAITING_LIMIT_MS: u64 = 30_000;

/// Time during which the daemon consumes and publishes. It stands still while it does not, and for a grace after.
#[derive(Debug)]
pub struct Clocks {
    grace_ms: u64,
    /// Milliseconds listened to since the engine was opened.
    listened_ms: u64,
    /// Where each saga's clock stood then.
    began: HashMap<SagaNo, u64>,
    up: Option<Up>,
}

#[derive(Clone, Copy, Debug)]
struct Up {
    /// All three on the monotonic clock.
    since_ms: u64,
    listens_from_ms: u64,
    counted_to_ms: u64,
    /// Messages that stood in the queue then and have not been handled.
    waiting: u64,
}

impl Clocks {
    pub fn new(grace_ms: u64, began: impl IntoIterator<Item = (SagaNo, u64)>) -> Clocks {
        Clocks { grace_ms, listened_ms: 0, began: began.into_iter().collect(), up: None }
    }

    pub fn up(&mut self, now: Now, waiting: u64) {
        self.advance(now);
        let since_ms = now.monotonic_ms;
        let listens_from_ms = since_ms.saturating_add(self.grace_ms);
        self.up = Some(Up { since_ms, listens_from_ms, counted_to_ms: listens_from_ms, waiting });
    }

    pub fn down(&mut self, now: Now) {
        self.advance(now);
        self.up = None;
    }

    pub fn is_up(&self) -> bool {
        self.up.is_some()
    }

    /// Counts what was listened to until now.
    pub fn advance(&mut self, now: Now) {
        if let Some(up) = &mut self.up
            && now.monotonic_ms > up.counted_to_ms
        {
            self.listened_ms += now.monotonic_ms - up.counted_to_ms;
            up.counted_to_ms = now.monotonic_ms;
        }
    }

    /// A delivery was handled.
    pub fn delivered(&mut self) {
        if let Some(up) = &mut self.up {
            up.waiting = up.waiting.saturating_sub(1);
        }
    }

    /// What a saga's listening clock shows.
    pub fn listening_ms(&self, saga: SagaNo) -> u64 {
        self.began.get(&saga).copied().unwrap_or(0) + self.listened_ms
    }

    /// Messages before timers: whether any timer may fire now.
    pub fn timers_may_fire(&self, now: Now) -> bool {
        self.until_timers_may_fire(now) == Some(0)
    }

    /// How long until timers may fire if no message comes; `None` while the daemon does not consume.
    pub fn until_timers_may_fire(&self, now: Now) -> Option<u64> {
        let up = self.up.as_ref()?;
        if up.waiting == 0 {
            return Some(0);
        }
        Some(up.since_ms.saturating_add(WAITING_LIMIT_MS).saturating_sub(now.monotonic_ms))
    }

    /// How long until the listening clocks show `ms` more than now; `None` while they stand for want of a broker.
    pub fn until_listened(&self, now: Now, ms: u64) -> Option<u64> {
        let up = self.up.as_ref()?;
        Some(up.listens_from_ms.saturating_sub(now.monotonic_ms).saturating_add(ms))
    }
}

/// At most so many timers a second, with a second's worth at once.
#[derive(Debug)]
pub struct Allowance {
    per_second: u64,
    /// Thousandths of a timer.
    left: u64,
    counted_to_ms: u64,
}

impl Allowance {
    pub fn new(per_second: u32) -> Allowance {
        let per_second = u64::from(per_second.max(1));
        Allowance { per_second, left: per_second * 1_000, counted_to_ms: 0 }
    }

    pub fn available(&mut self, now: Now) -> usize {
        let passed = now.monotonic_ms.saturating_sub(self.counted_to_ms);
        self.counted_to_ms = self.counted_to_ms.max(now.monotonic_ms);
        self.left = self.left.saturating_add(passed.saturating_mul(self.per_second)).min(self.per_second * 1_000);
        usize::try_from(self.left / 1_000).unwrap_or(usize::MAX)
    }

    pub fn spend_one(&mut self) {
        self.left = self.left.saturating_sub(1_000);
    }

    /// How long until there is one to spend.
    pub fn until_available(&self) -> u64 {
        1_000_u64.saturating_sub(self.left).div_ceil(self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::time::Timestamp;

    const SAGA: SagaNo = SagaNo(1);

    fn at(monotonic_ms: u64) -> Now {
        Now { wall: Timestamp(0), monotonic_ms }
    }

    #[test]
    fn the_clock_stands_until_the_grace_is_over_and_while_the_bus_is_down() {
        let mut clocks = Clocks::new(5_000, [(SAGA, 100)]);
        clocks.advance(at(1_000));
        assert_eq!(clocks.listening_ms(SAGA), 100);
        clocks.up(at(2_000), 0);
        clocks.advance(at(6_999));
        assert_eq!(clocks.listening_ms(SAGA), 100);
        clocks.advance(at(8_000));
        assert_eq!(clocks.listening_ms(SAGA), 1_100);
        clocks.down(at(9_000));
        assert_eq!(clocks.listening_ms(SAGA), 2_100);
        clocks.up(at(60_000), 0);
        clocks.advance(at(65_500));
        assert_eq!(clocks.listening_ms(SAGA), 2_600);
    }

    #[test]
    fn no_timer_fires_before_the_waiting_messages_but_none_waits_for_ever() {
        let mut clocks = Clocks::new(0, []);
        assert_eq!(clocks.until_timers_may_fire(at(0)), None);
        clocks.up(at(1_000), 2);
        assert!(!clocks.timers_may_fire(at(1_000)));
        clocks.delivered();
        assert!(!clocks.timers_may_fire(at(1_000)));
        clocks.delivered();
        assert!(clocks.timers_may_fire(at(1_000)));
        clocks.up(at(2_000), 1);
        assert_eq!(clocks.until_timers_may_fire(at(12_000)), Some(20_000));
        assert!(clocks.timers_may_fire(at(32_000)));
    }

    #[test]
    fn the_allowance_refills_with_time_up_to_a_second() {
        let mut allowance = Allowance::new(10);
        assert_eq!(allowance.available(at(0)), 10);
        (0..10).for_each(|_| allowance.spend_one());
        assert_eq!(allowance.available(at(0)), 0);
        assert_eq!(allowance.until_available(), 100);
        assert_eq!(allowance.available(at(250)), 2);
        assert_eq!(allowance.available(at(100_000)), 10);
    }
}
