//! JSON values that nobat stores and passes on without parsing them.

pub mod decode;

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::json::decode::{ReadError, UniqueFields, read};

/// JSON value, kept byte for byte as received. Clones share the text.
///
/// nobat never replaces the received text by a text of its own. Otherwise two parsers could read different
/// values, and numbers could lose digits.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Json(Arc<RawValue>);

/// Reason why a JSON value is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitJson {
    /// Arrays and objects are nested deeper than [`Json::MAX_DEPTH`] levels.
    #[error("expected at most {} levels of nesting", Json::MAX_DEPTH)]
    TooDeep,
    /// A string has an escape for half of a surrogate pair, which is not Unicode text (RFC 8259, section
    /// 8.2).
    #[error("a string has an escape for half of a surrogate pair; send both halves")]
    LoneSurrogate,
}

impl Json {
    /// Maximum nesting depth. `serde_json` reads 127 levels. So a handler or a client with that limit can
    /// read the value, even inside a response, a list or a callback.
    pub const MAX_DEPTH: usize = 120;

    /// Takes a value that a client sent. Checks the nesting depth and surrogate pairs, which the parser of a
    /// `RawValue` does not check.
    pub fn from_outside(raw: &RawValue) -> Result<Self, UnfitJson> {
        check(raw.get().as_bytes())?;
        Ok(Self(Arc::from(raw.to_owned())))
    }

    /// Creates a JSON value by serializing `value`.
    pub fn from_value<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(|raw| Self(Arc::from(raw)))
    }

    /// Takes JSON text from a store.
    pub fn from_text(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(|raw| Self(Arc::from(raw)))
    }

    /// Creates the JSON value `null`.
    pub fn null() -> Self {
        Self(Arc::from(RawValue::NULL.to_owned()))
    }

    /// Returns the nesting depth. It is 0 for a value that is neither an array nor an object.
    pub(crate) fn depth(&self) -> usize {
        // The value was checked when it was received, or nobat made it.
        check(self.get().as_bytes()).unwrap_or(usize::MAX)
    }

    /// Returns the text as received.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// Returns the value at a JSON pointer (RFC 6901). An object on the way with a field twice has no values,
    /// because two programs could read different ones.
    pub(crate) fn find(&self, pointer: &str) -> Option<Self> {
        let mut at: &RawValue = serde_json::from_str(self.get()).ok()?;
        for part in pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            at = match at.get().as_bytes().first() {
                Some(b'{') => {
                    serde_json::from_str::<UniqueFields<&RawValue>>(at.get()).ok()?.0.remove(&part)?
                }
                Some(b'[') => {
                    // `01` and `+1` are not indexes of an array.
                    let index = part.parse::<usize>().ok().filter(|index| index.to_string() == part)?;
                    serde_json::from_str::<Vec<&RawValue>>(at.get()).ok()?.get(index).copied()?
                }
                _ => return None,
            };
        }
        Self::from_text(at.get().to_owned()).ok()
    }

    /// Reads the value into a type. The error does not contain any part of the value.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ReadError> {
        read(self.get().as_bytes())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl fmt::Debug for Json {
    /// Writes only the length: payloads must not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.get().len())
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(Arc::from(raw)))
    }
}

/// Returns the nesting depth.
fn check(text: &[u8]) -> Result<usize, UnfitJson> {
    let (mut depth, mut deepest, mut in_string, mut at) = (0_usize, 0, false, 0);
    while let Some(byte) = text.get(at) {
        match (in_string, byte) {
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth -= 1,
            (_, b'"') => in_string = !in_string,
            (true, b'\\') => at += escape(&text[at..])? - 1,
            _ => {}
        }
        deepest = deepest.max(depth);
        if depth > Json::MAX_DEPTH {
            return Err(UnfitJson::TooDeep);
        }
        at += 1;
    }
    Ok(deepest)
}

/// Returns the length of the escape at the start of `text`. A surrogate pair is one escape.
fn escape(text: &[u8]) -> Result<usize, UnfitJson> {
    match unit(text) {
        None => Ok(2),
        Some(0xD800..=0xDBFF) => match unit(&text[6..]) {
            Some(0xDC00..=0xDFFF) => Ok(12),
            _ => Err(UnfitJson::LoneSurrogate),
        },
        Some(0xDC00..=0xDFFF) => Err(UnfitJson::LoneSurrogate),
        Some(_) => Ok(6),
    }
}

/// Returns the UTF-16 unit of an escape of the form `\uXXXX`.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn take(text: &str) -> Result<Json, UnfitJson> {
        Json::from_outside(&RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn json_keeps_every_byte() {
        let text = r#"{"n": 123456789012345678901234567890.10, "a":[1 , 2], "s":"\u00e9\"]]"}"#;
        assert_eq!(take(text).unwrap().get(), text);
    }

    #[test]
    fn json_nested_too_deep_is_refused() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let deepest = take(&nested(Json::MAX_DEPTH)).unwrap();
        let shown = format!(r#"{{"data": [{{"result": {{"body": {}}}}}]}}"#, deepest.get());
        assert!(deepest.parse::<Value>().is_ok() && serde_json::from_str::<Value>(&shown).is_ok());
        assert_eq!(take(&nested(Json::MAX_DEPTH + 1)), Err(UnfitJson::TooDeep));
        assert!(take(&format!("{:?}", "[".repeat(500))).is_ok(), "brackets in a string are text");
    }

    #[test]
    fn lone_surrogate_is_refused() {
        assert!(take(r#""\ud83d\ude00""#).is_ok());
        for text in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83dx""#, r#""\ud83d\u0041""#] {
            assert_eq!(take(text), Err(UnfitJson::LoneSurrogate), "{text}");
        }
        assert!(take(r#""\\ud83d""#).is_ok(), "an escaped backslash, then letters");
    }
}
