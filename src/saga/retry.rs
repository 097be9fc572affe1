//! How many attempts, and when the next one is made. Jitter is derived, so that a turn replays exactly.

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::duration::Span;
use super::machine::Retry;

impl Retry {
    /// Whether another attempt may follow after `tries` of this round.
    pub fn allows_more(&self, tries: u32) -> bool {
        self.attempts.is_none_or(|attempts| tries < attempts)
    }

    /// How long to wait after the `tries`-th attempt of this round; `seed` is the message id of that attempt.
    pub fn delay_after(&self, tries: u32, seed: Uuid) -> Span {
        let exponent = i32::try_from(tries.saturating_sub(1)).unwrap_or(i32::MAX);
        let plain = self.delay.saturating_mul_f64(self.factor.powi(exponent)).min(self.max_delay);
        plain.saturating_mul_f64(1.0 + self.jitter * signed_fraction(seed))
    }
}

/// A number from -1 to 1 out of an id.
fn signed_fraction(seed: Uuid) -> f64 {
    let bits = u32::try_from(xxh3_64(seed.as_bytes()) >> 32).expect("the upper half fits");
    f64::from(bits) / f64::from(u32::MAX) * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry() -> Retry {
        Retry { attempts: Some(3), delay: Span(1000), factor: 2.0, max_delay: Span(3000), jitter: 0.0 }
    }

    #[test]
    fn delays_grow_by_the_factor_up_to_the_most() {
        let delays: Vec<u64> = (1..=4).map(|tries| retry().delay_after(tries, Uuid::nil()).0).collect();
        assert_eq!(delays, [1000, 2000, 3000, 3000]);
    }

    #[test]
    fn jitter_stays_within_its_share_and_is_the_same_each_time() {
        let retry = Retry { jitter: 0.1, ..retry() };
        for seed in 0..1000_u128 {
            let id = Uuid::from_u128(seed);
            let delay = retry.delay_after(1, id).0;
            assert!((900..=1100).contains(&delay), "{delay}");
            assert_eq!(delay, retry.delay_after(1, id).0);
        }
    }

    #[test]
    fn always_has_no_last_attempt() {
        assert!(Retry { attempts: None, ..retry() }.allows_more(u32::MAX));
        assert!(retry().allows_more(2));
        assert!(!retry().allows_more(3));
    }
}
