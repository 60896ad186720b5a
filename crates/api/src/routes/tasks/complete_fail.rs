//! Completions by receivers that accepted a call: complete and fail.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::json::Json;
use nobat_core::json::decode::read_object;
use nobat_core::service::backend::{Applied, ApplyError};
use nobat_core::service::waits::retry_policy;
use nobat_core::task::lifecycle::{Event, Retry, TransitionError};
use nobat_core::task::view::TaskView;
use nobat_core::task::{ErrorCode, KeyedRequest, TaskError};
use nobat_core::types::field_error::FieldError;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::name::Name;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::token_holder::TokenHolder;
use crate::http::body::{self, Received};
use crate::http::error_code::Code;
use crate::http::idempotency::body_digest;
use crate::http::page::EXPECTED_NAME;
use crate::http::problem::Problem;
use crate::http::response;

/// Route, as a part of the stored digest of a completion.
const COMPLETE: &str = "/v1/tasks/{id}/complete";

const FAIL: &str = "/v1/tasks/{id}/fail";

/// Completion of work that is done.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompleteRequest {
    /// Result of the task: any JSON. Default `null`.
    #[schema(value_type = Option<serde_json::Value>, required = false)]
    result: Option<Box<RawValue>>,
}

/// Completion of work that failed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailRequest {
    /// Reason of the failure.
    #[serde(deserialize_with = "nobat_core::json::decode::object")]
    error: FailError,
    /// True to count the attempt as failed and to retry as the retry policy says. False to end the task as
    /// `failed`. Default `false`.
    retry: Option<bool>,
}

/// Reason of the failure.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailError {
    /// Stable code for programs. Default `handler_error`.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    code: Option<String>,
    /// Sentence for people. nobat stores the first 1,000 bytes.
    message: String,
}

/// Complete a waiting task
///
/// Ends a task that waits for a completion as `succeeded`. The token in the header `Nobat-Completion-Token` comes
/// from the task's latest call. No API key is needed. A repeated request with the same body changes nothing,
/// and its response shows the task in its current state.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/complete",
    operation_id = "complete_task",
    tag = "tasks",
    params(("id" = String, Path, pattern = "^task_[0-9a-z]{26}$", description = "The task's id, from the header `Nobat-Task-Id` of the call.", example = "task_01jd8rkz5m3q4v9x2y7w6t0abc")),
    request_body(content = CompleteRequest, example = json!({"result": {"invoice": 7}})),
    responses((
        status = 200,
        description = "The task has succeeded. The response has no payload, result and attempts, and its labels and progress are empty.",
        body = TaskView<'static>,
        headers(("Idempotency-Replayed" = String, description = "`true` if the same completion was applied before.")),
    )),
)]
pub(crate) async fn complete(
    State(app): State<App>,
    holder: TokenHolder,
    request: Request,
) -> Result<Response, Problem> {
    let (body, CompleteRequest { result }) = read(&app, &holder, request).await?;
    let result = result.map_or_else(|| Ok(Json::null()), |result| Json::from_outside(&result));
    let result = result.map_err(|error| {
        let error = FieldError::new("/result", error.to_string());
        Problem::from(vec![FieldError { code: Some(Code::MalformedJson.as_str()), ..error }])
    })?;
    let event = Event::CompleteByToken { digest: holder.digest, result };
    apply(&app, holder, event, COMPLETE, &body).await
}

/// Fail a waiting task
///
/// Ends a task that waits for a completion as `failed`, or retries it. The token in the header
/// `Nobat-Completion-Token` comes from the task's latest call. No API key is needed. A repeated request with
/// the same body changes nothing, and its response shows the task in its current state.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/fail",
    operation_id = "fail_task",
    tag = "tasks",
    params(("id" = String, Path, pattern = "^task_[0-9a-z]{26}$", description = "The task's id, from the header `Nobat-Task-Id` of the call.", example = "task_01jd8rkz5m3q4v9x2y7w6t0abc")),
    request_body(content = FailRequest, example = json!({"error": {"code": "card_declined", "message": "the bank declined the card"}, "retry": false})),
    responses((
        status = 200,
        description = "The task has failed, or retries. The response has no payload, result and attempts, and its labels and progress are empty.",
        body = TaskView<'static>,
        headers(("Idempotency-Replayed" = String, description = "`true` if the same completion was applied before.")),
    )),
)]
pub(crate) async fn fail(
    State(app): State<App>,
    holder: TokenHolder,
    request: Request,
) -> Result<Response, Problem> {
    let (body, FailRequest { error: FailError { code, message }, retry }) =
        read(&app, &holder, request).await?;
    if code.as_deref().is_some_and(|code| !Name::is_valid(code)) {
        return Err(vec![FieldError::new("/error/code", format!("expected {EXPECTED_NAME}"))].into());
    }
    let error = TaskError::new(code.as_deref().unwrap_or(ErrorCode::HANDLER_ERROR), message);
    let (retry, policy) = match retry {
        Some(true) => (Retry::Backoff, retry_policy(app.config_cache(), &holder.task).await?),
        Some(false) | None => (Retry::Never, None),
    };
    let spread = JitterSample::from_bits(rand::random());
    let event = Event::FailByToken { digest: holder.digest, error, retry, policy, spread };
    apply(&app, holder, event, FAIL, &body).await
}

async fn read<T: DeserializeOwned>(
    app: &App,
    holder: &TokenHolder,
    request: Request,
) -> Result<(Received, T), Problem> {
    let (head, body) = request.into_parts();
    let body = body::json(app, &holder.task.tenant, &head.headers, body).await?;
    let completion = read_object(&body)?;
    Ok((body, completion))
}

async fn apply(
    app: &App,
    TokenHolder { task, digest }: TokenHolder,
    event: Event,
    route: &'static str,
    body: &[u8],
) -> Result<Response, Problem> {
    let (name, now) = (task.key(), app.clock.now());
    let completion = KeyedRequest::of_token(&digest, body_digest(route, body));
    let applied = app.backend.apply_completion(&name, Some(task), event, completion, now).await;
    let applied = applied.map_err(|error| match error {
        ApplyError::Refused(TransitionError::NotWaiting | TransitionError::KeyReused) => wait_ended(),
        ApplyError::Refused(TransitionError::Ended) => {
            Problem::new(Code::TaskEnded, "the task has ended, so it takes no completion")
        }
        error => error.into(),
    })?;
    let (Applied::Done(task) | Applied::Repeated(task)) = &applied;
    let view = TaskView::for_token_holder(task, now);
    let mut response = response::value(StatusCode::OK, response::TASK_BYTES, &view)?;
    if matches!(applied, Applied::Repeated(_)) {
        response::mark_replayed(&mut response);
    }
    Ok(response)
}

fn wait_ended() -> Problem {
    Problem::new(
        Code::WaitEnded,
        "the task no longer waits for this completion: another completion was applied, the wait timed out, or a later attempt has begun; each attempt has a token of its own",
    )
}
