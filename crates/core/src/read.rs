//! Reading JSON from strangers, and saying what is wrong with it without repeating what it says.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::{Path, Segment};

/// Why some JSON does not read as what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not JSON, or names one field twice.
    #[error("{detail} at line {line}, column {column}")]
    Malformed {
        /// What is wrong.
        detail: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// It is JSON of another shape.
    #[error("{detail} at `{pointer}`")]
    Mismatch {
        /// The place, as a JSON pointer (RFC 6901).
        pointer: String,
        /// What is wrong. Field names may stand in it, values never do.
        detail: String,
    },
}

/// Reads a value.
///
/// Reading goes through once; only when it fails is it done again, slower, to find the place.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(json).map_err(|error| explain::<T>(json, &error))
}

/// Reads a value that must be an object: serde would take an array for a struct as well, field by field.
pub fn read_object<T: DeserializeOwned>(json: &[u8]) -> Result<T, ReadError> {
    match json.trim_ascii_start().first() {
        Some(b'{') | None => read(json),
        Some(_) => {
            read::<IgnoredAny>(json)?;
            Err(ReadError::Mismatch { pointer: String::new(), detail: "expected an object".to_owned() })
        }
    }
}

/// An object, or nothing: serde would take an array for a struct inside another as well, field by field.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn maybe_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::<Object<T>>::deserialize(deserializer).map(|object| object.map(|object| object.0))
}

/// What was said of something that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Said<T> {
    /// Nothing: it stays as it is.
    #[default]
    Nothing,
    /// `null`: it is to be as usual.
    Usual,
    /// What it is to be.
    This(T),
}

/// What is said by an object, or by `null`.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn said_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Said<T>, D::Error> {
    maybe_object(deserializer).map(|object| object.map_or(Said::Usual, Said::This))
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

/// A whole number, also if it is written with a fraction that is none: to JSON, `25.0` is `25`.
///
/// For `#[serde(deserialize_with = "…")]`. `T` is what holds it: `u32`, or `NonZeroU32` for what counts from 1.
pub fn whole<'de, D: Deserializer<'de>, T: TryFrom<u32>>(deserializer: D) -> Result<T, D::Error> {
    maybe_whole(deserializer)?.ok_or_else(|| de::Error::custom(EXPECTED_WHOLE))
}

/// The same, or nothing.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn maybe_whole<'de, D: Deserializer<'de>, T: TryFrom<u32>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let expected = || de::Error::custom(EXPECTED_WHOLE);
    let Some(number) = Option::<f64>::deserialize(deserializer).map_err(|_| expected())? else { return Ok(None) };
    if number.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&number) {
        return Err(expected());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was just compared with what fits")]
    let whole = number as u32;
    T::try_from(whole).map(Some).map_err(|_| de::Error::custom("expected a whole number from 1"))
}

/// Texts by name, each name once: serde would keep the last of several.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Texts::<String>::deserialize(deserializer).map(|texts| texts.0)
}

/// The same, or nothing.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn maybe_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    Option::<Texts<String>>::deserialize(deserializer).map(|texts| texts.map(|texts| texts.0))
}

/// The same, with texts that may be `null`.
///
/// For `#[serde(default, deserialize_with = "…")]`.
pub fn maybe_headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeMap<String, Option<String>>>, D::Error> {
    Option::<Texts<Option<String>>>::deserialize(deserializer).map(|texts| texts.map(|texts| texts.0))
}

