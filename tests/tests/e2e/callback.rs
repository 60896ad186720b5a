use std::time::Duration;

use nobat_tests::harness::receiver::Reply;
use nobat_tests::harness::{World, from_now, path};
use serde_json::{Value, json};

/// Submits a task with a callback. Returns the ended task and the body of the callback.
async fn reported(world: &World, place: &str, mut task: Value) -> (Value, Value) {
    task["callback"] = json!({"url": world.receiver.url(place)});
    let task = world.submit(&task).await;
    if task["run_at"] != task["created_at"] {
        assert_eq!(world.post(&format!("{}/cancel", path(&task)), &json!({})).await.status, 200);
    }
    let task = world.ended(&task).await;
    let report = world.receiver.wait_for(place, 1).await.remove(0);
    assert_eq!((report.method.as_str(), report.header("content-type")), ("POST", "application/json"));
    (task, report.json())
}

/// Waits until all tasks have ended, including callbacks.
async fn all_ended(world: &World) {
    for task in world.tasks("").await {
        world.ended(&task).await;
    }
}

#[tokio::test]
async fn every_end_is_reported_with_the_task_without_its_payload() {
    let world = World::start().await;
    let late = json!({"kind": "noop", "payload": {"fail": 1}, "retry": {"delays": [3600]}, "expires_at": from_now(Duration::from_secs(1))});
    for (end, task) in [
        ("succeeded", json!({"kind": "noop", "labels": {"order": "7"}})),
        ("failed", json!({"kind": "noop", "payload": {"fail": 1}, "retry": {"max_attempts": 1}})),
        ("canceled", json!({"kind": "noop", "delay": 3600})),
        ("expired", late),
    ] {
        let (mut task, mut report) = reported(&world, &format!("/{end}"), task).await;
        assert_eq!((&report["status"], &report["type"]), (&json!(end), &json!(format!("task.{end}"))));
        report.as_object_mut().unwrap().remove("type");
        for own in ["payload", "submitted_by", "endpoint", "limit_key", "held", "parent"] {
            task.as_object_mut().unwrap().remove(own).unwrap();
        }
        assert_eq!(report, task, "the callback holds the task without these fields");
    }
    all_ended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn unrequested_end_is_not_reported() {
    let world = World::start().await;
    let url = world.receiver.url("/done");
    let task =
        world.submit(&json!({"kind": "noop", "callback": {"url": url, "on": ["failed", "expired"]}})).await;
    world.ended(&task).await;
    let task = world.submit(&json!({"kind": "noop"})).await;
    world.ended(&task).await;
    assert_eq!(world.tasks("").await.len(), 2, "no callback task exists");
    assert_eq!(world.receiver.received("/done").len(), 0);
    world.end().await;
}

#[tokio::test]
async fn callback_uses_its_own_retry_policy() {
    let world = World::start().await;
    world.receiver.script("/done", [500, 500, 500, 200].map(Reply::status));
    let callback = json!({"url": world.receiver.url("/done"), "retry": {"delays": [0.1, 0.1]}});
    let task = world.submit(&json!({"kind": "noop", "callback": callback})).await;
    world.ended(&task).await;
    let callbacks = world.tasks("queue=callbacks&").await;
    let callback = world.ended(&callbacks[0]).await;
    assert_eq!(
        (&callback["status"], &callback["attempt"], &callback["max_attempts"]),
        (&json!("failed"), &json!(3), &json!(3))
    );
    let wrong =
        json!({"kind": "noop", "callback": {"url": world.receiver.url("/done"), "retry": {"multiplier": 0}}});
    let refused = world.post("/v1/tasks", &wrong).await;
    assert_eq!(
        (refused.status, &refused.json()["errors"][0]["pointer"]),
        (422, &json!("/callback/retry/multiplier"))
    );
    world.end().await;
}

#[tokio::test]
async fn callback_is_a_retried_task_that_names_its_parent() {
    let world = World::start().await;
    world.receiver.script("/done", [Reply::status(503).header("retry-after", "0"), Reply::status(200)]);
    let task = world.submit(&json!({"kind": "noop", "callback": {"url": world.receiver.url("/done")}})).await;
    world.ended(&task).await;
    let callbacks = world.tasks("queue=callbacks&").await;
    assert_eq!(
        (callbacks.len(), &callbacks[0]["parent"], &callbacks[0]["kind"]),
        (1, &task["id"], &json!("http"))
    );
    let callback = world.ended(&callbacks[0]).await;
    assert_eq!((&callback["status"], &callback["attempt"]), (&json!("succeeded"), &json!(2)));
    let keys: Vec<_> = world
        .receiver
        .received("/done")
        .iter()
        .map(|report| report.header("idempotency-key").to_owned())
        .collect();
    assert_eq!(keys, vec![callback["id"].as_str().unwrap(); 2]);
    world.end().await;
}
