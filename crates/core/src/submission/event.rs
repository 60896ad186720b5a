//! The task that keeps an event and fans it out.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::time::Duration;

use crate::auth::api_key::KeyId;
use crate::events::cloud_event::CloudEvent;
use crate::task::event::{EVENT_KIND, EVENT_QUEUE};
use crate::task::retry::{Exponential, Jitter, RetryPolicy, Schedule};
use crate::task::{Task, TaskKey, TaskOptions};
use crate::types::id::TaskId;
use crate::types::name::Tenant;
use crate::types::time::Timestamp;

/// Label with the type of the event, by which a list of events is filtered.
pub const TYPE_LABEL: &str = "type";
/// Label with the source of the event, by which a list of events is filtered.
pub const SOURCE_LABEL: &str = "source";
/// Label with the subject of the event. Absent if the event has no subject.
pub const SUBJECT_LABEL: &str = "subject";

/// Retry policy of an event's task. It retries for about ten hours, because an outage or a missing endpoint
/// can make the fan-out fail.
static RETRY: LazyLock<RetryPolicy> = LazyLock::new(|| RetryPolicy {
    schedule: Schedule::Exponential(Exponential {
        max_attempts: const { NonZeroU32::new(50).unwrap() },
        initial_delay: Duration::from_secs(1),
        multiplier: 2.0,
        max_delay: Duration::from_mins(30),
        jitter: Jitter::Full,
    }),
    max_age: None,
});

/// Data that the server adds to an event.
#[derive(Clone, Copy)]
pub struct EventContext<'a> {
    /// Tenant that owns the event.
    pub tenant: &'a Tenant,
    /// API key of the request, if the server required one.
    pub submitted_by: Option<KeyId>,
    /// Number of tasks in the chain that led to the request. 0 if no task led to the request.
    pub hops: u8,
    /// Current time.
    pub now: Timestamp,
}

/// Returns the task that keeps an event and creates the tasks of the event's subscriptions.
///
/// `id` is the id of the task. If it is `None`, the id is derived from the event's `source` and `id`. The
/// event is the payload of the task, so one write stores the event and its fan-out.
pub fn event_task(event: &CloudEvent, id: Option<TaskId>, context: EventContext<'_>) -> Task {
    let id = id.unwrap_or_else(|| TaskId::of_event(context.tenant, &event.source, &event.id));
    let name = TaskKey { tenant: context.tenant.clone(), id };
    let labels = [
        (TYPE_LABEL, Some(&event.event_type)),
        (SOURCE_LABEL, Some(&event.source)),
        (SUBJECT_LABEL, event.subject.as_ref()),
    ];
    let labels = labels.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone())));
    let options = TaskOptions {
        retry: RETRY.clone(),
        labels: labels.collect::<BTreeMap<_, _>>(),
        submitted_by: context.submitted_by,
        hops: context.hops,
        ..TaskOptions::default()
    };
    Task::new(name, EVENT_KIND.clone(), EVENT_QUEUE.clone(), event.to_json(), options, context.now)
}
