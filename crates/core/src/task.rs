//! Task, and all data that is stored about it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::callback::Callback;
use crate::directory::CONFIG_TTL;
use crate::flow::Reservations;
use crate::id::TaskId;
use crate::json::Json;
use crate::key::KeyId;
use crate::name::{Name, Tenant};
use crate::ports::TaskKey;
use crate::retry::RetryPolicy;
use crate::time::Timestamp;

/// One unit of work, with all data that is stored about it. Only [`crate::lifecycle`] changes it.
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
    pub settings: Box<TaskOptions>,
    /// Time at which the task was accepted.
    pub created_at: Timestamp,
    /// Start of this generation: acceptance, or the last replay. `max_age` counts from here.
    pub generation_at: Timestamp,
    /// Number of this generation. Starts at 1; each replay adds 1.
    pub generation: u32,
    /// Time at which the next attempt is due, or the last attempt was due.
    pub due_at: Timestamp,
    /// Current state.
    pub state: State,
    /// Number of writes to the task. Every write names the version that it read.
    pub version: u64,
    /// Number of claims over all generations. It is the fencing token of the newest claim.
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
    /// State of the task's waiting for permission to start.
    pub turn: HoldState,
    /// Requests with an idempotency key that changed the task, oldest first. At most [`Task::KEPT_REQUESTS`].
    pub requests: Vec<KeyedRequest>,
}

/// Request with an idempotency key that changed a task. It is kept with the task, so that nobat does not carry out a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedRequest {
    /// First 16 bytes of the SHA-256 of its route and its key.
    pub key: [u8; 16],
    /// First 8 bytes of the SHA-256 of its route and its body.
    pub body: [u8; 8],
}

/// State of a task that waits for permission to start. A claim keeps it, because the worker checks only after the claim whether the task
/// may start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldState {
    /// Number of holds in a row.
    pub times: u32,
    /// Reservations that the task keeps at its limits for its next try.
    pub reserved: Reservations,
    /// Number of attempts of this generation that were not counted because the receiver asked for a pause or was gone (410).
    pub put_off: u32,
}

impl HoldState {
    /// Removes the reservations and returns them.
    pub fn release(&mut self) -> Reservations {
        std::mem::take(&mut self.reserved)
    }
}

/// Options of the submission. They never change, except that a replay may remove [`TaskOptions::expires_at`] and set
/// [`TaskOptions::key_generation`].
#[derive(Clone, Debug, PartialEq)]
pub struct TaskOptions {
    /// Maximum duration of one attempt. Default [`TaskOptions::DEFAULT_TIMEOUT`].
    pub timeout: Duration,
    /// Retry policy.
    pub retry: RetryPolicy,
    /// Deadline for starting. No attempt starts at or after this time.
    pub expires_at: Option<Timestamp>,
    /// Callback that reports the end of the task.
    pub callback: Option<Callback>,
    /// Labels set by the submitter.
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of the submitting request, if it had an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    /// Task whose end this task reports, if it is a callback.
    pub parent: Option<TaskId>,
    /// API key of the submitting request, if the server required one.
    pub submitted_by: Option<KeyId>,
    /// Generation that is part of the idempotency key sent to the receiver. With `None`, that key is the task's id alone.
    pub key_generation: Option<u32>,
    /// Endpoint that the task calls.
    pub endpoint: Option<Name>,
    /// Limit key: tasks with the same key share its limits.
    pub limit_key: Option<Name>,
    /// Settings that the submission left to the endpoint.
    pub left: InheritedDefaults,
    /// Length of the chain of tasks that led to this submission: each task's request submitted the next one. 0 if there was none.
    pub hops: u8,
}

/// Settings that a submission left to its endpoint. The task stores the endpoint's values at submission. An attempt uses the endpoint's
/// values at the time of the attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InheritedDefaults {
    /// True if the submission set no timeout.
    pub timeout: bool,
    /// True if the submission set no retry policy.
    pub retry: bool,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            timeout: Self::DEFAULT_TIMEOUT,
            retry: RetryPolicy::default(),
            expires_at: None,
            callback: None,
            labels: BTreeMap::new(),
            fingerprint: None,
            parent: None,
            submitted_by: None,
            key_generation: None,
            endpoint: None,
            limit_key: None,
            left: InheritedDefaults::default(),
            hops: 0,
        }
    }
}

impl TaskOptions {
    /// Maximum number of tasks in the chain that led to a request. The API refuses a longer chain as a loop.
    pub const MAX_HOPS: u8 = 3;
    /// Timeout of an attempt if neither the submission nor the endpoint sets one: 30 s.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
}

