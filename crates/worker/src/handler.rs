//! What runs a kind of task: a form to fill in.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nobat_core::json::Json;
use nobat_core::lifecycle::Retry;
use nobat_core::name::Name;
use nobat_core::read::ReadError;
use nobat_core::submit::{Aim, Invalid, Kinds, Unfit};
use nobat_core::task::{ErrorCode, HeldReason, TaskError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::TaskContext;

/// Runs the tasks of one kind.
///
/// A handler can see the same task more than once: after a crash between the effect and its record there is no other
/// way. [`TaskContext::idempotency_key`] stays the same over all of a task's attempts and is meant to be passed on.
///
/// A handler is stopped by dropping its future, at the next `await`: when its timeout has passed, when its worker stops,
/// and some seconds after the task was called off.
///
/// Code that blocks cannot be stopped. It keeps one of the threads that all handlers share, of which there are as many as processors:
/// what takes long without an `await` belongs in `tokio::task::spawn_blocking`. A program all of whose threads are kept for longer
/// than a lease holds, a minute, ends with an error, for a supervisor to start it again.
pub trait Handler: Send + Sync + 'static {
    /// The kind it runs: a [`Name`].
    const KIND: &'static str;

    /// What it takes. A submission whose payload does not read as this is refused where it is made.
    type Input: DeserializeOwned + Send;

    /// What it returns, kept as the task's result: at most [`MAX_RESULT`] bytes of JSON.
    type Output: Serialize + Send;

    /// Finds what is wrong with an input that reads well. Pointers start in the payload.
    fn check(&self, input: &Self::Input) -> Result<(), Vec<Invalid>> {
        let _ = input;
        Ok(())
    }

    /// The same, of a task that names an endpoint. `None`, as is usual, is a kind whose tasks go to none.
    fn check_for_endpoint(&self, input: &Self::Input) -> Option<Result<(), Vec<Invalid>>> {
        let _ = input;
        None
    }

    /// Does the work.
    fn run(&self, input: Self::Input, context: &TaskContext) -> impl Future<Output = Result<Self::Output, Failure>> + Send;

    /// Stands for what tasks must have in common, besides their endpoint, to be done together where the endpoint wants that. `None`, as is
    /// usual, is a task that is done alone.
    fn likeness(&self, input: &Self::Input) -> Option<u64> {
        let _ = input;
        None
    }

    /// Does several together: an outcome for each, in their order, or a failure of all of them.
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

/// What came of several tasks that were done together: an outcome for each, or a failure of all of them.
pub type Together<T> = Result<Vec<Result<T, Failure>>, Failure>;

/// The longest result that is kept, in bytes of JSON.
pub const MAX_RESULT: usize = 256 * 1024;

/// Why a handler did not do its work. Any error becomes one by `?`, to be tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What is put on record.
    pub error: TaskError,
    /// Whether another attempt may help.
    pub retry: Retry,
    /// What kept the attempt from being made, if it was none: then the task rests, and no attempt is counted.
    pub(crate) held: Option<HeldReason>,
    /// What the other side wants for all that is meant for it.
    pub(crate) wish: Option<Wish>,
}

/// What the other side wants for all that is meant for it, and not for one task alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To be left alone for so long.
    Pause(Duration),
    /// Not to be called any more.
    Gone,
}

impl Failure {
    /// Another attempt may help.
    pub fn retry(code: &str, message: impl Into<String>) -> Self {
        Self { error: TaskError::new(code, message), retry: Retry::Backoff, held: None, wish: None }
    }

    /// Another attempt may help, though not before that pause is over.
    pub fn retry_after(pause: Duration, code: &str, message: impl Into<String>) -> Self {
        Self { error: TaskError::new(code, message), retry: Retry::After(pause), held: None, wish: None }
    }

    /// The other side asks to be left alone for so long, by all tasks: the flow of the task's key, or of its endpoint, rests, and no attempt
    /// is counted. Of a task that has neither it is [`Failure::retry_after`].
    pub fn put_off(pause: Duration, code: &str, message: impl Into<String>) -> Self {
        Self { wish: Some(Wish::Pause(pause)), ..Self::retry_after(pause, code, message) }
    }

