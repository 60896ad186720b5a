use nobat_tests::harness::{World, attempts};
use serde_json::json;

#[tokio::test]
async fn panicking_task_fails_as_crashed_and_others_succeed() {
    let world = World::start().await;
    let poison = json!({"kind": "noop", "payload": {"panic": 99}, "retry": {"delays": [0, 0]}});
    let tasks: Vec<_> =
        (0..21).map(|place| if place == 10 { poison.clone() } else { json!({"kind": "noop"}) }).collect();
    let batch = world.post("/v1/tasks/batch", &json!({"tasks": tasks})).await.json();
    for (place, task) in batch["data"].as_array().expect("tasks").iter().enumerate() {
        let task = world.ended(task).await;
        if place == 10 {
            assert_eq!((&task["status"], &task["error"]["code"]), (&json!("failed"), &json!("crashed")));
            assert_eq!(attempts(&task, "/error/code"), ["crashed"; 3]);
        } else {
            assert_eq!(task["status"], "succeeded");
        }
    }
    world.end().await;
}

#[tokio::test]
async fn a_task_that_fails_at_first_succeeds_in_the_end() {
    let world = World::start().await;
    let task = json!({"kind": "noop", "payload": {"fail": 2, "panic": 1}, "retry": {"initial_delay": 0.05, "jitter": "none"}});
    let task = world.ended(&world.submit(&task).await).await;
    assert_eq!(
        (&task["status"], &task["attempt"], &task["max_attempts"]),
        (&json!("succeeded"), &json!(3), &json!(5))
    );
    assert_eq!(attempts(&task, "/error/code"), ["crashed", "noop_failed", "-"]);
    world.end().await;
}

#[tokio::test]
async fn a_task_that_outlasts_its_timeout_fails_with_timeout() {
    let world = World::start().await;
    let task = json!({"kind": "noop", "payload": {"sleep": 600}, "timeout": 0.1, "retry": {"delays": [0]}});
    let task = world.ended(&world.submit(&task).await).await;
    assert_eq!(
        (&task["status"], attempts(&task, "/error/code")),
        (&json!("failed"), vec!["timeout".to_owned(); 2])
    );
    world.end().await;
}

#[tokio::test]
async fn task_is_not_retried_after_max_age() {
    let world = World::start().await;
    let task =
        json!({"kind": "noop", "payload": {"fail": 9}, "retry": {"delays": [0, 3600, 0], "max_age": 60}});
    let task = world.ended(&world.submit(&task).await).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("failed"), &json!(2)));
    world.end().await;
}
