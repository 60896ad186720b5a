//! Reading of JSON that clients send. Errors name the field and never contain its value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, IgnoredAny, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::{Path, Segment};

use crate::types::field_error::FieldError;

/// Reason why JSON cannot be read as the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The text is not JSON, or an object has a field twice.
    #[error("{detail} at line {line}, column {column}")]
    Malformed {
        /// Description of the error.
        detail: String,
        /// Line of the error, counted from 1.
        line: usize,
        /// Column of the error, counted from 1.
        column: usize,
    },
    /// The JSON has another type or structure than expected.
    #[error("{detail} at `{pointer}`")]
    Mismatch {
        /// Field with the error, as a JSON pointer (RFC 6901).
        pointer: String,
        /// Description of the error. May contain field names, never values.
        detail: String,
    },
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        malformed(&error)
    }
}

impl From<ReadError> for FieldError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Mismatch { pointer, detail } => Self::new(pointer, detail),
            error @ ReadError::Malformed { .. } => Self::new("", error.to_string()),
        }
    }
}

/// Reads a value.
///
/// If the first parse fails, parses a second time, more slowly, to find the field with the error.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(json).map_err(|error| explain::<T>(json, &error))
}

/// Reads a value that must be an object. serde alone would also read an array as a struct, field by field.
pub fn read_object<T: DeserializeOwned>(json: &[u8]) -> Result<T, ReadError> {
    match json.trim_ascii_start().first() {
        Some(b'{') | None => read(json),
        Some(_) => {
            read::<IgnoredAny>(json)?;
            Err(ReadError::Mismatch { pointer: String::new(), detail: "expected an object".to_owned() })
        }
    }
}

/// Reads an object or `null`. serde alone would also read an array as a nested struct, field by field.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn maybe_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::<Object<T>>::deserialize(deserializer).map(|object| object.map(|object| object.0))
}

/// Reads an object. See [`maybe_object`].
///
/// For `#[serde(deserialize_with = "…")]`.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::<T>::deserialize(deserializer).map(|object| object.0)
}

/// Field of an update: omitted, `null` or a value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Patch<T> {
    /// Omitted: the field keeps its value.
    #[default]
    Nothing,
    /// `null`: the field is reset to its default.
    Usual,
    /// New value of the field.
    This(T),
}

/// Reads a field of an update that is an object or `null`.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn patch_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Patch<T>, D::Error> {
    maybe_object(deserializer).map(|object| object.map_or(Patch::Usual, Patch::This))
}

struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Whole<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Object<T>, M::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Whole(PhantomData))
    }
}

/// Reads an enum that is written as a string. serde alone also reads `{"word": null}`, and its errors for
/// other values name no expected type.
///
/// For `#[serde(deserialize_with = "…")]`.
pub fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Word::deserialize(deserializer).map(|word| word.0)
}

/// Same as [`word`], but also reads `null`.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn maybe_word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::<Word<T>>::deserialize(deserializer).map(|word| word.map(|word| word.0))
}

/// Reads `null`, or an array of enums as [`word`] reads them.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn maybe_words<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    Option::<Vec<Word<T>>>::deserialize(deserializer)
        .map(|words| words.map(|words| words.into_iter().map(|word| word.0).collect()))
}

struct Word<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        T::deserialize(word.into_deserializer()).map(Self)
    }
}

/// Reads an object of strings and refuses duplicate names. serde alone would keep the last duplicate.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    UniqueFields::<String>::deserialize(deserializer).map(|texts| texts.0)
}

/// Same as [`texts`], but also reads `null`.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn maybe_texts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    Option::<UniqueFields<String>>::deserialize(deserializer).map(|texts| texts.map(|texts| texts.0))
}

/// Same as [`maybe_texts`], but each value may be `null`.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn maybe_headers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, Option<String>>>, D::Error> {
    Option::<UniqueFields<Option<String>>>::deserialize(deserializer).map(|texts| texts.map(|texts| texts.0))
}

/// Object whose fields have unique names. serde alone would keep the last of two fields with the same name.
pub(crate) struct UniqueFields<T>(pub(crate) BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueFields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<T> {
            type Value = UniqueFields<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<UniqueFields<T>, M::Error> {
                let mut texts = BTreeMap::new();
                while let Some((name, text)) = map.next_entry::<String, T>()? {
                    if texts.insert(name, text).is_some() {
                        return Err(de::Error::custom(TWICE));
                    }
                }
                Ok(UniqueFields(texts))
            }
        }
        deserializer.deserialize_map(Each(PhantomData))
    }
}

/// Start of serde's error for a duplicate field of a struct.
pub(crate) const TWICE: &str = "duplicate field";
/// Start of `serde_json`'s error for a number that no type holds, such as `1e400`.
const OUT_OF_RANGE: &str = "number out of range";
/// Start of `serde_json`'s error for a value that cannot be an enum, such as `7`.
const NO_ENUM: &str = "expected value";

