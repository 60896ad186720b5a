//! Conversion of clients' submissions into tasks and subscriptions.

mod callback;
pub mod event;
pub mod schedule;
#[cfg(feature = "openapi")]
mod schema;
pub mod source;
pub mod subscription;
pub mod template;
pub mod then;
mod validation;

pub use callback::{CallbackSubmission, EndWord};

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use crate::auth::api_key::KeyId;
use crate::config::endpoint::Endpoint;
use crate::config::kind::{KindRegistry, Target};
use crate::config::queue::QueueConfig;
use crate::submission::then::Position;
use crate::submission::validation::DEFAULT_QUEUE;
use crate::task::retry_submission::RetrySubmission;
use crate::task::{Fingerprint, InheritedDefaults, Outcome, Task, TaskKey, TaskOptions, Then, Wait};
use crate::types::field_error::{FieldError, ValidationErrors};
use crate::types::id::TaskId;
use crate::types::name::{InvalidName, Name, Tenant};
use crate::types::time::Timestamp;

/// Task to submit. Durations are in seconds. Unknown fields are refused.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Submission {
    /// Handler that runs the task: `http`, `noop`, or a kind that the program registered.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub kind: String,
    /// Queue in which the task waits. Default `default`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub queue: Option<String>,
    /// Input of the handler, stored byte for byte. Default `null`. Kind `http` takes an object with `url`, or
    /// with an optional `path` if `endpoint` is set. The other fields of the object are optional: `method`
    /// (default `POST`), `headers`, `timeout`, `success_statuses` and `retry_statuses`; `body`, or
    /// `body_base64` for a binary body (default type `application/octet-stream`); `idempotency_key` (1 to 255
    /// visible ASCII characters, default a key made by nobat); `wait`, if the receiver reports the outcome later:
    /// an object with `timeout` (1 to 31,622,400 seconds) and optionally `then` (`fail`, the default, `retry`,
    /// or the submission of another task).
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    pub payload: Option<Box<serde_json::value::RawValue>>,
    /// Minimum delay before the start, in seconds. At most 366 days. Cannot be combined with `run_at`.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_622_400))]
    pub delay: Option<f64>,
    /// Earliest start, at most 366 days ahead. A time in the past means now. Cannot be combined with `delay`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub run_at: Option<Timestamp>,
    /// Endpoint that a task of kind `http` calls. The payload then has a `path` instead of a `url`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub endpoint: Option<String>,
    /// Limit key. All tasks of the tenant with this key share the limits of `/v1/limits/{key}`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub limit_key: Option<String>,
    /// Maximum duration of one attempt, in seconds. Default: the endpoint's timeout, else 30. At most the
    /// server's maximum, 43,200 by default.
    #[cfg_attr(feature = "openapi", schema(minimum = 0.001))]
    pub timeout: Option<f64>,
    /// Deadline for starting: no attempt starts at or after this time. Must be in the future and after the
    /// start that `run_at` or `delay` sets. A task that waits at this time ends as `expired`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub expires_at: Option<Timestamp>,
    /// Retry policy. Default: the endpoint's policy, else the queue's, else the defaults of its fields.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<RetrySubmission>, required = false))]
    pub retry: Option<RetrySubmission>,
    /// Callback that reports the end of the task.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<CallbackSubmission>, required = false))]
    pub callback: Option<CallbackSubmission>,
    /// Labels for the client's own use: at most 20, each with a text of at most 256 bytes without control
    /// characters.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_texts")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::submission::schema::labels, required = false))]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Data that the server adds to a submission.
#[derive(Clone, Copy)]
pub struct SubmissionContext<'a> {
    /// Tenant that will own the task.
    pub tenant: &'a Tenant,
    /// Id of the task.
    pub id: TaskId,
    /// SHA-256 of the request, if the request has an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    /// API key of the request, if the server required one.
    pub submitted_by: Option<KeyId>,
    /// Maximum length of the payload in bytes, if the tenant has such a limit.
    pub max_payload: Option<NonZeroU32>,
    /// Maximum timeout of an attempt.
    pub max_timeout: Duration,
    /// Kinds that this installation runs.
    pub kinds: &'a dyn KindRegistry,
    /// Endpoint that the submission names, if it exists.
    pub endpoint: Option<&'a Endpoint>,
    /// Endpoint that `wait.then` of the payload names ([`Submission::then_endpoint`]), if it exists.
    pub then_endpoint: Option<&'a Endpoint>,
    /// Configuration of the queue. May be missing if the submission has a retry policy of its own.
    pub queue: Option<&'a QueueConfig>,
    /// Number of tasks in the chain that led to the request. 0 if no task led to the request.
    pub hops: u8,
    /// Current time.
    pub now: Timestamp,
}

