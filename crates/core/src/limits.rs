//! Limits that tasks share: start rate, concurrency, circuit breaker and batches.
//!
//! A [`LimiterState`] is the state of one limiter. The tasks of a limiter share an endpoint, a kind, a queue,
//! a tenant or a limit key. All decisions here are pure: a function takes the state, the limits and the time,
//! and returns what the task does next. A backend stores the state as text. A write fails if another process
//! has changed the state since the read.

pub mod backoff;
pub mod batch;
pub mod breaker;
pub(crate) mod codec;
pub mod concurrency;
mod free_slots;
pub mod rate;
pub mod reservations;
pub mod scope;
pub mod snapshot;
pub mod state;
pub mod submission;
#[cfg(test)]
mod tests;
pub mod token_bucket;

pub use batch::{BatchDecision, BatchLimits, BatchMember, BatchPolicy, MAX_BATCH_BYTES, Successor};
pub use breaker::{BreakerChange, BreakerPolicy, BreakerState, CallHealth};
pub use concurrency::HolderId;
pub use rate::{MAX_RESERVATION_AHEAD, RateLimit, Reservation};
pub use reservations::{Reservations, ScopedReservation};
pub use scope::{InvalidLimitScope, LimitScope, LimiterKey};
pub use snapshot::{BreakerStatus, LimiterStatus};
pub use state::{AcquireRequest, AcquireResult, CallReport, Denied, LimiterChange, LimiterState, Permit};
pub use submission::{BreakerSubmission, BreakerView, LimitsSubmission, LimitsView};

use std::num::NonZeroU32;

/// Limits of a limiter. `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Start rate.
    pub rate: Option<RateLimit>,
    /// Maximum number of tasks that run at the same time.
    pub concurrency: Option<NonZeroU32>,
    /// Circuit breaker.
    pub breaker: Option<BreakerPolicy>,
}

impl Limits {
    /// Returns true if no limit is set. The task then needs no permit.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
