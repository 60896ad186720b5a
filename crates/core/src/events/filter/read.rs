//! Reading of filters.

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::events::filter::condition::{Condition, Limit, Range, Text, lower_case};
use crate::events::filter::{Field, Fields, Impossible};
use crate::events::topic::Topic;
use crate::json::decode::TWICE;
use crate::types::field_error::FieldError;

/// Key of the alternatives in an object of a filter.
const OR: &str = "$or";

/// Attributes of every event (CloudEvents 1.0, "Required attributes").
const REQUIRED: [&str; 4] = ["id", "source", "specversion", "type"];

/// Optional attributes whose value is always a string.
const TEXTS: [&str; 4] = ["subject", "time", "datacontenttype", "dataschema"];

/// Maximum depth of objects in a filter.
const MAX_DEPTH: usize = 32;

/// Maximum number of conditions in a filter.
const MAX_CONDITIONS: usize = 300;

/// Largest number in `numeric`, as in EventBridge. The smallest number is its negative.
const MAX_NUMBER: f64 = 5.0e9;

/// JSON value. Fields of an object keep their order, and their names are unique.
pub(super) enum Tree {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// Reads the filter of a subscription with that topic. Returns all errors.
pub(super) fn read(tree: &Tree, topic: Option<&Topic>) -> Result<Fields, Vec<FieldError>> {
    let mut reader = Reader { topic, conditions: 0, wrong: Vec::new() };
    let fields = match tree {
        Tree::Object(entries) => reader.fields(entries, "", 0, true),
        _ => reader.refuse(
            "",
            "expected an object, such as `{\"data\": {\"amount\": [{\"numeric\": [\">\", 100]}]}}`",
        ),
    };
    if reader.conditions > MAX_CONDITIONS {
        reader.refuse::<()>("", format!("expected at most {MAX_CONDITIONS} conditions"));
    }
    if reader.wrong.is_empty() { Ok(fields) } else { Err(reader.wrong) }
}

struct Reader<'a> {
    topic: Option<&'a Topic>,
    /// Number of conditions so far.
    conditions: usize,
    wrong: Vec<FieldError>,
}

