//! Answers to successful requests.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use nobat_core::task::Task;
use nobat_core::task::view::TaskView;
use nobat_core::types::time::Timestamp;
use serde::Serialize;

use crate::auth::principal::Principal;
use crate::http::problem::Problem;

/// Approximate size of a task in an answer without its payload and result, in bytes. A little more than most
/// tasks need, so that the buffer seldom grows.
const TASK_BYTES: usize = 640;

/// Returns the answer that shows a task, as far as the caller may see it.
pub(crate) fn task(
    status: StatusCode,
    task: &Task,
    caller: &Principal,
    now: Timestamp,
) -> Result<Response, Problem> {
    value(status, room(task), &view(task, caller, now))
}

/// Returns the fields of a task that the caller may see.
pub(crate) fn view<'a>(task: &'a Task, caller: &Principal, now: Timestamp) -> TaskView<'a> {
    if caller.sees_bodies() { TaskView::new(task, now) } else { TaskView::without_bodies(task, now) }
}

/// Returns an answer with a value as JSON. `room` is its approximate size in bytes.
pub(crate) fn value<T: Serialize>(status: StatusCode, room: usize, value: &T) -> Result<Response, Problem> {
    let mut text = Vec::with_capacity(room);
    serde_json::to_writer(&mut text, value).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(json(status, text.into()))
}

/// Returns an answer with JSON text.
pub(crate) fn json(status: StatusCode, text: Bytes) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Adds `Idempotency-Replayed: true`: the same request, by its idempotency key, was carried out before.
pub(crate) fn mark_replayed(response: &mut Response) {
    response
        .headers_mut()
        .insert(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
}

/// Returns the approximate size of a task in an answer, in bytes.
pub(crate) fn room(task: &Task) -> usize {
    TASK_BYTES + task.payload.get().len() + task.result.as_ref().map_or(0, |result| result.get().len())
}
