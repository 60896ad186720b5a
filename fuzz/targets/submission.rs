//! Submissions, from the request's body to the stored task. Accepted ones can be shown and stored. Errors
//! quote nothing of the body.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nobat_core::json::decode::read_object;
use nobat_core::submission::{Submission, SubmissionContext};
use nobat_core::task::Task;
use nobat_core::task::codec::{options_from_text, options_to_text};
use nobat_core::task::view::TaskView;
use nobat_core::types::id::TaskId;
use nobat_core::types::intervals::MAX_SCHEDULE_AHEAD;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use nobat_delivery::{Client, Guard};
use nobat_worker::handler::registry::Handlers;
use nobat_worker::handlers::http::Http;
use nobat_worker::handlers::noop::Noop;
use serde_json::Value;

use crate::hiding::{SECRET, hidden};

mod hiding;

/// 2026-12-01T08:00:00Z
const NOW: i64 = 1_796_112_000_000;
const MAX_TIMEOUT: Duration = Duration::from_hours(12);

static TENANT: LazyLock<Tenant> = LazyLock::new(Tenant::default);
static KINDS: LazyLock<Handlers> =
    LazyLock::new(|| Handlers::new().with(Http::new(Client::new(Guard::default()))).with(Noop));

fuzz_target!(|body: &[u8]| {
    match take(body) {
        Ok(task) => check(body, &task),
        Err(reasons) => assert!(!reasons.is_empty()),
    }
    check_secrecy(body);
});

/// Returns the task, or all error texts.
fn take(body: &[u8]) -> Result<Task, Vec<String>> {
    let submission: Submission = read_object(body).map_err(|error| vec![error.to_string()])?;
    let now = Timestamp::from_millis(NOW);
    let intake = SubmissionContext {
        tenant: &TENANT,
        id: TaskId::new(now, 7),
        fingerprint: None,
        submitted_by: None,
        max_payload: None,
        max_timeout: MAX_TIMEOUT,
        kinds: &*KINDS,
        endpoint: None,
        then_endpoint: None,
        queue: None,
        hops: 0,
        now,
    };
    submission.into_task(&intake).map_err(|wrong| {
        assert!(
            wrong.iter().all(|wrong| wrong.pointer.is_empty() || wrong.pointer.starts_with('/')),
            "{wrong:?}"
        );
        wrong.into_iter().map(|wrong| format!("{}: {}", wrong.pointer, wrong.detail)).collect()
    })
}

fn check(body: &[u8], task: &Task) {
    let now = Timestamp::from_millis(NOW);
    assert!(now <= task.due_at && task.due_at <= now + MAX_SCHEDULE_AHEAD);
    assert!(Duration::from_millis(1) <= task.options.timeout && task.options.timeout <= MAX_TIMEOUT);
    assert!(task.options.expires_at.is_none_or(|deadline| deadline > task.due_at));
    let sent: Value = match serde_json::from_slice(body) {
        // The payload may contain a number that is too large to compute with.
        Err(error) if error.to_string().starts_with("number out of range") => return,
        sent => sent.expect("an accepted task is JSON that every handler can read"),
    };
    let payload: Value = task.payload.parse().expect("an accepted task is JSON that every handler can read");
    assert_eq!(&payload, sent.get("payload").unwrap_or(&Value::Null));
    let shown = serde_json::to_string(&TaskView::new(task, now)).expect("valid JSON");
    let shown: Value = serde_json::from_str(&shown).expect("valid JSON");
    assert_eq!(shown["payload"], payload);
    // Stored settings must read back unchanged.
    let mut kept =
        options_from_text(options_to_text(&task.options).as_deref()).expect("the settings read back");
    kept.expires_at = task.options.expires_at;
    assert_eq!(kept, *task.options);
}

/// Replaces every text by a secret, which errors must not repeat. A known kind stays, so that its handler
/// checks the rest.
fn check_secrecy(body: &[u8]) {
    let Some(body) = hidden(body, |name, value| name == "kind" && (value == "http" || value == "noop"))
    else {
        return;
    };
    for reason in take(&body).err().into_iter().flatten() {
        assert!(!reason.contains(SECRET), "{reason}");
    }
}
