use std::collections::BTreeSet;

use futures_util::future::join_all;
use nobat_tests::harness::World;
use nobat_tests::size::size;

const TASK: &str = r#"{"kind": "noop", "payload": {"sleep": 0.01}}"#;

#[tokio::test]
async fn repeated_request_returns_the_same_task_and_is_marked() {
    let world = World::start().await;
    let first = world.post_with("/v1/tasks", &[("idempotency-key", "order-7")], TASK).await;
    let task = world.ended(&first.json()).await;
    let again = world.post_with("/v1/tasks", &[("idempotency-key", "\"order-7\"")], TASK).await;
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    assert_eq!((again.status, again.header("location")), (202, first.header("location")));
    assert_eq!(again.json(), task, "the response shows the current task");
    assert_eq!(world.tasks("").await.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn idempotency_key_survives_a_restart() {
    let mut world = World::start().await;
    let first = world.post_with("/v1/tasks", &[("idempotency-key", "k")], TASK).await.json();
    world.kill().await;
    world.go_on().await;
    let again = world.post_with("/v1/tasks", &[("idempotency-key", "k")], TASK).await;
    assert_eq!((again.header("idempotency-replayed"), &again.json()["id"]), ("true", &first["id"]));
    world.ended(&first).await;
    world.end().await;
}

#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let world = World::start().await;
    let first = world.post_with("/v1/tasks", &[("idempotency-key", "k")], TASK).await.json();
    let other = world.post_with("/v1/tasks", &[("idempotency-key", "k")], r#"{"kind": "noop"}"#).await;
    assert_eq!(other.problem(), (422, "idempotency_key_reused".to_owned()));
    world.ended(&first).await;
    world.end().await;
}

#[tokio::test]
async fn invalid_request_does_not_use_up_its_key() {
    let world = World::start().await;
    let refused =
        world.post_with("/v1/tasks", &[("idempotency-key", "k")], r#"{"kind": "noop", "delay": -1}"#).await;
    assert_eq!(refused.status, 422);
    let task = world.post_with("/v1/tasks", &[("idempotency-key", "k")], TASK).await;
    assert_eq!(task.status, 202);
    world.ended(&task.json()).await;
    world.end().await;
}

#[tokio::test]
async fn concurrent_requests_with_one_key_create_one_task() {
    let world = World::start().await;
    let (rounds, at_once) = (size(20, 500), size(50, 200));
    for round in 0..rounds {
        let key = format!("round-{round}");
        let headers = [("idempotency-key", key.as_str())];
        let answers = join_all((0..at_once).map(|_| world.post_with("/v1/tasks", &headers, TASK))).await;
        assert!(answers.iter().all(|answer| answer.status == 202), "round {round}");
        let ids: BTreeSet<_> = answers.iter().map(|answer| answer.json()["id"].to_string()).collect();
        assert_eq!(ids.len(), 1, "round {round}");
        let replayed =
            answers.iter().filter(|answer| answer.header("idempotency-replayed") == "true").count();
        assert_eq!(replayed, at_once - 1, "round {round}");
        world.ended(&answers[0].json()).await;
    }
    assert_eq!(world.tasks("").await.len(), rounds);
    world.end().await;
}
