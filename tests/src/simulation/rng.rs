//! Random numbers from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

use nobat_core::ports::Random;

/// Random number generator with a seed (`SplitMix64`).
///
/// It is written out here, so that a recorded seed means the same run with every version of every library.
pub struct Dice(AtomicU64);

impl Dice {
    /// Creates a generator with this seed.
    pub fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Returns a number from 0 up to but not including `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.next_u64() % end.max(1)
    }

    /// Returns a number from `least` to `most`, inclusive.
    pub fn between(&self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// Returns true with a probability of `times` in a thousand.
    pub fn per_mille(&self, times: u64) -> bool {
        self.below(1_000) < times
    }

    /// Returns a random element, or `None` if there is none.
    pub fn pick<T: Clone>(&self, of: &[T]) -> Option<T> {
        of.get(usize::try_from(self.below(of.len() as u64)).unwrap_or(0)).cloned()
    }

    /// Shuffles the elements.
    pub fn shuffle<T>(&self, these: &mut [T]) {
        for last in (1..these.len()).rev() {
            these.swap(last, usize::try_from(self.below(last as u64 + 1)).unwrap_or(0));
        }
    }
}

impl Random for Dice {
    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut bits = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}
