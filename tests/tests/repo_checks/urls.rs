use std::path::Path;

use nobat_tests::harness::program::workspace;

use super::dependencies::users_of;
use super::source::{is_test, own_code, texts};

/// Only file that parses URLs.
const PARSER: &str = "crates/core/src/types/http_url.rs";

/// Methods of texts that compare, search or cut. Code that compares a URL or takes it apart must use an
/// `HttpUrl`.
const OF_TEXTS: [&str; 17] = [
    "as_bytes",
    "chars",
    "contains",
    "ends_with",
    "eq",
    "eq_ignore_ascii_case",
    "find",
    "match_indices",
    "replace",
    "replacen",
    "rsplit",
    "split",
    "split_once",
    "starts_with",
    "strip_prefix",
    "to_lowercase",
    "trim_end_matches",
];

/// Returns the program's own lines without tests: file, line number, line without spaces.
fn lines() -> Vec<(String, usize, String)> {
    let mut lines: Vec<(String, usize, String)> = Vec::new();
    for (file, text) in texts(&["crates", "functions"], "rs") {
        let name = file.strip_prefix(workspace()).expect("a file of the repository").display().to_string();
        if is_test(Path::new(&name)) || name.ends_with("testing.rs") {
            continue;
        }
        let code = own_code(&text);
        for (number, line) in
            code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            let line: String = line.split_whitespace().collect();
            match lines.last_mut() {
                // This line continues a method chain.
                Some((file, _, before)) if line.starts_with('.') && *file == name => before.push_str(&line),
                _ => lines.push((name.clone(), number + 1, line)),
            }
        }
    }
    lines
}

/// Returns true if a line uses a text method on a name that ends in `url`, or compares one with another
/// value.
fn handles_a_url_as_text(line: &str) -> bool {
    line.match_indices("url").any(|(place, _)| {
        let rest = &line[place + "url".len()..];
        let rest = [".as_str()", ".to_string()", ".as_ref()", ".clone()"]
            .iter()
            .fold(rest, |rest, end| rest.strip_prefix(end).unwrap_or(rest));
        let method = rest.strip_prefix('.').and_then(|rest| rest.split_once('(')).map(|(method, _)| method);
        method.is_some_and(|method| OF_TEXTS.contains(&method))
    })
}

#[test]
fn only_one_module_parses_urls() {
    assert_eq!(users_of("url"), ["nobat-core"], "only nobat-core depends on the URL parser");
    for (file, number, line) in lines() {
        let parses =
            ["url::", "Url::options", "parse::<Uri>", "Uri::from_str", "Uri::try_from", "Uri::from_static"];
        let is_parser = parses.iter().any(|call| line.contains(call))
            && !line.contains("http_url::")
            && !line.contains("HttpUrl::");
        assert!(!is_parser || file == PARSER, "{file}:{number}: parse URLs with `HttpUrl`: {line}");
    }
}

#[test]
fn urls_are_not_compared_as_text() {
    // The raw text of a submission is searched for parts that the parser drops.
    let raw = "ifself.url.contains(['?','#']){";
    for (file, number, line) in lines().into_iter().filter(|(file, _, line)| file != PARSER && line != raw) {
        assert!(!handles_a_url_as_text(&line), "{file}:{number}: use `HttpUrl`: {line}");
    }
}

#[test]
fn text_handling_of_a_url_is_recognised() {
    for line in [
        "lethost=url.split('/').nth(2);",
        "ifself.url.as_str().starts_with(base){",
        "target.url.trim_end_matches('/').to_owned();",
        "!origin(url).eq_ignore_ascii_case(origin(&current.url))||url.eq_ignore_ascii_case(other)",
    ] {
        assert!(handles_a_url_as_text(line), "{line}");
    }
    for line in ["url.same_destination(&current.url)", "self.url.join(path)", "HttpUrl::parse(&target.url)"] {
        assert!(!handles_a_url_as_text(line), "{line}");
    }
}
