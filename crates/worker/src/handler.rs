//! The trait that implements a kind of task.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nobat_core::config::kind::{KindError, KindRegistry, Target};
use nobat_core::json::Json;
use nobat_core::json::decode::ReadError;
use nobat_core::task::ErrorCode;
use nobat_core::task::TaskError;
use nobat_core::task::lifecycle::Retry;
use nobat_core::types::field_error::FieldError;
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::name::Name;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::TaskContext;

/// Runs the tasks of one kind.
///
/// A handler can run more than once for the same task, for instance after a crash between the effect and its record.
/// [`TaskContext::idempotency_key`] is the same for all attempts of a task; pass it on to the services that you call.
///
/// A worker stops a handler by dropping its future, at the next `await`. It does so when the attempt times out, when the worker stops, and
/// 5 seconds after the task was canceled.
///
/// Blocking code cannot be stopped. It occupies one of the threads that all handlers share, one per processor. Run long work without an
/// `await` in `tokio::task::spawn_blocking`. If all threads are blocked for longer than a lease (60 s), the program exits with an error,
/// for a supervisor to restart it.
pub trait Handler: Send + Sync + 'static {
    /// The kind that it runs: a [`Name`].
    const KIND: &'static str;

    /// Type of the payload. A submission whose payload does not parse as this type is rejected.
    type Input: DeserializeOwned + Send;

    /// Type of the result, which is stored with the task: at most [`MAX_RESULT`] bytes of JSON.
    type Output: Serialize + Send;

    /// Validates an input that parsed. Returns the errors, with pointers that start in the payload.
    fn check(&self, input: &Self::Input) -> Result<(), Vec<FieldError>> {
        let _ = input;
        Ok(())
    }

    /// Validates the input of a task that names an endpoint. `None`, the default, means that the kind supports no endpoints.
    fn check_for_endpoint(&self, input: &Self::Input) -> Option<Result<(), Vec<FieldError>>> {
        let _ = input;
        None
    }

    /// Runs one attempt.
    fn run(&self, input: Self::Input, context: &TaskContext) -> impl Future<Output = Result<Self::Output, Failure>> + Send;

    /// Returns a key for batching. Tasks of one endpoint with the same key may share a request if the endpoint allows batches. `None`, the
    /// default, means that the task runs alone.
    fn likeness(&self, input: &Self::Input) -> Option<u64> {
        let _ = input;
        None
    }

    /// Runs several tasks as one attempt. Returns one outcome per task, in order, or one failure for all.
    fn run_together<'a>(&'a self, batch: Vec<(Self::Input, &'a TaskContext)>) -> impl Future<Output = Together<Self::Output>> + Send {
        async move {
            let mut outcomes = Vec::with_capacity(batch.len());
            for (input, context) in batch {
                outcomes.push(self.run(input, context).await);
            }
            Ok(outcomes)
        }
    }
}

/// Outcomes of a batch attempt: one per task, or one failure for all.
pub type Together<T> = Result<Vec<Result<T, Failure>>, Failure>;

/// Maximum size of a result, in bytes of JSON: 256 KiB.
pub const MAX_RESULT: usize = 256 * 1024;

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
    pub(crate) wish: Option<DestinationSignal>,
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
        Self { error: TaskError::new(code, message), retry: Retry::Backoff, held: None, wish: None }
    }

    /// Creates a failure that is retried after at least `pause`.
    pub fn retry_after(pause: Duration, code: &str, message: impl Into<String>) -> Self {
        Self { error: TaskError::new(code, message), retry: Retry::After(pause), held: None, wish: None }
    }

    /// Creates a failure that pauses the limit key of the task, or else its endpoint, for all tasks. No attempt is counted. Without a limit
    /// key and an endpoint it acts like [`Failure::retry_after`].
    pub fn put_off(pause: Duration, code: &str, message: impl Into<String>) -> Self {
        Self { wish: Some(DestinationSignal::Pause(pause)), ..Self::retry_after(pause, code, message) }
    }

    /// Creates a failure after which the endpoint is marked as gone and its tasks are held until an operator or a client opens it.
    pub(crate) fn gone(code: &str, message: impl Into<String>) -> Self {
        Self { wish: Some(DestinationSignal::Gone), ..Self::permanent(code, message) }
    }

    /// Creates a failure that is not retried.
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self { error: TaskError::new(code, message), retry: Retry::Never, held: None, wish: None }
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

/// Handlers of a program, by kind.
#[derive(Clone, Default)]
pub struct Handlers {
    by_kind: BTreeMap<Name, Arc<dyn AnyHandler>>,
}

