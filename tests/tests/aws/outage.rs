use nobat_tests::aws::fault_proxy::Flow;
use nobat_tests::aws::stack::{PATIENCE, Stack};
use nobat_tests::harness::attempts;
use serde_json::json;
use tokio::time::timeout;

on_each_deployment![store_outage_fails_no_task_and_all_succeed_later];

/// Number of refused connections to wait for: each function tries 3 times for each of 5 hints, and 2 of 10
/// receives are then used up.
const KNOCKS: usize = 30;

async fn store_outage_fails_no_task_and_all_succeed_later(stack: &Stack) {
    stack.pause_workers().await;
    let tasks = vec![json!({"kind": "noop"}); 5];
    let batch = stack.post("/v1/tasks/batch", &json!({"tasks": tasks})).await.json();
    stack.tap.set(Flow::Refused);
    let (knocked, ()) = tokio::join!(timeout(PATIENCE, stack.tap.refuses(KNOCKS)), stack.resume_workers());
    knocked.expect("refused connections to the table");
    let refused = stack.post("/v1/tasks", &json!({"kind": "noop"})).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(stack.queues.depth().await, 5);
    stack.tap.set(Flow::Open);
    for task in batch["data"].as_array().expect("tasks") {
        let task = stack.ended(task).await;
        assert_eq!(
            (&task["status"], attempts(&task, "/outcome")),
            (&json!("succeeded"), vec!["succeeded".to_owned()]),
            "{task:#}"
        );
    }
}
