//! A task as it is shown: by the API, and in the body of a callback.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::id::TaskId;
use crate::json::Json;
use crate::key::KeyId;
use crate::name::Name;
use crate::retry::{Jitter, RetryPolicy, Schedule};
use crate::task::{Attempt, State, Status, Task, TaskError, Waiting};
use crate::time::Timestamp;

/// A task as it is shown. In lists, `payload`, `result` and `attempts` are absent; in callbacks, `payload`,
/// `submitted_by`, and what can only be `null` at an end are; for a key without the
/// scope `payload:view`, `payload` and `result` are.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Task))]
pub struct TaskView<'a> {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^task_[0-9a-z]{26}$"))]
    pub id: TaskId,
    /// Which handler runs it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub kind: &'a Name,
    /// The lane it waits in.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub queue: &'a Name,
    /// Where it stands.
    #[cfg_attr(feature = "openapi", schema(value_type = StatusWord))]
    pub status: StatusWord,
    /// What the handler is given, as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>, required = false))]
    pub payload: Option<&'a Json>,
    /// The endpoint that it goes to. Absent in callbacks if it is `null`, which is what keeps most of them short enough to cost one write.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, required = false))]
    pub endpoint: Option<Option<&'a Name>>,
    /// What it shares with the tasks that are started together only so often. Absent in callbacks if it is `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, required = false))]
    pub flow_key: Option<Option<&'a Name>>,
    /// The submitter's own notes.
    pub labels: &'a BTreeMap<String, String>,
    /// The attempts made so far that count against its retry policy; a replay starts anew.
    pub attempt: u32,
    /// How many attempts its retry policy allows.
    pub max_attempts: u32,
    /// When it was accepted.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When its next attempt is, or its last one was, due.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub run_at: Timestamp,
    /// When its newest attempt began.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required))]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required))]
    pub finished_at: Option<Timestamp>,
    /// When it is no longer worth starting.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required))]
    pub expires_at: Option<Timestamp>,
    /// What the handler returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>, required = false))]
    pub result: Option<Option<&'a Json>>,
    /// Why the last attempt failed, or why there will be no other.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub error: Option<ErrorView<'a>>,
    /// What the handler said last of how far it is.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>, required))]
    pub progress: Option<&'a Json>,
    /// What keeps it from starting, and until when. Absent in callbacks: nothing does any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<HeldView>, required = false))]
    pub held: Option<Option<HeldView>>,
    /// Counts the replays, from 1.
    pub generation: u32,
    /// The task whose end this one reports, if it is a callback. Absent in callbacks, which report no others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, pattern = "^task_[0-9a-z]{26}$", required = false))]
    pub parent: Option<Option<TaskId>>,
    /// The id of the key that it was submitted with; `null` where no key is asked for, and for callbacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, required = false))]
    pub submitted_by: Option<Option<KeyId>>,
    /// The last 20 attempts, oldest first; one that is still under way has no end and no outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub attempts: Option<Vec<AttemptView<'a>>>,
}

/// When to try again, as it is shown: in the words it is asked for in.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Retry))]
pub struct RetryView {
    /// All attempts, the first included.
    pub max_attempts: u32,
    /// The longest wait in seconds before the first retry; not there if there are `delays`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub base: Option<f64>,
    /// What the wait is multiplied by from one retry to the next; not there if there are `delays`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub factor: Option<f64>,
    /// The longest wait of all, in seconds; not there if there are `delays`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub max: Option<f64>,
    /// `full` or `none`; not there if there are `delays`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, required = false))]
    pub jitter: Option<&'static str>,
    /// No retry is scheduled for more than so many seconds after acceptance, or after a replay.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub max_age: Option<f64>,
    /// The waits in seconds, one by one, if they are laid down so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub delays: Option<Vec<f64>>,
}

impl From<&RetryPolicy> for RetryView {
    fn from(policy: &RetryPolicy) -> Self {
        let seconds = |duration: &Duration| duration.as_secs_f64();
        let (growth, delays) = match &policy.schedule {
            Schedule::Exponential(growth) => (Some(growth), None),
            Schedule::Delays(delays) => (None, Some(delays.iter().map(seconds).collect())),
        };
        Self {
            max_attempts: policy.max_attempts(),
            base: growth.map(|growth| seconds(&growth.base)),
            factor: growth.map(|growth| growth.factor),
            max: growth.map(|growth| seconds(&growth.max)),
            jitter: growth.map(|growth| match growth.jitter {
                Jitter::Full => "full",
                Jitter::None => "none",
            }),
            max_age: policy.max_age.as_ref().map(seconds),
            delays,
        }
    }
}

