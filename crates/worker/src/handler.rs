//! The trait that implements a kind of task.

pub mod context;
pub mod failure;
pub mod registry;
pub(crate) mod tokens;

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nobat_core::config::kind::{KindError, Target};
use nobat_core::json::Json;
use nobat_core::task::Wait;
use nobat_core::types::field_error::FieldError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::handler::context::TaskContext;
use crate::handler::failure::Failure;
use crate::handler::registry::{AnyHandler, input, keep, panicked};

/// Runs the tasks of one kind.
///
/// A handler can run more than once for the same task, for instance after a crash before its outcome was
/// stored. [`TaskContext::idempotency_key`] is the same for all attempts of a task; pass it on to the
/// services that you call.
///
/// A worker stops a handler by dropping its future, at the next `await`. The worker does so when the attempt
/// times out, when the worker stops, and 5 seconds after the task was canceled.
///
/// Blocking code cannot be stopped. It occupies one of the threads that all handlers share, one per
/// processor. Run long work without an `await` in `tokio::task::spawn_blocking`. If all threads are blocked
/// for longer than a lease (60 s), the program exits with an error, for a supervisor to restart it.
pub trait Handler: Send + Sync + 'static {
    /// Kind of the tasks that the handler runs: a [`Name`](nobat_core::types::name::Name).
    const KIND: &'static str;

    /// Type of the payload. A submission whose payload does not parse as this type is rejected.
    type Input: DeserializeOwned + Send;

    /// Type of the result, which is stored with the task: at most [`MAX_RESULT`] bytes of JSON.
    type Output: Serialize + Send;

    /// Validates a parsed input. Returns the errors, with JSON pointers relative to the payload.
    fn check(&self, input: &Self::Input) -> Result<(), Vec<FieldError>> {
        let _ = input;
        Ok(())
    }

    /// Validates the input of a task that names an endpoint. `None`, the default, means that the kind
    /// supports no endpoints.
    fn check_for_endpoint(&self, input: &Self::Input) -> Option<Result<(), Vec<FieldError>>> {
        let _ = input;
        None
    }

    /// Returns the wait for a completion, if a receiver finishes the work that an attempt starts.
    ///
    /// Each attempt then has a [`TaskContext::completion_token`]. If [`Handler::run`] succeeds, the task waits
    /// for `POST /v1/tasks/{id}/complete` or `/fail` with this token, and the result of the attempt is not
    /// stored. A task in [`Then`](nobat_core::task::Then) must come from the field `wait.then` of the payload,
    /// because the server checks its endpoint and points its errors there.
    fn wait(&self, input: &Self::Input) -> Option<Wait> {
        let _ = input;
        None
    }

    /// Runs one attempt.
    fn run(
        &self,
        input: Self::Input,
        context: &TaskContext,
    ) -> impl Future<Output = Result<Self::Output, Failure>> + Send;

    /// Returns a key for batching. Tasks of one endpoint with the same key may share a request if the
    /// endpoint allows batches. `None`, the default, means that the task runs alone.
    fn batch_key(&self, input: &Self::Input) -> Option<u64> {
        let _ = input;
        None
    }

    /// Runs several tasks as one attempt. Returns one outcome per task, in order, or one failure for all.
    fn run_batch<'a>(
        &'a self,
        batch: Vec<(Self::Input, &'a TaskContext)>,
    ) -> impl Future<Output = BatchOutcome<Self::Output>> + Send {
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
pub type BatchOutcome<T> = Result<Vec<Result<T, Failure>>, Failure>;

/// Maximum size of a result, in bytes of JSON: 256 KiB.
pub const MAX_RESULT: usize = 256 * 1024;

impl<H: Handler> AnyHandler for H {
    fn check(&self, payload: &Json, aim: Target) -> Result<Option<Wait>, KindError> {
        let input = payload.parse().map_err(|error| KindError::Payload(vec![error.into()]))?;
        let checked = match aim {
            Target::Payload => Handler::check(self, &input),
            Target::Endpoint => self.check_for_endpoint(&input).ok_or(KindError::EndpointNotSupported)?,
        };
        checked.map_err(KindError::Payload)?;
        Ok(Handler::wait(self, &input))
    }

    fn wait(&self, payload: &Json) -> Option<Wait> {
        Handler::wait(self, &payload.parse().ok()?)
    }

    fn run<'a>(
        &'a self,
        payload: &'a Json,
        context: &'a TaskContext,
    ) -> BoxFuture<'a, Result<Json, Failure>> {
        let work = async move {
            let input = input(payload)?;
            if let Some(wait) = Handler::wait(self, &input) {
                context.issue_token(wait.timeout).await?;
            }
            keep(&Handler::run(self, input, context).await?)
        };
        Box::pin(
            AssertUnwindSafe(work).catch_unwind().map(|outcome| outcome.unwrap_or_else(|_| Err(panicked()))),
        )
    }

    fn batch_key(&self, payload: &Json) -> Option<u64> {
        Handler::batch_key(self, &payload.parse().ok()?)
    }

    fn run_batch<'a>(&'a self, batch: Vec<(&'a Json, &'a TaskContext)>) -> BoxFuture<'a, BatchOutcome<Json>> {
        let work = async move {
            let batch = batch
                .into_iter()
                .map(|(payload, context)| Ok((input(payload)?, context)))
                .collect::<Result<_, Failure>>()?;
            let outcomes = Handler::run_batch(self, batch).await?;
            Ok(outcomes.into_iter().map(|outcome| keep(&outcome?)).collect())
        };
        Box::pin(
            AssertUnwindSafe(work).catch_unwind().map(|outcome| outcome.unwrap_or_else(|_| Err(panicked()))),
        )
    }
}
