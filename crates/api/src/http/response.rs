//! Responses to successful requests.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use nobat_core::service::backend::Applied;
use nobat_core::task::Task;
use nobat_core::task::view::TaskView;
use nobat_core::types::time::Timestamp;
use serde::Serialize;

use crate::auth::principal::Principal;
use crate::http::problem::Problem;

/// Approximate size in bytes of a task in a response, without its payload and result. Most tasks need a
/// little less, so the buffer of the response seldom grows.
pub(crate) const TASK_BYTES: usize = 640;

/// Returns the response that shows a task, with the fields that the caller may see.
pub(crate) fn task(
    status: StatusCode,
    task: &Task,
    caller: &Principal,
    now: Timestamp,
) -> Result<Response, Problem> {
    value(status, room(task), &view(task, caller, now))
}

/// Returns the response to a change of a task, or to a repeated request.
pub(crate) fn changed(
    outcome: &Applied,
    status: impl Fn(&Task) -> StatusCode,
    caller: &Principal,
    now: Timestamp,
) -> Result<Response, Problem> {
    let (Applied::Done(task) | Applied::Repeated(task)) = outcome;
    let mut response = self::task(status(task), task, caller, now)?;
    if matches!(outcome, Applied::Repeated(_)) {
        mark_replayed(&mut response);
    }
    Ok(response)
}

/// Returns the fields of a task that the caller may see.
pub(crate) fn view<'a>(task: &'a Task, caller: &Principal, now: Timestamp) -> TaskView<'a> {
    if caller.sees_bodies() { TaskView::new(task, now) } else { TaskView::without_bodies(task, now) }
}

/// Returns a response with a value as JSON. `room` is the approximate size of the JSON in bytes.
pub(crate) fn value<T: Serialize>(status: StatusCode, room: usize, value: &T) -> Result<Response, Problem> {
    let mut text = Vec::with_capacity(room);
    serde_json::to_writer(&mut text, value).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(json(status, text.into()))
}

/// Returns a response with JSON text.
pub(crate) fn json(status: StatusCode, text: Bytes) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Adds `Idempotency-Replayed: true`, which tells the client that an earlier request with the same key was
/// carried out.
pub(crate) fn mark_replayed(response: &mut Response) {
    response
        .headers_mut()
        .insert(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
}

/// Returns the approximate size of a task in a response, in bytes.
pub(crate) fn room(task: &Task) -> usize {
    TASK_BYTES + task.payload.get().len() + task.result.as_ref().map_or(0, |result| result.get().len())
}
