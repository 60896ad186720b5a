//! Parses query strings. Unknown and repeated parameters are errors. One response reports all errors.

use std::borrow::Cow;

use nobat_core::types::field_error::FieldError;

use crate::http::problem::Problem;

/// Parameters of a request, and the errors in them.
pub(crate) struct Query<'a> {
    values: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    wrong: Vec<FieldError>,
}

impl<'a> Query<'a> {
    /// Parses a query string. Unknown and repeated parameters are errors.
    pub(crate) fn read(text: Option<&'a str>, known: &[&str]) -> Self {
        let mut query = Self { values: Vec::new(), wrong: Vec::new() };
        for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                query.refuse(&name, format!("unknown parameter; expected one of {}", known.join(", ")));
            } else if query.values.iter().any(|(other, _)| *other == name) {
                query.refuse(&name, "the parameter is given more than once; send it once");
            } else {
                query.values.push((name, value));
            }
        }
        query
    }

    /// Returns the value of a parameter, if the parameter is present and `parse` accepts the value.
    /// `expected` describes valid values for the error text.
    pub(crate) fn get<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (_, value) = self.values.iter().find(|(other, _)| other == name)?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.refuse(name, format!("expected {expected}"));
        }
        parsed
    }

    /// Fails with all errors, if there are any.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.wrong.is_empty() { Ok(()) } else { Err(self.wrong.into()) }
    }

    fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        self.wrong.push(FieldError::new(format!("?{name}"), detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(text: &str) -> Vec<String> {
        let mut query = Query::read(Some(text), &["limit", "kind"]);
        query.get("limit", "a number", |text| text.parse::<u8>().ok());
        query.wrong.into_iter().map(|wrong| wrong.pointer).collect()
    }

    #[test]
    fn every_invalid_parameter_is_reported() {
        assert_eq!(pointers("limit=7&kind=a%20b"), Vec::<String>::new());
        assert_eq!(pointers("limti=7&limit=x&kind=a&kind=a"), ["?limti", "?kind", "?limit"]);
        assert_eq!(pointers("limit"), ["?limit"], "a parameter without a value has an empty value");
        assert_eq!(pointers("&&"), Vec::<String>::new());
    }

    #[test]
    fn parameter_values_are_decoded() {
        let mut query = Query::read(Some("kind=%D0%BA+%2B"), &["kind"]);
        assert_eq!(query.get("kind", "text", |text| Some(text.to_owned())).as_deref(), Some("к +"));
        assert!(query.finish().is_ok());
    }
}