struct Texts<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Texts<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<T> {
            type Value = Texts<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Texts<T>, M::Error> {
                let mut texts = BTreeMap::new();
                while let Some((name, text)) = map.next_entry::<String, T>()? {
                    if texts.insert(name, text).is_some() {
                        return Err(de::Error::custom(TWICE));
                    }
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_map(Each(PhantomData))
    }
}

/// As serde says it of the fields of a struct.
const TWICE: &str = "duplicate field";
const EXPECTED_WHOLE: &str = "expected a whole number";

fn explain<T: DeserializeOwned>(json: &[u8], error: &serde_json::Error) -> ReadError {
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(json) {
        return malformed(&error);
    }
    let text = error.to_string();
    // A number that fits no type is well-formed all the same, and a field given twice is not: serde_json files each under the other.
    let is_mismatch = (error.is_data() && !text.starts_with(TWICE)) || text.starts_with("number out of range");
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

/// What serde says, less the value that it quotes; a field that is named is pointed to.
fn mismatch(pointer: String, text: &str) -> ReadError {
    let text = text.split(" at line ").next().unwrap_or_default();
    let quoted = |prefix| text.strip_prefix(prefix).and_then(|rest: &str| rest.split('`').next());
    let detail = match text.rsplit_once(", expected ") {
        Some((found, expected)) if !found.starts_with("unknown field") => format!("expected {expected}"),
        _ => text.to_owned(),
    };
    match quoted("missing field `") {
        Some(field) => ReadError::Mismatch { pointer: format!("{pointer}/{}", escape(field)), detail },
        None => ReadError::Mismatch { pointer, detail },
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
    #[expect(dead_code, reason = "only read")]
    struct Outer {
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
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
    fn points_to_the_place_and_keeps_the_value_to_itself() {
        let (pointer, detail) = mismatch_of(r#"{"inner": [{"count": 1}, {"count": "hunter2, expected or not"}]}"#);
        assert_eq!(pointer, "/inner/1/count");
        assert_eq!(detail, "expected u32");
        assert_eq!(mismatch_of(r#"{"inner": [{}]}"#), ("/inner/0/count".into(), "missing field `count`".into()));
        assert_eq!(mismatch_of(r#"{"inner": [{"cuont": 1}]}"#).0, "/inner/0/cuont");
    }

    #[test]
    fn a_number_that_fits_no_type_is_a_mismatch() {
        let json = format!(r#"{{"inner": [{{"count": 1{}}}]}}"#, "0".repeat(400));
        assert_eq!(mismatch_of(&json).0, "/inner/0/count");
    }

    #[derive(Debug, Deserialize)]
    struct Counted {
        #[serde(default, deserialize_with = "maybe_whole")]
        count: Option<u32>,
    }

    #[derive(Debug, Deserialize)]
    struct CountedFromOne {
        #[serde(deserialize_with = "whole")]
        count: NonZeroU32,
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        let count = |json: &str| read::<Counted>(json.as_bytes()).map(|counted| counted.count).map_err(|error| error.to_string());
        for (json, number) in [("25", 25), ("25.0", 25), ("2.5e1", 25), ("-0", 0), ("4294967295", u32::MAX)] {
            assert_eq!(count(&format!(r#"{{"count": {json}}}"#)), Ok(Some(number)), "{json}");
        }
        assert_eq!((count("{}"), count(r#"{"count": null}"#)), (Ok(None), Ok(None)));
        for json in ["2.5", "-1", "4294967296", "1e300", "1e400", r#""hunter2""#] {
            assert_eq!(count(&format!(r#"{{"count": {json}}}"#)), Err("expected a whole number at `/count`".to_owned()), "{json}");
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Holding {
        #[serde(default, deserialize_with = "maybe_object")]
        counted: Option<Counted>,
    }

    #[test]
    fn an_array_inside_is_not_taken_for_an_object_either() {
        let count = |json: &str| read::<Holding>(json.as_bytes()).map(|holding| holding.counted.map(|counted| counted.count));
        assert!(read::<Counted>(b"[7]").is_ok(), "serde does");
        assert_eq!(count(r#"{"counted": [7]}"#).unwrap_err().to_string(), "expected an object at `/counted`");
        assert_eq!(count(r#"{"counted": {"count": "x"}}"#).unwrap_err().to_string(), "expected a whole number at `/counted/count`");
        let good = [r#"{"counted": {"count": 7}}"#, r#"{"counted": null}"#, "{}"].map(|json| count(json).unwrap());
        assert_eq!(good, [Some(Some(7)), None, None]);
    }

    #[test]
    fn what_counts_from_one_has_no_zero() {
        let count =
            |json: &str| read::<CountedFromOne>(json.as_bytes()).map(|counted| counted.count.get()).map_err(|error| error.to_string());
        assert_eq!(count(r#"{"count": 25.0}"#), Ok(25));
        assert_eq!(count(r#"{"count": 0}"#), Err("expected a whole number from 1 at `/count`".to_owned()));
        assert_eq!(count(r#"{"count": null}"#), Err("expected a whole number at `/count`".to_owned()));
        assert_eq!(count("{}"), Err("missing field `count` at `/count`".to_owned()));
    }

    #[derive(Debug, Deserialize)]
    struct Named {
        #[serde(default, deserialize_with = "maybe_texts")]
        labels: Option<BTreeMap<String, String>>,
    }

    #[test]
    fn a_name_is_given_once() {
        let labels = |json: &str| read::<Named>(json.as_bytes()).map(|named| named.labels.map(|labels| labels.len()));
        assert_eq!(
            [r#"{"labels": {"a": "1", "b": "1"}}"#, "{}", r#"{"labels": null}"#].map(|json| labels(json).unwrap()),
            [Some(2), None, None]
        );
        assert!(matches!(labels(r#"{"labels": {"a": "1", "b": "1", "a": "1"}}"#), Err(ReadError::Malformed { .. })));
        let mismatch = labels(r#"{"labels": {"a": 1}}"#).unwrap_err().to_string();
        assert_eq!(mismatch, "expected a string at `/labels/a`");
        assert_eq!(labels(r#"{"labels": []}"#).unwrap_err().to_string(), "expected a map at `/labels`");
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        for json in ["", "{", "nan", r#"{"inner": []} x"#, r#"{"inner": [], "inner": []}"#, "{\"inner\": \"\u{0}\"}"] {
            assert!(matches!(read::<Outer>(json.as_bytes()), Err(ReadError::Malformed { .. })), "{json}");
        }
    }

    #[test]
    fn broken_json_is_malformed_whatever_stands_before_the_break() {
        assert!(matches!(read::<Outer>(br#"{"unknown": 1, "inner": ["#), Err(ReadError::Malformed { .. })));
    }

    #[test]
    fn an_array_is_not_taken_for_an_object() {
        assert!(read::<Inner>(b"[1]").is_ok(), "serde does");
        assert_eq!(read_object::<Inner>(b" [1]").unwrap_err().to_string(), "expected an object at ``");
        assert!(matches!(read_object::<Inner>(b"[1"), Err(ReadError::Malformed { .. })));
        assert!(read_object::<Inner>(b" {\"count\": 1}").is_ok());
    }
}
