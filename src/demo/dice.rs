//! Chance that is none: everything random in the demo is a function of a seed and of what it is thrown for, so that it
//! does not depend on the order in which things happen.

use xxhash_rust::xxh3::xxh3_64_with_seed;

#[derive(Clone, Copy, Debug)]
pub struct Dice {
    seed: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice { seed }
    }

    /// A number below `sides` for this purpose; 0 where there are no sides.
    pub fn throw(self, what_for: &str, sides: u64) -> u64 {
        xxh3_64_with_seed(what_for.as_bytes(), self.seed).checked_rem(sides).unwrap_or(0)
    }
}
