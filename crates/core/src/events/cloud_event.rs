//! Events in the format of CloudEvents 1.0.2 (<https://github.com/cloudevents/spec>).

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::Json;
use crate::json::decode::{ReadError, UniqueFields};
use crate::types::encoding::decode_base64;
use crate::types::field_error::{FieldError, ValidationErrors, is_invisible};
use crate::types::time::Timestamp;

/// Event: its attributes, and its data byte for byte as the producer sent it.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudEvent {
    /// Attribute `id`. With `source`, it identifies the event.
    pub id: String,
    /// Attribute `source`: the context in which the event happened, a URI reference.
    pub source: String,
    /// Attribute `type`. The topics of subscriptions select events by this attribute.
    pub event_type: String,
    /// Attribute `subject`, if present.
    pub subject: Option<String>,
    /// Attribute `time`, as the producer sent it.
    pub time: String,
    /// Attribute `datacontenttype`, if present.
    pub content_type: Option<String>,
    /// All other attributes: names, and values as JSON.
    pub others: BTreeMap<String, Json>,
    /// Data, if there is any.
    pub data: Option<EventData>,
}

/// Data of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum EventData {
    /// JSON, or a text as a JSON string.
    Json(Json),
    /// Bytes in base64.
    Base64(String),
}

/// Source of an event that has no attribute `source`.
pub const DEFAULT_SOURCE: &str = "/";

/// Maximum length of `id`, `source`, `type` and `subject`, in bytes of UTF-8.
const MAX_TEXT: [(&str, usize); 4] = [("id", 255), ("source", 1_024), ("subject", 1_024), ("type", 255)];

/// Maximum length of an attribute's name. The specification advises at most 20 characters.
const MAX_NAME: usize = 64;

/// Maximum number of an event's attributes. Each attribute can become a header of a request to an endpoint,
/// and the request needs room for its own headers too.
const MAX_ATTRIBUTES: usize = 30;
/// Maximum total length of the attributes' names and values as headers of the binary mode, in bytes.
const MAX_HEADERS: usize = 6 * 1024;

/// Maximum length of an event as JSON, in bytes. A task has the same limit.
const MAX_BYTES: usize = 256 * 1024;

/// Maximum nesting depth of an event. The payload of a task adds two levels around the event.
const MAX_DEPTH: usize = Json::MAX_DEPTH - 3;

/// Characters that are percent-encoded in the header of an attribute (HTTP binding, section 3.1.3.2), in
/// addition to all characters that are not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// The only version of the specification.
const VERSION: &str = "1.0";

/// Values of attributes that nobat adds if the producer sent none.
pub struct Defaults {
    /// Default of `id`.
    pub id: String,
    /// Default of `time`.
    pub time: Timestamp,
}

impl CloudEvent {
    /// Reads an event in JSON. `time` may be missing. If `is_structured` is false, `specversion`, `id` and
    /// `source` may be missing too. JSON pointers in errors are relative to the event.
    pub fn from_json(
        event: &RawValue,
        is_structured: bool,
        defaults: &Defaults,
    ) -> Result<Self, Vec<FieldError>> {
        let fields = fields(event).map_err(|error| vec![error.into()])?;
        let mut wrong = ValidationErrors::default();
        let event = Self::build(fields, is_structured, defaults, &mut wrong);
        event.checked(wrong)
    }

