//! Waits of held tasks that have no better estimate.

use std::time::Duration;

use crate::limits::rate::MAX_RESERVATION_AHEAD;
use crate::types::jitter_sample::JitterSample;

/// First of the waits that double.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Returns the wait of a task that was held `times` times in a row and has no better estimate.
///
/// The wait doubles from 1 second up to [`MAX_RESERVATION_AHEAD`]. Its second half is random.
pub fn hold_backoff(times: u32, jitter: JitterSample) -> Duration {
    let half = doubled(times) / 2;
    half + jitter.of(half)
}

pub(crate) fn doubled(times: u32) -> Duration {
    FIRST_WAIT.saturating_mul(2_u32.saturating_pow(times.min(20))).min(MAX_RESERVATION_AHEAD)
}
