//! Task that reports the end of another task.

use serde::Serialize;

use crate::json::Json;
use crate::task::Task;
use crate::task::callback::{HTTP, QUEUE};
use crate::task::key::TaskKey;
use crate::task::options::TaskOptions;
use crate::task::state::State;
use crate::task::view::TaskView;
use crate::types::id::TaskId;
use crate::types::time::Timestamp;

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

/// Returns the callback for a task that has just ended. Returns `None` if the task has no callback for this
/// end.
///
/// The callback carries a copy of the ended task, because a client may replay the task before the delivery.
/// The copy has no payload.
pub(crate) fn callback(task: &Task, now: Timestamp) -> Option<Task> {
    let State::Ended(ended) = &task.state else { return None };
    let callback = task.options.callback.as_ref().filter(|callback| callback.on.contains(&ended.end))?;
    let report = Report { r#type: ended.end.event(), task: TaskView::report(task, now) };
    let request = Request { method: "POST", url: &callback.url, body: report };
    let payload =
        Json::from_value(&request).unwrap_or_else(|_| unreachable!("a task's view has string keys only"));
    let id = TaskId::of_callback(&task.tenant, task.id, task.created_at, task.generation, task.version);
    let name = TaskKey { tenant: task.tenant.clone(), id };
    let settings = TaskOptions {
        parent: Some(task.id),
        retry: callback.retry.clone(),
        hops: task.options.hops,
        ..TaskOptions::default()
    };
    Some(Task::new(name, HTTP.clone(), QUEUE.clone(), payload, settings, now))
}