    /// Reads an event in the binary mode of the HTTP binding: the attributes are headers, and the body is the
    /// data. `attributes` have names without the prefix `ce-`, and decoded values.
    pub fn from_binary(
        attributes: impl IntoIterator<Item = (String, String)>,
        content_type: Option<&str>,
        body: &[u8],
        defaults: &Defaults,
    ) -> Result<Self, Vec<FieldError>> {
        let mut wrong = ValidationErrors::default();
        let mut fields = BTreeMap::new();
        for (name, value) in attributes.into_iter().chain(content_type_attribute(content_type)) {
            let pointer = format!("/{name}");
            let Ok(value) = serde_json::value::to_raw_value(&value) else { continue };
            if matches!(name.as_str(), "data" | "data_base64") {
                wrong.add(&pointer, "expected an attribute; send the data as the body");
            } else if fields.insert(name, value).is_some() {
                wrong.add(&pointer, "the attribute is given twice; send it once");
            }
        }
        let mut event = Self::build(fields, true, defaults, &mut wrong);
        event.data = (!body.is_empty()).then(|| wrong.body(content_type, body)).flatten();
        event.checked(wrong)
    }

    /// Reads an event that [`CloudEvent::to_json`] wrote. Accepts every stored event, even if nobat has
    /// become stricter with events from clients.
    pub fn from_stored(event: &Json) -> Result<Self, Vec<FieldError>> {
        let raw: Box<RawValue> = event.parse().map_err(|error| vec![error.into()])?;
        let fields = fields(&raw).map_err(|error| vec![error.into()])?;
        // A stored event has every attribute, so the defaults are not used.
        let defaults = Defaults { id: String::new(), time: Timestamp::EPOCH };
        Ok(Self::build(fields, true, &defaults, &mut ValidationErrors::default()))
    }

