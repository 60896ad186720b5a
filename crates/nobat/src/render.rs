//! Responses of the API as tables for people. Values are shown as the API wrote them. Only control characters
//! of a terminal are escaped.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use nobat_core::types::field_error::is_invisible;
use serde_json::value::RawValue;

use crate::response::Object;

/// Returns a task, one field a line, with its attempts below.
pub(crate) fn task(task: &Object) -> String {
    let fields = [
        "id",
        "kind",
        "queue",
        "endpoint",
        "limit_key",
        "status",
        "attempt",
        "max_attempts",
        "generation",
        "created_at",
        "run_at",
        "started_at",
        "finished_at",
        "expires_at",
        "held",
        "labels",
        "progress",
        "payload",
        "result",
        "error",
        "parent",
        "submitted_by",
    ];
    let mut lines = known(task, &fields);
    for attempt in task.elements("attempts") {
        let attempt = Object::read(attempt.get());
        let (outcome, error) =
            (attempt.text("outcome").unwrap_or_else(|| "running".to_owned()), attempt.object("error"));
        let error = match (error.text("code"), error.text("message")) {
            (Some(code), Some(message)) if code == outcome => format!(": {}", message.escape_debug()),
            (Some(code), Some(message)) => format!(": {code}: {}", message.escape_debug()),
            _ => String::new(),
        };
        lines.push(vec![
            format!("attempt {}", attempt.raw("number")),
            format!("{} {outcome}{error}", value(attempt.raw("started_at"))),
        ]);
    }
    align(&lines)
}

/// Returns the reason why a task is not running, one field a line.
pub(crate) fn explanation(explanation: &Object) -> String {
    let mut lines = known(explanation, &["id", "status", "code", "reason", "until"]);
    let by = explanation.object("blocked_by");
    if let (Some(sort), Some(name)) = (by.text("type"), by.text("name")) {
        lines.push(vec!["by".to_owned(), format!("{sort} {name}")]);
    }
    lines.extend(known(explanation, &["attempt", "max_attempts", "held", "error"]));
    align(&lines)
}

/// Returns every field of an object that has a value, one a line.
pub(crate) fn object(object: &Object) -> String {
    let lines = object
        .fields()
        .filter(|(_, json)| !is_empty(json))
        .map(|(field, json)| vec![field.to_owned(), value(json)]);
    align(&lines.collect::<Vec<_>>())
}

/// Returns a line for each of these fields that has a value.
fn known(of: &Object, fields: &[&str]) -> Vec<Vec<String>> {
    let known = fields.iter().map(|field| (*field, of.raw(field))).filter(|(_, json)| !is_empty(json));
    known.map(|(field, json)| vec![field.to_owned(), value(json)]).collect()
}

/// Returns a table of tasks, one a line.
pub(crate) fn tasks(tasks: &[Box<RawValue>]) -> String {
    table(tasks, &["id", "kind", "queue", "status", "attempt", "created_at", "error"], |task, column| {
        match column {
            "attempt" => format!("{}/{}", task.raw("attempt"), task.raw("max_attempts")),
            "error" => task.object("error").text("code").unwrap_or_default(),
            column => value(task.raw(column)),
        }
    })
}

/// Returns a table of records such as keys, one a line, with these columns.
pub(crate) fn records(records: &[Box<RawValue>], columns: &[&str]) -> String {
    table(records, columns, |record, column| match record.raw(column) {
        "null" => "-".to_owned(),
        json => match serde_json::from_str::<Vec<String>>(json) {
            Ok(words) => words.join(",").escape_debug().to_string(),
            Err(_) => value(json),
        },
    })
}

fn table(rows: &[Box<RawValue>], columns: &[&str], cell: impl Fn(&Object, &str) -> String) -> String {
    let mut lines = vec![columns.iter().map(|column| column.to_uppercase()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| {
        let row = Object::read(row.get());
        columns.iter().map(|column| cell(&row, column)).collect()
    }));
    align(&lines)
}

/// Shows a task's progress on a terminal, over the previous line.
pub(crate) fn progress(task: &Object) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let progress =
            Some(task.raw("progress")).filter(|json| *json != "null").map(|json| format!(" {}", value(json)));
        let (id, status, progress) =
            (value(task.raw("id")), value(task.raw("status")), progress.unwrap_or_default());
        let line = format!("{id} {status} (attempt {}){progress}", task.raw("attempt"));
        // A closed terminal must not fail the command.
        let _ = write!(terminal, "\r\x1b[K{line}").and_then(|()| terminal.flush());
    }
}

/// Clears the line that [`progress`] wrote.
pub(crate) fn progress_done() {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let _ = write!(terminal, "\r\x1b[K").and_then(|()| terminal.flush());
    }
}

fn is_empty(json: &str) -> bool {
    json == "null" || json == "{}"
}

/// Returns a value for people: a string without quotes, an error as one sentence, any other JSON unchanged,
/// on one line.
fn value(json: &str) -> String {
    if let Ok(text) = serde_json::from_str::<String>(json) {
        // A text from a client can contain escape codes. The terminal must show them and not execute them.
        return text.escape_debug().to_string();
    }
    let object = Object::read(json);
    if let (Some(code), Some(message)) = (object.text("code"), object.text("message")) {
        return format!("{code}: {message}").escape_debug().to_string();
    }
    let mut line = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            // In JSON, these characters occur only between values.
            '\n' | '\r' | '\t' => line.push(' '),
            character if is_invisible(character) => _ = write!(line, "\\u{:04x}", u32::from(character)),
            character => line.push(character),
        }
    }
    line
}

fn align(lines: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        for (place, cell) in line.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(place) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut out = String::new();
    for line in lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(json: &str) -> Vec<Box<RawValue>> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn columns_line_up_and_escape_codes_are_escaped() {
        let json = r#"[{"id": "task_1", "kind": "\u001b[31mred", "queue": "q", "status": "failed", "attempt": 1,
            "max_attempts": 5, "created_at": "now", "error": {"code": "timeout", "message": "…"}}]"#;
        assert_eq!(
            tasks(&rows(json)),
            "ID      KIND           QUEUE  STATUS  ATTEMPT  CREATED_AT  ERROR\n\
             task_1  \\u{1b}[31mred  q      failed  1/5      now         timeout\n"
        );
    }

    #[test]
    fn values_are_shown_unchanged_on_one_line() {
        let thirty = "123456789012345678901234567890";
        for json in
            ["1e999", "1.10", "-0", thirty, r#"{"a":1,"a":2}"#, r#"{"b":1,"a":[1.0]}"#, r#"{"s":"\u00e9"}"#]
        {
            assert_eq!(value(json), json);
        }
        assert_eq!(value("{\n\t\"a\": 1\n}"), r#"{  "a": 1 }"#);
        assert_eq!(value("[\"\u{9b}31m\u{202e}\"]"), r#"["\u009b31m\u202e"]"#);
        assert_eq!(value(r#"{"code": "http_503", "message": "no\u001b"}"#), r"http_503: no\u{1b}");
    }

    #[test]
    fn missing_value_of_a_record_is_a_dash() {
        let keys = rows(r#"[{"id": "key_1", "scopes": ["work", "admin"], "expires_at": null}]"#);
        assert_eq!(
            records(&keys, &["id", "scopes", "expires_at"]),
            "ID     SCOPES      EXPIRES_AT\nkey_1  work,admin  -\n"
        );
    }
}
