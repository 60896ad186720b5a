use std::collections::BTreeSet;

use nobat_core::task::ErrorCode;

use super::source::{first_cells, quoted, section, text};

#[test]
fn docs_list_exactly_the_attempt_error_codes() {
    let page = section(&text("docs/errors.md"), "## Attempt error codes");
    let named: BTreeSet<String> = first_cells(&page).into_iter().flat_map(quoted).collect();
    let (of_answers, own): (BTreeSet<&str>, BTreeSet<&str>) = named.iter().map(String::as_str).partition(|code| code.starts_with("http_"));
    assert_eq!(own, BTreeSet::from(ErrorCode::ALL));
    assert!(!of_answers.is_empty());
}
