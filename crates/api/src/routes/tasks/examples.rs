//! Examples and descriptions of tasks in the OpenAPI document.

use serde_json::{Value, json};

/// Description of `Idempotency-Key` on routes that submit tasks.
pub(crate) const IDEMPOTENCY_KEY: &str = "A request with the same key and the same body as an earlier request creates no tasks. \
    This applies as long as the earlier tasks are kept. 1 to 255 ASCII characters, with or without quotes.";

/// Description of `Idempotency-Key` on routes that change a task.
pub(crate) const CHANGE_KEY: &str = "nobat carries out requests with the same key and the same body once for each task. The response to a \
    repeated request shows the task in its current state. A task remembers its last 16 keys, as long as it is kept. 1 to 255 ASCII \
    characters, with or without quotes.";

/// Example of a submitted task with all common fields.
pub(crate) fn submission() -> Value {
    json!({
        "kind": "http",
        "queue": "default",
        "payload": {"method": "POST", "url": "https://example.com/hook", "headers": {"x-a": "b"}, "body": {"order_id": 7}},
        "run_at": "2026-12-01T08:00:00Z",
        "timeout": 30,
        "expires_at": "2026-12-02T08:00:00Z",
        "retry": {"max_attempts": 5, "initial_delay": 10, "multiplier": 2, "max_delay": 3600, "jitter": "full", "max_age": 86400},
        "callback": {"url": "https://example.com/done", "on": ["succeeded", "failed"]},
        "labels": {"customer": "42"},
    })
}

/// Example of the same task, just accepted.
pub(crate) fn accepted() -> Value {
    json!({
        "id": "task_01jd8rkz5m3q4v9x2y7w6t0abc",
        "kind": "http",
        "queue": "default",
        "endpoint": null,
        "limit_key": null,
        "status": "scheduled",
        "payload": {"method": "POST", "url": "https://example.com/hook", "headers": {"x-a": "b"}, "body": {"order_id": 7}},
        "labels": {"customer": "42"},
        "attempt": 0,
        "max_attempts": 5,
        "created_at": "2026-11-30T09:30:00.000Z",
        "run_at": "2026-12-01T08:00:00.000Z",
        "started_at": null,
        "finished_at": null,
        "expires_at": "2026-12-02T08:00:00.000Z",
        "result": null,
        "error": null,
        "progress": null,
        "held": null,
        "generation": 1,
        "parent": null,
        "submitted_by": "key_7c0vs8m2rq5x1h9d3w6e4kbtza",
        "attempts": [],
    })
}

/// Example of the same task, after a failed attempt.
pub(crate) fn retrying() -> Value {
    let error = json!({"code": "http_503", "message": "the destination answered 503"});
    let mut task = accepted();
    task["status"] = json!("retrying");
    task["attempt"] = json!(1);
    task["run_at"] = json!("2026-12-01T08:00:07.300Z");
    task["started_at"] = json!("2026-12-01T08:00:00.002Z");
    task["error"] = error.clone();
    task["attempts"] = json!([{
        "number": 1,
        "started_at": "2026-12-01T08:00:00.002Z",
        "finished_at": "2026-12-01T08:00:00.140Z",
        "outcome": "failed",
        "error": error,
    }]);
    task
}

/// Example of an explanation.
pub(crate) fn explained() -> Value {
    json!({
        "id": "task_01jd8rkz5m3q4v9x2y7w6t0abc",
        "status": "held",
        "code": "circuit_open",
        "reason": "the circuit breaker of endpoint billing has been open since 2026-12-01T08:00:10.140Z, and the next probe may start at \
            2026-12-01T08:00:40.140Z; the task tries again at 2026-12-01T08:00:41.020Z",
        "until": "2026-12-01T08:00:41.020Z",
        "blocked_by": {"type": "endpoint", "name": "billing"},
        "attempt": 1,
        "max_attempts": 5,
        "held": {"reason": "circuit_open", "until": "2026-12-01T08:00:41.020Z"},
        "error": {"code": "http_503", "message": "the destination answered 503"},
    })
}
