//! A task, and all that is known of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::callback::Callback;
use crate::directory::FRESH;
use crate::flow::Reserved;
use crate::id::TaskId;
use crate::json::Json;
use crate::key::KeyId;
use crate::name::{Name, Tenant};
use crate::ports::TaskName;
use crate::retry::RetryPolicy;
use crate::time::Timestamp;

/// One unit of work. Everything that is stored about it is here; every change to it is made by [`crate::lifecycle`].
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Whose task it is.
    pub tenant: Tenant,
    /// Its id, unique inside the tenant.
    pub id: TaskId,
    /// Which handler runs it.
    pub kind: Name,
    /// The lane it waits in.
    pub queue: Name,
    /// What the handler is given.
    pub payload: Json,
    /// What the submitter wants to be told about it besides.
    pub settings: Box<Settings>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the attempts of this generation could begin: its acceptance, or its last replay. `max_age` counts from here.
    pub generation_at: Timestamp,
    /// Counts the replays, from 1.
    pub generation: u32,
    /// When its next attempt is, or its last one was, due.
    pub due_at: Timestamp,
    /// Where in its life it stands.
    pub state: State,
    /// Counts all writes to it; a write names the version that it read.
    pub version: u64,
    /// Counts the claims of its whole life: the fencing token of the newest one.
    pub token: u64,
    /// The attempts of this generation that count against its retry policy.
    pub attempt: u32,
    /// The finished attempts, oldest first; at most [`Task::KEPT_ATTEMPTS`] of them.
    pub attempts: Vec<Attempt>,
    /// What the handler returned.
    pub result: Option<Json>,
    /// Why the last attempt failed, or why there will be no other.
    pub error: Option<TaskError>,
    /// What the handler said last of how far it is.
    pub progress: Option<Json>,
    /// What it was told when it wanted to start and could not.
    pub turn: Turn,
    /// Requests with an idempotency key that changed it, oldest first. At most [`Task::KEPT_REQUESTS`] of them.
    pub requests: Vec<KeyedRequest>,
}

/// Request with an idempotency key that changed a task, kept with the task so that the same request is not carried out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedRequest {
    /// First 16 bytes of the SHA-256 of its route and its key.
    pub key: [u8; 16],
    /// First 8 bytes of the SHA-256 of its route and its body.
    pub body: [u8; 8],
}

/// What a task was told when it wanted to start and could not. It outlasts a claim, which finds out whether it can now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// How often in a row it was told to wait.
    pub times: u32,
    /// What it holds of its flows for its next try.
    pub reserved: Reserved,
    /// How many attempts of this generation were not counted, because the other side asked to be left alone.
    pub put_off: u32,
}

impl Turn {
    /// Takes away what it holds of its flows.
    pub fn release(&mut self) -> Reserved {
        std::mem::take(&mut self.reserved)
    }
}

/// What was asked for at submission and never changes, save for [`Settings::expires_at`], which a replay lifts.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How long one attempt may take.
    pub timeout: Duration,
    /// When to try again, and when to stop.
    pub retry: RetryPolicy,
    /// When it is no longer worth starting.
    pub expires_at: Option<Timestamp>,
    /// Whom to tell of its end.
    pub callback: Option<Callback>,
    /// The submitter's own notes.
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of the request that brought it, if that had an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    /// The task whose end this one reports, if it is a callback.
    pub parent: Option<TaskId>,
    /// The key that it was submitted with, if one was asked for.
    pub submitted_by: Option<KeyId>,
    /// The generation whose id downstream is given for deduplication; `None` is the task's own id.
    pub key_generation: Option<u32>,
    /// The endpoint it goes to.
    pub endpoint: Option<Name>,
    /// What it shares with the tasks that are started together only so often.
    pub flow_key: Option<Name>,
    /// What the submission left to the endpoint.
    pub left: Left,
    /// Through how many tasks the request came that submitted it: each of them made the next.
    pub hops: u8,
}

/// What a submission left to its endpoint: what stands in the task is then how the endpoint was when the task came, and how it is by the
/// time of an attempt is what holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// How long one attempt may take.
    pub timeout: bool,
    /// When to try again, and when to stop.
    pub retry: bool,
}

impl Default for Settings {
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
            flow_key: None,
            left: Left::default(),
            hops: 0,
        }
    }
}