impl Handlers {
    /// Creates an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler. It replaces one of the same kind.
    #[must_use]
    pub fn with<H: Handler>(mut self, handler: H) -> Self {
        const { assert!(Name::is_valid(H::KIND), "a handler's KIND must have 1 to 64 of the characters A-Z a-z 0-9 . _ -") };
        if let Ok(kind) = Name::new(H::KIND) {
            self.by_kind.insert(kind, Arc::new(handler));
        }
        self
    }

    pub(crate) fn get(&self, kind: &Name) -> Option<&Arc<dyn AnyHandler>> {
        self.by_kind.get(kind)
    }
}

impl KindRegistry for Handlers {
    fn check(&self, kind: &Name, payload: &Json, aim: Target) -> Result<(), KindError> {
        match self.get(kind) {
            Some(handler) => handler.check(payload, aim),
            None => Err(KindError::UnknownKind(self.by_kind.keys().map(Name::to_string).collect())),
        }
    }

    fn check_authority(&self, pem: &str) -> Result<(), String> {
        nobat_delivery::authority::check(pem).map_err(|error| error.to_string())
    }
}

/// Object-safe form of [`Handler`]: JSON in, JSON out. Turns a panic into a failure.
pub(crate) trait AnyHandler: Send + Sync {
    fn check(&self, payload: &Json, aim: Target) -> Result<(), KindError>;
    fn run<'a>(&'a self, payload: &'a Json, context: &'a TaskContext) -> BoxFuture<'a, Result<Json, Failure>>;
    fn likeness(&self, payload: &Json) -> Option<u64>;
    fn run_together<'a>(&'a self, batch: Vec<(&'a Json, &'a TaskContext)>) -> BoxFuture<'a, Together<Json>>;
}

impl<H: Handler> AnyHandler for H {
    fn check(&self, payload: &Json, aim: Target) -> Result<(), KindError> {
        let input = payload.parse().map_err(|error| KindError::Payload(vec![unreadable(error)]))?;
        let checked = match aim {
            Target::Payload => Handler::check(self, &input),
            Target::Endpoint => self.check_for_endpoint(&input).ok_or(KindError::EndpointMissing)?,
        };
        checked.map_err(KindError::Payload)
    }

    fn run<'a>(&'a self, payload: &'a Json, context: &'a TaskContext) -> BoxFuture<'a, Result<Json, Failure>> {
        let work = async move { keep(&Handler::run(self, input(payload)?, context).await?) };
        Box::pin(AssertUnwindSafe(work).catch_unwind().map(|outcome| outcome.unwrap_or_else(|_| Err(panicked()))))
    }

    fn likeness(&self, payload: &Json) -> Option<u64> {
        Handler::likeness(self, &payload.parse().ok()?)
    }

    fn run_together<'a>(&'a self, batch: Vec<(&'a Json, &'a TaskContext)>) -> BoxFuture<'a, Together<Json>> {
        let work = async move {
            let batch = batch.into_iter().map(|(payload, context)| Ok((input(payload)?, context))).collect::<Result<_, Failure>>()?;
            let outcomes = Handler::run_together(self, batch).await?;
            Ok(outcomes.into_iter().map(|outcome| keep(&outcome?)).collect())
        };
        Box::pin(AssertUnwindSafe(work).catch_unwind().map(|outcome| outcome.unwrap_or_else(|_| Err(panicked()))))
    }
}

fn input<T: DeserializeOwned>(payload: &Json) -> Result<T, Failure> {
    payload.parse().map_err(|error| Failure::permanent(ErrorCode::INVALID_PAYLOAD, error.to_string()))
}

fn unreadable(error: ReadError) -> FieldError {
    match error {
        ReadError::Mismatch { pointer, detail } => FieldError::new(pointer, detail),
        ReadError::Malformed { .. } => FieldError::new("", error.to_string()),
    }
}

fn keep<T: Serialize>(output: &T) -> Result<Json, Failure> {
    let json = Json::from_value(output).map_err(|error| Failure::permanent(ErrorCode::INVALID_RESULT, error.to_string()))?;
    if json.get().len() > MAX_RESULT {
        return Err(Failure::permanent(ErrorCode::INVALID_RESULT, format!("the result is longer than {MAX_RESULT} bytes of JSON")));
    }
    Ok(json)
}

/// The panic's message stays in the process's log: it may quote the payload.
fn panicked() -> Failure {
    Failure::retry(ErrorCode::CRASHED, "the handler panicked")
}
