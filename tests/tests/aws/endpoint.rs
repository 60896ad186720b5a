use std::time::Duration;

use nobat_core::secrets::webhook::{WebhookSecret, signature};
use nobat_core::types::time::Timestamp;
use nobat_tests::aws::stack::{Stack, reached};
use nobat_tests::harness::receiver::{Receiver, Reply};
use nobat_tests::harness::{attempts, moment, path};
use serde_json::{Value, json};

on_each_deployment![
    endpoint_rate_is_kept_and_calls_are_signed,
    gone_or_deleted_endpoint_holds_its_tasks,
    many_tasks_are_sent_in_one_request,
];

/// Returns a unique name.
fn unique_name() -> String {
    format!("endpoint-{:016x}", rand::random::<u64>())
}

async fn endpoint_rate_is_kept_and_calls_are_signed(stack: &Stack) {
    let (receiver, name) = (Receiver::start().await.unwrap(), unique_name());
    let endpoint = json!({"url": receiver.url("/api"), "headers": {"authorization": "Bearer s3cret"}, "limits": {"rate": 2, "concurrency": 1}});
    let endpoint = stack.put(&format!("/v1/endpoints/{name}"), &endpoint).await.json();
    let secret: WebhookSecret =
        endpoint["secret"].as_str().unwrap_or_else(|| panic!("{endpoint}")).parse().unwrap();
    let task = json!({"kind": "http", "endpoint": name, "payload": {"path": "/charge"}});
    let batch = stack.post("/v1/tasks/batch", &json!({"tasks": vec![task; 6]})).await.json();
    let mut starts = Vec::new();
    for task in batch["data"].as_array().unwrap_or_else(|| panic!("{batch}")) {
        let task = stack.ended(task).await;
        assert_eq!((&task["status"], &task["attempt"]), (&json!("succeeded"), &json!(1)), "{task:#}");
        starts.push(moment(&task["attempts"][0], "started_at"));
    }
    starts.sort();
    for window in starts.windows(3) {
        assert!(
            window[2].since(window[0]) >= Duration::from_millis(980),
            "three starts within a second: {starts:?}"
        );
    }
    for request in receiver.received("/api/charge") {
        assert_eq!(request.header("authorization"), "Bearer s3cret");
        let at = Timestamp::from_millis(request.header("webhook-timestamp").parse::<i64>().unwrap() * 1_000);
        assert_eq!(
            request.header("webhook-signature"),
            signature([&secret], request.header("webhook-id"), at, &request.body)
        );
    }
}

async fn gone_or_deleted_endpoint_holds_its_tasks(stack: &Stack) {
    let (receiver, name) = (Receiver::start().await.unwrap(), unique_name());
    let place = format!("/v1/endpoints/{name}");
    let endpoint = json!({"url": receiver.url("/api")});
    assert_eq!(stack.put(&place, &endpoint).await.status, 201);
    receiver.script("/api/hook", [Reply::status(410), Reply::status(200)]);
    let task = stack.submit(&json!({"kind": "http", "endpoint": name, "payload": {"path": "/hook"}})).await;
    held(stack, &task, "endpoint_gone").await;
    assert_eq!(stack.get(&place).await.json()["gone"], true);
    let explain = format!("{}/explain", path(&task));
    reached(
        "the explain code",
        async || stack.get(&explain).await.json(),
        |said| said["code"] == "endpoint_gone",
    )
    .await;
    assert_eq!(stack.delete(&place).await.status, 200);
    held(stack, &task, "endpoint_missing").await;
    assert_eq!(stack.put(&place, &endpoint).await.status, 201);
    let task = stack.ended(&task).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("succeeded"), &json!(1)), "{task:#}");
    assert_eq!(attempts(&task, "/error/code"), ["http_410", "-"]);
}

async fn many_tasks_are_sent_in_one_request(stack: &Stack) {
    let (receiver, name) = (Receiver::start().await.unwrap(), unique_name());
    let endpoint = json!({"url": receiver.url("/api"), "batch": {"max_items": 30, "max_wait": 3}});
    assert_eq!(stack.put(&format!("/v1/endpoints/{name}"), &endpoint).await.status, 201);
    let task = |number: usize| json!({"kind": "http", "endpoint": name, "payload": {"path": "/collect", "body": number}});
    let batch =
        stack.post("/v1/tasks/batch", &json!({"tasks": (0..40).map(task).collect::<Vec<_>>()})).await.json();
    for task in batch["data"].as_array().unwrap_or_else(|| panic!("{batch}")) {
        let task = stack.ended(task).await;
        assert_eq!((&task["status"], &task["attempt"]), (&json!("succeeded"), &json!(1)), "{task:#}");
    }
    let requests = receiver.received("/api/collect");
    let mut numbers: Vec<u64> = requests
        .iter()
        .flat_map(|request| serde_json::from_slice::<Vec<u64>>(&request.body).unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>(), "each task is sent once");
    assert!(requests.len() <= 6, "{} requests", requests.len());
}

async fn held(stack: &Stack, task: &Value, reason: &str) {
    reached(
        "a held task",
        async || stack.get(&path(task)).await.json(),
        |task| task["held"]["reason"] == reason,
    )
    .await;
}