fn explain<T: DeserializeOwned>(json: &[u8], error: &serde_json::Error) -> ReadError {
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(json) {
        return malformed(&error);
    }
    let text = error.to_string();
    // serde_json reports `OUT_OF_RANGE` and `NO_ENUM` as syntax errors, a duplicate field as a data error.
    let is_mismatch = (error.is_data() && !text.starts_with(TWICE))
        || text.starts_with(OUT_OF_RANGE)
        || text.starts_with(NO_ENUM);
    if !is_mismatch {
        return malformed(error);
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let pointer = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Ok(_) => String::new(),
        Err(error) => pointer(error.path()),
    };
    mismatch(pointer, &text)
}

fn malformed(error: &serde_json::Error) -> ReadError {
    let detail = error.to_string().split(" at line ").next().unwrap_or_default().to_owned();
    ReadError::Malformed { detail, line: error.line(), column: error.column() }
}

/// Describes the error in plain words, without the value that serde quotes. If a field is missing, the
/// pointer names that field.
fn mismatch(pointer: String, text: &str) -> ReadError {
    let text = text.split(" at line ").next().unwrap_or_default();
    let quoted = |prefix| text.strip_prefix(prefix).and_then(|rest: &str| rest.split('`').next());
    let detail = match text.rsplit_once(", expected ") {
        Some((found, expected)) if !found.starts_with("unknown field") => {
            format!("expected {}", plain(expected))
        }
        _ if text == OUT_OF_RANGE => "the number is too large".to_owned(),
        _ if text == NO_ENUM => "expected a string".to_owned(),
        _ => text.to_owned(),
    };
    match quoted("missing field `") {
        Some(field) => ReadError::Mismatch { pointer: format!("{pointer}/{}", escape(field)), detail },
        None => ReadError::Mismatch { pointer, detail },
    }
}

/// Translates serde's name of a Rust type into a JSON type. Other texts, such as "a boolean", are plain
/// already.
fn plain(expected: &str) -> Cow<'_, str> {
    let (least, name) = expected.strip_prefix("a nonzero ").map_or((0, expected), |name| (1, name));
    let whole = |most: u64| format!("a whole number from {least} to {most}").into();
    match name.strip_prefix("a ").unwrap_or(name).split(' ').next().unwrap_or_default() {
        "u8" => whole(u8::MAX.into()),
        "u16" => whole(u16::MAX.into()),
        "u32" => whole(u32::MAX.into()),
        "u64" | "usize" => whole(u64::MAX),
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" | "u128" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "struct" | "map" => "an object".into(),
        "sequence" | "tuple" => "an array".into(),
        "string" | "borrowed" | "enum" | "variant" | "identifier" => "a string".into(),
        "unit" => "`null`".into(),
        _ => expected.into(),
    }
}

fn pointer(path: &Path) -> String {
    let place = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(format!("/{index}")),
        Segment::Map { key } => Some(format!("/{}", escape(key))),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    path.iter().filter_map(place).collect()
}

