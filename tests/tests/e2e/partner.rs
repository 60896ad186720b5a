use std::time::Duration;

use nobat_tests::harness::external_server::Partner;
use nobat_tests::harness::receiver::Receiver;
use nobat_tests::harness::{OPEN, World, attempts, has_ended, moment};
use serde_json::{Value, json};

async fn put_endpoint(world: &World, name: &str, settings: &Value) {
    let answer = world.ask("PUT", &format!("/v1/endpoints/{name}"), settings).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// Starts a nobat that runs this many tasks at a time.
async fn with_concurrency(concurrency: &str) -> World {
    World::with(&[&OPEN[..], &["--concurrency", concurrency]].concat()).await
}

fn call(endpoint: &str, path: &str) -> Value {
    json!({"kind": "http", "endpoint": endpoint, "payload": {"path": path}, "retry": {"max_attempts": 1}})
}

#[tokio::test]
async fn connection_resets_are_retried_and_open_the_breaker() {
    const RESETS: usize = 5;
    let world = World::start().await;
    let mut partner = Partner::start("reset.py", &[&RESETS.to_string()]).await;
    // Open long enough to be seen on a busy machine.
    let breaker = json!({"minimum_calls": 3, "open_duration": 3});
    put_endpoint(
        &world,
        "resetting",
        &json!({"url": partner.url("/api"), "circuit_breaker": breaker, "retry": {"delays": [0.2, 0.2, 0.2, 0.2, 0.2, 0.2]}}),
    )
    .await;
    let task = json!({"kind": "http", "endpoint": "resetting", "payload": {}});
    let first = world.submit(&task).await;
    let first = world.until(&first, |task| task["held"]["reason"] == "circuit_open").await;
    assert_eq!(
        attempts(&first, "/error/code"),
        ["connection_reset"; 3],
        "each kind of reset has the same code"
    );
    for way in ["before the request", "before the answer", "within the answer"] {
        assert_eq!(partner.says().await, format!("reset {way}"));
    }
    let mut tasks = vec![first];
    for _ in 0..10 {
        tasks.push(world.submit(&task).await);
    }
    let mut failed = 0;
    for task in &tasks {
        let task = world.ended(task).await;
        assert_eq!(task["status"], "succeeded", "{task:#}");
        failed += attempts(&task, "/error/code").iter().filter(|code| *code == "connection_reset").count();
        for pair in task["attempts"].as_array().unwrap().windows(2) {
            assert!(
                moment(&pair[1], "started_at").since(moment(&pair[0], "finished_at"))
                    >= Duration::from_millis(200),
                "{task:#}"
            );
        }
    }
    // Three resets opened the circuit breaker, the others were probes.
    assert_eq!(failed, RESETS);
    for _ in 3..RESETS {
        assert!(partner.says().await.starts_with("reset"));
    }
    for _ in &tasks {
        assert_eq!(partner.says().await, "answered");
    }
    world.end().await;
}

#[tokio::test]
async fn slow_response_fails_with_timeout_and_frees_the_worker() {
    let world = with_concurrency("1").await;
    let mut partner = Partner::start("drip.py", &[]).await;
    put_endpoint(&world, "dripping", &json!({"url": partner.url(""), "timeout": 2})).await;
    let slow = world.submit(&call("dripping", "/hook")).await;
    assert_eq!(partner.says().await, "called /hook");
    let next = world.submit(&json!({"kind": "noop"})).await;
    let slow = world.ended(&slow).await;
    assert_eq!(
        (&slow["status"], attempts(&slow, "/error/code")),
        (&json!("failed"), vec!["timeout".to_owned()])
    );
    let attempt = &slow["attempts"][0];
    assert!(
        moment(attempt, "finished_at").since(moment(attempt, "started_at")) >= Duration::from_secs(2),
        "the attempt runs until its timeout"
    );
    assert_eq!(partner.says().await, "left /hook");
    let next = world.ended(&next).await;
    assert_eq!(next["status"], "succeeded", "the only worker is free again");
    assert!(moment(&next["attempts"][0], "started_at") >= moment(attempt, "finished_at"));
    world.end().await;
}

#[tokio::test]
async fn slow_endpoint_does_not_block_other_endpoints() {
    let world = with_concurrency("2").await;
    let mut partner = Partner::start("drip.py", &[]).await;
    put_endpoint(
        &world,
        "dripping",
        &json!({"url": partner.url(""), "timeout": 3600, "limits": {"concurrency": 1}}),
    )
    .await;
    let other = Receiver::start().await.unwrap();
    put_endpoint(&world, "quick", &json!({"url": other.url("")})).await;
    let mut slow = vec![world.submit(&call("dripping", "/hook")).await];
    assert_eq!(partner.says().await, "called /hook");
    // More tasks than workers.
    for _ in 0..5 {
        slow.push(world.submit(&call("dripping", "/hook")).await);
    }
    for number in 0..20 {
        let task = world.submit(&call("quick", &format!("/{number}"))).await;
        assert_eq!(world.ended(&task).await["status"], "succeeded");
    }
    assert_eq!(world.task(&slow[0]).await["status"], "running");
    for task in slow.iter().rev() {
        let canceled =
            world.post(&format!("/v1/tasks/{}/cancel", task["id"].as_str().unwrap()), &json!({})).await;
        assert!([200, 202].contains(&canceled.status), "{}", canceled.text());
        assert_eq!(world.until(task, has_ended).await["status"], "canceled");
    }
    assert_eq!(partner.says().await, "left /hook");
    world.end().await;
}
