use std::collections::BTreeSet;

use nobat_tests::harness::process::run;
use nobat_tests::harness::program::Program;

use super::source::{first_cells, quoted, section, text, texts};

/// Returns the settings in the table of docs/operations.md, each with its default.
fn documented_settings() -> Vec<(String, String)> {
    let page = section(&text("docs/operations.md"), "## Settings");
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').collect();
        Some((quoted(&format!("`{}", cells[0])).remove(0), cells[1].trim().trim_matches('`').to_owned()))
    };
    page.lines().filter_map(row).collect()
}

/// Returns the words that begin with `NOBAT_`.
pub(super) fn words(text: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_uppercase() || character == '_';
    let words = text.split(|character| !is_part(character));
    words
        .filter(|word| word.starts_with("NOBAT_") && word.len() > "NOBAT_".len())
        .map(str::to_owned)
        .collect()
}

#[test]
fn docs_list_exactly_the_variables_that_the_code_names() {
    let named: BTreeSet<String> =
        texts(&["crates", "examples", "functions"], "rs").iter().flat_map(|(_, text)| words(text)).collect();
    let page = text("docs/operations.md");
    let told: BTreeSet<String> =
        first_cells(&section(&page, "## Settings")).into_iter().flat_map(quoted).collect();
    assert_eq!(named, told);
    assert_eq!(words(&page), told, "the page names no variable outside its table");
}

#[tokio::test]
async fn documented_defaults_and_flags_match_the_help() {
    let help = run(&Program::Nobat.path(), &["serve", "--help"], None).await.unwrap().stdout;
    // A flag and its text may span several lines.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for (name, default) in documented_settings()
        .into_iter()
        .filter(|(name, _)| !["NOBAT_URL", "NOBAT_KEY"].contains(&name.as_str()))
    {
        let flag = format!("--{}", name.trim_start_matches("NOBAT_").to_lowercase().replace('_', "-"));
        let told =
            help.split_once(&format!("{flag} <")).map(|(_, rest)| rest).and_then(|rest| rest.split_once(']'));
        let (_, rest) = told.unwrap_or_else(|| panic!("the help does not show {flag}"));
        let said = rest.trim_start().strip_prefix("[default: ").and_then(|rest| rest.split(']').next());
        assert_eq!(said.unwrap_or("none"), default, "{name}");
        // The help does not show the value of a secret.
        let read = [format!("[env: {name}=]"), format!("[env: {name}]")];
        assert!(read.iter().any(|read| help.contains(read)), "{flag} is not read from {name}");
    }
}
