//! What the other side said, and what that means for a task.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use nobat_core::endpoint::{Answers, Meaning};
use nobat_core::json::Json;
use nobat_core::retry::MAX_RETRY_AFTER;
use nobat_core::task::HeldReason;
use nobat_delivery::headers::{MAX_HEADER_BYTES, MAX_HEADERS};
use nobat_delivery::{Answer, SendError};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::handler::Failure;

/// What the destination answered.
#[derive(Clone, Debug, Serialize)]
pub struct Answered {
    /// A status that means success.
    pub status: u16,
    /// Its headers in lower case, up to 50 of them and 8 KiB in all, cookies left out.
    pub headers: BTreeMap<String, String>,
    /// What it said, up to 64 KiB.
    pub body: Body,
    /// Whether it said more.
    pub truncated: bool,
}

/// What was said in an answer.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// The whole of it, sent as JSON.
    Json(Json),
    /// Anything else. What is not UTF-8 text, or a control character other than tab and line end, stands there as U+FFFD.
    Text(String),
}

pub(super) fn settle(sent: Result<Answer, SendError>, answers: &Answers, at_endpoint: bool, now: SystemTime) -> Result<Answered, Failure> {
    match sent {
        Ok(answer) => match answers.meaning(answer.status.as_u16()) {
            Meaning::Success => Ok(answered(&answer)),
            meaning => Err(refused(answer.status, &answer.headers, meaning, at_endpoint, now)),
        },
        Err(error @ SendError::LocalResources) => Err(Failure::held(HeldReason::ResourceExhausted, &error.to_string())),
        // What is blocked today is blocked tomorrow; everything else may pass.
        Err(error @ SendError::BlockedAddress) => Err(Failure::permanent(error.code(), error.to_string())),
        Err(error) => Err(Failure::retry(error.code(), error.to_string())),
    }
}

pub(super) fn refused(status: StatusCode, headers: &HeaderMap, meaning: Meaning, at_endpoint: bool, now: SystemTime) -> Failure {
    let code = format!("http_{}", status.as_u16());
    let message = format!("the destination answered {}", status.as_u16());
    let is_about_all = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    match (meaning, pause(headers, now)) {
        (Meaning::Final, _) if at_endpoint && status == StatusCode::GONE => Failure::gone(&code, format!("{message}: it is gone for good")),
        _ if headers.get(NO_RETRY).is_some_and(|value| value == "1") => {
            Failure::permanent(&code, format!("{message}, and that it is not to be tried again"))
        }
        (Meaning::Retry, Some(pause)) if is_about_all => Failure::put_off(pause, &code, message),
        (Meaning::Retry, Some(pause)) => Failure::retry_after(pause, &code, message),
        (Meaning::Retry, None) => Failure::retry(&code, message),
        _ if status.is_redirection() => Failure::permanent(&code, format!("{message}; redirects are not followed")),
        _ => Failure::permanent(&code, message),
    }
}

/// By this header of an answer the other side says that no other attempt would end otherwise.
const NO_RETRY: &str = "nobat-no-retry";

/// The pause that the destination asks for (RFC 9110, section 10.2.3): seconds, or a date. What is neither, or is over, is no wish.
pub(super) fn pause(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let wish = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = if !wish.is_empty() && wish.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits beyond counting are a very long pause.
        Duration::from_secs(wish.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(wish).ok()?.duration_since(now).ok()?
    };
    Some(pause.min(MAX_RETRY_AFTER))
}

pub(super) fn answered(answer: &Answer) -> Answered {
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
pub(super) fn is_json(content_type: &HeaderValue) -> bool {
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

fn whole_json(body: &[u8]) -> Option<Json> {
    Json::from_outside(serde_json::from_slice::<&RawValue>(body).ok()?).ok()
}

/// The body as text that takes at most three times its bytes as JSON, escapes included, so that no answer is too long to keep.
fn plain(body: &[u8]) -> String {
    let is_plain = |character: char| !character.is_control() || matches!(character, '\t' | '\n' | '\r');
    String::from_utf8_lossy(body)
        .chars()
        .map(|character| if is_plain(character) { character } else { char::REPLACEMENT_CHARACTER })
        .collect()
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
