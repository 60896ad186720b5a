use std::path::{Path, PathBuf};

use nobat_tests::harness::program::workspace;

use super::source::{is_test, own_code, texts};

/// Names that the project no longer uses, with their replacements.
const RENAMED: [(&str, &str); 31] = [
    ("failure_share", "failure_rate"),
    ("flow_key", "limit_key"),
    ("flow_unavailable", "limiter_unavailable"),
    ("held_until", "paused_until"),
    ("invalid_answer", "invalid_response"),
    ("key_over", "key_inactive"),
    ("no_endpoint", "endpoint_missing"),
    ("no_result", "item_result_missing"),
    ("no_secret", "secret_unavailable"),
    ("parallelism", "concurrency"),
    ("payload_bytes", "max_payload_bytes"),
    ("promised_ahead", "reserved_starts"),
    ("retry_on", "retry_statuses"),
    ("too_many_failures", "too_many_auth_failures"),
    ("too_many_hops", "loop_detected"),
    ("NOBAT_DRAIN", "NOBAT_DRAIN_TIMEOUT"),
    ("NOBAT_RETENTION", "NOBAT_RETENTION_DAYS"),
    ("BreakerStanding", "BreakerStatus"),
    ("FlowSubmission", "LimitsSubmission"),
    ("FlowView", "LimitsView"),
    ("FlowKey", "LimitKey"),
    ("FlowState", "LimiterStatus"),
    ("PutQueue", "QueueUpdate"),
    ("PipelineFailed", "DispatchFailed"),
    ("FlowName", "LimiterKey"),
    ("FlowOf", "LimitScope"),
    ("Booking", "Reservation"),
    ("TaskName", "TaskKey"),
    ("Keyring", "AuthCache"),
    ("likeness", "batch_key"),
    ("woken_at", "resume_at"),
];

/// Words that no comment, page, error text, log text or OpenAPI text may use, with the words to use instead.
const VAGUE: [(&str, &str); 9] = [
    ("whoever", "name the actor: client, worker, endpoint, sweeper, operator, tenant"),
    ("somebody", "name the actor: client, worker, endpoint, sweeper, operator, tenant"),
    ("nobody", "name the actor: client, worker, endpoint, sweeper, operator, tenant"),
    ("the other side", "write receiver, client or server"),
    ("what came of it", "write result, outcome or report"),
    ("comes to an end", "write ends"),
    ("laid down", "write configured"),
    ("unless said", "write Default, with the value"),
    ("the door", "write authentication or URL"),
];

/// Words that no doc comment may begin with. A doc comment begins with a noun or a verb: "Returns …",
/// "Maximum delay …".
const OPENINGS: [&str; 12] =
    ["What", "Whoever", "Who", "How", "Whether", "Of", "Has", "Where", "When", "Why", "Which", "That"];

/// Returns true if the text contains the word, with no letter, digit or underscore before and after it.
fn contains_word(text: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(word).any(|(place, _)| {
        let (before, after) = (&text[..place], &text[place + word.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// Returns the files of the project in these languages. This file names the rejected words and is left out.
fn sources(endings: &[&str]) -> Vec<(PathBuf, String)> {
    let all = endings.iter().flat_map(|ending| texts(&[""], ending));
    all.filter(|(file, _)| !file.ends_with("repo_checks/words.rs")).collect()
}

/// Returns the comment of a line of Rust.
fn comment(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("//")
}

#[test]
fn renamed_words_are_gone() {
    let mut found = Vec::new();
    for (file, text) in sources(&["rs", "md", "json", "yaml", "ts", "py"]) {
        for (number, line) in text.lines().enumerate() {
            let renamed = RENAMED.iter().filter(|(word, _)| contains_word(line, word));
            found.extend(
                renamed
                    .map(|(word, new)| format!("{}:{}: write {new} for {word}", file.display(), number + 1)),
            );
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Returns the parts of a file that users or developers read as prose: its pages, comments, and the texts in
/// the programs' code.
fn prose(file: &Path, text: &str) -> Vec<(usize, String)> {
    let is_program = ["crates", "functions"].iter().any(|folder| file.starts_with(workspace().join(folder)));
    let code_lines = if is_program && !is_test(file) { own_code(text).lines().count() } else { 0 };
    let is_rust = file.extension().is_some_and(|extension| extension == "rs");
    let is_read =
        |(number, line): &(usize, &str)| !is_rust || *number < code_lines || comment(line).is_some();
    text.lines().enumerate().filter(is_read).map(|(number, line)| (number, line.to_lowercase())).collect()
}

#[test]
fn prose_uses_no_vague_words() {
    let mut found = Vec::new();
    for (file, text) in
        sources(&["rs", "md", "json"]).into_iter().filter(|(file, _)| !file.ends_with("package-lock.json"))
    {
        for (number, prose) in prose(&file, &text) {
            let vague = VAGUE.iter().filter(|(word, _)| contains_word(&prose, word));
            found.extend(
                vague.map(|(word, advice)| format!("{}:{}: {word}: {advice}", file.display(), number + 1)),
            );
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() {
    let mut found = Vec::new();
    for (file, text) in sources(&["rs"]) {
        let mut is_in_comment = false;
        for (number, line) in text.lines().enumerate() {
            let doc = comment(line).and_then(|rest| rest.strip_prefix(['/', '!']));
            let opening = doc.filter(|_| !is_in_comment).and_then(|doc| doc.split_whitespace().next());
            if opening.is_some_and(|word| OPENINGS.contains(&word)) {
                found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
            is_in_comment = doc.is_some();
        }
    }
    assert!(found.is_empty(), "begin with a noun or a verb:\n{}", found.join("\n"));
}