impl Reader<'_> {
    fn refuse<T: Default>(&mut self, pointer: &str, detail: impl Into<String>) -> T {
        self.wrong.push(FieldError::new(pointer, detail));
        T::default()
    }

    /// Reads the conditions on an object. `is_event` is true for the event itself.
    fn fields(&mut self, entries: &[(String, Tree)], pointer: &str, depth: usize, is_event: bool) -> Fields {
        if depth > MAX_DEPTH {
            return self.refuse(pointer, format!("expected at most {MAX_DEPTH} levels of objects"));
        }
        let mut all = Fields::default();
        for (name, tree) in entries {
            let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            if name == OR {
                all.any_of = self.alternatives(tree, &pointer, depth);
                continue;
            }
            let field = match tree {
                Tree::Object(entries) if entries.is_empty() => {
                    self.refuse::<()>(&pointer, "expected at least one field; omit an empty object");
                    continue;
                }
                Tree::Object(entries) => Field::Object(self.fields(entries, &pointer, depth + 1, false)),
                Tree::List(items) => Field::AnyOf(self.conditions(items, &pointer)),
                _ => {
                    self.refuse::<()>(
                        &pointer,
                        "expected an array of values, such as `[\"paid\"]`, or an object",
                    );
                    continue;
                }
            };
            if is_event && let Some(reason) = impossible(name, &field, self.topic) {
                self.refuse::<()>(&pointer, reason.to_string());
            }
            all.fields.push((name.clone(), field));
        }
        all
    }

    fn alternatives(&mut self, tree: &Tree, pointer: &str, depth: usize) -> Vec<Fields> {
        let Tree::List(items) = tree else {
            return self.refuse(pointer, "expected an array of at least two objects");
        };
        if items.len() < 2 {
            return self.refuse(pointer, "expected at least two alternatives");
        }
        let read = |(index, item): (usize, &Tree)| {
            let pointer = format!("{pointer}/{index}");
            match item {
                Tree::Object(entries) if !entries.is_empty() => {
                    // An impossible alternative is no error as long as another alternative is possible.
                    self.fields(entries, &pointer, depth + 1, false)
                }
                _ => self.refuse(&pointer, "expected an object with at least one field"),
            }
        };
        items.iter().enumerate().map(read).collect()
    }

    fn conditions(&mut self, items: &[Tree], pointer: &str) -> Vec<Condition> {
        if items.is_empty() {
            return self.refuse(pointer, "can match no event; expected at least one value");
        }
        let read = |(index, item)| self.condition(item, &format!("{pointer}/{index}"));
        items.iter().enumerate().filter_map(read).collect()
    }

    fn condition(&mut self, item: &Tree, pointer: &str) -> Option<Condition> {
        match item {
            Tree::Object(entries) => match &entries[..] {
                [(name, tree)] => self.operator(name, tree, &format!("{pointer}/{name}")),
                _ => self
                    .refuse(pointer, "expected an object with one operator, such as `{\"prefix\": \"a\"}`"),
            },
            Tree::List(_) => self.refuse(pointer, "expected a value or an operator, not an array"),
            value => self.value(value, pointer),
        }
    }

    /// Reads the condition that a value of the event equals `value`.
    fn value(&mut self, value: &Tree, pointer: &str) -> Option<Condition> {
        self.conditions += 1;
        match value {
            Tree::Null => Some(Condition::Null),
            Tree::Bool(value) => Some(Condition::Bool(*value)),
            Tree::Number(number) => Some(Condition::Number(*number)),
            Tree::Text(text) => Some(Condition::Text(Text::Exact(text.clone()))),
            Tree::List(_) | Tree::Object(_) => {
                self.refuse(pointer, "expected a string, a number, a boolean or null")
            }
        }
    }

    fn operator(&mut self, name: &str, tree: &Tree, pointer: &str) -> Option<Condition> {
        self.conditions += 1;
        match (name, tree) {
            ("exists", Tree::Bool(expected)) => Some(Condition::Exists(*expected)),
            ("exists", _) => self.refuse(pointer, "expected true or false"),
            ("numeric", _) => self.range(tree, pointer).map(Condition::Range),
            ("anything-but", _) => self.none_of(tree, pointer).map(Condition::NoneOf),
            ("prefix" | "suffix" | "equals-ignore-case" | "wildcard", _) => {
                self.text(name, tree, pointer).map(Condition::Text)
            }
            _ => self.refuse(
                pointer,
                "unknown operator; expected prefix, suffix, equals-ignore-case, wildcard, anything-but, numeric or exists",
            ),
        }
    }

    fn text(&mut self, name: &str, tree: &Tree, pointer: &str) -> Option<Text> {
        match (name, tree) {
            ("equals-ignore-case", Tree::Text(text)) => Some(Text::EqualIgnoringCase(lower_case(text))),
            ("wildcard", Tree::Text(text)) => self.wildcard(text, pointer),
            ("prefix", Tree::Text(text)) => Some(Text::Prefix(text.clone())),
            ("suffix", Tree::Text(text)) => Some(Text::Suffix(text.clone())),
            ("prefix" | "suffix", Tree::Object(entries)) => match &entries[..] {
                [(option, Tree::Text(text))] if option == "equals-ignore-case" => Some(if name == "prefix" {
                    Text::PrefixIgnoringCase(lower_case(text))
                } else {
                    Text::SuffixIgnoringCase(lower_case(text))
                }),
                _ => self.refuse(pointer, "expected a string, or an object with `equals-ignore-case`"),
            },
            _ => self.refuse(pointer, "expected a string"),
        }
    }

    /// Reads a text in which `*` stands for any characters, `\*` for a star and `\\` for a backslash.
    fn wildcard(&mut self, text: &str, pointer: &str) -> Option<Text> {
        let (mut parts, mut characters) = (vec![String::new()], text.chars());
        let mut was_star = false;
        while let Some(character) = characters.next() {
            if character == '*' && was_star {
                return self.refuse(pointer, "expected no two wildcards next to each other");
            }
            was_star = character == '*';
            let plain = match character {
                '*' => {
                    parts.push(String::new());
                    continue;
                }
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '\\')) => escaped,
                    _ => return self.refuse(pointer, "expected `*` or a second backslash after a backslash"),
                },
                plain => plain,
            };
            if let Some(last) = parts.last_mut() {
                last.push(plain);
            }
        }
        Some(Text::Wildcard(parts))
    }

    fn none_of(&mut self, tree: &Tree, pointer: &str) -> Option<Vec<Condition>> {
        match tree {
            Tree::List(items) if items.is_empty() => {
                self.refuse(pointer, "expected at least one value")
            }
            Tree::List(items) => {
                let read = |(index, item)| self.value(item, &format!("{pointer}/{index}"));
                Some(items.iter().enumerate().filter_map(read).collect())
            }
            Tree::Object(entries) => match &entries[..] {
                [(name, tree)] if matches!(&name[..], "prefix" | "suffix" | "equals-ignore-case" | "wildcard") => {
                    let pointer = format!("{pointer}/{name}");
                    let Tree::List(items) = tree else {
                        return self.text(name, tree, &pointer).map(|text| vec![Condition::Text(text)]);
                    };
                    if items.is_empty() {
                        return self.refuse(&pointer, "expected at least one value");
                    }
                    let read = |(index, item)| self.text(name, item, &format!("{pointer}/{index}"));
                    Some(items.iter().enumerate().filter_map(read).map(Condition::Text).collect())
                }
                _ => self.refuse(
                    pointer,
                    "expected a value, an array of values, or an object with prefix, suffix, equals-ignore-case or wildcard",
                ),
            },
            value => self.value(value, pointer).map(|condition| vec![condition]),
        }
    }

    fn range(&mut self, tree: &Tree, pointer: &str) -> Option<Range> {
        const EXPECTED: &str =
            "expected an array such as `[\">\", 0, \"<=\", 5]`, with the lower limit first";
        let Tree::List(items) = tree else { return self.refuse(pointer, EXPECTED) };
        let (pairs, rest) = items.as_chunks::<2>();
        let mut range = Range { low: None, high: None };
        for [operator, number] in pairs {
            let number = self.number(number, pointer)?;
            let limit = |is_included| Some(Limit { number, is_included });
            let Tree::Text(operator) = operator else { return self.refuse(pointer, EXPECTED) };
            let is_first = range.low.is_none() && range.high.is_none();
            match operator.as_str() {
                "=" if is_first && pairs.len() == 1 => range = Range { low: limit(true), high: limit(true) },
                ">" if is_first => range.low = limit(false),
                ">=" if is_first => range.low = limit(true),
                "<" if range.high.is_none() => range.high = limit(false),
                "<=" if range.high.is_none() => range.high = limit(true),
                _ => return self.refuse(pointer, EXPECTED),
            }
        }
        if pairs.is_empty() || !rest.is_empty() {
            return self.refuse(pointer, EXPECTED);
        }
        if range.is_empty() {
            return self.refuse(pointer, "can match no event, because no number is in this range");
        }
        Some(range)
    }

    fn number(&mut self, tree: &Tree, pointer: &str) -> Option<f64> {
        match tree {
            Tree::Number(number) if number.abs() <= MAX_NUMBER => Some(*number),
            Tree::Number(_) => self.refuse(pointer, "expected numbers from -5,000,000,000 to 5,000,000,000"),
            _ => self.refuse(pointer, "expected a number"),
        }
    }
}

