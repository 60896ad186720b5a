//! Attempts of a task and their errors.

use crate::task::error_code::ErrorCode;
use crate::types::time::Timestamp;

/// One finished attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Number of the attempt over all generations: its fencing token.
    pub number: u64,
    /// Time at which the attempt began.
    pub started_at: Timestamp,
    /// Time at which the attempt's outcome was decided.
    pub finished_at: Timestamp,
    /// Outcome of the attempt.
    pub outcome: AttemptOutcome,
    /// Reason why the attempt did not succeed.
    pub error: Option<TaskError>,
}

/// Outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The handler returned a result.
    Succeeded,
    /// The handler returned an error, panicked, or took too long.
    Failed,
    /// The lease expired: the worker did not renew it.
    Crashed,
    /// The worker stopped and gave the task back unfinished. The attempt does not count against the retry
    /// policy.
    Interrupted,
    /// The handler stopped because a client canceled the task.
    Canceled,
    /// The receiver accepted the call, and the task waits for its completion. The end of the wait replaces this
    /// outcome.
    Waiting,
}

impl AttemptOutcome {
    /// All outcomes.
    pub const ALL: [Self; 6] =
        [Self::Succeeded, Self::Failed, Self::Crashed, Self::Interrupted, Self::Canceled, Self::Waiting];

    /// Returns the word for the outcome.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::Interrupted => "interrupted",
            Self::Canceled => "canceled",
            Self::Waiting => "waiting",
        }
    }
}

/// Reason why an attempt or a task did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    /// Stable code for programs.
    pub code: ErrorCode,
    /// Sentence for people. Contains no payload, header or secret.
    pub message: String,
}

impl TaskError {
    /// Maximum length of [`TaskError::message`], in bytes.
    pub const MAX_MESSAGE: usize = 1_000;

    /// Creates an error. Cuts the message to [`TaskError::MAX_MESSAGE`] bytes.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > Self::MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(Self::MAX_MESSAGE));
        }
        Self { code: ErrorCode::new(code), message }
    }
}
