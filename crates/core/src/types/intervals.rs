//! Intervals that several parts rely on.

use std::time::Duration;

/// Time for which cached configuration and secrets are valid.
pub const CONFIG_TTL: Duration = Duration::from_secs(10);

/// Duration of a lease. The worker renews it after every third of this time, so two renewals in a row may
/// fail.
pub const LEASE: Duration = Duration::from_mins(1);

/// Maximum time from now to the start of a task, and maximum of all durations that clients set: 366 days.
pub const MAX_SCHEDULE_AHEAD: Duration = Duration::from_hours(366 * 24);