impl Submission {
    /// Returns the queue of the submission. Returns `default` if the submission names no queue.
    pub fn queue(&self) -> Result<Name, InvalidName> {
        self.queue.as_deref().map_or_else(|| Ok(DEFAULT_QUEUE.clone()), Name::new)
    }

    /// Returns the task, or all errors in the submission.
    pub fn into_task(self, intake: &SubmissionContext<'_>) -> Result<Task, Vec<FieldError>> {
        self.into_task_at(intake, Position::Outer)
    }

    fn into_task_at(
        self,
        intake: &SubmissionContext<'_>,
        position: Position,
    ) -> Result<Task, Vec<FieldError>> {
        let mut wrong = ValidationErrors(Vec::new());
        let now = intake.now;
        let kind = wrong.name("/kind", Some(&self.kind));
        let queue = wrong.name("/queue", self.queue.as_deref());
        let endpoint = wrong.endpoint(self.endpoint.as_deref(), intake.endpoint);
        let found = intake.endpoint.filter(|_| endpoint.is_some());
        let payload = wrong.payload(self.payload, intake.max_payload);
        let due_at = wrong.due(self.delay, self.run_at, now);
        let settings = TaskOptions {
            timeout: wrong.timeout(
                self.timeout,
                found.and_then(|endpoint| endpoint.timeout),
                intake.max_timeout,
            ),
            expires_at: wrong.deadline(self.expires_at, due_at, now),
            retry: match &self.retry {
                Some(retry) => wrong.retry("/retry", retry),
                None => found
                    .and_then(|endpoint| endpoint.retry.clone())
                    .or_else(|| intake.queue?.retry.clone())
                    .unwrap_or_default(),
            },
            left: InheritedDefaults {
                timeout: found.is_some() && self.timeout.is_none(),
                retry: found.is_some() && self.retry.is_none(),
            },
            limit_key: self.limit_key.as_deref().and_then(|key| wrong.name("/limit_key", Some(key))),
            endpoint,
            callback: self.callback.and_then(|callback| wrong.callback(callback, intake.kinds)),
            labels: wrong.labels(self.labels.unwrap_or_default()),
            fingerprint: intake.fingerprint,
            parent: None,
            origin: None,
            submitted_by: intake.submitted_by,
            key_generation: None,
            hops: intake.hops,
        };
        if let Some(kind) = &kind {
            let aim = if self.endpoint.is_some() { Target::Endpoint } else { Target::Payload };
            let wait = wrong.fit(intake.kinds.check(kind, &payload, aim));
            match (position, wait) {
                (Position::Then, Some(_)) => {
                    wrong.add("/payload/wait", "the task of `then` cannot wait itself; omit `wait`");
                }
                (Position::Outer, Some(Wait { then: Then::Task(template), .. })) => {
                    wrong.then(&template, intake);
                }
                (Position::Outer, Some(_)) | (_, None) => {}
            }
        }
        match (kind, queue) {
            (Some(kind), Some(queue)) if wrong.0.is_empty() => {
                let name = TaskKey { tenant: intake.tenant.clone(), id: intake.id };
                Ok(Task { due_at, ..Task::new(name, kind, queue, payload, settings, now) })
            }
            _ => Err(wrong.0),
        }
    }
}

impl From<EndWord> for Outcome {
    fn from(word: EndWord) -> Self {
        match word {
            EndWord::Succeeded => Self::Succeeded,
            EndWord::Failed => Self::Failed,
            EndWord::Canceled => Self::Canceled,
            EndWord::Expired => Self::Expired,
        }
    }
}