/// The word for where a task stands.
#[derive(Clone, Copy)]
pub struct StatusWord(pub Status);

/// An error, as it is shown.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TaskError))]
pub struct ErrorView<'a> {
    /// A stable code, for programs.
    pub code: &'a str,
    /// A sentence, for people.
    pub message: &'a str,
}

/// What keeps a task from starting.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Held))]
pub struct HeldView {
    /// The reason, for programs.
    pub reason: &'static str,
    /// When it is looked at again.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub until: Timestamp,
}

/// One attempt, as it is shown.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Attempt))]
pub struct AttemptView<'a> {
    /// Which of the attempts of the task's whole life it is, from 1.
    pub number: u64,
    /// When it began.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub started_at: Timestamp,
    /// When its outcome was decided.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required))]
    pub finished_at: Option<Timestamp>,
    /// How it went: `succeeded`, `failed`, `crashed`, `interrupted` or `canceled`.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub outcome: Option<&'static str>,
    /// Why it did not succeed.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub error: Option<ErrorView<'a>>,
}

impl<'a> TaskView<'a> {
    /// All that is shown of a task.
    pub fn new(task: &'a Task, now: Timestamp) -> Self {
        let mut attempts: Vec<_> = task.attempts.iter().map(AttemptView::new).collect();
        if let State::Running(lease) = &task.state {
            attempts.push(AttemptView { number: task.token, started_at: lease.started_at, finished_at: None, outcome: None, error: None });
        }
        Self { payload: Some(&task.payload), result: Some(task.result.as_ref()), attempts: Some(attempts), ..Self::summary(task, now) }
    }

    /// What is shown to somebody who may know how it goes, and not what it is about.
    pub fn without_bodies(task: &'a Task, now: Timestamp) -> Self {
        Self { payload: None, result: None, ..Self::new(task, now) }
    }

    /// What a callback tells of it: all but the payload, which the other side may not be meant to see, and which doubles the size; and
    /// but the key, which is none of its business.
    pub fn report(task: &'a Task, now: Timestamp) -> Self {
        let (endpoint, flow_key) = (task.settings.endpoint.as_ref().map(Some), task.settings.flow_key.as_ref().map(Some));
        Self { payload: None, submitted_by: None, endpoint, flow_key, held: None, parent: None, ..Self::new(task, now) }
    }

    /// What lists show of it.
    pub fn summary(task: &'a Task, now: Timestamp) -> Self {
        let held = match &task.state {
            State::Waiting(Waiting::Held(held)) if task.due_at > now => Some(HeldView { reason: held.reason.as_str(), until: task.due_at }),
            _ => None,
        };
        Self {
            id: task.id,
            kind: &task.kind,
            queue: &task.queue,
            status: StatusWord(task.status(now)),
            payload: None,
            endpoint: Some(task.settings.endpoint.as_ref()),
            flow_key: Some(task.settings.flow_key.as_ref()),
            labels: &task.settings.labels,
            attempt: task.attempt,
            max_attempts: task.settings.retry.max_attempts(),
            created_at: task.created_at,
            run_at: task.due_at,
            started_at: task.started_at(),
            finished_at: task.finished_at(),
            expires_at: task.settings.expires_at,
            result: None,
            error: task.error.as_ref().map(ErrorView::new),
            progress: task.progress.as_ref(),
            held: Some(held),
            generation: task.generation,
            parent: Some(task.settings.parent),
            submitted_by: Some(task.settings.submitted_by),
            attempts: None,
        }
    }
}

impl<'a> ErrorView<'a> {
    fn new(error: &'a TaskError) -> Self {
        Self { code: error.code.as_str(), message: &error.message }
    }
}

impl<'a> AttemptView<'a> {
    fn new(attempt: &'a Attempt) -> Self {
        Self {
            number: attempt.number,
            started_at: attempt.started_at,
            finished_at: Some(attempt.finished_at),
            outcome: Some(attempt.outcome.as_str()),
            error: attempt.error.as_ref().map(ErrorView::new),
        }
    }
}

impl Serialize for StatusWord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for StatusWord {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(Status::ALL.map(Status::as_str)))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for StatusWord {
    fn name() -> std::borrow::Cow<'static, str> {
        "Status".into()
    }
}
