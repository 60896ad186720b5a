use std::time::Duration;

use nobat_tests::harness::{World, from_now, moment};
use serde_json::json;

#[tokio::test]
async fn delayed_task_does_not_start_early() {
    let world = World::start().await;
    let task = world.submit(&json!({"kind": "noop", "delay": 0.5})).await;
    assert_eq!(task["status"], "scheduled");
    let task = world.ended(&task).await;
    let waited = moment(&task, "started_at").since(moment(&task, "created_at"));
    assert!((Duration::from_millis(500)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
    world.end().await;
}

#[tokio::test]
async fn task_starts_at_run_at_and_a_past_one_at_once() {
    let world = World::start().await;
    let at = from_now(Duration::from_millis(500));
    let later = world.submit(&json!({"kind": "noop", "run_at": at})).await;
    let now = world.submit(&json!({"kind": "noop", "run_at": "2001-01-01T00:00:00+05:00"})).await;
    assert_eq!((&later["status"], &later["run_at"]), (&json!("scheduled"), &json!(at)));
    let (later, now) = (world.ended(&later).await, world.ended(&now).await);
    assert!(moment(&later, "started_at") >= moment(&later, "run_at"));
    assert!(moment(&now, "started_at") < moment(&later, "started_at"));
    world.end().await;
}

#[tokio::test]
async fn a_task_that_could_not_start_before_its_deadline_expires() {
    let world = World::start().await;
    // The first attempt fails at once, and the second would come after the deadline.
    let task = json!({"kind": "noop", "payload": {"fail": 1}, "retry": {"delays": [3600]}, "expires_at": from_now(Duration::from_secs(1))});
    let task = world.ended(&world.submit(&task).await).await;
    assert_eq!(
        (&task["status"], &task["error"]["code"], &task["attempt"]),
        (&json!("expired"), &json!("expired"), &json!(1))
    );
    assert!(moment(&task, "finished_at") >= moment(&task, "expires_at"));
    world.end().await;
}

#[tokio::test]
async fn invalid_times_are_refused() {
    let world = World::start().await;
    for (task, pointer) in [
        (json!({"kind": "noop", "delay": 1, "run_at": "2030-01-01T00:00:00Z"}), "/run_at"),
        (json!({"kind": "noop", "delay": 31_622_401}), "/delay"),
        (json!({"kind": "noop", "run_at": "9999-12-31T23:59:59Z"}), "/run_at"),
        (json!({"kind": "noop", "expires_at": "2001-01-01T00:00:00Z"}), "/expires_at"),
        (json!({"kind": "noop", "timeout": 43_201}), "/timeout"),
        (json!({"kind": "noop", "retry": {"max_attempts": 51}}), "/retry/max_attempts"),
    ] {
        let answer = world.post("/v1/tasks", &task).await;
        assert_eq!((answer.status, &answer.json()["errors"][0]["pointer"]), (422, &json!(pointer)), "{task}");
    }
    world.end().await;
}