impl Settings {
    /// Through how many tasks a request may have come: one that comes through more is taken for a loop.
    pub const MAX_HOPS: u8 = 3;
    /// The time an attempt has unless the submission says otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
}

/// SHA-256 over method, path and body of a request, to tell a repeated one from another one with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// Where a task stands. A task that has not ended has a due time ([`Task::due_at`]) or a lease; there is no third state to be forgotten in.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// It waits for [`Task::due_at`], and from then on for a worker.
    Waiting(Waiting),
    /// A worker has it.
    Running(Lease),
    /// It is over.
    Ended(Ended),
}

/// Why a task waits.
#[derive(Clone, Debug, PartialEq)]
pub enum Waiting {
    /// For its first attempt.
    Scheduled,
    /// For another attempt.
    Retrying,
    /// For permission to start.
    Held(Held),
}

/// What keeps a task from starting. Being held costs no attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The reason, for programs.
    pub reason: HeldReason,
}

/// The closed list of what a task can be held by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldReason {
    /// No process that runs tasks knows its kind.
    NoHandler,
    /// What it must be signed with cannot be had.
    NoSecret,
    /// As many tasks were started as may be in this time.
    Rate,
    /// As many tasks run as may at a time.
    Parallelism,
    /// Too much of what goes to its endpoint fails.
    Breaker,
    /// The other side asked to be left alone for a while.
    RetryAfter,
    /// What is known of its flow could not be read or written.
    FlowUnavailable,
    /// Its endpoint, its queue or its kind is paused.
    Paused,
    /// Its endpoint said that it is gone for good (410).
    EndpointGone,
    /// Its endpoint was removed.
    NoEndpoint,
    /// It waits for others, to go to its endpoint together with them.
    Gathering,
    /// The process that would run it lacks handles, ports, memory or look-ups for its call.
    ResourceExhausted,
    /// Something that a later version holds tasks for, and has a word for.
    Other,
}

impl HeldReason {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoHandler => "no_handler",
            Self::NoSecret => "no_secret",
            Self::Rate => "rate",
            Self::Parallelism => "parallelism",
            Self::Breaker => "breaker",
            Self::RetryAfter => "retry_after",
            Self::FlowUnavailable => "flow_unavailable",
            Self::Paused => "paused",
            Self::EndpointGone => "endpoint_gone",
            Self::NoEndpoint => "no_endpoint",
            Self::Gathering => "gathering",
            Self::ResourceExhausted => "resource_exhausted",
            Self::Other => "other",
        }
    }

    /// Whether it can be ended by somebody who lays down something else, or says that something is to go on.
    pub fn is_ended_by_hand(self) -> bool {
        !matches!(self, Self::NoHandler | Self::NoSecret | Self::FlowUnavailable | Self::ResourceExhausted | Self::Other)
    }

    /// When a task asks again that somebody has woken: at once; but where whoever has not heard of the change yet would hold it for long, when
    /// everybody has. Of a pause nobody holds it for more than a moment, the first time.
    pub fn woken_at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Paused | Self::EndpointGone | Self::NoEndpoint => now,
            _ => now + FRESH,
        }
    }

    /// Every reason that there is a word for.
    pub const ALL: [Self; 12] = [
        Self::NoHandler,
        Self::NoSecret,
        Self::Rate,
        Self::Parallelism,
        Self::Breaker,
        Self::RetryAfter,
        Self::FlowUnavailable,
        Self::Paused,
        Self::EndpointGone,
        Self::NoEndpoint,
        Self::Gathering,
        Self::ResourceExhausted,
    ];

    /// The reason that `word` stands for.
    pub fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Self::Other)
    }
}

/// The right of one worker to run one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// When it runs out, unless it is renewed.
    pub until: Timestamp,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// Whether its handler is to stop.
    pub cancel: CancelRequest,
}

/// Whether a running task is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelRequest {
    /// Nobody asked.
    None,
    /// Somebody asked, and there will be no further attempt.
    Requested,
}

/// How and when a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub end: End,
    /// When it ended.
    pub at: Timestamp,
}

/// The four ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// The work was done.
    Succeeded,
    /// It was given up: a dead letter.
    Failed,
    /// Somebody called it off.
    Canceled,
    /// Its deadline passed before it could start.
    Expired,
}

