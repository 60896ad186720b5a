use std::time::Instant;

use nobat_tests::harness::receiver::{Gate, Reply};
use nobat_tests::harness::{OPEN, PATIENCE, World, attempts};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const PATH: &str = "/v1/endpoints/e";

/// Submits tasks for the endpoint `e`, which start after `delay` seconds.
async fn submit(world: &World, count: usize, delay: f64) -> Vec<Value> {
    let put = world.ask("PUT", PATH, &json!({"url": world.receiver.url("/hook")})).await;
    assert_eq!(put.status, 201, "{}", put.text());
    let task = json!({"kind": "http", "endpoint": "e", "payload": {"body": 1}, "delay": delay});
    let answer = world.post("/v1/tasks/batch", &json!({"tasks": vec![task; count]})).await;
    answer.json()["data"].as_array().unwrap().clone()
}

/// Checks that all tasks succeed with one attempt each, and that the endpoint's circuit breaker stays closed.
async fn assert_all_succeed(world: &World, tasks: &[Value]) {
    for task in tasks {
        let task = world.ended(task).await;
        assert_eq!(
            (&task["status"], attempts(&task, "/outcome").len()),
            (&json!("succeeded"), 1),
            "{task:#}"
        );
    }
    assert_eq!(world.get(PATH).await.json()["state"]["circuit_breaker"]["state"], "closed");
}

#[tokio::test]
async fn idle_clients_leave_handles_for_calls() {
    let world = World::with_handles(256, 600, &OPEN).await;
    let tasks = submit(&world, 20, 2.0).await;
    let mut idle = Vec::new();
    for _ in 0..590 {
        // A connection beyond the limit may be reset before it is established.
        idle.extend(TcpStream::connect(world.address()).await);
    }
    world.receiver.wait_for("/hook", 20).await;
    drop(idle);
    let begun = Instant::now();
    while !world.is_reachable().await {
        assert!(begun.elapsed() < PATIENCE, "the server is not reachable again");
    }
    assert_all_succeed(&world, &tasks).await;
    world.end().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn call_without_a_handle_is_held_and_spends_no_attempt() {
    const HANDLES: u32 = 100;
    let mut world =
        World::with_handles(HANDLES, HANDLES, &[&OPEN[..], &["--concurrency", "128"]].concat()).await;
    let gate = Gate::default();
    world.receiver.script("/hook", [Reply::status(200).behind(&gate)]);
    let tasks = submit(&world, 100, 0.0).await;
    let handles = format!("/proc/{}/fd", world.process_id());
    let begun = Instant::now();
    // Each unanswered call keeps its connection.
    while std::fs::read_dir(&handles).unwrap().count() < HANDLES as usize {
        assert!(begun.elapsed() < PATIENCE, "handles are still free");
        tokio::task::yield_now().await;
    }
    gate.open();
    world.receiver.wait_for("/hook", tasks.len()).await;
    assert_all_succeed(&world, &tasks).await;
    world.stop().await;
    assert!(world.log().contains("this process lacks file handles"), "{}", world.log());
    world.go_on().await;
    world.end().await;
}
