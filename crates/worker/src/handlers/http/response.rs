//! Interpretation of responses.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64;
use http::header::{CONTENT_TYPE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use nobat_core::config::endpoint::{ResponseClass, ResponsePolicy};
use nobat_core::json::Json;
use nobat_core::task::retry::MAX_RETRY_AFTER;
use nobat_core::types::held_reason::HeldReason;
use nobat_delivery::headers::{MAX_HEADER_BYTES, MAX_HEADERS};
use nobat_delivery::{Answer, Extent, SendError, retry_after};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::handler::failure::Failure;

/// Result of kind `http`: the response.
#[derive(Clone, Debug, Serialize)]
pub struct Answered {
    /// Status of the response.
    pub status: u16,
    /// Headers in lower case, without cookies. At most 50, and 8 KiB in total. If the body was decompressed,
    /// `content-encoding` and `content-length` are left out. A `content-encoding` in this list names a coding
    /// that the body still has.
    pub headers: BTreeMap<String, String>,
    /// Body, at most 64 KiB. `null` if it is binary.
    pub body: Option<Body>,
    /// Binary body in base64. A body is binary if it is not UTF-8 or contains a NUL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// True if the end of the body is missing, because it is longer than 64 KiB or its compression is
    /// damaged.
    pub truncated: bool,
}

/// Body of a response that is not binary.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// A complete JSON body.
    Json(Json),
    /// Any other text. Control characters other than tab and line end are replaced by U+FFFD.
    Text(String),
}

pub(super) fn settle(
    sent: Result<Answer, SendError>,
    answers: &ResponsePolicy,
    at_endpoint: bool,
    now: SystemTime,
) -> Result<Answered, Failure> {
    match sent {
        Ok(answer) => match answers.meaning(answer.status.as_u16()) {
            ResponseClass::Success => Ok(answered(&answer)),
            meaning => Err(refused(answer.status, &answer.headers, meaning, at_endpoint, now)),
        },
        Err(error @ SendError::LocalResources) => {
            Err(Failure::held(HeldReason::ResourceExhausted, &error.to_string()))
        }
        // An address that is blocked now will be blocked at the next attempt.
        Err(error @ SendError::BlockedAddress) => Err(Failure::permanent(error.code(), error.to_string())),
        Err(error) => Err(Failure::retry(error.code(), error.to_string())),
    }
}

pub(super) fn refused(
    status: StatusCode,
    headers: &HeaderMap,
    meaning: ResponseClass,
    at_endpoint: bool,
    now: SystemTime,
) -> Failure {
    let code = format!("http_{}", status.as_u16());
    let message = format!("the destination answered {}", status.as_u16());
    let is_about_all = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    match (meaning, pause(headers, now)) {
        (ResponseClass::Final, _) if at_endpoint && status == StatusCode::GONE => {
            Failure::gone(&code, format!("{message}; the endpoint is marked as gone"))
        }
        _ if headers.get(NO_RETRY).is_some_and(|value| value == "1") => Failure::permanent(
            &code,
            format!("{message} and forbade further attempts by the header `{NO_RETRY}`"),
        ),
        (ResponseClass::Retry, Some(pause)) if is_about_all => Failure::defer(pause, &code, message),
        (ResponseClass::Retry, Some(pause)) => Failure::retry_after(pause, &code, message),
        (ResponseClass::Retry, None) => Failure::retry(&code, message),
        _ if status.is_redirection() => {
            Failure::permanent(&code, format!("{message}; redirects are not followed"))
        }
        _ => Failure::permanent(&code, message),
    }
}

/// Response header by which the endpoint forbids further attempts, with the value `1`.
const NO_RETRY: &str = "nobat-no-retry";

/// Returns the pause that the endpoint asks for, at most [`MAX_RETRY_AFTER`].
pub(super) fn pause(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    retry_after::pause(headers, now).map(|pause| pause.min(MAX_RETRY_AFTER))
}

pub(super) fn answered(answer: &Answer) -> Answered {
    let is_whole = answer.extent == Extent::Whole;
    let is_json = is_whole && answer.headers.get(CONTENT_TYPE).is_some_and(is_json);
    let content = without_bom(&answer.body);
    let json = if is_json { whole_json(content) } else { None };
    let body = json.map(Body::Json).or_else(|| text(content, is_whole).map(|text| Body::Text(plain(text))));
    Answered {
        status: answer.status.as_u16(),
        headers: kept(&answer.headers),
        body_base64: body.is_none().then(|| BASE64.encode(&answer.body)),
        body,
        truncated: !is_whole,
    }
}

/// Skips the byte order mark that some servers put before UTF-8. JSON has no such mark (RFC 8259, section
/// 8.1), and readers may ignore the mark.
pub(super) fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// Returns the body as text, or `None` if it is binary. If the end is missing, an incomplete last character
/// is cut off.
pub(super) fn text(body: &[u8], is_whole: bool) -> Option<&str> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) if !is_whole && error.error_len().is_none() => {
            std::str::from_utf8(&body[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    (!text.contains('\0')).then_some(text)
}

/// Returns true for `application/json` and for anything that ends in `+json` (RFC 6839).
pub(super) fn is_json(content_type: &HeaderValue) -> bool {
    let essence = content_type
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

fn whole_json(body: &[u8]) -> Option<Json> {
    Json::from_outside(serde_json::from_slice::<&RawValue>(body).ok()?).ok()
}

/// Replaces control characters. The JSON of a body is then at most three times as long as the body, so the
/// result is never too long to store.
fn plain(text: &str) -> String {
    let is_plain = |character: char| !character.is_control() || matches!(character, '\t' | '\n' | '\r');
    text.chars()
        .map(|character| if is_plain(character) { character } else { char::REPLACEMENT_CHARACTER })
        .collect()
}

/// Returns the headers to store. Leaves out cookies, which are secret, and headers that exceed the limits.
fn kept(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    let mut room = MAX_HEADER_BYTES;
    for name in headers.keys().filter(|name| *name != SET_COOKIE) {
        let values: Vec<Cow<'_, str>> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let value = values.join(", ");
        let size = name.as_str().len() + value.len();
        if kept.len() < MAX_HEADERS && size <= room {
            room -= size;
            kept.insert(name.to_string(), value);
        }
    }
    kept
}