impl End {
    /// Every end.
    pub const ALL: [Self; 4] = [Self::Succeeded, Self::Failed, Self::Canceled, Self::Expired];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
        }
    }

    /// What it is called where it is told of as something that happened.
    pub fn event(self) -> &'static str {
        match self {
            Self::Succeeded => "task.succeeded",
            Self::Failed => "task.failed",
            Self::Canceled => "task.canceled",
            Self::Expired => "task.expired",
        }
    }

    /// The end that `word` stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.as_str() == word)
    }
}

/// What a task's standing is called, from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Its first attempt is not due yet.
    Scheduled,
    /// It is due, and waits for a worker.
    Queued,
    /// It may not start yet.
    Held,
    /// A worker has it.
    Running,
    /// It failed, and will be tried again.
    Retrying,
    /// It ended.
    Ended(End),
}

impl Status {
    /// Every status, in the order of a task's life.
    pub const ALL: [Self; 9] = [
        Self::Scheduled,
        Self::Queued,
        Self::Held,
        Self::Running,
        Self::Retrying,
        Self::Ended(End::Succeeded),
        Self::Ended(End::Failed),
        Self::Ended(End::Canceled),
        Self::Ended(End::Expired),
    ];

    /// The word for it.
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

    /// The status that `word` stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// One finished try at a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Which of the attempts of the task's whole life it was: its fencing token.
    pub number: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// When its outcome was decided.
    pub finished_at: Timestamp,
    /// How it went.
    pub outcome: Outcome,
    /// Why it did not succeed.
    pub error: Option<TaskError>,
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handler returned a result.
    Succeeded,
    /// The handler returned an error, panicked, or took too long.
    Failed,
    /// Its lease ran out: nothing more was heard of the worker.
    Crashed,
    /// Its worker gave it back unfinished, as it does when it stops. It does not count against the retry policy.
    Interrupted,
    /// It stopped because it was asked to.
    Canceled,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Succeeded, Self::Failed, Self::Crashed, Self::Interrupted, Self::Canceled];

    /// The word for it.
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

/// Why an attempt, or a task, did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    /// A stable code, for programs.
    pub code: ErrorCode,
    /// A sentence, for people. It holds no payload, header or secret.
    pub message: String,
}

/// A stable word for why an attempt failed, such as `timeout` or `http_503`.
///
/// The codes that nobat itself gives are a closed list ([`ErrorCode::ALL`]); a handler may bring its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorCode(Name);

impl ErrorCode {
    /// Its worker died, or its handler panicked.
    pub const CRASHED: &'static str = "crashed";
    /// It took longer than its timeout.
    pub const TIMEOUT: &'static str = "timeout";
    /// Its deadline passed before it could start.
    pub const EXPIRED: &'static str = "expired";
    /// Somebody called it off.
    pub const CANCELED: &'static str = "canceled";
    /// Its worker was told to stop.
    pub const INTERRUPTED: &'static str = "interrupted";
    /// No worker could claim it, although it was hinted again and again.
    pub const PIPELINE: &'static str = "pipeline";
    /// Its payload is not what its kind takes.
    pub const INVALID_PAYLOAD: &'static str = "invalid_payload";
    /// What its handler returned cannot be kept.
    pub const INVALID_RESULT: &'static str = "invalid_result";
    /// Its handler failed and gave no code of its own.
    pub const HANDLER_ERROR: &'static str = "handler_error";
    /// Nothing listens where it was to go.
    pub const CONNECTION_REFUSED: &'static str = "connection_refused";
    /// The other side hung up before its answer was complete.
    pub const CONNECTION_RESET: &'static str = "connection_reset";
    /// The other side could not be reached for another reason.
    pub const CONNECTION_FAILED: &'static str = "connection_failed";
    /// The name of the other side has no address.
    pub const DNS: &'static str = "dns";
    /// The other side did not prove who it is, or does not speak TLS.
    pub const TLS: &'static str = "tls";
    /// What the other side said is not HTTP, or has headers beyond all measure.
    pub const PROTOCOL: &'static str = "protocol";
    /// It was to go where strangers may not be sent.
    pub const BLOCKED_ADDRESS: &'static str = "blocked_address";
    /// Its URL cannot be called.
    pub const INVALID_URL: &'static str = "invalid_url";
    /// The answer was to say something of each item of a batch, and says nothing of this one.
    pub const NO_RESULT: &'static str = "no_result";
    /// The answer was to say something of each item of a batch, and cannot be read.
    pub const INVALID_ANSWER: &'static str = "invalid_answer";
    /// The answer was to say something of each item of a batch, and is longer than is read of it.
    pub const RESPONSE_TOO_LARGE: &'static str = "response_too_large";
    /// It was told to fail, by its payload.
    pub const NOOP_FAILED: &'static str = "noop_failed";

