use std::collections::BTreeSet;

use nobat_api::Code;
use nobat_core::task::ErrorCode;

use super::source::{first_cells, quoted, section, text};

#[test]
fn docs_list_exactly_the_problem_codes_and_statuses() {
    let page = section(&text("docs/errors.md"), "## Problem codes");
    let row = |line: &str| {
        let (code, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((code.to_owned(), rest.split_whitespace().next()?.to_owned()))
    };
    let documented: Vec<(String, String)> = page.lines().filter_map(row).collect();
    let known: Vec<(String, String)> =
        Code::ALL.iter().map(|code| (code.as_str().to_owned(), code.status().as_u16().to_string())).collect();
    assert_eq!(documented, known);
}

#[test]
fn docs_list_exactly_the_attempt_error_codes() {
    let page = section(&text("docs/errors.md"), "## Attempt error codes");
    let named: BTreeSet<String> = first_cells(&page).into_iter().flat_map(quoted).collect();
    let (of_answers, own): (BTreeSet<&str>, BTreeSet<&str>) =
        named.iter().map(String::as_str).partition(|code| code.starts_with("http_"));
    assert_eq!(own, BTreeSet::from(ErrorCode::ALL));
    assert!(!of_answers.is_empty());
}
