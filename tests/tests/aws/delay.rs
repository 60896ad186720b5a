use std::time::Duration;

use nobat_core::ports::Clock;
use nobat_tests::aws::stack::Stack;
use nobat_tests::harness::{moment, path};
use nobat_worker::system::SystemClock;
use serde_json::json;

on_each_deployment![task_due_after_the_longest_sqs_delay_is_found_by_sweeper];

async fn task_due_after_the_longest_sqs_delay_is_found_by_sweeper(stack: &Stack) {
    let task = stack.submit(&json!({"kind": "noop", "delay": 3600})).await;
    assert_eq!((&task["status"], stack.queues.depth().await), (&json!("scheduled"), 0));
    // Sets the clock an hour ahead, less 3 seconds. The schedule invokes the sweeper within a minute.
    let due = SystemClock.now() + Duration::from_secs(3);
    stack.table.set_moments(&task, &[("due_at", due), ("sweep_at", due - Duration::from_mins(2))]).await;
    assert_eq!(stack.get(&path(&task)).await.json()["status"], "scheduled");
    let task = stack.ended(&task).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("succeeded"), &json!(1)), "{task:#}");
    assert!(moment(&task, "started_at") >= due, "{task:#}");
}
