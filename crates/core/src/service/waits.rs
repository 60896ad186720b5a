//! Ends waits that timed out, and finds the retry policy after a completion.

use crate::config::kind::KindRegistry;
use crate::json::Json;
use crate::policy::inherited_retry;
use crate::ports::StoreError;
use crate::service::backend::Backend;
use crate::service::config_cache::ConfigCache;
use crate::service::schedules::AnyKind;
use crate::submission::SubmissionContext;
use crate::submission::then::{follow_up, read_then};
use crate::task::lifecycle::{Event, Retry};
use crate::task::retry::RetryPolicy;
use crate::task::{ErrorCode, Task, TaskError, TaskOrigin, Then};
use crate::types::field_error::FieldError;
use crate::types::id::TaskId;
use crate::types::intervals::MAX_SCHEDULE_AHEAD;
use crate::types::jitter_sample::JitterSample;
use crate::types::time::Timestamp;

/// Ends waits that timed out.
#[derive(Clone, Copy)]
pub struct Waits<'a> {
    /// Stores the tasks.
    pub backend: &'a Backend,
    /// Cached endpoints and queues.
    pub config_cache: &'a ConfigCache,
    /// Kinds that this installation runs.
    pub kinds: &'a dyn KindRegistry,
    /// Current time.
    pub now: Timestamp,
}

/// Text of the error of a wait that timed out.
const TIMED_OUT: &str = "the receiver accepted the call, but did not report its outcome before the time-out";

impl Waits<'_> {
    /// Returns the event that ends the wait of a task. Creates the task in `wait.then` before.
    ///
    /// The id of the created task derives from the task that waited, so a repeated call creates no second
    /// task.
    pub async fn time_out(
        &self,
        task: &Task,
        then: &Then,
        spread: JitterSample,
    ) -> Result<Event, StoreError> {
        let (retry, policy, message) = match then {
            Then::Fail => (Retry::Never, None, TIMED_OUT.to_owned()),
            Then::Retry => {
                (Retry::Backoff, retry_policy(self.config_cache, task).await?, TIMED_OUT.to_owned())
            }
            Then::Task(template) => (Retry::Never, None, self.create(task, template).await?),
        };
        let error = TaskError::new(ErrorCode::WAIT_TIMEOUT, message);
        Ok(Event::TimeOut { token: task.token, error, retry, policy, spread })
    }

    /// Creates the task in `wait.then`. Returns the text of the error of the task that waited.
    async fn create(&self, waiting: &Task, template: &Json) -> Result<String, StoreError> {
        match self.follow_up(waiting, template).await? {
            Ok(task) => {
                let message = format!("{TIMED_OUT}; nobat created the task {}", task.id);
                self.backend.accept_each(vec![task], self.now).await?;
                Ok(message)
            }
            Err(errors) => {
                let first =
                    errors.first().map(|FieldError { pointer, detail, .. }| format!("`{pointer}`: {detail}"));
                tracing::warn!(task = %waiting.id, "the wait of a task timed out, but the task in `wait.then` is no longer valid; it is not created");
                let reason = first.unwrap_or_default();
                Ok(format!(
                    "{TIMED_OUT}; the task in `wait.then` was not created, because it is not valid: {reason}"
                ))
            }
        }
    }

    async fn follow_up(
        &self,
        waiting: &Task,
        template: &Json,
    ) -> Result<Result<Task, Vec<FieldError>>, StoreError> {
        let submission = match read_then(template) {
            Ok(submission) => submission,
            Err(errors) => return Ok(Err(errors)),
        };
        let config = self.config_cache.for_template(&waiting.tenant, &submission).await?;
        let tenant = &waiting.tenant;
        let context = SubmissionContext {
            tenant,
            id: TaskId::of_wait(tenant, waiting.id, waiting.created_at, waiting.generation),
            fingerprint: None,
            submitted_by: waiting.options.submitted_by,
            max_payload: None,
            // The server checked the timeout when the client submitted the task.
            max_timeout: MAX_SCHEDULE_AHEAD,
            kinds: &AnyKind(self.kinds),
            endpoint: config.endpoint.as_deref(),
            then_endpoint: None,
            queue: config.queue(),
            hops: waiting.options.hops,
            now: self.now,
        };
        Ok(follow_up(submission, &context).map(|mut task| {
            task.options.origin = Some(TaskOrigin::Wait { task: waiting.id });
            task
        }))
    }
}

/// Returns the current retry policy of a task that has left its policy to its endpoint. `None` for every other
/// task.
pub async fn retry_policy(
    config_cache: &ConfigCache,
    task: &Task,
) -> Result<Option<RetryPolicy>, StoreError> {
    let Some(name) = task.options.endpoint.as_ref().filter(|_| task.options.left.retry) else {
        return Ok(None);
    };
    let endpoint = config_cache.endpoint(&task.tenant, name).await?;
    let task_config = config_cache.task_config(&task.tenant, &task.queue, &task.kind).await?;
    Ok(inherited_retry(task, endpoint.as_deref(), &task_config.queue))
}
