//! Handlers that do the worst to their process: all other tasks are done, and the bad ones end.

use std::num::NonZeroUsize;
use std::time::Duration;

use nobat_tests::harness::exchange::exchange;
use nobat_tests::harness::program::Program;
use nobat_tests::harness::{World, attempts};
use nobat_tests::poison::{Outcome, Plan, Poison, run};
use nobat_tests::size::size;
use serde_json::{Value, json};

/// Returns the number of threads for handlers.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

async fn outcome(plan: Plan) -> Outcome {
    let outcome = run(plan).await.unwrap_or_else(|error| panic!("{plan:?}: {error:#}"));
    println!(
        "{plan:?}: {} restarts, {} good tasks, the slowest response took {:?}",
        outcome.restarts,
        outcome.good.len(),
        outcome.slowest
    );
    assert!(
        outcome.restarts > 0 && outcome.restarts <= plan.most_restarts(),
        "{} restarts",
        outcome.restarts
    );
    for (poison, task) in &outcome.bad {
        assert_eq!(
            (&task["status"], &task["error"]["code"]),
            (&json!("failed"), &json!("crashed")),
            "{task:#}"
        );
        let outcomes = attempts(task, "/outcome");
        // A task that only panics may be hit by another task's crash first.
        let is_expected =
            |outcome: &String| outcome == "crashed" || (!poison.is_deadly() && outcome == "failed");
        assert!(outcomes.len() == plan.attempts && outcomes.iter().all(is_expected), "{task:#}");
    }
    assert!(outcome.good.len() >= plan.good);
    outcome.good.iter().for_each(assert_done);
    outcome
}

/// Checks that the task succeeded and that every attempt which a crash ended is on record before the last
/// one.
fn assert_done(task: &Value) {
    let outcomes = attempts(task, "/outcome");
    let (last, before) = outcomes.split_last().unwrap_or_else(|| panic!("no attempts: {task:#}"));
    assert_eq!((&task["status"], last.as_str()), (&json!("succeeded"), "succeeded"), "{task:#}");
    assert!(before.iter().all(|outcome| outcome == "crashed"), "{task:#}");
    assert_eq!(task["attempt"], outcomes.len(), "{task:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_kill_their_process_fail_and_others_succeed() {
    let outcome =
        outcome(Plan { poisons: &Poison::SUDDEN, each: size(3, 10), attempts: 3, good: size(1_000, 10_000) })
            .await;
    let spoiled = outcome.good.iter().filter(|task| task["attempt"] != 1).count();
    println!("crashes interrupted {spoiled} good tasks");
    assert!(spoiled > 0, "no crash interrupted another task, so this run proves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_block_all_threads_fail_and_the_api_responds() {
    let outcome = outcome(Plan { poisons: &[Poison::Block], each: threads(), attempts: 1, good: 0 }).await;
    assert_eq!(outcome.restarts, 1);
    assert!(outcome.slowest < Duration::from_secs(10), "a response took {:?}", outcome.slowest);
}

#[tokio::test(flavor = "multi_thread")]
async fn program_with_blocked_threads_stops_on_sigterm() {
    let mut world = World::of(Program::Poison, &["--drain-timeout", "1"]).await;
    let mut tasks = Vec::new();
    for _ in 0..threads() {
        let task = world.submit(&json!({"kind": "spin", "retry": {"delays": []}, "timeout": 3600})).await;
        tasks.push(world.until(&task, |task| task["status"] == "running").await);
    }
    let answer = exchange(world.address(), "GET", "/healthz", &[], "").await.expect("a response");
    assert_eq!(answer.status, 200);
    world.stop().await;
    assert!(world.log().contains("their tasks cannot be given back"), "{}", world.log());
    world.go_on().await;
    for task in tasks {
        let task = world.ended(&task).await;
        assert_eq!(
            (&task["status"], &task["error"]["code"]),
            (&json!("failed"), &json!("crashed")),
            "{task:#}"
        );
    }
    world.stop().await;
}
