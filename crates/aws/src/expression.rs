//! Builds an update and its condition as expressions. Every attribute name is an alias, since DynamoDB
//! reserves many words.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::item::Attributes;

/// Builder of an update expression.
#[derive(Clone, Default)]
pub(crate) struct Expression {
    sets: Vec<String>,
    adds: Vec<String>,
    removes: Vec<String>,
    condition: Vec<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Expression {
    /// Sets the attributes that have a value and removes all other attributes.
    pub(crate) fn write(mut self, attributes: Attributes) -> Self {
        for (name, value) in attributes.0 {
            self = match value {
                Some(value) => self.set(name, value),
                None => self.remove(name),
            };
        }
        self
    }

    pub(crate) fn set(mut self, name: &str, value: AttributeValue) -> Self {
        self.sets.push(format!("#{name} = :{name}"));
        self.named(name).value(name, value)
    }

    /// Adds to a number. A missing number counts as 0.
    pub(crate) fn add(mut self, name: &str, value: AttributeValue) -> Self {
        self.adds.push(format!("#{name} :{name}"));
        self.named(name).value(name, value)
    }

    pub(crate) fn remove(mut self, name: &str) -> Self {
        self.removes.push(format!("#{name}"));
        self.named(name)
    }

    /// Adds one to a number. A missing number counts as 0.
    pub(crate) fn count(mut self, name: &str) -> Self {
        self.adds.push(format!("#{name} :one"));
        self.named(name).value("one", AttributeValue::N("1".to_owned()))
    }

    /// Adds a condition, in which `#name` stands for the attribute `name`. All conditions must hold.
    pub(crate) fn when(mut self, condition: &str) -> Self {
        self.condition.push(format!("({condition})"));
        let aliases = condition
            .split('#')
            .skip(1)
            .map(|rest| rest.split(|end: char| !end.is_ascii_alphanumeric() && end != '_').next());
        aliases.flatten().fold(self, Self::named)
    }

    /// Defines the value of `:name`.
    pub(crate) fn value(mut self, name: &str, value: AttributeValue) -> Self {
        self.values.insert(format!(":{name}"), value);
        self
    }

    fn named(mut self, name: &str) -> Self {
        self.names.insert(format!("#{name}"), name.to_owned());
        self
    }

    /// Returns the update expression.
    pub(crate) fn update(&self) -> String {
        let clauses = [("SET", &self.sets), ("ADD", &self.adds), ("REMOVE", &self.removes)];
        let clauses = clauses
            .iter()
            .filter(|(_, parts)| !parts.is_empty())
            .map(|(word, parts)| format!("{word} {}", parts.join(", ")));
        clauses.collect::<Vec<_>>().join(" ")
    }

    /// Returns the condition expression.
    pub(crate) fn condition(&self) -> Option<String> {
        (!self.condition.is_empty()).then(|| self.condition.join(" AND "))
    }

    /// Returns the definitions of the aliases.
    pub(crate) fn names(&self) -> Option<HashMap<String, String>> {
        (!self.names.is_empty()).then(|| self.names.clone())
    }

    /// Returns the definitions of the values.
    pub(crate) fn values(&self) -> Option<HashMap<String, AttributeValue>> {
        (!self.values.is_empty()).then(|| self.values.clone())
    }
}
