//! Views of a task: in API responses and in the body of a callback.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::auth::api_key::KeyId;
use crate::json::Json;
use crate::task::Task;
use crate::task::attempt::{Attempt, TaskError};
use crate::task::options::TaskOrigin;
use crate::task::retry::{Jitter, RetryPolicy, Schedule};
use crate::task::state::{State, Status, Waiting};
use crate::types::id::{EventId, TaskId};
use crate::types::name::Name;
use crate::types::time::Timestamp;

/// Labels of a task that a receiver may not see.
static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// Task as the API shows it. Lists omit `payload`, `result` and `attempts`. Responses to a key without the
/// scope `payload:view` omit `payload` and `result`. Callbacks omit `payload`, `submitted_by`, `held` and
/// `parent`, and `endpoint` and `limit_key` if they are `null`.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Task))]
pub struct TaskView<'a> {
    /// Id of the task.
    #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^task_[0-9a-z]{26}$"))]
    pub id: TaskId,
    /// Handler that runs the task.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub kind: &'a Name,
    /// Queue in which the task waits.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub queue: &'a Name,
    /// Status.
    #[cfg_attr(feature = "openapi", schema(value_type = StatusWord))]
    pub status: StatusWord,
    /// Input of the handler, as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>, required = false))]
    pub payload: Option<&'a Json>,
    /// Endpoint that the task calls. Absent in callbacks if `null`.
    // Most callbacks are thus short enough to cost one write.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, required = false))]
    pub endpoint: Option<Option<&'a Name>>,
    /// Limit key: tasks with the same limit key share the limits of this key. Absent in callbacks if `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, required = false))]
    pub limit_key: Option<Option<&'a Name>>,
    /// Labels set by the client.
    pub labels: &'a BTreeMap<String, String>,
    /// Number of attempts that count against the retry policy. A replay resets this number to 0.
    pub attempt: u32,
    /// Maximum number of attempts of the retry policy.
    pub max_attempts: u32,
    /// Time at which the task was accepted.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// Time at which the next attempt is due, or the last attempt was due.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub run_at: Timestamp,
    /// Time at which the newest attempt began.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required))]
    pub started_at: Option<Timestamp>,
    /// Time at which the task ended.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required))]
    pub finished_at: Option<Timestamp>,
    /// Deadline for starting: no attempt starts at or after this time.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required))]
    pub expires_at: Option<Timestamp>,
    /// Result that the handler returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>, required = false))]
    pub result: Option<Option<&'a Json>>,
    /// Reason why the last attempt failed, or why there is no further attempt.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub error: Option<ErrorView<'a>>,
    /// Latest progress that the handler reported.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>, required))]
    pub progress: Option<&'a Json>,
    /// Hold that keeps the task from starting. Absent in callbacks, because an ended task is not held.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<HeldView>, required = false))]
    pub held: Option<Option<HeldView>>,
    /// Number of this generation. Starts at 1; each replay adds 1.
    pub generation: u32,
    /// Task whose end this task reports, if it is a callback. Absent in callbacks, because a callback never
    /// reports another callback.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, pattern = "^task_[0-9a-z]{26}$", required = false))]
    pub parent: Option<Option<TaskId>>,
    /// Event that created the task. Absent if no subscription created the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, pattern = "^event_[0-9a-z]{26}$", required = false))]
    pub event: Option<EventId>,
    /// Subscription that created the task from the event. Absent if no subscription created the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, required = false))]
    pub subscription: Option<&'a Name>,
    /// Schedule that created the task. Absent unless a schedule did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, required = false))]
    pub schedule: Option<&'a Name>,
    /// Planned time of the schedule. Absent unless a schedule created the task at a planned time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required = false))]
    pub planned_at: Option<Timestamp>,
    /// Source that created the task. Absent unless a source did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, required = false))]
    pub source: Option<&'a Name>,
    /// Task whose wait for a completion timed out, and that so created this task. Absent unless a wait did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, pattern = "^task_[0-9a-z]{26}$", required = false))]
    pub timed_out_task: Option<TaskId>,
    /// Id of the API key that submitted the task. `null` if the server required no key, and for callbacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, required = false))]
    pub submitted_by: Option<Option<KeyId>>,
    /// Last 20 finished attempts, oldest first, then the running attempt. A running attempt has no end and no
    /// outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub attempts: Option<Vec<AttemptView<'a>>>,
}

/// Retry policy, in the format in which clients send it.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Retry))]
pub struct RetryView {
    /// Maximum number of attempts, including the first.
    pub max_attempts: u32,
    /// Delay before the first retry, in seconds. With `jitter` `full`, this is the maximum. Absent if there
    /// are `delays`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub initial_delay: Option<f64>,
    /// Factor by which the delay grows from one retry to the next. Absent if there are `delays`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub multiplier: Option<f64>,
    /// Maximum delay before a retry, in seconds. Absent if there are `delays`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub max_delay: Option<f64>,
    /// Randomness of delays: `full` or `none`. Absent if there are `delays`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, required = false))]
    pub jitter: Option<&'static str>,
    /// Maximum time from acceptance or the last replay to a retry, in seconds. `null` if there is no maximum.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub max_age: Option<f64>,
    /// Delays before the retries, in seconds. Absent unless the policy is a list of delays.
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
            initial_delay: growth.map(|growth| seconds(&growth.initial_delay)),
            multiplier: growth.map(|growth| growth.multiplier),
            max_delay: growth.map(|growth| seconds(&growth.max_delay)),
            jitter: growth.map(|growth| match growth.jitter {
                Jitter::Full => "full",
                Jitter::None => "none",
            }),
            max_age: policy.max_age.as_ref().map(seconds),
            delays,
        }
    }
}

