//! Callback: the task that reports the outcome of another task.

use std::sync::LazyLock;

use serde::Serialize;

use crate::id::TaskId;
use crate::json::Json;
use crate::name::Name;
use crate::ports::TaskKey;
use crate::retry::RetryPolicy;
use crate::task::{Outcome, State, Task, TaskOptions};
use crate::time::Timestamp;
use crate::view::TaskView;

/// Settings of a task's callback.
#[derive(Clone, Debug, PartialEq)]
pub struct Callback {
    /// The `http` or `https` URL to call.
    pub url: String,
    /// Outcomes to report.
    pub on: Vec<Outcome>,
    /// Retry policy of the callback.
    pub retry: RetryPolicy,
}

/// The kind that delivers a request to an external API.
pub static HTTP: LazyLock<Name> = LazyLock::new(|| Name::constant("http"));
/// The queue of callbacks.
pub static QUEUE: LazyLock<Name> = LazyLock::new(|| Name::constant("callbacks"));

/// Payload of a task of kind `http`.
#[derive(Serialize)]
struct Request<'a> {
    method: &'static str,
    url: &'a str,
    body: Report<'a>,
}

/// Body of a callback: the type of the event, and the task.
#[derive(Serialize)]
struct Report<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    task: TaskView<'a>,
}

/// Returns the callback for a task that has just ended. Returns `None` if the task asked for none.
///
/// The callback carries the task as it is now, without its payload: a client may replay the task before the delivery.
pub(crate) fn callback(task: &Task, now: Timestamp) -> Option<Task> {
    let State::Ended(ended) = &task.state else { return None };
    let callback = task.settings.callback.as_ref().filter(|callback| callback.on.contains(&ended.end))?;
    let report = Report { r#type: ended.end.event(), task: TaskView::report(task, now) };
    let request = Request { method: "POST", url: &callback.url, body: report };
    let payload = Json::from_value(&request).unwrap_or_else(|_| unreachable!("a task's view has string keys only"));
    let id = TaskId::of_callback(&task.tenant, task.id, task.created_at, task.generation, task.version);
    let name = TaskKey { tenant: task.tenant.clone(), id };
    let settings = TaskOptions { parent: Some(task.id), retry: callback.retry.clone(), hops: task.settings.hops, ..TaskOptions::default() };
    Some(Task::new(name, HTTP.clone(), QUEUE.clone(), payload, settings, now))
}
