//! Errors of handlers.

use std::time::Duration;

use nobat_core::task::lifecycle::Retry;
use nobat_core::task::{ErrorCode, TaskError};
use nobat_core::types::held_reason::HeldReason;

/// Failure of an attempt. The `?` operator converts any error into one that is retried.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The error to record.
    pub error: TaskError,
    /// Retry decision.
    pub retry: Retry,
    /// Reason why no attempt was made. The task is held and no attempt is counted.
    pub(crate) held: Option<HeldReason>,
    /// A request of the endpoint that concerns all of its tasks.
    pub(crate) signal: Option<DestinationSignal>,
}

/// A request of the endpoint that concerns all of its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DestinationSignal {
    /// The endpoint asks for a pause of this duration.
    Pause(Duration),
    /// The endpoint must not be called again.
    Gone,
}

impl Failure {
    /// Creates a failure that is retried.
    pub fn retry(code: &str, message: impl Into<String>) -> Self {
        Self { error: TaskError::new(code, message), retry: Retry::Backoff, held: None, signal: None }
    }

    /// Creates a failure that is retried after at least `pause`.
    pub fn retry_after(pause: Duration, code: &str, message: impl Into<String>) -> Self {
        Self { error: TaskError::new(code, message), retry: Retry::After(pause), held: None, signal: None }
    }

    /// Creates a failure that pauses the limit key of the task, or else its endpoint, for all tasks. No
    /// attempt is counted. Without a limit key and an endpoint it acts like [`Failure::retry_after`].
    pub fn defer(pause: Duration, code: &str, message: impl Into<String>) -> Self {
        Self { signal: Some(DestinationSignal::Pause(pause)), ..Self::retry_after(pause, code, message) }
    }

    /// Creates a failure after which the endpoint is marked as gone and its tasks are held until an operator
    /// or a client opens it.
    pub(crate) fn gone(code: &str, message: impl Into<String>) -> Self {
        Self { signal: Some(DestinationSignal::Gone), ..Self::permanent(code, message) }
    }

    /// Creates a failure that is not retried.
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self { error: TaskError::new(code, message), retry: Retry::Never, held: None, signal: None }
    }

    /// Creates a failure for an attempt that could not be made, for `reason`.
    pub(crate) fn held(reason: HeldReason, message: &str) -> Self {
        Self { held: Some(reason), ..Self::retry(reason.as_str(), message) }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::retry(ErrorCode::HANDLER_ERROR, error.to_string())
    }
}
