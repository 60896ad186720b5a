//! Filters: conditions on the content of events, in the syntax of Amazon EventBridge's event patterns.
//!
//! The rules are those of <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns.html>
//! and of "Comparison operators" there. `cidr` is the only operator that nobat does not support.

mod condition;
mod read;

use std::cell::Cell;
use std::fmt;

use serde_json::Value;

use crate::events::filter::condition::{Condition, has_leaf};
use crate::events::filter::read::{Tree, read};
use crate::events::topic::Topic;
use crate::json::Json;
use crate::types::field_error::FieldError;

/// Conditions on the content of an event. An event matches if every field matches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(Fields);

/// Conditions on the fields of one object.
#[derive(Clone, Debug, Default, PartialEq)]
struct Fields {
    fields: Vec<(String, Field)>,
    /// Alternatives (`$or`): at least one must match. Empty if the filter has no alternatives.
    any_of: Vec<Fields>,
}

/// Condition on one field.
#[derive(Clone, Debug, PartialEq)]
enum Field {
    /// The field is an object, and its fields match.
    Object(Fields),
    /// At least one of the conditions holds for the value, or for an element if the value is an array.
    AnyOf(Vec<Condition>),
}

/// The comparison of an event with a filter takes too long: the event has too many values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event has too many values for this filter; expected at most {MAX_STEPS} comparisons")]
pub struct TooManyValues;

/// Maximum number of comparisons for one event and one filter. This many comparisons take a few milliseconds.
const MAX_STEPS: u32 = 500_000;

/// Number of comparisons that are left.
struct Budget(Cell<u32>);

impl Budget {
    /// Spends one comparison with a text of this length. A long text counts as several comparisons.
    fn spend(&self, bytes: usize) -> Result<(), TooManyValues> {
        let steps = 1 + u32::try_from(bytes / 64).unwrap_or(u32::MAX);
        self.0.set(self.0.get().checked_sub(steps).ok_or(TooManyValues)?);
        Ok(())
    }
}

impl Filter {
    /// Maximum length of a filter, in bytes of JSON: 8 KiB.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// Reads a filter of a subscription with that topic. Returns all errors, with JSON pointers relative to
    /// the filter. A filter that can match no event is an error, as far as this function can tell.
    pub fn read(filter: &Json, topic: Option<&Topic>) -> Result<Self, Vec<FieldError>> {
        if filter.get().len() > Self::MAX_BYTES {
            return Err(vec![FieldError::new("", format!("expected at most {} bytes", Self::MAX_BYTES))]);
        }
        let tree = filter
            .parse::<Tree>()
            .map_err(|error| vec![FieldError::new("", format!("the filter cannot be read: {error}"))])?;
        read(&tree, topic).map(Self)
    }

    /// Returns true if the event matches.
    ///
    /// # Errors
    /// Fails if the event has too many values for the filter.
    pub fn matches(&self, event: &Value) -> Result<bool, TooManyValues> {
        let budget = Budget(Cell::new(MAX_STEPS));
        self.0.match_any(&[event], &budget)
    }
}

impl Fields {
    /// Returns true if one of the objects matches. All fields must match within one object, but a field
    /// counts as absent only if none of the objects has it.
    fn match_any(&self, values: &[&Value], budget: &Budget) -> Result<bool, TooManyValues> {
        let mut absent = Vec::new();
        self.collect_absent(values, budget, &mut absent)?;
        if values.is_empty() {
            return self.match_object(&Value::Null, &absent, budget);
        }
        for value in values {
            if self.match_object(value, &absent, budget)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds the names of the fields that must be absent and are absent from all values.
    fn collect_absent<'a>(
        &'a self,
        values: &[&Value],
        budget: &Budget,
        absent: &mut Vec<&'a str>,
    ) -> Result<(), TooManyValues> {
        for (name, field) in &self.fields {
            let Field::AnyOf(conditions) = field else { continue };
            if !conditions.contains(&Condition::Exists(false)) {
                continue;
            }
            let mut is_absent = true;
            for value in values {
                budget.spend(0)?;
                is_absent = is_absent && !has_leaf(value.get(name));
            }
            if is_absent {
                absent.push(name);
            }
        }
        self.any_of.iter().try_for_each(|fields| fields.collect_absent(values, budget, absent))
    }

    /// Returns true if all fields of the value match. A value that is not an object has no fields.
    fn match_object(&self, value: &Value, absent: &[&str], budget: &Budget) -> Result<bool, TooManyValues> {
        for (name, field) in &self.fields {
            budget.spend(0)?;
            let matches = match field {
                Field::Object(fields) => fields.match_any(&elements(value.get(name)), budget)?,
                Field::AnyOf(conditions) => any_holds(conditions, name, value, absent, budget)?,
            };
            if !matches {
                return Ok(false);
            }
        }
        let mut is_any = self.any_of.is_empty();
        for fields in &self.any_of {
            is_any = is_any || fields.match_object(value, absent, budget)?;
        }
        Ok(is_any)
    }
}

/// Returns true if one of the conditions holds for the field of this name.
fn any_holds(
    conditions: &[Condition],
    name: &str,
    value: &Value,
    absent: &[&str],
    budget: &Budget,
) -> Result<bool, TooManyValues> {
    for condition in conditions {
        let holds = match condition {
            Condition::Exists(true) => has_leaf(value.get(name)),
            Condition::Exists(false) => absent.contains(&name),
            condition => condition.holds(value.get(name), budget)?,
        };
        if holds {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the elements of an array and of the arrays in it. Returns any other value as the only element, and
/// nothing for no value.
fn elements(value: Option<&Value>) -> Vec<&Value> {
    match value {
        None => Vec::new(),
        Some(Value::Array(list)) => list.iter().flat_map(|element| elements(Some(element))).collect(),
        Some(value) => vec![value],
    }
}

/// Reason why a filter can match no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Impossible {
    /// The filter requires that an attribute is absent, but every event has this attribute.
    AlwaysPresent,
    /// The filter has a condition on an attribute, but no attribute can have this name.
    NoAttribute,
    /// The filter requires a type of value that the attribute never has.
    AlwaysText,
    /// The filter requires another `specversion` than `1.0`.
    OtherVersion,
    /// The filter lists only event types that the subscription's topic does not match.
    OutsideTopic,
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlwaysPresent => "can match no event, because every event has this attribute",
            Self::NoAttribute => {
                "can match no event, because the name of an attribute has only the characters a-z and 0-9; put a condition on the content below `data`"
            }
            Self::AlwaysText => "can match no event, because this attribute never has a value of this type; send an array of strings, or put a condition on the content below `data`",
            Self::OtherVersion => "can match no event, because `specversion` is always `1.0`",
            Self::OutsideTopic => "can match no event, because none of these types matches `topic`",
        })
    }
}

#[cfg(test)]
mod tests;
