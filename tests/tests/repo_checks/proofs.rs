use std::collections::BTreeSet;

use super::source::{quoted, text, texts};

/// Pages that state guarantees and name the tests that prove them.
const PAGES: [&str; 2] = ["SECURITY.md", "docs/guarantees.md"];

/// Returns the names of all functions.
fn functions() -> BTreeSet<String> {
    let sources = texts(&["crates", "functions", "tests", "bench"], "rs");
    let name = |rest: &str| {
        rest.split(|end: char| !end.is_ascii_alphanumeric() && end != '_')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    sources.iter().flat_map(|(_, text)| text.split("fn ").skip(1).map(name).collect::<Vec<_>>()).collect()
}

#[test]
fn tests_named_in_the_guarantees_exist() {
    let functions = functions();
    for page in PAGES {
        // Names of tests have at least three underscores; shorter words in backticks are something else.
        let named: Vec<String> = quoted(&text(page))
            .into_iter()
            .filter(|word| word.matches('_').count() >= 3 && !word.contains('/'))
            .collect();
        assert!(named.len() > 5, "{page} names no tests");
        for test in named {
            assert!(functions.contains(&test), "{page} names {test}, which does not exist");
        }
    }
}
