//! Sets of HTTP statuses, such as `200-299`, `>=500`, `!501`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Set of HTTP statuses, as a list of ranges. A range with `!` excludes its statuses. If all ranges have a
/// `!`, the set contains all other statuses. An empty list contains no status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Statuses(Vec<Range>);

/// Range of statuses: one status, or a first and a last one. With `!`, the range is excluded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range {
    is_left_out: bool,
    of: RangeInclusive<u16>,
    text: String,
}

/// The text is not a range of statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected statuses from 100 to 999, as in `404`, `500-599`, `>=500`, `<400` or `!501`")]
pub struct InvalidRange;

/// All statuses: numbers of three digits (RFC 9110, section 15).
const ALL: RangeInclusive<u16> = 100..=999;

impl Statuses {
    /// Maximum number of ranges in a list.
    pub const MAX: usize = 20;

    /// Creates a set from ranges.
    pub fn new(ranges: Vec<Range>) -> Self {
        Self(ranges)
    }

    /// Returns true if the set contains the status.
    pub fn contains(&self, status: u16) -> bool {
        let has = |is_left_out| {
            self.0.iter().any(|range| range.is_left_out == is_left_out && range.of.contains(&status))
        };
        let is_open = self.0.iter().all(|range| range.is_left_out) && !self.0.is_empty();
        (is_open || has(false)) && !has(true)
    }

    /// Returns the ranges as they were written.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|range| range.text.as_str())
    }
}

impl FromStr for Range {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let (is_left_out, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let of = range(rest).filter(|of| !of.is_empty()).ok_or(InvalidRange)?;
        Ok(Self { is_left_out, of, text: text.to_owned() })
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (lowest, highest) = (*ALL.start(), *ALL.end());
    if let Some(least) = text.strip_prefix(">=") {
        Some(status(least)?..=highest)
    } else if let Some(below) = text.strip_prefix('>') {
        Some(status(below)? + 1..=highest)
    } else if let Some(most) = text.strip_prefix("<=") {
        Some(lowest..=status(most)?)
    } else if let Some(above) = text.strip_prefix('<') {
        Some(lowest..=status(above)? - 1)
    } else if let Some((first, last)) = text.split_once('-') {
        Some(status(first)?..=status(last)?)
    } else {
        let one = status(text)?;
        Some(one..=one)
    }
}

/// Reads exactly three digits.
fn status(text: &str) -> Option<u16> {
    let is_plain = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|status| is_plain && ALL.contains(status))
}

impl TryFrom<String> for Range {
    type Error = InvalidRange;

    fn try_from(text: String) -> Result<Self, InvalidRange> {
        text.parse()
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.text
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn statuses(texts: &[&str]) -> Statuses {
        Statuses::new(texts.iter().map(|text| text.parse().unwrap_or_else(|_| panic!("{text}"))).collect())
    }

    fn among(texts: &[&str], asked: &[u16]) -> Vec<u16> {
        let statuses = statuses(texts);
        asked.iter().copied().filter(|status| statuses.contains(*status)).collect()
    }

    #[test]
    fn list_contains_exactly_its_ranges() {
        let asked = [100, 199, 200, 299, 300, 404, 499, 500, 501, 503, 599, 600, 999];
        assert_eq!(among(&["200-299"], &asked), [200, 299]);
        assert_eq!(among(&["404"], &asked), [404]);
        assert_eq!(among(&[">=500"], &asked), [500, 501, 503, 599, 600, 999]);
        assert_eq!(among(&[">500", "<200"], &asked), [100, 199, 501, 503, 599, 600, 999]);
        assert_eq!(among(&["<=200"], &asked), [100, 199, 200]);
        assert_eq!(among(&["500-599", "!501"], &asked), [500, 503, 599]);
        assert_eq!(
            among(&["!501", "!>=503", "500-999"], &asked),
            [500],
            "the order of ranges does not matter"
        );
        assert_eq!(
            among(&["!400-999"], &asked),
            [100, 199, 200, 299, 300],
            "excluded ranges alone mean all other statuses"
        );
        assert!(among(&[], &asked).is_empty());
    }

    #[test]
    fn malformed_range_is_refused() {
        for text in [
            "",
            "!",
            "20",
            "2000",
            "099",
            "abc",
            "2xx",
            "200-",
            "-299",
            "299-200",
            "200-299-300",
            ">",
            ">=",
            ">=50",
            ">999",
            "<100",
            "!!500",
            "=500",
            "+500",
            " 500",
            "５００",
            "500,501",
            "200 - 299",
        ] {
            assert_eq!(text.parse::<Range>(), Err(InvalidRange), "{text:?}");
        }
    }

    #[test]
    fn statuses_are_read_back_as_written() {
        let list = statuses(&["200-299", "!204", ">=500"]);
        let text = serde_json::to_string(&list).unwrap();
        assert_eq!(text, r#"["200-299","!204",">=500"]"#);
        assert_eq!(serde_json::from_str::<Statuses>(&text).unwrap(), list);
        assert!(serde_json::from_str::<Statuses>(r#"["2xx"]"#).is_err());
    }

    proptest! {
        #[test]
        fn parsing_any_text_does_not_panic(text in "[!<>=0-9-]{0,9}") {
            let _ = text.parse::<Range>();
        }
    }
}