fn escape(field: &str) -> String {
    field.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "the test only deserializes it")]
    struct Outer {
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "the test only deserializes it")]
    struct Inner {
        count: u32,
    }

    fn mismatch_of(json: &str) -> (String, String) {
        match read::<Outer>(json.as_bytes()).unwrap_err() {
            ReadError::Mismatch { pointer, detail } => (pointer, detail),
            other @ ReadError::Malformed { .. } => panic!("{other}"),
        }
    }

    #[test]
    fn mismatch_names_the_field_but_not_the_value() {
        let (pointer, detail) =
            mismatch_of(r#"{"inner": [{"count": 1}, {"count": "hunter2, expected or not"}]}"#);
        assert_eq!(pointer, "/inner/1/count");
        assert_eq!(detail, "expected a whole number from 0 to 4294967295");
        assert_eq!(
            mismatch_of(r#"{"inner": [{}]}"#),
            ("/inner/0/count".into(), "missing field `count`".into())
        );
        assert_eq!(mismatch_of(r#"{"inner": [{"cuont": 1}]}"#).0, "/inner/0/cuont");
    }

    #[test]
    fn a_number_that_fits_no_type_is_a_mismatch() {
        let json = format!(r#"{{"inner": [{{"count": 1{}}}]}}"#, "0".repeat(400));
        assert_eq!(mismatch_of(&json).0, "/inner/0/count");
    }

    #[derive(Debug, Deserialize)]
    struct Counted {
        count: Option<f64>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Color {
        Red,
        Blue,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "the test only deserializes it")]
    struct Colored {
        #[serde(default, deserialize_with = "maybe_word")]
        one: Option<Color>,
        #[serde(default, deserialize_with = "maybe_words")]
        many: Option<Vec<Color>>,
        bare: Option<Color>,
        small: Option<u8>,
        nonzero: Option<NonZeroU32>,
        pair: Option<(u8, u8)>,
        whole: Option<i64>,
        flag: Option<bool>,
        nothing: Option<()>,
    }

    #[test]
    fn mismatch_names_the_expected_json_type() {
        for (json, pointer, detail) in [
            (r#"{"one": 7}"#, "/one", "expected a string"),
            (r#"{"one": {"red": null}}"#, "/one", "expected a string"),
            (r#"{"one": "hunter2"}"#, "/one", "expected `red` or `blue`"),
            (r#"{"many": ["red", 7]}"#, "/many/1", "expected a string"),
            (r#"{"many": "red"}"#, "/many", "expected an array"),
            (r#"{"bare": 7}"#, "/bare", "expected a string"),
            (r#"{"small": 256}"#, "/small", "expected a whole number from 0 to 255"),
            (r#"{"small": "x"}"#, "/small", "expected a whole number from 0 to 255"),
            (r#"{"nonzero": 0}"#, "/nonzero", "expected a whole number from 1 to 4294967295"),
            (r#"{"pair": 1}"#, "/pair", "expected an array"),
            (r#"{"whole": "x"}"#, "/whole", "expected a whole number"),
            (r#"{"flag": 1}"#, "/flag", "expected a boolean"),
            (r#"{"nothing": 1}"#, "/nothing", "expected `null`"),
        ] {
            let expected = ReadError::Mismatch { pointer: pointer.to_owned(), detail: detail.to_owned() };
            assert_eq!(read::<Colored>(json.as_bytes()).unwrap_err(), expected, "{json}");
        }
        let count = |json: &str| {
            read::<Counted>(json.as_bytes()).map(|counted| counted.count).unwrap_err().to_string()
        };
        assert_eq!(count(r#"{"count": "x"}"#), "expected a number at `/count`");
        assert_eq!(count(r#"{"count": 1e400}"#), "the number is too large at `/count`");
        assert_eq!(count("7"), "expected an object at ``");
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Holding {
        #[serde(default, deserialize_with = "maybe_object")]
        counted: Option<Counted>,
    }

    #[test]
    fn nested_array_is_not_read_as_an_object() {
        let count = |json: &str| {
            read::<Holding>(json.as_bytes()).map(|holding| holding.counted.map(|counted| counted.count))
        };
        assert!(read::<Counted>(b"[7]").is_ok(), "serde itself accepts an array");
        assert_eq!(count(r#"{"counted": [7]}"#).unwrap_err().to_string(), "expected an object at `/counted`");
        assert_eq!(
            count(r#"{"counted": {"count": "x"}}"#).unwrap_err().to_string(),
            "expected a number at `/counted/count`"
        );
        let good =
            [r#"{"counted": {"count": 7}}"#, r#"{"counted": null}"#, "{}"].map(|json| count(json).unwrap());
        assert_eq!(good, [Some(Some(7.0)), None, None]);
    }

    #[derive(Debug, Deserialize)]
    struct Named {
        #[serde(default, deserialize_with = "maybe_texts")]
        labels: Option<BTreeMap<String, String>>,
    }

    #[test]
    fn duplicate_name_is_malformed() {
        let labels =
            |json: &str| read::<Named>(json.as_bytes()).map(|named| named.labels.map(|labels| labels.len()));
        assert_eq!(
            [r#"{"labels": {"a": "1", "b": "1"}}"#, "{}", r#"{"labels": null}"#]
                .map(|json| labels(json).unwrap()),
            [Some(2), None, None]
        );
        assert!(matches!(
            labels(r#"{"labels": {"a": "1", "b": "1", "a": "1"}}"#),
            Err(ReadError::Malformed { .. })
        ));
        let mismatch = labels(r#"{"labels": {"a": 1}}"#).unwrap_err().to_string();
        assert_eq!(mismatch, "expected a string at `/labels/a`");
        assert_eq!(labels(r#"{"labels": []}"#).unwrap_err().to_string(), "expected an object at `/labels`");
    }

    #[test]
    fn text_that_is_not_json_is_malformed() {
        for json in
            ["", "{", "nan", r#"{"inner": []} x"#, r#"{"inner": [], "inner": []}"#, "{\"inner\": \"\u{0}\"}"]
        {
            assert!(matches!(read::<Outer>(json.as_bytes()), Err(ReadError::Malformed { .. })), "{json}");
        }
    }

    #[test]
    fn truncated_json_with_an_unknown_field_is_malformed() {
        assert!(matches!(read::<Outer>(br#"{"unknown": 1, "inner": ["#), Err(ReadError::Malformed { .. })));
    }

    #[test]
    fn array_is_not_read_as_an_object() {
        assert!(read::<Inner>(b"[1]").is_ok(), "serde itself accepts an array");
        assert_eq!(read_object::<Inner>(b" [1]").unwrap_err().to_string(), "expected an object at ``");
        assert!(matches!(read_object::<Inner>(b"[1"), Err(ReadError::Malformed { .. })));
        assert!(read_object::<Inner>(b" {\"count\": 1}").is_ok());
    }
}
