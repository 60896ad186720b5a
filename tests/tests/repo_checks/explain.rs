use std::collections::BTreeSet;

use nobat_core::policy::explain::ExplainCode;

use super::source::{first_cells, quoted, section, text};

#[test]
fn docs_list_exactly_the_explain_codes() {
    let table = section(&text("docs/errors.md"), "## Explain codes");
    let told: BTreeSet<String> = first_cells(&table).into_iter().flat_map(quoted).collect();
    assert_eq!(told, ExplainCode::all().map(|why| why.as_str().to_owned()).collect());
}
