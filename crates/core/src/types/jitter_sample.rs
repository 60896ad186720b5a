//! Random share of a delay.

use std::time::Duration;

/// Random share of a delay, from 0 to less than 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JitterSample(pub(crate) f64);

impl JitterSample {
    /// Creates a share from 64 random bits.
    pub fn from_bits(random: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
        Self((random >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// Returns this share of `duration`.
    pub(crate) fn of(self, duration: Duration) -> Duration {
        duration.mul_f64(self.0)
    }
}