/// SHA-256 over method, path and body of a request. Tells a repeated request apart from a different one with the same idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// State of a task. A task that has not ended has a due time ([`Task::due_at`]) or a lease. Without a third state, no task can be
/// forgotten.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// The task waits until [`Task::due_at`], and then for a worker.
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
    /// The endpoint, the queue or the kind is paused.
    Paused,
    /// The endpoint answered that it is gone for good (410).
    EndpointGone,
    /// The endpoint was removed.
    EndpointMissing,
    /// The task waits for other tasks, to be sent to its endpoint with them in one batch.
    Batching,
    /// The worker's process lacks file handles, ports, memory or DNS look-ups for the call.
    ResourceExhausted,
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
            Self::Other => "other",
        }
    }

    /// Returns true if a client can end the hold by changing the configuration or by resuming what is paused.
    pub fn is_ended_by_hand(self) -> bool {
        !matches!(self, Self::NoHandler | Self::SecretUnavailable | Self::LimiterUnavailable | Self::ResourceExhausted | Self::Other)
    }

    /// Returns the time at which a woken task tries again.
    ///
    /// A worker may not have read the change yet. It holds a task for a pause, or for a gone or removed endpoint, only briefly at first.
    /// Such a task therefore tries again at `now`. For the other reasons a worker could hold the task for long. Such a task waits for
    /// [`CONFIG_TTL`] (10 s), until all workers have read the change.
    pub fn woken_at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Paused | Self::EndpointGone | Self::EndpointMissing => now,
            _ => now + CONFIG_TTL,
        }
    }

    /// All reasons except [`HeldReason::Other`].
    pub const ALL: [Self; 12] = [
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
    ];

    /// Returns the reason for `word`, or [`HeldReason::Other`] if no reason has that word.
    pub fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Self::Other)
    }
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
    /// nobat gave up: the task is a dead letter.
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
    /// The last attempt did not succeed. The next one is not due yet.
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

/// One finished attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Number of the attempt over all generations: its fencing token.
    pub number: u64,
    /// Time at which the attempt began.
    pub started_at: Timestamp,
    /// Time at which its outcome was decided.
    pub finished_at: Timestamp,
    /// Outcome.
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
    /// The worker stopped and gave the task back unfinished. The attempt does not count against the retry policy.
    Interrupted,
    /// The handler stopped because a client canceled the task.
    Canceled,
}

impl AttemptOutcome {
    /// All outcomes.
    pub const ALL: [Self; 5] = [Self::Succeeded, Self::Failed, Self::Crashed, Self::Interrupted, Self::Canceled];

    /// Returns the word for the outcome.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::Interrupted => "interrupted",
            Self::Canceled => "canceled",
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

/// Stable code that says why an attempt failed, such as `timeout` or `http_503`.
///
/// nobat's own codes are a closed list ([`ErrorCode::ALL`]). A handler may return others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorCode(Name);

impl ErrorCode {
    /// The worker died, or the handler panicked.
    pub const CRASHED: &'static str = "crashed";
    /// The attempt took longer than its timeout.
    pub const TIMEOUT: &'static str = "timeout";
    /// The deadline passed before the task could start.
    pub const EXPIRED: &'static str = "expired";
    /// A client canceled the task.
    pub const CANCELED: &'static str = "canceled";
    /// The worker was told to stop.
    pub const INTERRUPTED: &'static str = "interrupted";
    /// Hints for the task were delivered repeatedly, but no worker claimed it.
    pub const DISPATCH_FAILED: &'static str = "dispatch_failed";
    /// The payload is not valid for the kind.
    pub const INVALID_PAYLOAD: &'static str = "invalid_payload";
    /// The result of the handler cannot be stored: it is too long, or cannot be written as JSON.
    pub const INVALID_RESULT: &'static str = "invalid_result";
    /// The handler failed without a code.
    pub const HANDLER_ERROR: &'static str = "handler_error";
    /// The receiver refused the connection.
    pub const CONNECTION_REFUSED: &'static str = "connection_refused";
    /// The receiver closed the connection before its response was complete.
    pub const CONNECTION_RESET: &'static str = "connection_reset";
    /// The connection to the receiver failed for another reason.
    pub const CONNECTION_FAILED: &'static str = "connection_failed";
    /// The receiver's host name has no address.
    pub const DNS: &'static str = "dns";
    /// The receiver's certificate is not trusted, or the receiver does not speak TLS.
    pub const TLS: &'static str = "tls";
    /// The response is not HTTP, or its headers are too large.
    pub const PROTOCOL: &'static str = "protocol";
    /// The destination is not a public address.
    pub const BLOCKED_ADDRESS: &'static str = "blocked_address";
    /// The URL cannot be called.
    pub const INVALID_URL: &'static str = "invalid_url";
    /// The response to a batch holds no result for this item.
    pub const ITEM_RESULT_MISSING: &'static str = "item_result_missing";
    /// The response to a batch, or its result for this item, cannot be read as per-item results.
    pub const INVALID_RESPONSE: &'static str = "invalid_response";
    /// The response to a batch is longer than the maximum that is read, so its per-item results are incomplete.
    pub const RESPONSE_TOO_LARGE: &'static str = "response_too_large";
    /// The payload told the `noop` handler to fail.
    pub const NOOP_FAILED: &'static str = "noop_failed";

