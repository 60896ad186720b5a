//! What is said when a request is granted.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use nobat_core::task::Task;
use nobat_core::time::Timestamp;
use nobat_core::view::TaskView;
use serde::Serialize;

use crate::door::Caller;
use crate::problem::Problem;

/// What a task is shown in besides its payload and result; a little more than most need, so that the buffer seldom grows.
const TASK_BYTES: usize = 640;

/// All that is shown to that caller of one task.
pub(crate) fn task(status: StatusCode, task: &Task, caller: &Caller, now: Timestamp) -> Result<Response, Problem> {
    value(status, room(task), &view(task, caller, now))
}

/// What that caller may see of a task.
pub(crate) fn view<'a>(task: &'a Task, caller: &Caller, now: Timestamp) -> TaskView<'a> {
    if caller.sees_bodies() { TaskView::new(task, now) } else { TaskView::without_bodies(task, now) }
}

/// Some value as JSON. `room` is how long it will be, about.
pub(crate) fn value<T: Serialize>(status: StatusCode, room: usize, value: &T) -> Result<Response, Problem> {
    let mut text = Vec::with_capacity(room);
    serde_json::to_writer(&mut text, value).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(json(status, text.into()))
}

/// JSON text.
pub(crate) fn json(status: StatusCode, text: Bytes) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Says that the same request, by its idempotency key, was carried out before.
pub(crate) fn mark_replayed(response: &mut Response) {
    response.headers_mut().insert(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
}

/// How long a task is when it is shown, about.
pub(crate) fn room(task: &Task) -> usize {
    TASK_BYTES + task.payload.get().len() + task.result.as_ref().map_or(0, |result| result.get().len())
}
