use nobat_tests::aws::stack::{Stack, reached};
use nobat_tests::harness::attempts;
use serde_json::json;

on_each_deployment![
    a_task_that_fails_every_time_is_tried_again_and_fails,
    panicking_task_does_not_affect_others
];

async fn a_task_that_fails_every_time_is_tried_again_and_fails(stack: &Stack) {
    let task = json!({"kind": "noop", "payload": {"fail": 99}, "retry": {"delays": [0, 1]}});
    let task = stack.ended(&stack.submit(&task).await).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("failed"), &json!(3)), "{task:#}");
    assert_eq!(attempts(&task, "/error/code"), ["noop_failed"; 3]);
    // A failed task does not affect its hints: all of them are settled.
    reached("an empty queue", async || stack.queues.depth().await, |depth| *depth == 0).await;
    assert_eq!(stack.queues.dead().await, 0);
}

async fn panicking_task_does_not_affect_others(stack: &Stack) {
    let poison = json!({"kind": "noop", "payload": {"panic": 99}, "retry": {"delays": [0]}});
    let tasks: Vec<_> =
        (0..10).map(|place| if place == 5 { poison.clone() } else { json!({"kind": "noop"}) }).collect();
    stack.pause_workers().await;
    let batch = stack.post("/v1/tasks/batch", &json!({"tasks": tasks})).await.json();
    stack.resume_workers().await;
    for (place, task) in batch["data"].as_array().expect("tasks").iter().enumerate() {
        let task = stack.ended(task).await;
        let expected = if place == 5 {
            ("failed", vec!["crashed".to_owned(); 2])
        } else {
            ("succeeded", vec!["-".to_owned()])
        };
        assert_eq!((task["status"].as_str().unwrap(), attempts(&task, "/error/code")), expected, "{task:#}");
    }
}
