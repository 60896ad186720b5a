//! Scenarios that a task can go through, and their usage.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cost::context::{BATCH, Stage, Used};

/// Usage of tasks that all went through the same scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name of the scenario.
    pub name: &'static str,
    /// Number of tasks.
    pub tasks: u32,
    /// Usage of all tasks together.
    pub used: Used,
}

/// Number of tasks that fills one batch.
const TASKS: u32 = 10;
/// Maximum number of tasks in one submission.
const MANY: u32 = 100;
/// Pause before the second attempt. It is real time on the emulator.
const PAUSE: Duration = Duration::from_secs(1);
/// Delay that is longer than any message can have.
const LONG: Duration = Duration::from_hours(1);

const ONE: &str = "/v1/tasks";
const BATCH_OF_TASKS: &str = "/v1/tasks/batch";

/// Runs all scenarios, in the order of the page.
pub async fn all() -> Vec<Scenario> {
    vec![
        happy().await,
        retry().await,
        callback().await,
        long_payload().await,
        batch().await,
        long_delay().await,
        replay().await,
        look().await,
        wait().await,
    ]
}

/// Each task is accepted, claimed and done, and no client polls: the scenario of the cost budget.
pub async fn happy() -> Scenario {
    let mut stage = Stage::set().await;
    submit(&mut stage, TASKS, &task(&json!({}))).await;
    stage.work(BATCH).await;
    Scenario { name: "happy path", tasks: TASKS, used: stage.used() }
}

/// The first attempt fails, the second succeeds.
pub async fn retry() -> Scenario {
    let mut stage = Stage::set().await;
    let payload = json!({ "order_id": "A-10017", "fail": 1 });
    submit(
        &mut stage,
        TASKS,
        &task(&json!({ "payload": payload, "retry": { "delays": [PAUSE.as_secs()] } })),
    )
    .await;
    stage.work(BATCH).await;
    stage.time.advance(PAUSE);
    stage.work(BATCH).await;
    Scenario { name: "one retry", tasks: TASKS, used: stage.used() }
}

/// A callback, which is a task as well, reports the end.
pub async fn callback() -> Scenario {
    let mut stage = Stage::set().await;
    submit(&mut stage, TASKS, &task(&json!({ "callback": { "url": "https://example.com/hooks/nobat" } })))
        .await;
    stage.work(BATCH).await;
    stage.work(BATCH).await;
    Scenario { name: "with a callback", tasks: TASKS, used: stage.used() }
}

/// The payload is too long for the task's own item.
pub async fn long_payload() -> Scenario {
    let mut stage = Stage::set().await;
    for number in 0..TASKS {
        let text = format!("{number:x<4085}");
        let body = task(&json!({ "payload": { "text": text } }));
        assert_eq!(body["payload"].to_string().len(), 4_096);
        stage.submit(ONE, &[], &body).await;
    }
    stage.work(BATCH).await;
    Scenario { name: "payload of 4 KiB", tasks: TASKS, used: stage.used() }
}

/// One submission holds the maximum number of tasks, all or none.
pub async fn batch() -> Scenario {
    let mut stage = Stage::set().await;
    let tasks = vec![task(&json!({})); MANY as usize];
    stage.submit(BATCH_OF_TASKS, &[], &json!({ "tasks": tasks })).await;
    stage.work(MANY as usize).await;
    Scenario { name: "submitted 100 at a time", tasks: MANY, used: stage.used() }
}

/// The delay is too long for a message, so the sweeper sends the hint later. The cost of the sweep every
/// minute is not counted.
pub async fn long_delay() -> Scenario {
    let mut stage = Stage::set().await;
    let idle = sweep(&mut stage).await;
    submit(&mut stage, TASKS, &task(&json!({ "delay": LONG.as_secs() }))).await;
    let accepted = stage.used();
    stage.time.advance(LONG.saturating_sub(PAUSE));
    let swept = sweep(&mut stage).await.without(idle);
    stage.time.advance(PAUSE);
    stage.work(BATCH).await;
    let done = stage.used();
    let units = accepted.units + swept.units + done.units;
    let used = Used {
        units,
        sends: swept.sends + done.sends,
        batches: done.batches,
        requests: accepted.requests,
        held: Duration::ZERO,
    };
    Scenario { name: "delayed by an hour", tasks: TASKS, used }
}

/// The same request is sent again. Only the second request is counted.
pub async fn replay() -> Scenario {
    let mut stage = Stage::set().await;
    for turn in 0..2 {
        stage.used();
        for number in 0..TASKS {
            let key = format!("order-{number}");
            let task = stage.submit(ONE, &[("idempotency-key", &key)], &task(&json!({}))).await;
            assert_eq!(task["attempt"], 0, "turn {turn}");
        }
    }
    Scenario { name: "repeated request with its key", tasks: TASKS, used: stage.used() }
}

/// A client gets a task once.
pub async fn look() -> Scenario {
    let mut stage = Stage::set().await;
    let tasks = submit(&mut stage, TASKS, &task(&json!({}))).await;
    stage.used();
    for task in &tasks {
        stage.get(task, "").await;
    }
    Scenario { name: "one read of a task", tasks: TASKS, used: stage.used() }
}

/// A client waits for an end that does not come.
pub async fn wait() -> Scenario {
    let mut stage = Stage::set().await;
    let tasks = submit(&mut stage, 1, &task(&json!({}))).await;
    stage.used();
    let shown = stage.get(&tasks[0], "?wait=5").await;
    assert_eq!(shown["status"], "queued");
    Scenario { name: "`?wait=5` without an end", tasks: 1, used: stage.used() }
}

/// Returns the usage of a sweep that finds nothing, as most sweeps do.
pub async fn idle_sweep() -> Used {
    sweep(&mut Stage::set().await).await
}

async fn sweep(stage: &mut Stage) -> Used {
    stage.used();
    stage.sweep().await;
    stage.used()
}

async fn submit(stage: &mut Stage, count: u32, task: &Value) -> Vec<Value> {
    let mut accepted = Vec::new();
    for _ in 0..count {
        accepted.push(stage.submit(ONE, &[], task).await);
    }
    accepted
}

/// Returns a task with a small payload and the fields of `more`.
fn task(more: &Value) -> Value {
    let payload = json!({ "order_id": "A-10017", "customer": 42, "total": "129.90 EUR", "lines": [{ "sku": "B-7", "count": 2 }] });
    let mut task = json!({ "kind": "work", "payload": payload });
    for (field, value) in more.as_object().into_iter().flatten() {
        task[field] = value.clone();
    }
    task
}