    /// All codes that nobat sets by itself, except `http_` followed by the status of a response.
    pub const ALL: [&'static str; 21] = [
        Self::TIMEOUT,
        Self::CONNECTION_REFUSED,
        Self::CONNECTION_RESET,
        Self::CONNECTION_FAILED,
        Self::DNS,
        Self::TLS,
        Self::PROTOCOL,
        Self::BLOCKED_ADDRESS,
        Self::INVALID_URL,
        Self::ITEM_RESULT_MISSING,
        Self::INVALID_RESPONSE,
        Self::RESPONSE_TOO_LARGE,
        Self::CRASHED,
        Self::INTERRUPTED,
        Self::CANCELED,
        Self::EXPIRED,
        Self::DISPATCH_FAILED,
        Self::INVALID_PAYLOAD,
        Self::INVALID_RESULT,
        Self::HANDLER_ERROR,
        Self::NOOP_FAILED,
    ];

    /// Returns the code for `word`, or `handler_error` if `word` is not a [`Name`].
    pub fn new(word: &str) -> Self {
        Self(Name::new(word).unwrap_or_else(|_| Name::constant(Self::HANDLER_ERROR)))
    }

    /// Returns the HTTP status of the receiver's response if the code holds one, such as 503 for `http_503`.
    pub fn status(&self) -> Option<u16> {
        self.as_str().strip_prefix("http_")?.parse().ok()
    }

    /// Returns the code as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl TaskError {
    /// Maximum length of a message, in bytes.
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

impl Task {
    /// Creates a task that is not stored yet and is due at once.
    pub(crate) fn new(name: TaskKey, kind: Name, queue: Name, payload: Json, settings: TaskOptions, now: Timestamp) -> Self {
        Self {
            tenant: name.tenant,
            id: name.id,
            kind,
            queue,
            payload,
            settings: Box::new(settings),
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
            turn: HoldState::default(),
            requests: Vec::new(),
        }
    }

    /// Maximum number of requests with an idempotency key that are kept. The oldest is dropped first.
    pub const KEPT_REQUESTS: usize = 16;

    /// Adds a request that changes the task in the same write.
    pub fn remember(&mut self, request: KeyedRequest) {
        if self.requests.len() == Self::KEPT_REQUESTS {
            self.requests.remove(0);
        }
        self.requests.push(request);
    }

    /// Returns an earlier request with the same route and key.
    pub fn earlier(&self, request: KeyedRequest) -> Option<KeyedRequest> {
        self.requests.iter().copied().find(|known| known.key == request.key)
    }

    /// Maximum of [`HoldState::put_off`]. Without it, nobat would call a receiver for ever that always asks for a pause.
    pub const MAX_PUT_OFF: u32 = 50;

    /// Maximum number of finished attempts that are kept in full. Earlier ones are only counted.
    pub const KEPT_ATTEMPTS: usize = 20;

    /// Returns the status at `now`.
    ///
    /// nobat does not write when a task becomes due: a waiting task is `queued` from its due time on.
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

    /// Returns the time at which the task needs attention if nothing happens before: its due time, its deadline, or the expiry of its
    /// lease. `None` after its end.
    pub fn wake_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Waiting(_) => Some(self.settings.expires_at.map_or(self.due_at, |deadline| deadline.min(self.due_at))),
            State::Running(lease) => Some(lease.until),
            State::Ended(_) => None,
        }
    }

    /// Returns true if the deadline has passed.
    pub fn is_past_deadline(&self, now: Timestamp) -> bool {
        self.settings.expires_at.is_some_and(|deadline| deadline <= now)
    }

    /// Returns the idempotency key that a handler sends, so that the receiver can tell a repeated call from a new one.
    pub fn idempotency_key(&self) -> String {
        match self.settings.key_generation {
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

    /// Returns the time of the end.
    pub fn finished_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Ended(ended) => Some(ended.at),
            _ => None,
        }
    }
}
