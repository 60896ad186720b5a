//! Tasks for people to read.

use std::io::{IsTerminal, Write};

use serde_json::Value;

/// A task, line by line, with its attempts below.
pub(crate) fn task(task: &Value) -> String {
    let fields = [
        "id",
        "kind",
        "queue",
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
    for attempt in task["attempts"].as_array().into_iter().flatten() {
        let outcome = attempt["outcome"].as_str().unwrap_or("running");
        let error = match (attempt["error"]["code"].as_str(), attempt["error"]["message"].as_str()) {
            (Some(code), Some(message)) if code == outcome => format!(": {message}"),
            (Some(code), Some(message)) => format!(": {code}: {message}"),
            _ => String::new(),
        };
        lines.push(vec![format!("attempt {}", attempt["number"]), format!("{} {outcome}{error}", text(&attempt["started_at"]))]);
    }
    align(&lines)
}

/// Why a task is not running, line by line.
pub(crate) fn explanation(explanation: &Value) -> String {
    let mut lines = known(explanation, &["id", "status", "code", "reason", "until"]);
    if let (Some(sort), Some(name)) = (explanation["by"]["sort"].as_str(), explanation["by"]["name"].as_str()) {
        lines.push(vec!["by".to_owned(), format!("{sort} {name}")]);
    }
    lines.extend(known(explanation, &["attempt", "max_attempts", "held", "error"]));
    align(&lines)
}

/// A line for each of these fields that says anything.
fn known(of: &Value, fields: &[&str]) -> Vec<Vec<String>> {
    let known = fields.iter().filter(|field| !is_empty(&of[**field]));
    known.map(|field| vec![(*field).to_owned(), text(&of[*field])]).collect()
}

/// Tasks, one a line.
pub(crate) fn tasks(tasks: &[Value]) -> String {
    let columns = ["id", "kind", "queue", "status", "attempt", "created_at", "error"];
    let mut lines = vec![columns.map(str::to_uppercase).to_vec()];
    lines.extend(tasks.iter().map(|task| {
        columns
            .iter()
            .map(|column| match *column {
                "attempt" => format!("{}/{}", task["attempt"], task["max_attempts"]),
                "error" => task["error"]["code"].as_str().unwrap_or_default().to_owned(),
                column => text(&task[column]),
            })
            .collect()
    }));
    align(&lines)
}

/// Keys, one a line.
pub(crate) fn keys(keys: &[Value]) -> String {
    let columns = ["id", "tenant", "scopes", "created_at", "expires_at", "revoked_at", "label"];
    let mut lines = vec![columns.map(str::to_uppercase).to_vec()];
    let cell = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::Array(words) => words.iter().map(text).collect::<Vec<_>>().join(","),
        other => text(other),
    };
    lines.extend(keys.iter().map(|key| columns.iter().map(|column| cell(&key[*column])).collect()));
    align(&lines)
}

/// Says on a terminal how far a task is, in place of what was said before.
pub(crate) fn progress(task: &Value) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let progress = if task["progress"].is_null() { String::new() } else { format!(" {}", text(&task["progress"])) };
        let line = format!("{} {} (attempt {}){progress}", text(&task["id"]), text(&task["status"]), task["attempt"]);
        // What cannot be shown is not worth failing for.
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

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
}

fn text(value: &Value) -> String {
    if let (Some(code), Some(message)) = (value["code"].as_str(), value["message"].as_str()) {
        return format!("{code}: {message}");
    }
    // What a stranger sent can hold escape codes; they are shown, not obeyed.
    value.as_str().map_or_else(|| value.to_string(), |text| text.escape_debug().to_string())
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
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_line_up_and_escape_codes_are_not_obeyed() {
        let shown = tasks(&[json!({"id": "task_1", "kind": "\u{1b}[31mred", "queue": "q", "status": "failed", "attempt": 1,
            "max_attempts": 5, "created_at": "now", "error": {"code": "timeout", "message": "…"}})]);
        assert_eq!(
            shown,
            "ID      KIND           QUEUE  STATUS  ATTEMPT  CREATED_AT  ERROR\n\
             task_1  \\u{1b}[31mred  q      failed  1/5      now         timeout\n"
        );
    }
}
