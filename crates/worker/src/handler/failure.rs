//! Errors of handlers.

use std::time::Duration;

use nobat_core::task::lifecycle::Retry;
use nobat_core::task::{ErrorCode, TaskError};
use nobat_core::types::held_reason::HeldReason;

/// Failure of an attempt. The `?` operator converts any error into a failure that is retried.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The error to record.
    pub error: TaskError,
    /// Retry decision.
    pub retry: Retry,
    /// Reason why no attempt was made. The task is held and no attempt is counted.
    pub(crate) held: Option<HeldReason>,
    /// Signal from the endpoint that concerns all tasks of the endpoint.
    pub(crate) signal: Option<DestinationSignal>,
}

/// Signal from the endpoint that concerns all tasks of the endpoint.
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

    /// Creates a failure that pauses the task's limit key for all tasks. If the task has no limit key, pauses
    /// the task's endpoint. Such a pause counts no attempt. Without a limit key and an endpoint, the failure
    /// acts like [`Failure::retry_after`].
    pub fn defer(pause: Duration, code: &str, message: impl Into<String>) -> Self {
        Self { signal: Some(DestinationSignal::Pause(pause)), ..Self::retry_after(pause, code, message) }
    }

    /// Creates a failure after which the endpoint is marked as gone. nobat then holds the endpoint's tasks
    /// until a client resumes the endpoint or changes its URL.
    pub(crate) fn gone(code: &str, message: impl Into<String>) -> Self {
        Self { signal: Some(DestinationSignal::Gone), ..Self::permanent(code, message) }
    }

    /// Creates a failure that is not retried.
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self { error: TaskError::new(code, message), retry: Retry::Never, held: None, signal: None }
    }

    /// Creates the failure of an attempt that was stopped after `limit`. The attempt is retried.
    pub(crate) fn timeout(limit: Duration) -> Self {
        Self::retry(
            ErrorCode::TIMEOUT,
            format!("the attempt took longer than {} seconds", limit.as_secs_f64()),
        )
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
