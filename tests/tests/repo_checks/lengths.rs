use super::source::{is_test, own_code, texts};

/// Maximum number of lines of code in a file, without comments, empty lines and inline tests.
const MAX_FILE: usize = 420;

/// Maximum number of lines of a function, tests excepted: some are tables.
const MAX_FUNCTION: usize = 80;

/// Maximum length of a test's name.
const MAX_TEST_NAME: usize = 60;

/// Returns the functions in formatted code, with their numbers of lines.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let before = code.split("fn ").next().unwrap_or_default();
        let is_function = code.contains("fn ")
            && before.chars().all(|letter| letter.is_ascii_lowercase() || " ()".contains(letter));
        if !is_function || code.ends_with([';', '}']) {
            continue;
        }
        let end = format!("{}}}", " ".repeat(line.len() - code.len()));
        let length = lines[number..].iter().position(|line| *line == end).map_or(0, |end| end + 1);
        let name = code.split("fn ").nth(1).unwrap_or_default().split(['(', '<']).next().unwrap_or_default();
        found.push((name.to_owned(), length));
    }
    found
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    for (file, text) in texts(&["crates", "functions"], "rs") {
        let code = own_code(&text);
        let is_test = is_test(&file);
        let lines =
            code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        if lines > MAX_FILE && !is_test {
            long.push(format!("{}: {lines} lines of code; at most {MAX_FILE}", file.display()));
        }
        let functions = functions(code).into_iter().filter(|(_, lines)| *lines > MAX_FUNCTION && !is_test);
        long.extend(functions.map(|(name, lines)| {
            format!("{}: {name} has {lines} lines; at most {MAX_FUNCTION}", file.display())
        }));
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn test_names_are_short() {
    let mut long = Vec::new();
    for (file, text) in texts(&["crates", "functions", "tests", "bench", "fuzz"], "rs") {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let is_attribute = |line: &str| line == "#[test]" || line.starts_with("#[tokio::test");
        for number in (0..lines.len()).filter(|number| is_attribute(lines[*number])) {
            // Other attributes may follow, such as `#[ignore]`.
            let signature =
                lines[number..].iter().find(|line| line.contains("fn ")).copied().unwrap_or_default();
            let name =
                signature.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap_or_default();
            if name.len() > MAX_TEST_NAME {
                long.push(format!(
                    "{}: {name}: {} characters; at most {MAX_TEST_NAME}",
                    file.display(),
                    name.len()
                ));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}
