//! Task, and all data that is stored about it.

pub mod attempt;
pub mod callback;
mod callback_task;
pub mod codec;
pub mod completion;
pub mod error_code;
pub mod event;
pub mod key;
pub mod lifecycle;
pub mod options;
pub mod retry;
#[cfg(feature = "openapi")]
mod retry_schema;
pub mod retry_submission;
pub mod state;
mod token_state;
pub mod view;
pub mod wait;

pub use attempt::{Attempt, AttemptOutcome, TaskError};
pub use completion::{CompletionToken, IssuedToken, TokenDigest};
pub use error_code::ErrorCode;
pub use key::TaskKey;
pub use options::{Fingerprint, InheritedDefaults, KeyedRequest, TaskOptions, TaskOrigin};
pub use state::{CancelRequest, Completion, Held, HoldState, Lease, Outcome, State, Status, Waiting};
pub use token_state::TokenState;
pub use wait::{Then, Wait};

use crate::json::Json;

use crate::types::id::TaskId;
use crate::types::name::{Name, Tenant};
use crate::types::time::Timestamp;

/// One unit of work, with all data that is stored about it. Only [`crate::task::lifecycle`] changes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Tenant that owns the task.
    pub tenant: Tenant,
    /// Id of the task, unique within the tenant.
    pub id: TaskId,
    /// Kind: selects the handler.
    pub kind: Name,
    /// Queue in which the task waits.
    pub queue: Name,
    /// Input of the handler.
    pub payload: Json,
    /// Options of the submission.
    pub options: Box<TaskOptions>,
    /// Time at which the task was accepted.
    pub created_at: Timestamp,
    /// Start of this generation: acceptance, or the last replay. `max_age` counts from this time.
    pub generation_at: Timestamp,
    /// Number of this generation. Starts at 1; each replay adds 1.
    pub generation: u32,
    /// Time at which the next attempt is due, or the last attempt was due.
    pub due_at: Timestamp,
    /// Current state.
    pub state: State,
    /// Number of writes to the task. A write succeeds only if this is still the version that the writer read.
    pub version: u64,
    /// Number of claims over all generations. This number is the fencing token of the newest claim.
    pub token: u64,
    /// Number of attempts of this generation that count against the retry policy.
    pub attempt: u32,
    /// Finished attempts, oldest first. At most [`Task::KEPT_ATTEMPTS`].
    pub attempts: Vec<Attempt>,
    /// Result that the handler returned.
    pub result: Option<Json>,
    /// Reason why the last attempt failed, or why there is no further attempt.
    pub error: Option<TaskError>,
    /// Latest progress that the handler reported.
    pub progress: Option<Json>,
    /// Holds and reservations of the task while it waits for permission to start.
    pub hold: HoldState,
    /// Requests with an idempotency key that changed the task, and spent completion tokens, oldest first. At
    /// most [`Task::KEPT_REQUESTS`].
    pub requests: Vec<KeyedRequest>,
}

impl Task {
    /// Creates a task that is not stored yet and is due at once.
    pub(crate) fn new(
        name: TaskKey,
        kind: Name,
        queue: Name,
        payload: Json,
        settings: TaskOptions,
        now: Timestamp,
    ) -> Self {
        Self {
            tenant: name.tenant,
            id: name.id,
            kind,
            queue,
            payload,
            options: Box::new(settings),
            created_at: now,
            generation_at: now,
            generation: 1,
            due_at: now,
            state: State::Waiting(Waiting::Scheduled),
            version: 1,
            token: 0,
            attempt: 0,
            attempts: Vec::new(),
            result: None,
            error: None,
            progress: None,
            hold: HoldState::default(),
            requests: Vec::new(),
        }
    }

    /// Maximum number of requests and spent completion tokens that a task keeps. The oldest is dropped first.
    pub const KEPT_REQUESTS: usize = 16;

    /// Adds a request that changes the task in the same write. If the list is full, drops the oldest spent token,
    /// or else the oldest request.
    pub fn remember(&mut self, request: KeyedRequest) {
        if self.requests.len() == Self::KEPT_REQUESTS {
            let spent = self.requests.iter().position(KeyedRequest::is_spent_token);
            self.requests.remove(spent.unwrap_or(0));
        }
        self.requests.push(request);
    }

    /// Returns an earlier request with the same route and key.
    pub fn earlier(&self, request: KeyedRequest) -> Option<KeyedRequest> {
        self.requests.iter().copied().find(|known| known.key == request.key)
    }

    /// Maximum of [`HoldState::deferrals`]. Without this limit, nobat would never stop calling a receiver
    /// that always asks for a pause.
    pub const MAX_PUT_OFF: u32 = 50;

    /// Maximum number of finished attempts that a task keeps in full. Earlier attempts are only counted.
    pub const KEPT_ATTEMPTS: usize = 20;

    /// Returns the status at `now`.
    ///
    /// A waiting task is `queued` from its due time on. nobat writes nothing at that time.
    pub fn status(&self, now: Timestamp) -> Status {
        match &self.state {
            State::Waiting(_) if self.due_at <= now => Status::Queued,
            State::Waiting(Waiting::Scheduled) => Status::Scheduled,
            State::Waiting(Waiting::Retrying) => Status::Retrying,
            State::Waiting(Waiting::Held(_)) => Status::Held,
            State::Running(_) => Status::Running,
            State::Ended(ended) => Status::Ended(ended.end),
        }
    }

    /// Returns the time at which the task needs attention if nothing happens before: its due time, its
    /// deadline, or the expiry of its lease. `None` after its end.
    pub fn wake_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Waiting(_) => {
                Some(self.options.expires_at.map_or(self.due_at, |deadline| deadline.min(self.due_at)))
            }
            State::Running(lease) => Some(lease.until),
            State::Ended(_) => None,
        }
    }

    /// Returns true if the deadline has passed.
    pub fn is_past_deadline(&self, now: Timestamp) -> bool {
        self.options.expires_at.is_some_and(|deadline| deadline <= now)
    }

    /// Returns the idempotency key that a handler sends, so that the receiver can tell a repeated call from a
    /// new call.
    pub fn idempotency_key(&self) -> String {
        match self.options.key_generation {
            None => self.id.to_string(),
            Some(generation) => format!("{}.{generation}", self.id),
        }
    }

    /// Returns the time at which the newest attempt began.
    pub fn started_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Running(lease) => Some(lease.started_at),
            _ => self.attempts.last().map(|attempt| attempt.started_at),
        }
    }

    /// Returns the time at which the task ended.
    pub fn finished_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Ended(ended) => Some(ended.at),
            _ => None,
        }
    }
}