    /// Builds the event from its fields. Adds all errors to `wrong`.
    fn build(
        fields: BTreeMap<String, Box<RawValue>>,
        is_structured: bool,
        defaults: &Defaults,
        wrong: &mut ValidationErrors,
    ) -> Self {
        let (mut attributes, mut data) = (BTreeMap::new(), None);
        for (name, value) in fields {
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            // "null" stands for an absent attribute (JSON format, section 2.2).
            match (&name[..], value.get()) {
                ("data_base64", "null") => {}
                ("data_base64", text) => {
                    if data.is_some() {
                        wrong.add(&pointer, "`data` and `data_base64` exclude each other; send one of them");
                    }
                    data = wrong.base64(&pointer, text);
                }
                // `null` is a value of `data`.
                ("data", _) => match Json::from_outside(&value) {
                    Ok(json) => data = Some(EventData::Json(json)),
                    Err(error) => wrong.add(&pointer, error.to_string()),
                },
                (_, "null") => {}
                (name, _) => {
                    if let Some(value) = wrong.attribute(name, &pointer, &value) {
                        attributes.insert(name.to_owned(), value);
                    }
                }
            }
        }
        let mut take = |name: &'static str, wrong: &mut ValidationErrors| -> Option<String> {
            let value = attributes.remove(name)?;
            match value.parse::<String>() {
                Ok(text) if text.is_empty() => {
                    wrong.add(&format!("/{name}"), "expected a text that is not empty");
                }
                Ok(text) => return Some(text),
                Err(_) => wrong.add(&format!("/{name}"), "expected a string"),
            }
            Some(String::new())
        };
        let version = take("specversion", wrong);
        if version.as_deref().map_or(is_structured, |version| version != VERSION) {
            wrong.add("/specversion", format!("expected \"{VERSION}\""));
        }
        let (id, source) = (take("id", wrong), take("source", wrong));
        for (name, value) in [("/id", &id), ("/source", &source)] {
            if is_structured && value.is_none() {
                wrong.add(name, "missing; every event in a CloudEvents format must have this attribute");
            }
        }
        let event_type = take("type", wrong);
        if event_type.is_none() {
            wrong.add("/type", "missing; expected a type, such as \"order.created\"");
        }
        let (subject, time) = (take("subject", wrong), take("time", wrong));
        let content_type = take("datacontenttype", wrong);
        let schema = take("dataschema", wrong).and_then(|schema| Json::from_value(&schema).ok());
        attributes.extend(schema.map(|schema| ("dataschema".to_owned(), schema)));
        Self {
            id: id.unwrap_or_else(|| defaults.id.clone()),
            source: source.unwrap_or_else(|| DEFAULT_SOURCE.to_owned()),
            event_type: event_type.unwrap_or_default(),
            subject,
            time: time.unwrap_or_else(|| defaults.time.to_string()),
            content_type,
            others: attributes,
            data,
        }
    }

    /// Checks the event. Returns the event, or all errors.
    fn checked(self, mut wrong: ValidationErrors) -> Result<Self, Vec<FieldError>> {
        self.check_texts(&mut wrong);
        if self.time.parse::<Timestamp>().is_err() {
            wrong.add("/time", "expected a time as in RFC 3339, such as 2026-12-01T08:00:00Z");
        }
        let headers: Vec<_> = self.attributes().map(|(name, value)| name.len() + value.len()).collect();
        if headers.len() > MAX_ATTRIBUTES || headers.iter().sum::<usize>() > MAX_HEADERS {
            let detail = format!(
                "expected at most {MAX_ATTRIBUTES} attributes with {MAX_HEADERS} bytes in total; send other fields in `data`"
            );
            wrong.add("", detail);
        }
        let json = self.to_json();
        if json.get().len() > MAX_BYTES {
            wrong.add("", format!("the event is too large; expected at most {MAX_BYTES} bytes as JSON"));
        } else if json.depth() > MAX_DEPTH {
            wrong.add("/data", format!("expected at most {} levels of nesting", MAX_DEPTH - 1));
        } else if wrong.0.is_empty() && serde_json::from_str::<Value>(json.get()).is_err() {
            // A filter compares numbers as IEEE 754 doubles, so each number must fit.
            wrong.add("/data", "a number is too large; expected numbers in the range of IEEE 754 doubles");
        }
        if wrong.0.is_empty() { Ok(self) } else { Err(wrong.0) }
    }

    fn check_texts(&self, wrong: &mut ValidationErrors) {
        let texts = [Some(&self.id), Some(&self.source), self.subject.as_ref(), Some(&self.event_type)];
        for ((name, max), text) in MAX_TEXT.into_iter().zip(texts) {
            let text = text.map_or("", String::as_str);
            if text.len() > max || text.chars().any(is_invisible) {
                let detail = format!("expected at most {max} bytes of text without control characters");
                wrong.add(&format!("/{name}"), detail);
            }
        }
    }

    /// Returns the event in the JSON format (structured mode).
    pub fn to_json(&self) -> Json {
        Json::from_value(self).unwrap_or_else(|_| unreachable!("texts and JSON values"))
    }

    /// Returns the attributes, except `datacontenttype`, as headers of the binary mode: the names with the
    /// prefix `ce-`, and the encoded values.
    pub fn attributes(&self) -> impl Iterator<Item = (String, String)> {
        let required = [
            ("specversion", Some(VERSION)),
            ("id", Some(&self.id)),
            ("source", Some(&self.source)),
            ("type", Some(&self.event_type)),
            ("subject", self.subject.as_deref()),
            ("time", Some(&self.time)),
        ];
        let required = required.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned())));
        let others = self.others.iter().map(|(name, value)| {
            (name.as_str(), value.parse::<String>().unwrap_or_else(|_| value.get().to_owned()))
        });
        required
            .chain(others)
            .map(|(name, value)| (format!("ce-{name}"), utf8_percent_encode(&value, ENCODED).to_string()))
    }
}

impl Serialize for CloudEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", VERSION)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("source", &self.source)?;
        map.serialize_entry("type", &self.event_type)?;
        if let Some(subject) = &self.subject {
            map.serialize_entry("subject", subject)?;
        }
        map.serialize_entry("time", &self.time)?;
        if let Some(content_type) = &self.content_type {
            map.serialize_entry("datacontenttype", content_type)?;
        }
        for (name, value) in &self.others {
            map.serialize_entry(name, value)?;
        }
        match &self.data {
            Some(EventData::Json(data)) => map.serialize_entry("data", data)?,
            Some(EventData::Base64(data)) => map.serialize_entry("data_base64", data)?,
            None => {}
        }
        map.end()
    }
}

