use nobat_tests::harness::World;
use serde_json::{Value, json};

fn ids(tasks: &Value) -> Vec<String> {
    tasks["data"].as_array().into_iter().flatten().map(|task| task["id"].to_string()).collect()
}

#[tokio::test]
async fn a_batch_is_accepted_in_its_order() {
    let world = World::start().await;
    let tasks: Vec<_> =
        (0..100).map(|place| json!({"kind": "noop", "labels": {"place": place.to_string()}})).collect();
    let answer = world.post("/v1/tasks/batch", &json!({"tasks": tasks})).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    for (place, task) in answer.json()["data"].as_array().expect("tasks").iter().enumerate() {
        assert_eq!(task["labels"]["place"], place.to_string());
        assert_eq!(world.ended(task).await["status"], "succeeded");
    }
    world.end().await;
}

#[tokio::test]
async fn invalid_item_refuses_the_batch_and_is_named() {
    let world = World::start().await;
    let answer = world
        .post(
            "/v1/tasks/batch",
            &json!({"tasks": [{"kind": "noop"}, {"kind": "noop", "timeout": 0}, {"kind": "noop"}]}),
        )
        .await;
    assert_eq!(answer.problem(), (422, "validation_failed".to_owned()));
    assert_eq!(answer.json()["errors"][0]["pointer"], "/tasks/1/timeout");
    assert_eq!(world.tasks("").await.len(), 0, "no task of the batch is accepted");
    world.end().await;
}

#[tokio::test]
async fn a_batch_with_a_key_is_accepted_once() {
    let world = World::start().await;
    let (key, body) =
        ([("idempotency-key", "monday")], r#"{"tasks": [{"kind": "noop"}, {"kind": "noop", "delay": 0.1}]}"#);
    let first = world.post_with("/v1/tasks/batch", &key, body).await;
    let again = world.post_with("/v1/tasks/batch", &key, body).await;
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    assert_eq!(ids(&first.json()), ids(&again.json()));
    let other = world.post_with("/v1/tasks/batch", &key, r#"{"tasks": [{"kind": "noop"}]}"#).await;
    assert_eq!(other.problem(), (422, "idempotency_key_reused".to_owned()));
    let single = world.post_with("/v1/tasks", &key, r#"{"kind": "noop"}"#).await;
    assert_eq!(
        (single.status, single.header("idempotency-replayed")),
        (202, ""),
        "each route has its own idempotency keys"
    );
    for task in world.tasks("").await {
        world.ended(&task).await;
    }
    assert_eq!(world.tasks("").await.len(), 3);
    world.end().await;
}
