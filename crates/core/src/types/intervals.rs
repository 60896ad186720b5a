//! Intervals that several parts rely on.

use std::time::Duration;

/// Time for which a cached value is valid.
pub const CONFIG_TTL: Duration = Duration::from_secs(10);

/// Duration of a lease. The worker renews it after every third of this time, so two renewals in a row may
/// fail.
pub const LEASE: Duration = Duration::from_mins(1);
