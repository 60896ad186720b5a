//! Query strings: every parameter is known and given once, or reported as an error. None is ignored.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;

use crate::http::problem::Problem;
use crate::query::Query;

#[path = "../../crates/api/src/http/query.rs"]
mod query;

/// The part of the API's errors that the reader needs, at the path by which it imports them.
mod http {
    pub(crate) mod problem {
        use nobat_core::types::field_error::FieldError;

        pub(crate) struct Problem(pub(crate) Vec<FieldError>);

        impl From<Vec<FieldError>> for Problem {
            fn from(wrong: Vec<FieldError>) -> Self {
                Self(wrong)
            }
        }
    }
}

const KNOWN: [&str; 3] = ["limit", "status", "cursor"];

fuzz_target!(|text: &str| {
    let given: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
    let mut query = Query::read(Some(text), &KNOWN);
    let mut taken = BTreeSet::new();
    for name in KNOWN {
        let first = given.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
        let got = query.get(name, "anything", |value| Some(value.to_owned()));
        assert_eq!(got, first, "{name}");
        taken.extend(got.map(|_| name));
    }
    let number = query.get("limit", "a number", |value| value.parse::<u32>().ok());
    let is_refused = taken.contains("limit") && number.is_none();
    let wrong = query.finish().err().map_or_else(Vec::new, |Problem(wrong)| wrong);
    assert_eq!(taken.len() + wrong.len(), given.len() + usize::from(is_refused));
    assert!(wrong.iter().all(|wrong| wrong.pointer.starts_with('?')));
});
