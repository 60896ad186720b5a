use std::collections::BTreeSet;

use nobat_core::explain::ExplainCode;

use super::source::{first_cells, quoted, section, text};

#[test]
fn every_reason_why_a_task_is_not_running_stands_in_the_docs_and_nothing_else_does() {
    let table = section(&text("docs/errors.md"), "## Explain codes");
    let told: BTreeSet<String> = first_cells(&table).into_iter().flat_map(quoted).collect();
    assert_eq!(told, ExplainCode::all().map(|why| why.as_str().to_owned()).collect());
}
