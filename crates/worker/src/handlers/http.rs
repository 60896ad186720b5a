//! Kind `http`: delivers a request to an external API.

mod batch;
mod endpoint_test;
mod response;
#[cfg(test)]
mod tests;

pub use crate::handlers::http::response::{Answered, Body};

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use nobat_core::config::endpoint::{MAX_PATH, ResponsePolicy, is_path};
use nobat_core::json::Json;
use nobat_core::task::wait::WaitSubmission;
use nobat_core::task::{ErrorCode, Wait};
use nobat_core::types::bounds::Bounds;
use nobat_core::types::encoding::decode_base64;
use nobat_core::types::field_error::FieldError;
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::http_status::{Range, Statuses};
use nobat_core::types::http_url::HttpUrl;
use nobat_core::types::intervals::MAX_SCHEDULE_AHEAD;
use nobat_delivery::headers::{BadHeader, HeaderFault, IDEMPOTENCY_KEY, is_idempotency_key};
use nobat_delivery::{BadUrl, Client, Destination, Guard, Request, headers};
use serde::Deserialize;
use tokio::time::Instant;

use crate::handler::context::TaskContext;
use crate::handler::failure::Failure;
use crate::handler::{BatchOutcome, Handler};
use crate::handlers::http::response::{is_json, settle};
use crate::signing::{CannotSign, NamedEndpoint, Signer};

/// Runs the tasks of kind `http`, including callbacks.
///
/// By default a 2xx is success. 408, 425, 429, 5xx and calls without a response are retried. The task or its
/// endpoint may set other statuses for success and for retries. Every other status is final. A redirect is
/// final too, because only the task's URL was checked, not the redirect's URL. A blocked address and a
/// response with the header `Nobat-No-Retry: 1` are final too.
///
/// 429 and 503 with `Retry-After` pause all tasks of the same limit key or endpoint. 410 marks the endpoint
/// as gone.
#[derive(Clone)]
pub struct Http {
    client: Client,
    signer: Option<Arc<Signer>>,
}

/// Payload of kind `http`: the request to send.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// HTTP method. Default `POST`.
    #[serde(default, deserialize_with = "nobat_core::json::decode::word")]
    pub method: Method,
    /// URL of a task that names no endpoint: `http` or `https`, on the public internet or in a network that
    /// the operator allows.
    pub url: Option<String>,
    /// Path, query or both, added to the URL of the endpoint that the task names. If absent or empty, exactly
    /// the endpoint's URL is called.
    pub path: Option<String>,
    /// Headers. At most 50, and 8 KiB in total.
    #[serde(default, deserialize_with = "nobat_core::json::decode::texts")]
    pub headers: BTreeMap<String, String>,
    /// Body, sent unchanged as `application/json`. `null` means no body. With a `content-type` other than
    /// JSON, a string is sent as its text.
    pub body: Option<Json>,
    /// Binary body in base64 (RFC 4648, section 4; padding is optional), in place of `body`. The body is sent
    /// as `application/octet-stream` unless the headers contain `content-type`. A task with this field is
    /// never part of a batch.
    pub body_base64: Option<String>,
    /// `Idempotency-Key` of the request: 1 to 255 visible ASCII characters. Default: a key that nobat
    /// generates for the task. The key stays the same over all attempts and replays. The header
    /// `Idempotency-Key` has the same effect as this field.
    pub idempotency_key: Option<String>,
    /// Maximum duration of the call, in seconds. At least 0.001. Effective only if shorter than the task's
    /// timeout.
    pub timeout: Option<f64>,
    /// Statuses that mean success, as in `200-299`. 1 to 20 ranges. Default: the endpoint's list, or
    /// `200-299` without an endpoint.
    pub success_statuses: Option<Vec<Range>>,
    /// Statuses that are retried, as in `>=500` or `!501`. At most 20 ranges. Default: the endpoint's list,
    /// or 408, 425, 429 and `>=500`.
    pub retry_statuses: Option<Vec<Range>>,
    /// Wait for a completion. A response that means success then says that the receiver accepted the work and
    /// reports the outcome later, with the token in the request header `Nobat-Completion-Token`. A task with
    /// this field is never part of a batch.
    #[serde(default, deserialize_with = "nobat_core::json::decode::maybe_object")]
    pub wait: Option<WaitSubmission>,
}