    /// The other side says that it is gone for good, and what is meant for it is held until somebody looks after it.
    pub(crate) fn gone(code: &str, message: impl Into<String>) -> Self {
        Self { wish: Some(Wish::Gone), ..Self::permanent(code, message) }
    }

    /// No other attempt would end otherwise.
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self { error: TaskError::new(code, message), retry: Retry::Never, held: None, wish: None }
    }

    /// The attempt could not be made at all, for that reason.
    pub(crate) fn held(reason: HeldReason, message: &str) -> Self {
        Self { held: Some(reason), ..Self::retry(reason.as_str(), message) }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::retry(ErrorCode::HANDLER_ERROR, error.to_string())
    }
}

/// The handlers of a program, by kind.
#[derive(Clone, Default)]
pub struct Handlers {
    by_kind: BTreeMap<Name, Arc<dyn AnyHandler>>,
}

impl Handlers {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler; one of the same kind is replaced.
    #[must_use]
    pub fn with<H: Handler>(mut self, handler: H) -> Self {
        const { assert!(Name::is_valid(H::KIND), "a handler's KIND is 1 to 64 of the characters A-Z a-z 0-9 . _ -") };
        if let Ok(kind) = Name::new(H::KIND) {
            self.by_kind.insert(kind, Arc::new(handler));
        }
        self
    }

    pub(crate) fn get(&self, kind: &Name) -> Option<&Arc<dyn AnyHandler>> {
        self.by_kind.get(kind)
    }
}

impl Kinds for Handlers {
    fn check(&self, kind: &Name, payload: &Json, aim: Aim) -> Result<(), Unfit> {
        match self.get(kind) {
            Some(handler) => handler.check(payload, aim),
            None => Err(Unfit::UnknownKind(self.by_kind.keys().map(Name::to_string).collect())),
        }
    }

    fn check_authority(&self, pem: &str) -> Result<(), String> {
        nobat_delivery::authority::check(pem).map_err(|error| error.to_string())
    }
}

/// A handler whose types are forgotten: JSON in, JSON out, and a panic is a failure like any other.
pub(crate) trait AnyHandler: Send + Sync {
    fn check(&self, payload: &Json, aim: Aim) -> Result<(), Unfit>;
    fn run<'a>(&'a self, payload: &'a Json, context: &'a TaskContext) -> BoxFuture<'a, Result<Json, Failure>>;
    fn likeness(&self, payload: &Json) -> Option<u64>;
    fn run_together<'a>(&'a self, batch: Vec<(&'a Json, &'a TaskContext)>) -> BoxFuture<'a, Together<Json>>;
}

impl<H: Handler> AnyHandler for H {
    fn check(&self, payload: &Json, aim: Aim) -> Result<(), Unfit> {
        let input = payload.parse().map_err(|error| Unfit::Payload(vec![unreadable(error)]))?;
        let checked = match aim {
            Aim::Payload => Handler::check(self, &input),
            Aim::Endpoint => self.check_for_endpoint(&input).ok_or(Unfit::NoEndpoint)?,
        };
        checked.map_err(Unfit::Payload)
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

fn unreadable(error: ReadError) -> Invalid {
    match error {
        ReadError::Mismatch { pointer, detail } => Invalid::new(pointer, detail),
        ReadError::Malformed { .. } => Invalid::new("", error.to_string()),
    }
}

fn keep<T: Serialize>(output: &T) -> Result<Json, Failure> {
    let json = Json::from_value(output).map_err(|error| Failure::permanent(ErrorCode::INVALID_RESULT, error.to_string()))?;
    if json.get().len() > MAX_RESULT {
        return Err(Failure::permanent(ErrorCode::INVALID_RESULT, format!("the result is longer than {MAX_RESULT} bytes of JSON")));
    }
    Ok(json)
}

/// The panic's own message stays in the process's log: it may quote the payload.
fn panicked() -> Failure {
    Failure::retry(ErrorCode::CRASHED, "the handler panicked")
}
