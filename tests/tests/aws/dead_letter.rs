use std::time::Duration;

use nobat_core::ports::Clock;
use nobat_tests::aws::deployment::Source;
use nobat_tests::aws::fault_proxy::Flow;
use nobat_tests::aws::stack::{Stack, reached};
use nobat_tests::harness::{attempts, path};
use nobat_worker::system::SystemClock;
use serde_json::{Value, json};

on_each_deployment![
    malformed_hint_becomes_a_dead_letter_and_others_run_once,
    task_with_a_dead_lettered_hint_is_hinted_again,
    task_with_exhausted_hints_fails_and_can_be_replayed,
];

/// Message that names no task.
const MALFORMED: &str = "not a hint";

/// Fate of a malformed message that was received in a batch with nine hints.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is in the dead-letter queue.
    DeadLetter,
    /// It was deleted with the batch.
    Lost,
}

async fn malformed_hint_becomes_a_dead_letter_and_others_run_once(stack: &Stack) {
    assert_eq!(fate_of_malformed_message(stack).await, Fate::DeadLetter);
}

#[tokio::test]
async fn malformed_hint_is_lost_without_the_batch_failure_report() {
    let stack = Stack::of(Source::Sam).await;
    stack.ignore_batch_failures().await;
    assert_eq!(fate_of_malformed_message(&stack).await, Fate::Lost);
}

/// Makes the workers receive a batch of ten, and follows the malformed message.
async fn fate_of_malformed_message(stack: &Stack) -> Fate {
    stack.pause_workers().await;
    let tasks = vec![json!({"kind": "noop"}); 9];
    let batch = stack.post("/v1/tasks/batch", &json!({"tasks": tasks})).await.json();
    let tasks = batch["data"].as_array().expect("tasks");
    stack.queues.purge().await;
    let (first, rest) = tasks.split_at(4);
    let hints = |tasks: &[Value]| tasks.iter().map(hint).collect::<Vec<_>>();
    stack.queues.send_all(&[hints(first), vec![MALFORMED.to_owned()], hints(rest)].concat()).await;
    assert_eq!(stack.queues.depth().await, 10);
    stack.resume_workers().await;
    for task in tasks {
        let task = stack.ended(task).await;
        assert_eq!(
            (&task["status"], attempts(&task, "/outcome").len()),
            (&json!("succeeded"), 1),
            "{task:#}"
        );
    }
    // Only the malformed message is left. The worker handles it in milliseconds, and receives it ten times.
    stack.queues.set_visibility(Duration::from_secs(1)).await;
    let left = reached("a settled batch", async || stack.queues.depth().await, |depth| *depth < 10).await;
    if left == 0 {
        assert_eq!(stack.queues.dead().await, 0);
        return Fate::Lost;
    }
    assert_eq!(left, 1, "only the malformed message is delivered again");
    reached("a dead letter", async || stack.queues.dead().await, |dead| *dead == 1).await;
    assert_eq!(stack.queues.depth().await, 0);
    for task in tasks {
        assert_eq!(stack.get(&path(task)).await.json()["attempt"], 1);
    }
    Fate::DeadLetter
}

async fn task_with_a_dead_lettered_hint_is_hinted_again(stack: &Stack) {
    stack.pause_workers().await;
    let task = stack.submit(&json!({"kind": "noop"})).await;
    stack.tap.set(Flow::Refused);
    stack.resume_workers().await;
    reached("a dead letter", async || stack.queues.dead().await, |dead| *dead == 1).await;
    stack.tap.set(Flow::Open);
    // The function `dead_letter` could not read the table until now. It sends a hint with a delay of 5
    // minutes.
    reached("a delayed hint", async || stack.queues.delayed().await, |delayed| *delayed == 1).await;
    reached("no dead letter", async || stack.queues.dead().await, |dead| *dead == 0).await;
    assert_eq!(stack.get(&path(&task)).await.json()["attempt"], 0);
    stack.table.set_moments(&task, &[("sweep_at", SystemClock.now())]).await;
    stack.sweep().await;
    assert_eq!(stack.ended(&task).await["status"], "succeeded");
}

async fn task_with_exhausted_hints_fails_and_can_be_replayed(stack: &Stack) {
    stack.pause_workers().await;
    let task = stack.submit(&json!({"kind": "noop"})).await;
    stack.queues.purge().await;
    let mut last: Value = serde_json::from_str(&hint(&task)).expect("a hint");
    last["redrives"] = json!(2);
    stack.queues.send_dead(&last.to_string()).await;
    let failed = stack.ended(&task).await;
    assert_eq!(
        (&failed["status"], &failed["error"]["code"], &failed["attempt"]),
        (&json!("failed"), &json!("dispatch_failed"), &json!(0))
    );
    stack.resume_workers().await;
    assert_eq!(stack.post(&format!("{}/replay", path(&task)), &json!({})).await.status, 202);
    assert_eq!(stack.ended(&task).await["status"], "succeeded");
}

fn hint(task: &Value) -> String {
    json!({"tenant": "default", "id": task["id"]}).to_string()
}