/// Returns the reason why the condition on an attribute of the event can never hold.
fn impossible(name: &str, field: &Field, topic: Option<&Topic>) -> Option<Impossible> {
    if matches!(name, "data" | "data_base64") {
        return None;
    }
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Some(Impossible::NoAttribute);
    }
    let Field::AnyOf(conditions) = field else { return Some(Impossible::AlwaysText) };
    let is_required = REQUIRED.contains(&name);
    if !is_required && !TEXTS.contains(&name) {
        return None;
    }
    let all = |is_so: fn(&Condition) -> bool| !conditions.is_empty() && conditions.iter().all(is_so);
    if is_required && all(|condition| *condition == Condition::Exists(false)) {
        return Some(Impossible::AlwaysPresent);
    }
    if all(|condition| {
        matches!(condition, Condition::Null | Condition::Bool(_) | Condition::Number(_) | Condition::Range(_))
    }) {
        return Some(Impossible::AlwaysText);
    }
    let mut exact = Vec::with_capacity(conditions.len());
    for condition in conditions {
        let Condition::Text(Text::Exact(text)) = condition else { return None };
        exact.push(text);
    }
    match name {
        "specversion" if exact.iter().all(|version| *version != "1.0") => Some(Impossible::OtherVersion),
        "type" if topic.is_some_and(|topic| !exact.iter().any(|text| topic.matches(text))) => {
            Some(Impossible::OutsideTopic)
        }
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        // Numbers beyond 2^53 are refused later in any case.
        #[expect(clippy::cast_precision_loss, reason = "a filter has no number above 5e9")]
        Ok(Tree::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        #[expect(clippy::cast_precision_loss, reason = "a filter has no number above 5e9")]
        Ok(Tree::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Tree, A::Error> {
        let mut entries: Vec<(String, Tree)> = Vec::new();
        while let Some(name) = object.next_key::<String>()? {
            if entries.iter().any(|(other, _)| *other == name) {
                return Err(A::Error::custom(TWICE));
            }
            entries.push((name, object.next_value()?));
        }
        Ok(Tree::Object(entries))
    }
}
