//! Kind `http`: delivers a request to an external API.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{CONTENT_TYPE, RETRY_AFTER, SET_COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};
use nobat_core::json::Json;
use nobat_core::retry::MAX_RETRY_AFTER;
use nobat_core::submit::Invalid;
use nobat_core::task::ErrorCode;
use nobat_delivery::headers::{self, BadHeader, MAX_HEADER_BYTES, MAX_HEADERS};
use nobat_delivery::{Answer, BadUrl, Client, Destination, Guard, Request, SendError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::context::TaskContext;
use crate::handler::{Failure, Handler};

/// Runs the tasks of kind `http`.
///
/// A 2xx is success. 408, 425, 429, 5xx and everything that kept an answer from coming are tried again; every other answer is
/// final, a redirect included: who may be called was decided for this URL, not for the one that it points to.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
}

/// The request to deliver.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// `POST` unless said.
    #[serde(default)]
    pub method: Method,
    /// An `http` or `https` URL on the public internet, or in a network that the operator allows.
    pub url: String,
    /// Up to 50 headers, 8 KiB in all.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body, sent as it stands as `application/json`; `null` is none. With a `content-type` other than JSON, a string is sent
    /// as its text.
    pub body: Option<Json>,
    /// How many seconds the call may take, if that is less than the task's own timeout.
    pub timeout: Option<f64>,
}

/// The methods that can be sent.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Fetch.
    Get,
    /// Hand over.
    #[default]
    Post,
    /// Replace.
    Put,
    /// Change.
    Patch,
    /// Remove.
    Delete,
    /// Fetch the headers alone.
    Head,
    /// Ask what can be asked.
    Options,
}

/// What the destination answered.
#[derive(Debug, Serialize)]
pub struct Answered {
    /// A status from 200 to 299.
    pub status: u16,
    /// Its headers in lower case, up to 50 of them and 8 KiB in all, cookies left out.
    pub headers: BTreeMap<String, String>,
    /// What it said, up to 64 KiB.
    pub body: Body,
    /// Whether it said more.
    pub truncated: bool,
}

/// What was said in an answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// The whole of it, sent as JSON.
    Json(Json),
    /// Anything else. What is not UTF-8 text, or a control character other than tab and line end, stands there as U+FFFD.
    Text(String),
}

impl Http {
    /// A handler that sends through that client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Handler for Http {
    const KIND: &'static str = "http";
    type Input = Call;
    type Output = Answered;

