//! The task that reports another task's end.

use std::sync::LazyLock;

use serde::Serialize;

use crate::id::TaskId;
use crate::json::Json;
use crate::name::Name;
use crate::ports::TaskName;
use crate::retry::RetryPolicy;
use crate::task::{End, Settings, State, Task};
use crate::time::Timestamp;
use crate::view::TaskView;

/// Whom to tell of a task's end.
#[derive(Clone, Debug, PartialEq)]
pub struct Callback {
    /// An `http` or `https` URL.
    pub url: String,
    /// The ends to tell of.
    pub on: Vec<End>,
    /// When the callback is tried again, and when no more.
    pub retry: RetryPolicy,
}

/// The kind that delivers a request to an external API.
pub static HTTP: LazyLock<Name> = LazyLock::new(|| Name::constant("http"));
/// The queue of callbacks.
pub static QUEUE: LazyLock<Name> = LazyLock::new(|| Name::constant("callbacks"));

/// What kind `http` is given.
#[derive(Serialize)]
struct Request<'a> {
    method: &'static str,
    url: &'a str,
    body: Report<'a>,
}

/// What a callback tells: what happened, and the task that it happened to.
#[derive(Serialize)]
struct Report<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    task: TaskView<'a>,
}

/// The callback for the end that `task` has just come to, if it asked for one.
///
/// It carries the task as it stands at this moment, less its payload: by the time it is delivered the task may have been replayed.
pub(crate) fn callback(task: &Task, now: Timestamp) -> Option<Task> {
    let State::Ended(ended) = &task.state else { return None };
    let callback = task.settings.callback.as_ref().filter(|callback| callback.on.contains(&ended.end))?;
    let report = Report { r#type: ended.end.event(), task: TaskView::report(task, now) };
    let request = Request { method: "POST", url: &callback.url, body: report };
    let payload = Json::from_value(&request).unwrap_or_else(|_| unreachable!("a task's view has string keys only"));
    let id = TaskId::of_callback(&task.tenant, task.id, task.created_at, task.generation, task.version);
    let name = TaskName { tenant: task.tenant.clone(), id };
    let settings = Settings { parent: Some(task.id), retry: callback.retry.clone(), hops: task.settings.hops, ..Settings::default() };
    Some(Task::new(name, HTTP.clone(), QUEUE.clone(), payload, settings, now))
}
