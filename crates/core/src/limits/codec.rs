//! Stored form of limits: compact JSON inside other records.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{BreakerPolicy, Limits, RateLimit};

/// Stored form of [`Limits`].
#[derive(Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct StoredLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<StoredRate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<StoredBreaker>,
}

/// Stored form of a rate limit: rate, period in milliseconds, burst.
#[derive(Serialize, Deserialize, PartialEq)]
struct StoredRate(NonZeroU32, u64, NonZeroU32);

/// Stored form of circuit breaker settings: failure rate, window and open duration in milliseconds, minimum
/// number of attempts.
#[derive(Serialize, Deserialize, PartialEq)]
struct StoredBreaker(f64, u64, u64, NonZeroU32);

impl From<Limits> for StoredLimits {
    fn from(limits: Limits) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            rate_limit: limits
                .rate
                .map(|rate_limit| StoredRate(rate_limit.rate, millis(rate_limit.period), rate_limit.burst)),
            concurrency: limits.concurrency,
            breaker: limits.breaker.map(|of| {
                StoredBreaker(of.failure_rate, millis(of.window), millis(of.open_duration), of.minimum_calls)
            }),
        }
    }
}

impl From<StoredLimits> for Limits {
    fn from(stored: StoredLimits) -> Self {
        let rate_limit = |StoredRate(rate, period, burst)| RateLimit {
            rate,
            period: Duration::from_millis(period),
            burst,
        };
        let breaker = |StoredBreaker(failure_rate, window, open, minimum_calls)| BreakerPolicy {
            failure_rate,
            window: Duration::from_millis(window),
            minimum_calls,
            open_duration: Duration::from_millis(open),
        };
        Self {
            rate: stored.rate_limit.map(rate_limit),
            concurrency: stored.concurrency,
            breaker: stored.breaker.map(breaker),
        }
    }
}
