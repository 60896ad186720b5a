//! Request of a provider, and the values in it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::Json;
use crate::json::decode::Object;

/// Request of a provider, as received.
pub struct InboundRequest<'a> {
    /// Headers in the order of the request: names in lower case, and values. A value that is not visible ASCII
    /// is an empty text.
    pub headers: Vec<(&'a str, &'a str)>,
    /// Address of the client. `None` if it is unknown.
    pub address: Option<IpAddr>,
    /// Body, byte for byte.
    pub body: &'a [u8],
    /// Fields of the body, which pointers select from: the body if it is JSON, or an object with the fields of a
    /// form. `None` for any other body.
    fields: OnceLock<Option<Json>>,
}

/// Maximum nesting depth of a body. An event in the payload of a task adds levels around the body.
const MAX_DEPTH: usize = Json::MAX_DEPTH - 4;

/// Media type of forms (WHATWG URL Standard, section 5).
const FORM: &str = "application/x-www-form-urlencoded";

impl<'a> InboundRequest<'a> {
    /// Creates the request. Header names must be in lower case.
    pub fn new(headers: Vec<(&'a str, &'a str)>, address: Option<IpAddr>, body: &'a [u8]) -> Self {
        Self { headers, address, body, fields: OnceLock::new() }
    }

    /// Returns the fields of the body. The first call parses the body.
    fn fields(&self) -> Option<&Json> {
        let parse = || {
            if !self.is_form() {
                return json(self.body);
            }
            let fields: BTreeMap<Cow<'_, str>, Cow<'_, str>> = form_urlencoded::parse(self.body).collect();
            Json::from_value(&fields).ok()
        };
        self.fields.get_or_init(parse).as_ref()
    }

    /// Returns the value of a header. `None` if the request has no such header, or several.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value);
        found.next().filter(|_| found.next().is_none())
    }

    /// Returns the content type.
    pub fn content_type(&self) -> Option<&'a str> {
        self.header("content-type").filter(|text| !text.is_empty())
    }

    /// Returns true if the body is a form.
    pub fn is_form(&self) -> bool {
        let essence = self.content_type().and_then(|text| text.split(';').next());
        essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(FORM))
    }

    /// Returns the body if it is JSON.
    pub(crate) fn json_body(&self) -> Option<&Json> {
        self.fields().filter(|_| !self.is_form())
    }

    /// Returns the value at a JSON pointer of the body, as text: a string without quotes, or a number or a
    /// boolean as written. `None` for any other value.
    pub fn field(&self, pointer: &str) -> Option<String> {
        let value = self.find(pointer)?;
        match value.get().as_bytes().first()? {
            b'"' => value.parse::<String>().ok(),
            b'{' | b'[' | b'n' => None,
            _ => Some(value.get().to_owned()),
        }
    }

    /// Returns the value at a JSON pointer of the body.
    pub(crate) fn find(&self, pointer: &str) -> Option<Json> {
        self.fields()?.find(pointer)
    }

    /// Returns the value at a place.
    pub fn value(&self, place: &Place) -> Option<String> {
        let value = match place {
            Place::Header(name) => self.header(name).map(str::to_owned),
            Place::Pointer(pointer) => self.field(pointer),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// Returns the body as JSON if it is valid JSON that nobat can store.
fn json(body: &[u8]) -> Option<Json> {
    let raw: &serde_json::value::RawValue = serde_json::from_slice(body).ok()?;
    // A filter compares numbers as IEEE 754 doubles, so each number must fit.
    serde_json::from_str::<serde_json::Value>(raw.get()).ok()?;
    Json::from_outside(raw).ok().filter(|json| json.depth() <= MAX_DEPTH)
}

/// Place of a value in a request: a JSON pointer (RFC 6901) into the body, written as a string, or a header,
/// written as `{"header": "X-Event"}`. In a form, the pointer `/name` is the field `name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Header with this name.
    Header(String),
    /// Value in the body.
    Pointer(String),
}

/// Type of an event: a value in the request, or a text that all events have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventType {
    /// Value in the request.
    Place(Place),
    /// The same type for all events.
    Text(String),
}

/// The text is not a place.
pub(crate) const INVALID_PLACE: &str =
    "expected a JSON pointer into the body (RFC 6901), such as \"/id\", or {\"header\": \"X-Event-Id\"}";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderPlace<T> {
    header: T,
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Header(header) => HeaderPlace { header }.serialize(serializer),
            Self::Pointer(pointer) => serializer.serialize_str(pointer),
        }
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Pointer(String),
            Header(Object<HeaderPlace<String>>),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Pointer(pointer)) if is_pointer(&pointer) => Ok(Self::Pointer(pointer)),
            Ok(Written::Header(Object(HeaderPlace { header }))) if is_header(&header) => {
                Ok(Self::Header(header))
            }
            _ => Err(serde::de::Error::custom(INVALID_PLACE)),
        }
    }
}

/// Returns true for a JSON pointer with at least one part, and at most 255 bytes.
pub(crate) fn is_pointer(text: &str) -> bool {
    text.starts_with('/') && text.len() <= 255
}

/// Returns true for the name of a header (RFC 9110, section 5.1) of at most 64 characters.
pub(crate) fn is_header(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_from_json_and_from_forms() {
        let json = InboundRequest::new(vec![], None, br#" {"a": {"b": [1.50, "x", true, null, {}]}} "#);
        let field = |pointer: &str| json.field(pointer);
        assert_eq!(field("/a/b/0").as_deref(), Some("1.50"));
        assert_eq!((field("/a/b/1").as_deref(), field("/a/b/2").as_deref()), (Some("x"), Some("true")));
        assert_eq!((field("/a/b/3"), field("/a/b/4"), field("/a/c")), (None, None, None));
        let headers = vec![("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        let form = InboundRequest::new(headers, None, b"From=%2B1+2&Body=");
        assert_eq!(form.field("/From").as_deref(), Some("+1 2"));
        assert_eq!(form.value(&Place::Pointer("/Body".to_owned())), None, "an empty text is no value");
    }

    #[test]
    fn repeated_header_has_no_value() {
        let request = InboundRequest::new(vec![("a", "1"), ("b", "2"), ("a", "3")], None, b"");
        assert_eq!((request.header("A"), request.header("B"), request.header("c")), (None, Some("2"), None));
    }

    #[test]
    fn place_is_a_pointer_or_a_header() {
        let read = |text: &str| serde_json::from_str::<Place>(text).ok();
        assert_eq!(read(r#""/id""#), Some(Place::Pointer("/id".to_owned())));
        assert_eq!(read(r#"{"header": "X-Id"}"#), Some(Place::Header("X-Id".to_owned())));
        for text in [r#""id""#, r#""""#, "7", r#"{"header": "a b"}"#, r#"{"header": "a", "b": 1}"#, "{}"] {
            assert_eq!(read(text), None, "{text}");
        }
        for place in [Place::Pointer("/a/0".to_owned()), Place::Header("X".to_owned())] {
            assert_eq!(read(&serde_json::to_string(&place).unwrap()), Some(place));
        }
    }
}
