use nobat_tests::aws::stack::Stack;
use nobat_tests::harness::receiver::{Received, Receiver, Reply};
use nobat_tests::harness::{attempts, path};
use serde_json::{Value, json};

on_each_deployment![a_task_succeeds, a_task_calls_a_server, repeated_idempotency_key_creates_one_task];

async fn a_task_succeeds(stack: &Stack) {
    let accepted = stack.submit(&json!({"kind": "noop"})).await;
    assert_eq!((&accepted["status"], &accepted["attempt"]), (&json!("queued"), &json!(0)), "{accepted:#}");
    let task = stack.ended(&accepted).await;
    assert_eq!(
        (&task["status"], attempts(&task, "/outcome")),
        (&json!("succeeded"), vec!["succeeded".to_owned()]),
        "{task:#}"
    );
    assert_eq!(stack.get(&path(&accepted)).await.json(), task);
    let listed = stack.get("/v1/tasks?status=succeeded&limit=100").await.json();
    assert!(listed["data"].as_array().unwrap().iter().any(|listed| listed["id"] == task["id"]), "{listed:#}");
}

async fn a_task_calls_a_server(stack: &Stack) {
    let receiver = Receiver::start().await.unwrap();
    receiver.script("/orders", [Reply::status(503), Reply::status(201).body("made")]);
    let task = json!({"kind": "http", "payload": {"url": receiver.url("/orders"), "body": {"item": 1}}, "retry": {"delays": [0]}});
    let task = stack.ended(&stack.submit(&task).await).await;
    assert_eq!(
        (&task["status"], attempts(&task, "/outcome")),
        (&json!("succeeded"), vec!["failed".into(), "succeeded".into()]),
        "{task:#}"
    );
    let requests = receiver.received("/orders");
    assert_eq!(requests.iter().map(Received::json).collect::<Vec<_>>(), vec![json!({"item": 1}); 2]);
    assert_eq!(requests[0].header("idempotency-key"), task["id"]);
}

async fn repeated_idempotency_key_creates_one_task(stack: &Stack) {
    let key = format!("{:032x}", rand::random::<u128>());
    let (first, again) = (submit_with(stack, &key).await, submit_with(stack, &key).await);
    assert_eq!(first["id"], again["id"]);
    assert_eq!(stack.ended(&first).await["attempt"], 1);
}

async fn submit_with(stack: &Stack, key: &str) -> Value {
    let answer = stack.post_with("/v1/tasks", &[("idempotency-key", key)], &json!({"kind": "noop"})).await;
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    answer.json()
}
