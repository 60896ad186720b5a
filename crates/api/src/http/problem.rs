//! Error responses: problem details as in RFC 9457.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use nobat_core::json::decode::ReadError;
use nobat_core::ports::StoreError;
use nobat_core::secrets::vault::NoVault;
use nobat_core::service::backend::ApplyError;
use nobat_core::task::lifecycle::TransitionError;
use nobat_core::types::field_error::FieldError;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use crate::http::error_code::Code;

/// Returns the duration in whole seconds for `Retry-After`: rounded up, at least 1.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0 || duration.is_zero())
}

/// Error of a request. It is the only error type of this crate that becomes an HTTP response.
#[derive(Debug, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub(crate) struct Problem {
    pub(crate) code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    /// Cause for the log. The client does not see it.
    cause: Option<String>,
    headers: Vec<(&'static str, String)>,
}

/// Maximum number of field errors in one response. Without a limit, a hostile client could cause a huge
/// response.
const MAX_ERRORS: usize = 100;

/// Maximum length of the pointer and of the detail of a field error, in bytes. A pointer contains field names
/// from the client, which may be as long as the body.
const MAX_ERROR_BYTES: usize = 300;

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), cause: None, headers: Vec::new() }
    }

    /// Adds `Retry-After`: the time in seconds after which a retry may succeed.
    #[must_use]
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        self.with_header("retry-after", seconds.to_string())
    }

    /// Adds a header. The value must be visible ASCII.
    #[must_use]
    pub(crate) fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Returns the error for a schedule that does not exist.
    pub(crate) fn schedule_not_found() -> Self {
        let detail = "no schedule has this name; `GET /v1/schedules` lists all schedules";
        Self::new(Code::ScheduleNotFound, detail)
    }

    /// Returns the error for a change of the task that runs a schedule.
    pub(crate) fn internal_task() -> Self {
        let detail = "this task runs a schedule; pause or remove the schedule instead";
        Self::new(Code::InternalTask, detail)
    }

    /// Returns the error for a source that does not exist.
    pub(crate) fn source_not_found() -> Self {
        let detail = "no source has this name; `GET /v1/sources` lists all sources";
        Self::new(Code::SourceNotFound, detail)
    }

    /// Returns the error for a subscription that does not exist.
    pub(crate) fn subscription_not_found() -> Self {
        let detail = "no subscription has this name; `GET /v1/subscriptions` lists all subscriptions";
        Self::new(Code::SubscriptionNotFound, detail)
    }

    /// Returns the error for an event that does not exist.
    pub(crate) fn event_not_found() -> Self {
        let detail = "no event has this id, or its retention has ended; `GET /v1/events` lists all events";
        Self::new(Code::EventNotFound, detail)
    }

    /// Returns the same 404 for an unknown task, a task past its retention, and a task of another tenant.
    /// Otherwise a client could find out which tasks exist.
    pub(crate) fn task_not_found() -> Self {
        Self::new(Code::TaskNotFound, "no task has this id, or its retention has ended")
    }

    /// Error: the idempotency key was used with another body before.
    pub(crate) fn key_reused() -> Self {
        Self::new(
            Code::IdempotencyKeyReused,
            "the idempotency key was used before with another body; send another key with this body",
        )
    }

    /// Error: a bug, or a damaged store. Only the log shows `cause`.
    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(
                Code::Internal,
                "the cause is in the server's log, under the `instance` of this response",
            )
        }
    }

    /// Logs the cause, which the client does not see. The log line and the response contain the same
    /// `instance`.
    fn log(&self, instance: &str) {
        match &self.cause {
            Some(cause) if self.code == Code::Internal => {
                tracing::error!(instance, cause, "a request failed; the client gets a 500");
            }
            Some(cause) => {
                tracing::warn!(instance, cause, "a request could not be completed; the client gets a 503");
            }
            None => {}
        }
    }
}

impl From<Vec<FieldError>> for Problem {
    fn from(mut errors: Vec<FieldError>) -> Self {
        let code = code_of(&errors);
        errors.truncate(MAX_ERRORS);
        for error in &mut errors {
            clip(&mut error.pointer);
            clip(&mut error.detail);
        }
        Self { errors, ..Self::new(code, "`errors` names each invalid field and the expected value") }
    }
}