/// Header with the token by which the receiver reports the outcome of the call later.
const COMPLETION_TOKEN: &str = "nobat-completion-token";

/// Bounds of a call's timeout, in seconds. The task's timeout ends the call in any case.
const TIMEOUTS: Bounds = Bounds::timeout(MAX_SCHEDULE_AHEAD);

/// Supported HTTP methods.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// `GET`.
    Get,
    /// `POST`.
    #[default]
    Post,
    /// `PUT`.
    Put,
    /// `PATCH`.
    Patch,
    /// `DELETE`.
    Delete,
    /// `HEAD`.
    Head,
    /// `OPTIONS`.
    Options,
}

impl Call {
    /// Returns the idempotency key of the payload, from its field or its header.
    fn own_key(&self) -> Option<&str> {
        let of_header = || {
            self.headers
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(IDEMPOTENCY_KEY))
                .map(|(_, key)| key.as_str())
        };
        self.idempotency_key.as_deref().or_else(of_header)
    }
}

impl Http {
    /// Creates a handler that sends through this client and signs nothing.
    pub fn new(client: Client) -> Self {
        Self { client, signer: None }
    }

    /// Adds a signer, for callbacks and endpoints.
    #[must_use]
    pub fn signing(self, signer: Signer) -> Self {
        Self { signer: Some(Arc::new(signer)), ..self }
    }

    /// Returns the headers that the endpoint adds to all of its requests.
    async fn headers_of_endpoint(&self, context: &TaskContext) -> Result<HeaderMap, Failure> {
        match (&self.signer, at(context)) {
            (_, None) => Ok(HeaderMap::new()),
            (Some(signer), Some(at)) => {
                signer.headers_of(&at).await.map_err(|error| cannot_sign(&error, context))
            }
            (None, Some(_)) => Err(Failure::held(
                HeldReason::SecretUnavailable,
                "this program has no signer, so it cannot sign requests to endpoints",
            )),
        }
    }

    /// Signs a request. `id` must be the same for all attempts.
    async fn sign(&self, request: &mut Request, id: &str, context: &TaskContext) -> Result<(), Failure> {
        let Some(signer) = &self.signer else { return Ok(()) };
        let (body, headers) = (&request.body, &mut request.headers);
        let outcome = match at(context) {
            Some(at) => signer.sign_for(&at, id, body, headers).await,
            None if context.parent.is_some() => signer.sign(&context.name.tenant, id, body, headers).await,
            None => Ok(()),
        };
        outcome.map_err(|error| cannot_sign(&error, context))
    }
}

fn at(context: &TaskContext) -> Option<NamedEndpoint<'_>> {
    context.endpoint.as_ref().map(|(name, endpoint)| NamedEndpoint {
        tenant: &context.name.tenant,
        name,
        endpoint,
    })
}

/// Holds the task, since the secret or the master key may be available again later.
fn cannot_sign(error: &CannotSign, context: &TaskContext) -> Failure {
    tracing::warn!(task = %context.name.id, %error, "a request cannot be signed; it is not sent, and its task is held");
    // Error texts of a store or a service are only for the log, since clients can read the task's error.
    Failure::held(
        HeldReason::SecretUnavailable,
        "the request cannot be signed, because a stored secret or header cannot be read",
    )
}

impl Handler for Http {
    const KIND: &'static str = "http";
    type Input = Call;
    type Output = Answered;

