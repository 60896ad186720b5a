//! JSON from the API, kept as the API wrote it: numbers keep all digits, objects keep all keys and their
//! order.

use std::fmt;

use anyhow::Context;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Body of a successful response.
#[derive(Debug)]
pub(crate) struct Answer(String);

/// Fields of a JSON object, in the order of the text. Empty for any other value.
#[derive(Debug, Default)]
pub(crate) struct Object(Vec<(String, Box<RawValue>)>);

/// One page of a list.
#[derive(Deserialize)]
pub(crate) struct Page {
    pub(crate) data: Vec<Box<RawValue>>,
    pub(crate) next_cursor: Option<String>,
}

impl Answer {
    /// Wraps a body. Fails if it is not JSON.
    pub(crate) fn new(body: Vec<u8>) -> anyhow::Result<Self> {
        let text = String::from_utf8(body)?;
        serde_json::from_str::<IgnoredAny>(&text)?;
        Ok(Self(text))
    }

    /// Returns the body unchanged.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn object(&self) -> Object {
        Object::read(&self.0)
    }

    pub(crate) fn page(&self) -> anyhow::Result<Page> {
        serde_json::from_str(&self.0).context("the response is not a page of a list")
    }
}

impl Object {
    pub(crate) fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.get()))
    }

    /// Returns the JSON text of a field, `null` if it is absent.
    pub(crate) fn raw(&self, field: &str) -> &str {
        self.fields().find(|(name, _)| *name == field).map_or("null", |(_, value)| value)
    }

    /// Returns the value of a field that is a string.
    pub(crate) fn text(&self, field: &str) -> Option<String> {
        serde_json::from_str(self.raw(field)).ok()
    }

    /// Returns the value of a field that is an object. Empty for any other value.
    pub(crate) fn object(&self, field: &str) -> Self {
        Self::read(self.raw(field))
    }

    /// Returns the elements of a field that is an array. Empty for any other value.
    pub(crate) fn elements(&self, field: &str) -> Vec<Box<RawValue>> {
        serde_json::from_str(self.raw(field)).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Object, M::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Returns a JSON array of values that the API wrote, on one line.
pub(crate) fn array(values: &[Box<RawValue>]) -> String {
    let values: Vec<&str> = values.iter().map(|value| value.get()).collect();
    format!("[{}]\n", values.join(","))
}

/// Returns the JSON text of a value.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_keeps_its_bytes_and_the_order_of_its_fields() {
        let text = r#"{"b": 1e999, "a": {"n": -0, "n": 1.10}, "s": "\u00e9"}"#;
        let answer = Answer::new(text.into()).unwrap();
        assert_eq!(answer.text(), text);
        let object = answer.object();
        let fields: Vec<_> = object.fields().collect();
        assert_eq!(fields, [("b", "1e999"), ("a", r#"{"n": -0, "n": 1.10}"#), ("s", r#""\u00e9""#)]);
        assert_eq!(
            (object.text("s").as_deref(), object.text("b"), object.raw("absent")),
            (Some("é"), None, "null")
        );
        assert!(Answer::new(b"<html>".to_vec()).is_err());
    }
}