/// Returns the code of a response with these errors: `malformed_json` if any error has this code. Returns
/// another specific code only if all errors have that code. Otherwise returns `validation_failed`.
fn code_of(errors: &[FieldError]) -> Code {
    let is = |code: Code| move |error: &FieldError| error.code == Some(code.as_str());
    if errors.iter().any(is(Code::MalformedJson)) {
        return Code::MalformedJson;
    }
    let telling = [Code::UnknownKind, Code::UnknownEndpoint, Code::BlockedAddress]
        .into_iter()
        .find(|code| errors.iter().all(is(*code)));
    telling.unwrap_or(Code::ValidationFailed)
}

fn clip(text: &mut String) {
    if text.len() > MAX_ERROR_BYTES {
        text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES));
        text.push('…');
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Mismatch { pointer, detail } => vec![FieldError::new(pointer, detail)].into(),
            ReadError::Malformed { .. } => {
                let mut detail = error.to_string();
                clip(&mut detail);
                Self::new(Code::MalformedJson, detail)
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self {
                cause: Some(error.to_string()),
                ..Self::new(
                    Code::StoreUnavailable,
                    "the request may have been carried out; send it again if it had an Idempotency-Key, otherwise check its result first",
                )
            },
            StoreError::Overloaded => Self::new(
                Code::Overloaded,
                "the request was not carried out; try again after the time in Retry-After",
            ),
            StoreError::Corrupt(_) => Self::internal(error.to_string()),
        }
    }
}

impl From<NoVault> for Problem {
    fn from(error: NoVault) -> Self {
        match error {
            NoVault::NoKey => Self::new(
                Code::NoMasterKey,
                "the server has no master key, so it cannot store secrets; the operator must set NOBAT_MASTER_KEY or NOBAT_KMS_KEY",
            ),
            NoVault::Unavailable(_) => Self {
                cause: Some(error.to_string()),
                ..Self::new(
                    Code::StoreUnavailable,
                    "the master key is unavailable, and nothing was changed; try again after the time in Retry-After",
                )
            },
        }
    }
}

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Missing => Self::task_not_found(),
            ApplyError::Refused(TransitionError::KeyReused) => Self::key_reused(),
            ApplyError::Refused(TransitionError::Ended) => {
                Self::new(Code::TaskEnded, "the task has ended; it can be replayed but not canceled")
            }
            ApplyError::Refused(TransitionError::NotEnded) => {
                Self::new(Code::TaskNotEnded, "only a task that has ended can be replayed")
            }
            ApplyError::Refused(TransitionError::OtherGeneration(current)) => {
                let detail = format!(
                    "the task is at generation {current}, not at the generation in the request; read the task, and send `generation` {current} to replay it"
                );
                Self::new(Code::GenerationMismatch, detail)
            }
            ApplyError::Refused(refused) => Self::internal(refused.to_string()),
            ApplyError::Store(error) => error.into(),
        }
    }
}

/// Error, as problem details (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemView<'a> {
    /// `urn:nobat:error:` followed by the code.
    #[schema(value_type = String, example = "urn:nobat:error:validation_failed")]
    r#type: Urn<'a>,
    /// Title of the code, for people.
    #[schema(example = "The request is not valid")]
    title: &'a str,
    /// HTTP status.
    #[schema(minimum = 400, maximum = 599, example = 422)]
    status: u16,
    /// Explanation of the error in this request.
    #[schema(example = "`errors` names each invalid field and the expected value")]
    detail: &'a str,
    /// Stable code, for programs.
    #[schema(schema_with = code_schema)]
    code: &'a str,
    /// Id of this response. The server's log uses the same id.
    #[schema(example = "urn:nobat:request:5d0f6c9d3b1b4a6f8f1e2a3b4c5d6e7f")]
    instance: &'a str,
    /// Errors of single fields. At most 100. Absent if the error is not about fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldErrorView<'a>>,
}