    fn check(&self, call: &Call) -> Result<(), Vec<Invalid>> {
        let mut wrong = Vec::new();
        wrong.extend(Destination::parse(&call.url, self.client.guard()).err().map(bad_url));
        wrong.extend(headers::read(&call.headers).err().into_iter().flatten().map(bad_header));
        if call.timeout.is_some_and(|seconds| duration(seconds).is_none()) {
            wrong.push(Invalid::new("/timeout", "expected seconds, at least 0.001"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    async fn run(&self, call: Call, context: &TaskContext) -> Result<Answered, Failure> {
        let request = prepare(call, self.client.guard(), context)?;
        match select(pin!(self.client.send(request)), pin!(context.canceled())).await {
            Either::Left((sent, _)) => settle(sent, SystemTime::now()),
            Either::Right(_) => Err(Failure::permanent(ErrorCode::CANCELED, "the task was called off during the call")),
        }
    }
}

fn bad_url(bad: BadUrl) -> Invalid {
    Invalid { code: Some(bad.code()), ..Invalid::new("/url", bad.to_string()) }
}

fn bad_header(bad: BadHeader) -> Invalid {
    let name = bad.name.map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1")));
    Invalid::new(format!("/headers{}", name.unwrap_or_default()), bad.fault.to_string())
}

/// That many seconds, if it is a time in which anything can happen.
fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration >= Duration::from_millis(1))
}

/// The request as it is sent. Its URL is checked anew: the networks that are allowed may have changed since it was accepted.
fn prepare(call: Call, guard: &Guard, context: &TaskContext) -> Result<Request, Failure> {
    let destination = Destination::parse(&call.url, guard).map_err(|bad| Failure::permanent(bad.code(), bad.to_string()))?;
    let mut headers = headers::read(&call.headers).map_err(|_| Failure::permanent(ErrorCode::INVALID_PAYLOAD, "its headers cannot be sent"))?;
    let body = call.body.map_or_else(Bytes::new, |body| write(&body, &mut headers));
    introduce(&mut headers, context)?;
    let timeout = call.timeout.and_then(duration).map_or(context.timeout, |timeout| timeout.min(context.timeout));
    Ok(Request { method: call.method.into(), destination, headers, body, timeout })
}

/// The body's bytes. JSON goes out byte for byte as it came in.
fn write(body: &Json, headers: &mut HeaderMap) -> Bytes {
    let content_type = headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    let text = if is_json(content_type) { None } else { body.parse::<String>().ok() };
    text.unwrap_or_else(|| body.get().to_owned()).into()
}

/// Says who calls, and which call it is, so that the destination can tell a repeated one from a new one.
fn introduce(headers: &mut HeaderMap, context: &TaskContext) -> Result<(), http::header::InvalidHeaderValue> {
    const AGENT: HeaderValue = HeaderValue::from_static(concat!("nobat/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(AGENT);
    headers.insert("idempotency-key", HeaderValue::from_str(&context.idempotency_key)?);
    headers.insert("nobat-task-id", HeaderValue::from_str(&context.name.id.to_string())?);
    headers.insert("nobat-attempt", HeaderValue::from(context.attempt));
    Ok(())
}

fn settle(sent: Result<Answer, SendError>, now: SystemTime) -> Result<Answered, Failure> {
    match sent {
        Ok(answer) if answer.status.is_success() => Ok(answered(answer)),
        Ok(answer) => Err(refused(answer.status, &answer.headers, now)),
        // What is blocked today is blocked tomorrow; everything else may pass.
        Err(error @ SendError::BlockedAddress) => Err(Failure::permanent(error.code(), error.to_string())),
        Err(error) => Err(Failure::retry(error.code(), error.to_string())),
    }
}

fn refused(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Failure {
    let code = format!("http_{}", status.as_u16());
    let message = format!("the destination answered {}", status.as_u16());
    match status {
        _ if may_pass(status) => match pause(headers, now) {
            Some(pause) => Failure::retry_after(pause, &code, message),
            None => Failure::retry(&code, message),
        },
        _ if status.is_redirection() => Failure::permanent(&code, format!("{message}; redirects are not followed")),
        _ => Failure::permanent(&code, message),
    }
}

/// The answers that say "not now" rather than "not like this".
fn may_pass(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS) || status.is_server_error()
}

/// The pause that the destination asks for (RFC 9110, section 10.2.3): seconds, or a date. What is neither, or is over, is no wish.
fn pause(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let wish = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = if !wish.is_empty() && wish.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits beyond counting are a very long pause.
        Duration::from_secs(wish.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(wish).ok()?.duration_since(now).ok()?
    };
    Some(pause.min(MAX_RETRY_AFTER))
}

fn answered(answer: Answer) -> Answered {
    let is_json = !answer.truncated && answer.headers.get(CONTENT_TYPE).is_some_and(is_json);
    let json = if is_json { whole_json(&answer.body) } else { None };
    Answered {
        status: answer.status.as_u16(),
        headers: kept(&answer.headers),
        body: json.map_or_else(|| Body::Text(plain(&answer.body)), Body::Json),
        truncated: answer.truncated,
    }
}

/// `application/json`, or anything that ends in `+json` (RFC 6839).
fn is_json(content_type: &HeaderValue) -> bool {
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

fn whole_json(body: &[u8]) -> Option<Json> {
    Json::from_outside(serde_json::from_slice::<&RawValue>(body).ok()?).ok()
}

/// The body as text that takes at most three times its bytes as JSON, escapes included, so that no answer is too long to keep.
fn plain(body: &[u8]) -> String {
    let is_plain = |character: char| !character.is_control() || matches!(character, '\t' | '\n' | '\r');
    String::from_utf8_lossy(body).chars().map(|character| if is_plain(character) { character } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// The headers to put on record. Cookies are secrets; a header that does not fit any more is left out.
fn kept(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    let mut room = MAX_HEADER_BYTES;
    for name in headers.keys().filter(|name| *name != SET_COOKIE) {
        let values: Vec<Cow<'_, str>> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let value = values.join(", ");
        let size = name.as_str().len() + value.len();
        if kept.len() < MAX_HEADERS && size <= room {
            room -= size;
            kept.insert(name.to_string(), value);
        }
    }
    kept
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
