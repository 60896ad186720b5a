use std::time::Duration;

use nobat_core::ports::Clock;
use nobat_tests::aws::stack::Stack;
use nobat_worker::system::SystemClock;
use serde_json::json;

on_each_deployment![a_lost_hint_is_found_by_the_sweeper];

async fn a_lost_hint_is_found_by_the_sweeper(stack: &Stack) {
    stack.pause_workers().await;
    let task = stack.submit(&json!({"kind": "noop"})).await;
    assert_eq!(stack.queues.depth().await, 1);
    stack.queues.purge().await;
    stack.resume_workers().await;
    // Sets the time back beyond the point at which the sweeper checks the hint.
    let now = SystemClock.now();
    stack
        .table
        .set_moments(
            &task,
            &[("due_at", now - Duration::from_mins(3)), ("sweep_at", now - Duration::from_mins(1))],
        )
        .await;
    stack.sweep().await;
    let task = stack.ended(&task).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("succeeded"), &json!(1)), "{task:#}");
}
