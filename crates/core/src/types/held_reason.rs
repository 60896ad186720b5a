//! Reasons for which a task is held.

use crate::types::intervals::CONFIG_TTL;
use crate::types::time::Timestamp;

/// Reasons to hold a task. The list is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldReason {
    /// The worker has no handler for the kind.
    NoHandler,
    /// A secret that the request needs, for its signature or its headers, is not available.
    SecretUnavailable,
    /// A rate limit is used up.
    RateLimited,
    /// A concurrency limit is used up.
    ConcurrencyLimited,
    /// The circuit breaker of the endpoint is open: too many calls failed.
    CircuitOpen,
    /// The receiver asked for a pause (`Retry-After`).
    RetryAfter,
    /// The state of a limit could not be read or written.
    LimiterUnavailable,
    /// The endpoint, queue, kind or subscription is paused.
    Paused,
    /// The endpoint responded with 410 (Gone).
    EndpointGone,
    /// The endpoint was removed.
    EndpointMissing,
    /// The task waits for other tasks, to be sent to its endpoint with them in one batch.
    Batching,
    /// The worker's process has no free file handle, port, memory or DNS query for the call.
    ResourceExhausted,
    /// The receiver accepted the call, and the task waits for its completion.
    Waiting,
    /// A reason that this version does not know: a later version of nobat stored it.
    Other,
}

impl HeldReason {
    /// Returns the word for the reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoHandler => "no_handler",
            Self::SecretUnavailable => "secret_unavailable",
            Self::RateLimited => "rate_limited",
            Self::ConcurrencyLimited => "concurrency_limited",
            Self::CircuitOpen => "circuit_open",
            Self::RetryAfter => "retry_after",
            Self::LimiterUnavailable => "limiter_unavailable",
            Self::Paused => "paused",
            Self::EndpointGone => "endpoint_gone",
            Self::EndpointMissing => "endpoint_missing",
            Self::Batching => "batching",
            Self::ResourceExhausted => "resource_exhausted",
            Self::Waiting => "waiting",
            Self::Other => "other",
        }
    }

    /// Returns true if a client can end the hold by changing or resuming the object that causes it.
    pub fn is_operator_clearable(self) -> bool {
        !matches!(
            self,
            Self::NoHandler
                | Self::SecretUnavailable
                | Self::LimiterUnavailable
                | Self::ResourceExhausted
                | Self::Waiting
                | Self::Other
        )
    }

    /// Returns the time at which a woken task tries again.
    ///
    /// A worker that has not read the configuration change yet holds the task again. If an object was paused,
    /// gone or missing, that hold is short, so the task tries again at `now`. For the other reasons, that
    /// hold could be long. So the task waits for [`CONFIG_TTL`] (10 s), until all workers have read the
    /// change.
    pub fn resume_at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Paused | Self::EndpointGone | Self::EndpointMissing => now,
            _ => now + CONFIG_TTL,
        }
    }

    /// All reasons except [`HeldReason::Other`].
    pub const ALL: [Self; 13] = [
        Self::NoHandler,
        Self::SecretUnavailable,
        Self::RateLimited,
        Self::ConcurrencyLimited,
        Self::CircuitOpen,
        Self::RetryAfter,
        Self::LimiterUnavailable,
        Self::Paused,
        Self::EndpointGone,
        Self::EndpointMissing,
        Self::Batching,
        Self::ResourceExhausted,
        Self::Waiting,
    ];

    /// Returns the reason for `word`, or [`HeldReason::Other`] if no reason has that word.
    pub fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Self::Other)
    }
}
