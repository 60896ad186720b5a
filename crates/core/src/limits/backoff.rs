//! Waits of held tasks, if nobat cannot estimate when a task may start.

use std::time::Duration;

use crate::limits::rate::MAX_RESERVATION_AHEAD;
use crate::types::jitter_sample::JitterSample;

/// Wait after the first hold of a task. Each further hold doubles the wait.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Returns the wait of a task that was held `times` times in a row, if nobat cannot estimate when the task
/// may start.
///
/// The full wait doubles with each hold, from 1 second up to [`MAX_RESERVATION_AHEAD`]. The result is random,
/// from half of the full wait to the full wait.
pub fn hold_backoff(times: u32, jitter: JitterSample) -> Duration {
    let half = doubled(times) / 2;
    half + jitter.of(half)
}

pub(crate) fn doubled(times: u32) -> Duration {
    FIRST_WAIT.saturating_mul(2_u32.saturating_pow(times.min(20))).min(MAX_RESERVATION_AHEAD)
}
