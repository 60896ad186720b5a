//! Conditions on one value.

use std::cmp::Ordering;

use serde_json::Value;

use crate::events::filter::{Budget, TooManyValues};

/// Condition on one value of an event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    /// The value is `null`.
    Null,
    /// The value is this boolean.
    Bool(bool),
    /// The value is a number equal to this number: `1.0` and `1` are equal.
    Number(f64),
    /// The value is a string that matches.
    Text(Text),
    /// The value is a number in this range.
    Range(Range),
    /// The value is a string, number, boolean or `null` for which none of the conditions holds.
    NoneOf(Vec<Condition>),
    /// The field is present (`true`) or absent (`false`). An object does not count as present.
    Exists(bool),
}

/// Condition on a string.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Text {
    Exact(String),
    /// Equal without regard to case. Contains the text in lower case.
    EqualIgnoringCase(String),
    Prefix(String),
    PrefixIgnoringCase(String),
    Suffix(String),
    SuffixIgnoringCase(String),
    /// Parts between the wildcards. Each wildcard stands for any number of characters, including none.
    Wildcard(Vec<String>),
}

/// Range of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) low: Option<Limit>,
    pub(super) high: Option<Limit>,
}

/// End of a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limit {
    pub(super) number: f64,
    /// True if the number itself is in the range.
    pub(super) is_included: bool,
}

impl Condition {
    /// Returns true if the condition holds for the value of a field, or for an element of an array. `None`
    /// stands for an absent field. [`Condition::Exists`] depends on several values, so this function returns
    /// false for such a condition.
    pub(super) fn holds(&self, value: Option<&Value>, budget: &Budget) -> Result<bool, TooManyValues> {
        budget.spend(value.and_then(Value::as_str).map_or(0, str::len))?;
        Ok(match (self, value) {
            (Self::Exists(_), _) | (_, None | Some(Value::Object(_))) => false,
            (_, Some(Value::Array(elements))) => {
                for element in elements {
                    if self.holds(Some(element), budget)? {
                        return Ok(true);
                    }
                }
                false
            }
            (Self::Null, Some(value)) => value.is_null(),
            (Self::Bool(expected), Some(value)) => value.as_bool() == Some(*expected),
            (Self::Number(expected), Some(value)) => value.as_f64() == Some(*expected),
            (Self::Text(text), Some(value)) => value.as_str().is_some_and(|value| text.matches(value)),
            (Self::Range(range), Some(value)) => value.as_f64().is_some_and(|number| range.contains(number)),
            (Self::NoneOf(conditions), value) => {
                for condition in conditions {
                    if condition.holds(value, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
        })
    }
}

/// Returns true if the value is a string, number, boolean or `null`, or an array with such an element.
pub(super) fn has_leaf(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Object(_)) => false,
        Some(Value::Array(elements)) => elements.iter().any(|element| has_leaf(Some(element))),
        Some(_) => true,
    }
}

/// Returns the text in lower case. Converts each character on its own, so that the result does not depend on
/// the neighboring characters.
pub(super) fn lower_case(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

impl Text {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => value == text,
            Self::EqualIgnoringCase(text) => lower_case(value) == *text,
            Self::Prefix(text) => value.starts_with(text),
            Self::PrefixIgnoringCase(text) => lower_case(value).starts_with(text),
            Self::Suffix(text) => value.ends_with(text),
            Self::SuffixIgnoringCase(text) => lower_case(value).ends_with(text),
            Self::Wildcard(parts) => matches_wildcard(parts, value),
        }
    }
}

/// Returns true if the parts occur in the value in this order, the first part at the start of the value and
/// the last part at its end.
fn matches_wildcard(parts: &[String], value: &str) -> bool {
    let [first, middle @ .., last] = parts else { return parts.iter().any(|part| part == value) };
    let inner = value.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()));
    let Some(mut rest) = inner else { return false };
    for part in middle {
        // The first occurrence leaves the most text for the parts that follow.
        let Some((_, after)) = rest.split_once(part.as_str()) else { return false };
        rest = after;
    }
    true
}

impl Range {
    pub(super) fn contains(self, number: f64) -> bool {
        self.low.is_none_or(|low| low.allows(number, Ordering::Greater))
            && self.high.is_none_or(|high| high.allows(number, Ordering::Less))
    }

    /// Returns true if no number is in the range.
    pub(super) fn is_empty(self) -> bool {
        let (Some(low), Some(high)) = (self.low, self.high) else { return false };
        !(low.allows(high.number, Ordering::Greater) && high.allows(low.number, Ordering::Less))
    }
}

impl Limit {
    /// Returns true if the number is on this side of the limit, or equals a limit that is in the range.
    fn allows(self, number: f64, side: Ordering) -> bool {
        match number.partial_cmp(&self.number) {
            Some(Ordering::Equal) => self.is_included,
            ordering => ordering == Some(side),
        }
    }
}
