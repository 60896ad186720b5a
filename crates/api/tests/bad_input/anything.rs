//! Random input: no request gets a 5xx, and none stops the server.

use std::time::Duration;

use nobat_api::Limits;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use crate::world::{World, post};

/// Meaningful pieces, so that random input gets past the first byte.
const PIECES: [&str; 30] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-1",
    "1e999",
    "0.5",
    "\"kind\"",
    "\"noop\"",
    "\"http\"",
    "\"payload\"",
    "\"tasks\"",
    "\"retry\"",
    "\"delays\"",
    "\"labels\"",
    "\"callback\"",
    "\"url\"",
    "\"on\"",
    "\"run_at\"",
    "\"2026-12-01T00:00:00Z\"",
    "\"timeout\"",
    "\"new_key\"",
    "\u{202e}",
];

fn pieces() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&PIECES[..]), 0..24).prop_map(|pieces| pieces.concat())
}

const NAMES: [&str; 10] =
    ["payload", "delay", "run_at", "timeout", "expires_at", "retry", "callback", "labels", "queue", "kind"];

/// Generates a submission with fields that are valid, invalid or missing.
fn submission() -> impl Strategy<Value = String> {
    let field = |name: &'static str| pieces().prop_map(move |value| format!(r#","{name}":{value}"#));
    let fields = prop::collection::vec(prop::sample::select(&NAMES[..]).prop_flat_map(field), 0..3);
    fields.prop_map(|fields| format!(r#"{{"kind":"noop"{}}}"#, fields.concat()))
}

const PATHS: [&str; 9] = [
    "/v1/tasks",
    "/v1/tasks/batch",
    "/v1/tasks/task_01jd8rkz5m3q4v9x2y7w6t0abc",
    "/v1/tasks/x/cancel",
    "/v1/tasks/x/replay",
    "/v1/tasks/x/complete",
    "/v1/tasks/task_01jd8rkz5m3q4v9x2y7w6t0abc/fail",
    "/v1/tasks/task_01jd8rkz5m3q4v9x2y7w6t0abc/explain",
    "/readyz",
];

fn path() -> impl Strategy<Value = String> {
    let query = prop_oneof![
        Just(String::new()),
        "\\?[!-~]{0,40}",
        "\\?(limit|wait|status|cursor|kind|created_after)=[!-~]{0,20}(&(limit|wait|cursor)=[0-9a-f.-]{0,40})?",
    ];
    (prop::sample::select(&PATHS[..]), query).prop_map(|(path, query)| format!("{path}{query}"))
}

/// Sends many requests, each on its own connection, and checks their statuses. `None` is a connection without
/// an answer.
fn check<T: std::fmt::Debug>(
    limits: Limits,
    strategy: impl Strategy<Value = T>,
    request: impl Fn(T) -> Vec<u8>,
    fine: fn(Option<u16>) -> bool,
) {
    let runtime = Runtime::new().unwrap();
    let world = runtime.block_on(World::start_within(limits));
    // All deadlines have passed, so no request waits for one.
    world.clock.end_sleeps();
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) });
    let asked = runner.run(&strategy, |input| {
        let status = runtime.block_on(async {
            let mut client = world.connect().await;
            client.send(request(input)).await;
            client.answer().await.map(|answer| answer.status)
        });
        prop_assert!(fine(status), "{status:?}");
        Ok(())
    });
    asked.unwrap();
    assert_eq!(runtime.block_on(world.get("/healthz")).status, 200);
}

/// Checks that complete requests get an answer. No answer means that a handler panicked.
fn check_whole<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>, request: impl Fn(T) -> Vec<u8>) {
    check(Limits::default(), strategy, request, |status| status.is_some_and(|status| status < 500));
}

#[test]
fn any_bytes() {
    let impatient = Limits { head: Duration::from_millis(100), ..Limits::default() };
    check(
        impatient,
        prop::collection::vec(any::<u8>(), 0..2_000),
        |bytes| bytes,
        |status| status.is_none_or(|status| status < 500),
    );
}

#[test]
fn any_body() {
    check_whole((path(), prop_oneof![pieces(), submission(), "\\PC{0,200}"]), |(path, body)| {
        post(&path, "", body)
    });
}

#[test]
fn any_batch() {
    let batch = prop::collection::vec(submission(), 0..5)
        .prop_map(|tasks| format!(r#"{{"tasks":[{}]}}"#, tasks.join(",")));
    check_whole(batch, |body| post("/v1/tasks/batch", "", body));
}

#[test]
fn any_header() {
    let header = prop_oneof![
        "idempotency-key: [ -~]{0,300}",
        "content-type: [ -~]{0,60}",
        "content-encoding: [ -~]{0,20}",
        "nobat-completion-token: default:[A-Za-z0-9_-]{42,44}",
        "[a-z-]{1,30}: [ -~]{0,80}"
    ]
    .prop_map(|header| header + "\r\n");
    check_whole((path(), prop::collection::vec(header, 0..4)), |(path, headers)| {
        post(&path, &headers.concat(), r#"{"kind":"noop"}"#)
    });
}

#[test]
fn any_query() {
    check_whole(path(), |path| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes());
}
