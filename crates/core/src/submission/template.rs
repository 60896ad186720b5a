//! Templates: the task that a subscription creates for an event.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::config::subscription::EventBody;
use crate::events::cloud_event::{CloudEvent, EventData};
use crate::json::Json;
use crate::json::decode::{ReadError, UniqueFields, read};
use crate::submission::Submission;
use crate::task::callback::HTTP;
use crate::types::field_error::FieldError;

/// Key of an object that stands for a part of the event: `{"$event": "/data/order_id"}`.
const PLACEHOLDER: &str = "$event";

/// Maximum number of placeholders in a template.
const MAX_PLACEHOLDERS: usize = 50;
/// Maximum length of an event that a client published, in bytes.
const MAX_EVENT: usize = 256 * 1024;
/// Maximum number of bytes of a filled payload, in addition to the event.
const MAX_REST: usize = 32 * 1024;

/// Kind whose handler does nothing.
const NOOP: &str = "noop";

/// Media type of an event in JSON.
pub const CLOUD_EVENT_TYPE: &str = "application/cloudevents+json";

/// Event, ready for use in templates.
pub struct TemplateEvent<'a> {
    /// The event.
    pub event: &'a CloudEvent,
    /// The same event as JSON.
    pub json: &'a Json,
}

/// Returns the submission for an event. Replaces each `{"$event": pointer}` in the payload by the value at
/// that JSON pointer (RFC 6901) of the event, or `null` if there is none.
///
/// A payload of kind `http` without a body gets the event or its data as body. A missing payload of another
/// kind becomes the event. JSON pointers in errors are relative to the template.
pub fn fill(
    template: &Json,
    body: EventBody,
    event: &TemplateEvent<'_>,
) -> Result<Submission, Vec<FieldError>> {
    build(template, body, event, &|pointer| Ok(event.json.find(pointer)))
}

/// Checks a template before events exist: puts a sample text in each placeholder.
pub(crate) fn sample(
    template: &Json,
    body: EventBody,
    event: &TemplateEvent<'_>,
) -> Result<Submission, Vec<FieldError>> {
    build(template, body, event, &|pointer| {
        if pointer.is_empty() || pointer.starts_with('/') {
            Ok(Json::from_value("sample").ok())
        } else {
            Err("expected a JSON pointer into the event (RFC 6901), such as \"/data/order_id\"")
        }
    })
}

const TOO_LARGE: &str = "the payload for this event is too large; expected at most 32 KiB more than the event, or than 256 KiB if the event is smaller; take fewer parts of the event";

type Resolve<'a> = &'a dyn Fn(&str) -> Result<Option<Json>, &'static str>;

fn build(
    template: &Json,
    body: EventBody,
    event: &TemplateEvent<'_>,
    resolve: Resolve<'_>,
) -> Result<Submission, Vec<FieldError>> {
    let mut submission: Submission =
        crate::json::decode::read_object(template.get().as_bytes()).map_err(|error| vec![error.into()])?;
    if submission.run_at.is_some() || submission.expires_at.is_some() {
        let pointer = if submission.run_at.is_some() { "/run_at" } else { "/expires_at" };
        let detail = "a template creates tasks for many events, so it cannot set a fixed time; omit this field, or send `delay` for a later start";
        return Err(vec![FieldError::new(pointer, detail)]);
    }
    let count = template.get().matches("\"$event\"").count();
    if count > MAX_PLACEHOLDERS {
        let detail = format!("the template has {count} placeholders; expected at most {MAX_PLACEHOLDERS}");
        return Err(vec![FieldError::new("/payload", detail)]);
    }
    let max = event.json.get().len().max(MAX_EVENT) + MAX_REST;
    let payload = match &submission.payload {
        Some(payload) => Some(
            substitute(payload, resolve, &Cell::new(max))
                .map_err(|detail| vec![FieldError::new("/payload", detail)])?,
        ),
        None => None,
    };
    let payload = match (submission.kind.as_str(), payload) {
        (kind, payload) if kind == HTTP.as_str() => http_payload(payload.as_deref(), body, event)
            .map_err(|error| vec![FieldError::from(error).under("/payload")])?,
        (_, Some(payload)) => payload,
        // The handler of this kind takes no input.
        (NOOP, None) => RawValue::NULL.to_owned(),
        (_, None) => raw(event.json).map_err(|error| vec![error.into()])?,
    };
    if payload.get().len() > max {
        return Err(vec![FieldError::new("/payload", TOO_LARGE)]);
    }
    submission.payload = Some(payload);
    Ok(submission)
}