impl ValidationErrors {
    fn base64(&mut self, pointer: &str, text: &str) -> Option<EventData> {
        let text = serde_json::from_str::<String>(text).ok();
        let Some(text) = text.filter(|text| decode_base64(text).is_some()) else {
            self.add(pointer, "expected a string in base64 (RFC 4648, section 4)");
            return None;
        };
        Some(EventData::Base64(text))
    }

    /// Checks an attribute: a string, a boolean, or a whole number of 32 bits (section "Type System").
    fn attribute(&mut self, name: &str, pointer: &str, value: &RawValue) -> Option<Json> {
        self.name_of_attribute(name, pointer);
        let text = value.get();
        let is_fit = match text.as_bytes().first() {
            Some(b'"') => {
                serde_json::from_str::<String>(text).is_ok_and(|text| !text.chars().any(char::is_control))
            }
            Some(b't' | b'f') => true,
            _ => text.parse::<i32>().is_ok(),
        };
        if !is_fit {
            self.add(
                pointer,
                "expected a text without control characters, a boolean, or a whole number of 32 bits; send other values in `data`",
            );
        }
        Json::from_outside(value).map_err(|error| self.add(pointer, error.to_string())).ok()
    }

    fn name_of_attribute(&mut self, name: &str, pointer: &str) {
        let is_fit = (1..=MAX_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !is_fit {
            let detail = format!(
                "expected the name of an attribute, 1 to {MAX_NAME} of the characters a-z 0-9; send other fields in `data`"
            );
            self.add(pointer, detail);
        }
    }

    /// Reads the body of an event in binary mode.
    fn body(&mut self, content_type: Option<&str>, body: &[u8]) -> Option<EventData> {
        let media_type = MediaType::of(content_type);
        match (media_type, std::str::from_utf8(body)) {
            (MediaType::Json, Ok(text)) => {
                let json = serde_json::from_str::<&RawValue>(text).map_err(|error| error.to_string());
                let json = json.and_then(|raw| Json::from_outside(raw).map_err(|error| error.to_string()));
                json.map_err(|detail| self.add("/data", format!("expected JSON: {detail}")))
                    .ok()
                    .map(EventData::Json)
            }
            (MediaType::Json, Err(_)) => {
                self.add("/data", "expected JSON in UTF-8");
                None
            }
            (MediaType::Text, Ok(text)) => Json::from_value(text).ok().map(EventData::Json),
            _ => Some(EventData::Base64(data_encoding::BASE64.encode(body))),
        }
    }
}

/// Class of a content type. The class decides how the JSON format writes an event's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// JSON: a type that ends in `/json` or `+json`, or no content type.
    Json,
    /// Text: a type that starts with `text/`.
    Text,
    /// Any other content type.
    Binary,
}

impl MediaType {
    /// Returns the class of a content type.
    pub fn of(content_type: Option<&str>) -> Self {
        let essence = content_type.unwrap_or("application/json").split(';').next().unwrap_or_default();
        let essence = essence.trim().to_ascii_lowercase();
        if essence.ends_with("/json") || essence.ends_with("+json") {
            Self::Json
        } else if essence.starts_with("text/") {
            Self::Text
        } else {
            Self::Binary
        }
    }
}

fn content_type_attribute(content_type: Option<&str>) -> Option<(String, String)> {
    content_type.map(|content_type| ("datacontenttype".to_owned(), content_type.to_owned()))
}

fn fields(event: &RawValue) -> Result<BTreeMap<String, Box<RawValue>>, ReadError> {
    crate::json::decode::read_object::<UniqueFields<Box<RawValue>>>(event.get().as_bytes())
        .map(|fields| fields.0)
}

#[cfg(test)]
mod tests;
