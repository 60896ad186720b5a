//! State of a task, and the words for it.

use crate::limits::Reservations;
use crate::task::completion::IssuedToken;
use crate::types::held_reason::HeldReason;
use crate::types::time::Timestamp;

/// State of a task that waits for permission to start. A claim keeps this state, because the worker checks
/// only after the claim whether the task may start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldState {
    /// Number of holds in a row.
    pub holds: u32,
    /// Reservations that the task keeps at its limits for its next try.
    pub reservations: Reservations,
    /// Number of attempts of this generation that were not counted because the receiver asked for a pause or
    /// was gone (410).
    pub deferrals: u32,
    /// Completion token of the newest attempt, if the receiver may report its outcome.
    pub completion: Option<IssuedToken>,
}

impl HoldState {
    /// Removes and returns the reservations.
    pub fn release(&mut self) -> Reservations {
        std::mem::take(&mut self.reservations)
    }
}

/// State of a task. A task that has not ended has a due time ([`Task::due_at`](crate::task::Task::due_at)) or
/// a lease, so the sweeper can find it.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// The task waits until [`Task::due_at`](crate::task::Task::due_at), and then for a worker.
    Waiting(Waiting),
    /// A worker runs the task under this lease.
    Running(Lease),
    /// The task has ended.
    Ended(Completion),
}

/// Reason why a task waits.
#[derive(Clone, Debug, PartialEq)]
pub enum Waiting {
    /// The first attempt is not due yet.
    Scheduled,
    /// The next attempt is not due yet.
    Retrying,
    /// The task may not start yet.
    Held(Held),
}

/// Hold that keeps a task from starting. A hold costs no attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Reason for programs.
    pub reason: HeldReason,
}

/// Right of one worker to run one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Time at which the lease expires, unless the worker renews it.
    pub until: Timestamp,
    /// Time at which the attempt began.
    pub started_at: Timestamp,
    /// Cancellation request for the handler.
    pub cancel: CancelRequest,
}

/// Cancellation request for a running task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelRequest {
    /// No request.
    None,
    /// A client asked for cancellation. There is no further attempt.
    Requested,
}

/// End of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Kind of end.
    pub end: Outcome,
    /// Time of the end.
    pub at: Timestamp,
}

/// Ways in which a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The handler did the work.
    Succeeded,
    /// nobat makes no further attempt: the task is a dead letter.
    Failed,
    /// A client canceled the task.
    Canceled,
    /// The deadline passed before the task could start.
    Expired,
}

impl Outcome {
    /// All ends.
    pub const ALL: [Self; 4] = [Self::Succeeded, Self::Failed, Self::Canceled, Self::Expired];

    /// Returns the word for the end.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
        }
    }

    /// Returns the event type that callbacks report.
    pub fn event(self) -> &'static str {
        match self {
            Self::Succeeded => "task.succeeded",
            Self::Failed => "task.failed",
            Self::Canceled => "task.canceled",
            Self::Expired => "task.expired",
        }
    }

    /// Returns the end for `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.as_str() == word)
    }
}

/// Status of a task as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// The first attempt is not due yet.
    Scheduled,
    /// The task is due and waits for a worker.
    Queued,
    /// The task may not start yet.
    Held,
    /// A worker runs the task.
    Running,
    /// The last attempt did not succeed. The next attempt is not due yet.
    Retrying,
    /// The task has ended.
    Ended(Outcome),
}

impl Status {
    /// All statuses, in the order of a task's life.
    pub const ALL: [Self; 9] = [
        Self::Scheduled,
        Self::Queued,
        Self::Held,
        Self::Running,
        Self::Retrying,
        Self::Ended(Outcome::Succeeded),
        Self::Ended(Outcome::Failed),
        Self::Ended(Outcome::Canceled),
        Self::Ended(Outcome::Expired),
    ];

    /// Returns the word for the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Held => "held",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Ended(end) => end.as_str(),
        }
    }

    /// Returns the status for `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}
