use nobat_tests::harness::receiver::{Gate, Reply};
use nobat_tests::harness::{World, attempts, path};
use serde_json::json;

#[tokio::test]
async fn a_waiting_task_is_canceled_at_once() {
    let world = World::start().await;
    let task = world.submit(&json!({"kind": "noop", "delay": 3600})).await;
    let answer = world.post(&format!("{}/cancel", path(&task)), &json!({})).await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("canceled")));
    assert_eq!(world.task(&task).await["error"]["code"], "canceled");
    world.end().await;
}

#[tokio::test]
async fn a_running_task_is_asked_to_stop_and_does() {
    let world = World::start().await;
    let never = Gate::default();
    world.receiver.script("/hook", [Reply::status(200).behind(&never)]);
    let task = world.submit(&json!({"kind": "http", "payload": {"url": world.receiver.url("/hook")}})).await;
    world.receiver.wait_for("/hook", 1).await;
    let answer = world.post_with(&format!("{}/cancel", path(&task)), &[], "").await;
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("running")));
    let task = world.ended(&task).await;
    assert_eq!(
        (&task["status"], attempts(&task, "/outcome")),
        (&json!("canceled"), vec!["canceled".to_owned()])
    );
    world.end().await;
}

#[tokio::test]
async fn a_task_that_has_ended_cannot_be_canceled() {
    let world = World::start().await;
    let task = world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
    let answer = world.post(&format!("{}/cancel", path(&task)), &json!({})).await;
    assert_eq!(answer.problem(), (409, "task_ended".to_owned()));
    assert_eq!(world.task(&task).await, task, "the ended task is unchanged");
    world.end().await;
}

#[tokio::test]
async fn unknown_or_malformed_task_id_is_not_found() {
    let world = World::start().await;
    for id in ["task_01jd8rkz5m3q4v9x2y7w6t0abc", "task_0", "%2e%2e", "%00"] {
        let missing = world.get(&format!("/v1/tasks/{id}")).await;
        assert_eq!(missing.problem(), (404, "task_not_found".to_owned()), "{id}");
        let missing = world.post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await;
        assert_eq!(missing.problem(), (404, "task_not_found".to_owned()), "{id}");
    }
    world.end().await;
}