    /// Every code that nobat gives by itself, besides `http_` and the status of an answer.
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
        Self::NO_RESULT,
        Self::INVALID_ANSWER,
        Self::RESPONSE_TOO_LARGE,
        Self::CRASHED,
        Self::INTERRUPTED,
        Self::CANCELED,
        Self::EXPIRED,
        Self::PIPELINE,
        Self::INVALID_PAYLOAD,
        Self::INVALID_RESULT,
        Self::HANDLER_ERROR,
        Self::NOOP_FAILED,
    ];

    /// The code of that name; what is not a [`Name`] becomes `handler_error`.
    pub fn new(word: &str) -> Self {
        Self(Name::new(word).unwrap_or_else(|_| Name::constant(Self::HANDLER_ERROR)))
    }

    /// The HTTP status that the other side answered with, if that is what it stands for: `http_503`.
    pub fn status(&self) -> Option<u16> {
        self.as_str().strip_prefix("http_")?.parse().ok()
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl TaskError {
    /// The longest message that is kept, in bytes.
    pub const MAX_MESSAGE: usize = 1_000;

    /// An error with a code and a sentence; a long sentence is cut.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > Self::MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(Self::MAX_MESSAGE));
        }
        Self { code: ErrorCode::new(code), message }
    }
}

impl Task {
    /// A task that nobody has seen yet, due at once.
    pub(crate) fn new(name: TaskName, kind: Name, queue: Name, payload: Json, settings: Settings, now: Timestamp) -> Self {
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
            turn: Turn::default(),
            requests: Vec::new(),
        }
    }

    /// Most requests with an idempotency key that are remembered. The oldest is forgotten first.
    pub const KEPT_REQUESTS: usize = 16;

    /// Remembers a request that changes the task in the same write.
    pub fn remember(&mut self, request: KeyedRequest) {
        if self.requests.len() == Self::KEPT_REQUESTS {
            self.requests.remove(0);
        }
        self.requests.push(request);
    }

    /// Earlier request with the same route and key.
    pub fn earlier(&self, request: KeyedRequest) -> Option<KeyedRequest> {
        self.requests.iter().copied().find(|known| known.key == request.key)
    }

    /// How many attempts of a generation are not counted because the other side asked to be left alone. One that always does would
    /// otherwise be asked for ever.
    pub const MAX_PUT_OFF: u32 = 50;

    /// How many finished attempts are kept in full; earlier ones are only counted.
    pub const KEPT_ATTEMPTS: usize = 20;

    /// Its standing at that moment.
    ///
    /// Nobody writes down that a task has become due: `queued` is what waiting is called from then on.
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

    /// When somebody must look at it again if nothing happens before: it is due, its deadline passes, or its lease runs out.
    /// `None` once it has ended.
    pub fn wake_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Waiting(_) => Some(self.settings.expires_at.map_or(self.due_at, |deadline| deadline.min(self.due_at))),
            State::Running(lease) => Some(lease.until),
            State::Ended(_) => None,
        }
    }

    /// Whether its deadline has passed.
    pub fn is_past_deadline(&self, now: Timestamp) -> bool {
        self.settings.expires_at.is_some_and(|deadline| deadline <= now)
    }

    /// What a handler passes on, so that the other side can tell a repeated call from a new one.
    pub fn idempotency_key(&self) -> String {
        match self.settings.key_generation {
            None => self.id.to_string(),
            Some(generation) => format!("{}.{generation}", self.id),
        }
    }

    /// When its newest attempt began.
    pub fn started_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Running(lease) => Some(lease.started_at),
            _ => self.attempts.last().map(|attempt| attempt.started_at),
        }
    }

    /// When it ended.
    pub fn finished_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Ended(ended) => Some(ended.at),
            _ => None,
        }
    }
}