/// Returns the payload of kind `http` with a body, and with headers that describe the body.
fn http_payload(
    payload: Option<&RawValue>,
    body: EventBody,
    TemplateEvent { event, json }: &TemplateEvent<'_>,
) -> Result<Box<RawValue>, ReadError> {
    let mut fields = match payload {
        Some(payload) => read::<UniqueFields<Box<RawValue>>>(payload.get().as_bytes())?.0,
        None => BTreeMap::new(),
    };
    let mut headers: BTreeMap<String, String> = match fields.get("headers") {
        Some(headers) => {
            read::<UniqueFields<String>>(headers.get().as_bytes())
                .map_err(|error| under("/headers", error))?
                .0
        }
        None => BTreeMap::new(),
    };
    let has_body = fields.contains_key("body") || fields.contains_key("body_base64");
    let takes_body =
        !fields.get("method").is_some_and(|method| matches!(method.get(), "\"GET\"" | "\"HEAD\""));
    let mut default = |name: &str, value: String| {
        if !headers.keys().any(|given| given.eq_ignore_ascii_case(name)) {
            headers.insert(name.to_owned(), value);
        }
    };
    if body == EventBody::Data {
        for (name, value) in event.attributes() {
            default(&name, value);
        }
    }
    if takes_body && !has_body {
        match (body, &event.data) {
            (EventBody::Event, _) => {
                default("content-type", CLOUD_EVENT_TYPE.to_owned());
                fields.insert("body".to_owned(), raw(json)?);
            }
            (EventBody::Data, None) => {}
            (EventBody::Data, Some(data)) => {
                if let Some(content_type) = &event.content_type {
                    default("content-type", content_type.clone());
                }
                let (name, value) = match data {
                    EventData::Base64(text) => ("body_base64", Json::from_value(text)?),
                    EventData::Json(data) => ("body", data.clone()),
                };
                fields.insert(name.to_owned(), raw(&value)?);
            }
        }
    }
    if !headers.is_empty() {
        fields.insert("headers".to_owned(), raw(&Json::from_value(&headers)?)?);
    }
    Ok(serde_json::value::to_raw_value(&fields)?)
}

/// Returns the value with each placeholder replaced. Every other part keeps its bytes.
///
/// `left` is the number of bytes that placeholders may still add.
fn substitute(value: &RawValue, resolve: Resolve<'_>, left: &Cell<usize>) -> Result<Box<RawValue>, String> {
    let text = value.get();
    if !text.contains(PLACEHOLDER) {
        return Ok(value.to_owned());
    }
    let written =
        |result: Result<Box<RawValue>, serde_json::Error>| result.map_err(|error| error.to_string());
    match text.as_bytes().first() {
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| error.to_string())?;
            let items = items.into_iter().map(|item| substitute(item, resolve, left));
            written(serde_json::value::to_raw_value(&items.collect::<Result<Vec<_>, _>>()?))
        }
        Some(b'{') => {
            let fields =
                read::<UniqueFields<Box<RawValue>>>(text.as_bytes()).map_err(|error| error.to_string())?.0;
            if let Some(pointer) = fields.get(PLACEHOLDER) {
                let pointer: String = serde_json::from_str(pointer.get()).map_err(|_| POINTER.to_owned())?;
                if fields.len() > 1 {
                    return Err("expected `$event` as the only field of the object".to_owned());
                }
                let found = resolve(&pointer)?.unwrap_or_else(Json::null);
                let rest = left.get().checked_sub(found.get().len());
                left.set(rest.ok_or_else(|| TOO_LARGE.to_owned())?);
                return raw(&found).map_err(|error| error.to_string());
            }
            let fields =
                fields.into_iter().map(|(name, value)| Ok((name, substitute(&value, resolve, left)?)));
            written(serde_json::value::to_raw_value(&fields.collect::<Result<BTreeMap<_, _>, String>>()?))
        }
        // A string that contains the placeholder's key as text is no placeholder.
        _ => Ok(value.to_owned()),
    }
}

const POINTER: &str = "expected a JSON pointer (RFC 6901) in `$event`, such as \"/data/order_id\"";

fn raw(json: &Json) -> Result<Box<RawValue>, ReadError> {
    Ok(RawValue::from_string(json.get().to_owned())?)
}

fn under(parent: &str, error: ReadError) -> ReadError {
    match error {
        ReadError::Mismatch { pointer, detail } => {
            ReadError::Mismatch { pointer: format!("{parent}{pointer}"), detail }
        }
        error @ ReadError::Malformed { .. } => error,
    }
}

#[cfg(test)]
mod tests;