/// Word for the status of a task.
#[derive(Clone, Copy)]
pub struct StatusWord(pub Status);

/// Error of a task or an attempt.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TaskError))]
pub struct ErrorView<'a> {
    /// Stable code for programs.
    pub code: &'a str,
    /// Sentence for people.
    pub message: &'a str,
}

/// Hold that keeps a task from starting, or the wait for the completion by its receiver.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Held))]
pub struct HeldView {
    /// Reason code for programs.
    pub reason: &'static str,
    /// Time at which the task tries again, or at which its wait times out.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub until: Timestamp,
}

/// One attempt.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Attempt))]
pub struct AttemptView<'a> {
    /// Number of the attempt over all generations, from 1.
    pub number: u64,
    /// Time at which the attempt began.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub started_at: Timestamp,
    /// Time at which the attempt's outcome was decided. `null` while the attempt runs.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required))]
    pub finished_at: Option<Timestamp>,
    /// Outcome: `succeeded`, `failed`, `crashed`, `interrupted` or `canceled`. `waiting` while the task waits
    /// for the completion by the receiver. `null` while the attempt runs.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub outcome: Option<&'static str>,
    /// Reason why the attempt did not succeed.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub error: Option<ErrorView<'a>>,
}

impl<'a> TaskView<'a> {
    /// Creates the complete view of a task.
    pub fn new(task: &'a Task, now: Timestamp) -> Self {
        let mut attempts: Vec<_> = task.attempts.iter().map(AttemptView::new).collect();
        if let State::Running(lease) = &task.state
            && !task.is_wait_over()
        {
            attempts.push(AttemptView {
                number: task.token,
                started_at: lease.started_at,
                finished_at: None,
                outcome: None,
                error: None,
            });
        }
        Self {
            payload: Some(&task.payload),
            result: Some(task.result.as_ref()),
            attempts: Some(attempts),
            ..Self::summary(task, now)
        }
    }

    /// Creates the view for a client that may not see payload and result.
    pub fn without_bodies(task: &'a Task, now: Timestamp) -> Self {
        Self { payload: None, result: None, ..Self::new(task, now) }
    }

    /// Creates the view for a callback. The view omits the payload: the receiver may not be allowed to see
    /// the payload, which would also double the size. The view omits the API key, because the receiver has no
    /// use for the key.
    pub fn report(task: &'a Task, now: Timestamp) -> Self {
        let (endpoint, limit_key) =
            (task.options.endpoint.as_ref().map(Some), task.options.limit_key.as_ref().map(Some));
        Self {
            payload: None,
            submitted_by: None,
            endpoint,
            limit_key,
            held: None,
            parent: None,
            ..Self::new(task, now)
        }
    }

    /// Creates the view for a receiver that reports the outcome of the task. It omits all that only the client
    /// has to know.
    pub fn for_token_holder(task: &'a Task, now: Timestamp) -> Self {
        Self {
            endpoint: None,
            limit_key: None,
            labels: &NO_LABELS,
            progress: None,
            held: None,
            parent: None,
            event: None,
            subscription: None,
            schedule: None,
            planned_at: None,
            source: None,
            timed_out_task: None,
            submitted_by: None,
            ..Self::summary(task, now)
        }
    }

    /// Creates the view for lists.
    pub fn summary(task: &'a Task, now: Timestamp) -> Self {
        let held = match &task.state {
            State::Waiting(Waiting::Held(held)) if task.due_at > now => {
                Some(HeldView { reason: held.reason.as_str(), until: task.due_at })
            }
            _ => None,
        };
        let origin = task.options.origin.as_ref();
        let (mut event, mut schedule, mut planned_at, mut source, mut timed_out_task) = Default::default();
        match origin {
            None => {}
            Some(TaskOrigin::Event { event: id, .. }) => event = Some(*id),
            Some(TaskOrigin::Schedule { schedule: name, planned_at: at }) => {
                (schedule, planned_at) = (Some(name), *at);
            }
            Some(TaskOrigin::Source { source: name }) => source = Some(name),
            Some(TaskOrigin::Wait { task }) => timed_out_task = Some(*task),
        }
        Self {
            id: task.id,
            kind: &task.kind,
            queue: &task.queue,
            status: StatusWord(task.status(now)),
            payload: None,
            endpoint: Some(task.options.endpoint.as_ref()),
            limit_key: Some(task.options.limit_key.as_ref()),
            labels: &task.options.labels,
            attempt: task.attempt,
            max_attempts: task.options.retry.max_attempts(),
            created_at: task.created_at,
            run_at: task.due_at,
            started_at: task.started_at(),
            finished_at: task.finished_at(),
            expires_at: task.options.expires_at,
            result: None,
            error: task.error.as_ref().map(ErrorView::new),
            progress: task.progress.as_ref(),
            held: Some(held),
            generation: task.generation,
            parent: Some(task.options.parent),
            event,
            subscription: origin.and_then(TaskOrigin::subscription),
            schedule,
            planned_at,
            source,
            timed_out_task,
            submitted_by: Some(task.options.submitted_by),
            attempts: None,
        }
    }
}

impl<'a> ErrorView<'a> {
    /// Creates the view of an error.
    pub fn new(error: &'a TaskError) -> Self {
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
