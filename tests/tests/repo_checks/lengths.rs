use super::source::texts;

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
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let is_test = file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests");
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
        for pair in lines.windows(2) {
            let is_test = matches!(pair[0], "#[test]") || pair[0].starts_with("#[tokio::test");
            let name =
                pair[1].split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap_or_default();
            if is_test && name.len() > MAX_TEST_NAME {
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
