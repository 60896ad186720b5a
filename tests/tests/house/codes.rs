use std::collections::BTreeSet;

use nobat_core::task::ErrorCode;

use super::source::{first_cells, quoted, section, text};

#[test]
fn the_page_on_errors_names_every_code_that_an_attempt_can_fail_with_and_no_other() {
    let page = section(&text("docs/errors.md"), "## Attempt error codes");
    let named: BTreeSet<String> = first_cells(&page).into_iter().flat_map(quoted).collect();
    let (of_answers, own): (BTreeSet<&str>, BTreeSet<&str>) = named.iter().map(String::as_str).partition(|code| code.starts_with("http_"));
    assert_eq!(own, BTreeSet::from(ErrorCode::ALL));
    assert!(!of_answers.is_empty());
}