/// Error of one field of the body, or of one parameter of the query.
#[derive(Serialize, ToSchema)]
#[schema(as = FieldError)]
pub(crate) struct FieldErrorView<'a> {
    /// Field, as a JSON pointer (RFC 6901) into the body. For a parameter of the query: `?` and the
    /// parameter's name.
    #[schema(example = "/retry/max_attempts")]
    pointer: &'a str,
    /// Explanation of the error and of the expected value. Never repeats the value itself.
    #[schema(example = "expected a whole number from 1 to 50")]
    detail: &'a str,
}

impl<'a> From<&'a FieldError> for FieldErrorView<'a> {
    fn from(error: &'a FieldError) -> Self {
        Self { pointer: &error.pointer, detail: &error.detail }
    }
}

/// Code as a URI.
struct Urn<'a>(&'a str);

impl Serialize for Urn<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("urn:nobat:error:{}", self.0))
    }
}

fn code_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("A stable code, for programs."))
        .enum_values(Some(Code::ALL.map(Code::as_str)))
        .examples(["validation_failed"])
        .build()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let instance = format!("urn:nobat:request:{:032x}", rand::random::<u128>());
        self.log(&instance);
        let view = ProblemView {
            r#type: Urn(self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            instance: &instance,
            errors: self.errors.iter().map(FieldErrorView::from).collect(),
        };
        // Strings and a number always serialize to JSON.
        let mut response = Response::new(Body::from(serde_json::to_vec(&view).unwrap_or_default()));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.code {
            // The server does not read the rest of the body, so no further request can use the connection.
            Code::BodyTooLarge | Code::BodyTimeout | Code::MalformedBody => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            // A random delay, so that refused clients do not all return at the same moment.
            Code::StoreUnavailable | Code::Overloaded => {
                headers.insert(RETRY_AFTER, HeaderValue::from(rand::random_range(1..=3_u16)));
            }
            Code::InvalidCompletionToken => {
                let challenge = HeaderValue::from_static("Nobat-Completion-Token realm=\"nobat\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            Code::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"nobat\""));
            }
            // RFC 9110, section 11.6.1, requires the header. Providers need no realm.
            Code::WebhookNotVerified => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Webhook"));
            }
            _ => {}
        }
        for (name, value) in self.headers {
            headers.extend(
                HeaderValue::try_from(value).ok().map(|value| (HeaderName::from_static(name), value)),
            );
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(code: Option<&'static str>) -> FieldError {
        FieldError { code, ..FieldError::new("/payload", "no") }
    }

    #[test]
    fn specific_code_applies_only_if_all_errors_have_it() {
        let blocked = || invalid(Some("blocked_address"));
        assert_eq!(Problem::from(vec![blocked(), blocked()]).code, Code::BlockedAddress);
        assert_eq!(Problem::from(vec![blocked(), invalid(None)]).code, Code::ValidationFailed);
        assert_eq!(
            Problem::from(vec![blocked(), invalid(Some("unknown_kind"))]).code,
            Code::ValidationFailed
        );
        assert_eq!(Problem::from(vec![invalid(Some("unknown_kind"))]).code, Code::UnknownKind);
        assert_eq!(Problem::from(vec![blocked(), invalid(Some("malformed_json"))]).code, Code::MalformedJson);
    }

    #[test]
    fn store_error_text_is_not_sent_to_the_client() {
        for error in [
            StoreError::Corrupt("row 7 of /var/lib".into()),
            StoreError::Unavailable("arn:aws:hunter2".into()),
        ] {
            let problem = Problem::from(error);
            assert!(
                !problem.detail.contains("row 7") && !problem.detail.contains("arn"),
                "{}",
                problem.detail
            );
            assert!(problem.cause.is_some());
        }
    }

    #[test]
    fn long_field_name_is_cut_between_characters() {
        let problem = Problem::from(vec![FieldError::new("é".repeat(1_000), "no"); 1_000]);
        assert_eq!(problem.errors.len(), MAX_ERRORS);
        assert!(problem.errors[0].pointer.len() <= MAX_ERROR_BYTES + "…".len());
    }

    #[test]
    fn seconds_are_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }
}
