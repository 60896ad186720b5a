//! Fan-out: creates the tasks of an event's subscriptions.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::kind::KindRegistry;
use crate::config::subscription::Subscription;
use crate::events::cloud_event::CloudEvent;
use crate::ports::StoreError;
use crate::service::backend::Backend;
use crate::service::config_cache::ConfigCache;
use crate::submission::SubmissionContext;
use crate::submission::template::{TemplateEvent, fill};
use crate::task::{Task, TaskKey, TaskOrigin};
use crate::types::field_error::FieldError;
use crate::types::id::{EventId, TaskId};
use crate::types::name::Name;
use crate::types::time::Timestamp;

/// Creates tasks from events.
#[derive(Clone, Copy)]
pub struct FanOut<'a> {
    /// Stores the tasks.
    pub backend: &'a Backend,
    /// Cached subscriptions and endpoints.
    pub config_cache: &'a ConfigCache,
    /// Kinds that this installation runs.
    pub kinds: &'a dyn KindRegistry,
    /// Maximum timeout of an attempt.
    pub max_timeout: Duration,
    /// Current time.
    pub now: Timestamp,
}

/// Outcome of a fan-out.
#[derive(Debug, Default)]
pub struct FanOutResult {
    /// Subscriptions whose task exists, including the tasks that earlier fan-outs of the event created.
    pub subscriptions: Vec<Name>,
    /// Subscriptions that selected the event but have no task, because the task would not be valid.
    pub failed: Vec<(Name, Vec<FieldError>)>,
}

/// Progress and result of an event's task.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FanOutProgress {
    /// Subscriptions whose task exists.
    pub subscriptions: Vec<Name>,
}

impl FanOutProgress {
    /// Reads the result of an event's task. Reads the task's progress if there is no result.
    pub fn of(event: &Task) -> Self {
        let stored = event.result.as_ref().or(event.progress.as_ref());
        stored.and_then(|stored| stored.parse().ok()).unwrap_or_default()
    }
}

/// Number of subscriptions after which the fan-out lets other work of its thread run. Also the number of
/// tasks in memory before nobat stores them.
const CHUNK: usize = 16;

/// Stored event, read for a fan-out.
pub struct StoredEvent<'a> {
    /// Task that keeps the event.
    pub task: &'a Task,
    /// The event.
    pub event: CloudEvent,
    /// The event as JSON, for filters.
    pub value: Value,
}

impl<'a> StoredEvent<'a> {
    /// Reads the event that the task keeps.
    pub fn read(task: &'a Task) -> Result<Self, StoreError> {
        let corrupt = |detail: String| StoreError::Corrupt(format!("the event of {}: {detail}", task.id));
        let event = CloudEvent::from_stored(&task.payload).map_err(|errors| {
            corrupt(errors.into_iter().next().map(|error| error.detail).unwrap_or_default())
        })?;
        let value = serde_json::from_str(task.payload.get()).map_err(|error| corrupt(error.to_string()))?;
        Ok(Self { task, event, value })
    }

    /// Returns the key of the task that a subscription gets from this event.
    pub fn task_key(&self, subscription: &Name) -> TaskKey {
        task_key(self.task, subscription)
    }

    /// Returns true if the subscription selects the event.
    pub fn is_selected_by(&self, subscription: &Subscription) -> Result<bool, Vec<FieldError>> {
        subscription
            .selects(&self.event.event_type, &self.value)
            .map_err(|error| vec![FieldError::new("/filter", error.to_string())])
    }
}

/// Returns the key of the task that a subscription gets from the event of this task.
pub fn task_key(event: &Task, subscription: &Name) -> TaskKey {
    let id = TaskId::of_subscription(&event.tenant, event.id, event.created_at, subscription.as_str());
    TaskKey { tenant: event.tenant.clone(), id }
}

impl FanOut<'_> {
    /// Creates a task for each subscription that selects the event and has no task for the event yet.
    ///
    /// The ids derive from the event and the subscription, so a repetition creates no second task. The
    /// fan-out uses the subscriptions as they were stored when the worker claimed the event's task, or later.
    pub async fn run(&self, task: &Task) -> Result<FanOutResult, StoreError> {
        let stored = StoredEvent::read(task)?;
        let claimed_at = task.started_at().unwrap_or(self.now);
        let subscriptions = self.config_cache.subscriptions(&task.tenant, claimed_at).await?;
        let mut outcome =
            FanOutResult { subscriptions: FanOutProgress::of(task).subscriptions, failed: Vec::new() };
        let earlier: BTreeSet<Name> = outcome.subscriptions.iter().cloned().collect();
        let mut made = Vec::new();
        let rest = subscriptions.iter().filter(|(name, _)| !earlier.contains(name));
        for (index, (name, subscription)) in rest.enumerate() {
            if index % CHUNK == CHUNK - 1 {
                yield_once().await;
            }
            let task = match stored.is_selected_by(subscription) {
                Ok(false) => continue,
                Ok(true) => self.task(&stored, name, subscription).await?,
                Err(errors) => Err(errors),
            };
            match task {
                Ok(task) => {
                    made.push(task);
                    outcome.subscriptions.push(name.clone());
                }
                Err(errors) => outcome.failed.push((name.clone(), errors)),
            }
            if made.len() == CHUNK {
                self.backend.accept_each(std::mem::take(&mut made), self.now).await?;
            }
        }
        self.backend.accept_each(made, self.now).await?;
        Ok(outcome)
    }

    /// Returns the task of a subscription for this event, or all errors. JSON pointers in the errors are
    /// relative to the template.
    pub async fn task(
        &self,
        stored: &StoredEvent<'_>,
        name: &Name,
        subscription: &Subscription,
    ) -> Result<Result<Task, Vec<FieldError>>, StoreError> {
        let event = TemplateEvent { event: &stored.event, json: &stored.task.payload };
        let submission = match fill(&subscription.task, subscription.body, &event) {
            Ok(submission) => submission,
            Err(errors) => return Ok(Err(errors)),
        };
        let TaskKey { tenant, id } = stored.task_key(name);
        let config = self.config_cache.for_submission(&tenant, &submission).await?;
        let context = SubmissionContext {
            tenant: &tenant,
            id,
            fingerprint: None,
            submitted_by: stored.task.options.submitted_by,
            max_payload: None,
            max_timeout: self.max_timeout,
            kinds: self.kinds,
            endpoint: config.endpoint.as_deref(),
            then_endpoint: config.then_endpoint.as_deref(),
            queue: config.queue(),
            hops: stored.task.options.hops,
            now: self.now,
        };
        Ok(submission.into_task(&context).map(|mut task| {
            let origin = TaskOrigin::Event { event: EventId(stored.task.id), subscription: name.clone() };
            task.options.origin = Some(origin);
            task
        }))
    }
}

/// Resolves at the second poll. Other work of the thread runs in between, because a filter can take some
/// milliseconds.
async fn yield_once() {
    let mut is_second = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_second, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