    fn check(&self, call: &Call) -> Result<(), Vec<FieldError>> {
        let mut wrong = Vec::new();
        match &call.url {
            Some(url) => wrong.extend(Destination::parse(url, self.client.guard()).err().map(bad_url)),
            None => wrong.push(FieldError::new(
                "/url",
                "missing field `url`; send it, or name an `endpoint` in the task",
            )),
        }
        wrong.extend(wrong_anywhere(call));
        if call.path.is_some() {
            wrong.push(FieldError::new(
                "/path",
                "a `path` needs an endpoint, but the task names no endpoint; send the whole URL in `url`",
            ));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn check_for_endpoint(&self, call: &Call) -> Option<Result<(), Vec<FieldError>>> {
        let mut wrong = wrong_anywhere(call);
        if call.url.is_some() {
            wrong.push(FieldError::new(
                "/url",
                "the URL comes from the endpoint; remove `url`, or send the rest of the URL as `path`",
            ));
        }
        if call.path.as_ref().is_some_and(|path| !is_path(path)) {
            let detail = format!(
                "expected an empty text, or at most {MAX_PATH} visible ASCII characters that begin with `/` or `?`, without `#`, `\\` and \
                 the segments `.` and `..`"
            );
            wrong.push(FieldError::new("/path", detail));
        }
        Some(if wrong.is_empty() { Ok(()) } else { Err(wrong) })
    }

    async fn run(&self, call: Call, context: &TaskContext) -> Result<Answered, Failure> {
        let (answers, began) = (answers(&call, context), Instant::now());
        let mut request =
            prepare(&call, &self.headers_of_endpoint(context).await?, self.client.guard(), context)?;
        self.sign(&mut request, &context.idempotency_key, context).await?;
        // The HTTP client must time out before the worker does, because only the client knows why a call is
        // late.
        request.timeout = request.timeout.saturating_sub(began.elapsed());
        match select(pin!(self.client.send(request)), pin!(context.canceled())).await {
            Either::Left((sent, _)) => settle(sent, &answers, context.endpoint.is_some(), SystemTime::now()),
            Either::Right(_) => {
                Err(Failure::permanent(ErrorCode::CANCELED, "the task was canceled during the call"))
            }
        }
    }

    fn wait(&self, call: &Call) -> Option<Wait> {
        call.wait.as_ref()?.read().ok()
    }

    fn batch_key(&self, call: &Call) -> Option<u64> {
        batch::batch_key(call)
    }

    async fn run_batch<'a>(&'a self, batch: Vec<(Call, &'a TaskContext)>) -> BatchOutcome<Answered> {
        batch::send(self, batch).await
    }
}

/// Validates the fields that are valid both with a URL and with an endpoint.
fn wrong_anywhere(call: &Call) -> Vec<FieldError> {
    let mut wrong: Vec<FieldError> =
        headers::read(&call.headers).err().into_iter().flatten().map(bad_header).collect();
    wrong.extend(wrong_key(call).map(|detail| FieldError::new("/idempotency_key", detail)));
    wrong.extend(wrong_base64(call).map(|detail| FieldError::new("/body_base64", detail)));
    if let Some(Err(detail)) = call.timeout.map(|seconds| TIMEOUTS.seconds(seconds)) {
        wrong.push(FieldError::new("/timeout", detail));
    }
    for (pointer, ranges) in
        [("/success_statuses", &call.success_statuses), ("/retry_statuses", &call.retry_statuses)]
    {
        if ranges.as_ref().is_some_and(|ranges| ranges.len() > Statuses::MAX) {
            wrong.push(FieldError::new(pointer, format!("expected at most {} ranges", Statuses::MAX)));
        }
    }
    if let Some(Err(errors)) = call.wait.as_ref().map(WaitSubmission::read) {
        wrong.extend(errors.into_iter().map(|error| error.under("/wait")));
    }
    if call.success_statuses.as_ref().is_some_and(Vec::is_empty) {
        wrong.push(FieldError::new(
            "/success_statuses",
            "expected at least one range; without a range, no response counts as success",
        ));
    }
    wrong
}

fn wrong_key(call: &Call) -> Option<String> {
    let key = call.idempotency_key.as_ref()?;
    if !is_idempotency_key(key) {
        return Some(HeaderFault::IdempotencyKey.to_string());
    }
    let is_other =
        |(name, value): (&String, &String)| name.eq_ignore_ascii_case(IDEMPOTENCY_KEY) && value != key;
    call.headers.iter().any(is_other).then(|| {
        "the header `Idempotency-Key` has another value; send either this field or the header".to_owned()
    })
}

fn wrong_base64(call: &Call) -> Option<&'static str> {
    let text = call.body_base64.as_ref()?;
    if call.body.is_some() {
        return Some("`body` and `body_base64` are both present; send only one of them");
    }
    decode_base64(text)
        .is_none()
        .then_some("expected base64 with the standard alphabet (RFC 4648, section 4)")
}

/// Returns the response policy: the task's lists, else the endpoint's, else the default.
pub(crate) fn answers(call: &Call, context: &TaskContext) -> ResponsePolicy {
    let usual = context.endpoint.as_ref().map(|(_, endpoint)| endpoint.answers.clone()).unwrap_or_default();
    ResponsePolicy {
        success_statuses: call.success_statuses.clone().map_or(usual.success_statuses, Statuses::new),
        retry_statuses: call.retry_statuses.clone().map_or(usual.retry_statuses, Statuses::new),
    }
}

fn bad_url(bad: BadUrl) -> FieldError {
    FieldError { code: Some(bad.code()), ..FieldError::new("/url", bad.to_string()) }
}

fn bad_header(bad: BadHeader) -> FieldError {
    let name = bad.name.map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1")));
    FieldError::new(format!("/headers{}", name.unwrap_or_default()), bad.fault.to_string())
}

/// Builds the request. Checks the URL again, since the allowed networks may have changed since the
/// submission.
fn prepare(call: &Call, fixed: &HeaderMap, guard: &Guard, context: &TaskContext) -> Result<Request, Failure> {
    let key = call.own_key().unwrap_or(&context.idempotency_key).to_owned();
    let url = match &context.endpoint {
        Some((_, endpoint)) => endpoint.at(call.path.as_deref()),
        None => HttpUrl::parse(call.url.as_deref().unwrap_or_default()),
    };
    let destination = url.map_err(BadUrl::from).and_then(|url| Destination::new(url, guard));
    let destination = destination.map_err(|bad| Failure::permanent(bad.code(), bad.to_string()))?;
    let mut headers = headers::read(&call.headers).map_err(|_| {
        Failure::permanent(ErrorCode::INVALID_PAYLOAD, "the payload contains headers that cannot be sent")
    })?;
    // The endpoint's headers replace the task's headers. An endpoint's header can be a credential, which a
    // client must not replace.
    for (name, value) in fixed {
        headers.insert(name, value.clone());
    }
    let authority =
        context.endpoint.as_ref().and_then(|(_, endpoint)| endpoint.authority.as_deref()).map(Arc::from);
    let body = match (&call.body_base64, &call.body) {
        (Some(base64), _) => {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/octet-stream"));
            decode_base64(base64)
                .ok_or_else(|| {
                    Failure::permanent(
                        ErrorCode::INVALID_PAYLOAD,
                        "`body_base64` of the payload is not base64",
                    )
                })?
                .into()
        }
        (None, Some(body)) => write(body, &mut headers),
        (None, None) => Bytes::new(),
    };
    introduce(&mut headers, &key, context)?;
    let timeout = call
        .timeout
        .and_then(|seconds| TIMEOUTS.seconds(seconds).ok())
        .map_or(context.timeout, |timeout| timeout.min(context.timeout));
    let tenant = context.name.tenant.clone();
    Ok(Request { method: call.method.into(), destination, headers, body, authority, tenant, timeout })
}

/// Returns the body's bytes. JSON is sent byte for byte as submitted.
fn write(body: &Json, headers: &mut HeaderMap) -> Bytes {
    let content_type = headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    let text = if is_json(content_type) { None } else { body.parse::<String>().ok() };
    text.unwrap_or_else(|| body.get().to_owned()).into()
}

/// Adds the headers that identify the caller and the call, so that the receiver can recognize repeated calls.
fn introduce(
    headers: &mut HeaderMap,
    key: &str,
    context: &TaskContext,
) -> Result<(), http::header::InvalidHeaderValue> {
    const AGENT: HeaderValue = HeaderValue::from_static(concat!("nobat/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(AGENT);
    // A response that is compressed anyway is decoded.
    headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
    let mut key = HeaderValue::from_str(key)?;
    key.set_sensitive(true);
    headers.insert(IDEMPOTENCY_KEY, key);
    if let Some(token) = context.completion_token() {
        let mut token = HeaderValue::from_str(token)?;
        token.set_sensitive(true);
        headers.insert(COMPLETION_TOKEN, token);
    }
    headers.insert("nobat-task-id", HeaderValue::from_str(&context.name.id.to_string())?);
    headers.insert("nobat-attempt", HeaderValue::from(context.attempt));
    headers.insert("nobat-hops", HeaderValue::from(u16::from(context.hops) + 1));
    Ok(())
}

impl From<Method> for http::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
            Method::Head => Self::HEAD,
            Method::Options => Self::OPTIONS,
        }
    }
}
