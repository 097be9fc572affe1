//! How long to wait before the next try: longer each time, never the same for two daemons, and anew after a success.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Soon enough that a restarted broker is not waited for, late enough that one in trouble is not hammered.
const FIRST_MS: u64 = 200;
const LAST_MS: u64 = 5_000;
/// A quarter more or less, so that many daemons do not come back in step.
const JITTER_PERCENT: u64 = 25;

/// Delays of one connection. The seed sets it apart from the others.
#[derive(Debug)]
pub(super) struct Backoff {
    seed: u64,
    tries: u32,
    drawn: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Backoff {
        Backoff { seed, tries: 0, drawn: 0 }
    }

    pub(super) fn next(&mut self) -> Duration {
        let grown = FIRST_MS.saturating_mul(1 << self.tries.min(16)).min(LAST_MS);
        self.tries = self.tries.saturating_add(1);
        self.drawn = self.drawn.wrapping_add(1);
        let spread = grown * JITTER_PERCENT / 100;
        let drawn = xxh3_64_with_seed(&self.drawn.to_be_bytes(), self.seed) % (spread + 1);
        // Upwards where the first delay is the least there is, downwards where the last is the most.
        let delay = if grown + spread <= LAST_MS { grown + drawn } else { grown - drawn };
        Duration::from_millis(delay)
    }

    pub(super) fn begin_anew(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_from_a_fifth_of_a_second_to_five_and_begin_anew() {
        let mut backoff = Backoff::new(7);
        let delays: Vec<u64> = (0..12).map(|_| u64::try_from(backoff.next().as_millis()).unwrap()).collect();
        assert!(delays.iter().all(|delay| (200..=5_000).contains(delay)), "{delays:?}");
        assert!(delays[0] < 260 && delays[11] > 3_700, "{delays:?}");
        backoff.begin_anew();
        assert!(backoff.next() < Duration::from_millis(260));
    }

    #[test]
    fn two_daemons_do_not_come_back_in_step() {
        let delays = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..8).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        assert_ne!(delays(1), delays(2));
    }
}
