use std::time::Instant;

use futures_util::future::join_all;
use nobat_tests::disk::Fault;
use nobat_tests::harness::exchange::{Answer, exchange};
use nobat_tests::harness::receiver::{Gate, Reply};
use nobat_tests::harness::{PATIENCE, World, attempts};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// More handles than a story uses.
const ENOUGH_HANDLES: usize = 1_024;

/// Submits tasks concurrently, and returns the accepted ones and the number of refused ones. Refusals must
/// carry `retry-after`.
async fn submit(world: &World) -> (Vec<Value>, usize) {
    let task = json!({"kind": "noop"});
    let answers = join_all((0..8).map(|_| world.post("/v1/tasks", &task))).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 202);
    for answer in &refused {
        assert_eq!(answer.problem(), (503, "store_unavailable".to_owned()));
        assert!(matches!(answer.header("retry-after").parse(), Ok(1..=3)), "{:?}", answer.headers);
    }
    (accepted.iter().map(Answer::json).collect(), refused.len())
}

/// Polls `/readyz` until it has this status, because its answer may be up to one second old.
async fn wait_for_readiness(world: &World, status: u16) -> Value {
    let begun = Instant::now();
    loop {
        let answer = world.get("/readyz").await;
        if answer.status == status {
            return answer.json();
        }
        assert!(begun.elapsed() < PATIENCE, "{}", answer.text());
    }
}

/// Kills the program, lets SQLite check the file, and starts the program again. All these tasks must then
/// succeed.
async fn check_tasks_after_kill(world: &mut World, accepted: &[Value]) {
    world.kill().await;
    let verdict: String = world.file().pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    world.go_on().await;
    for task in accepted {
        assert_eq!(world.ended(task).await["status"], "succeeded");
    }
}

async fn check_recovery_from(fault: Fault) {
    let mut world = World::on_a_bad_machine(ENOUGH_HANDLES).await;
    world.expect("a transaction failed");
    world.expect("the file could not be reopened");
    let gate = Gate::default();
    world.receiver.script("/hook", [Reply::status(200).behind(&gate)]);
    let before = world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
    let running =
        world.submit(&json!({"kind": "http", "payload": {"url": world.receiver.url("/hook")}})).await;
    world.receiver.wait_for("/hook", 1).await;

    world.disk().fail(fault);
    gate.open();
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for _ in 0..5 {
        let (more, less) = submit(&world).await;
        accepted.extend(more);
        refused += less;
    }
    assert!(refused > 0, "the fault refused no submission");
    assert_eq!(world.get("/healthz").await.status, 200);
    let unready = wait_for_readiness(&world, 503).await;
    assert_eq!(
        (&unready["status"], &unready["cause"]),
        (&json!("unavailable"), &json!("store_write_failed"))
    );
    assert_eq!(world.task(&before).await, before, "stored tasks can be read");

    world.disk().heal();
    let (more, refused) = submit(&world).await;
    assert_eq!(refused, 0, "submissions succeed at once after the fault");
    assert_eq!(wait_for_readiness(&world, 200).await["cause"], Value::Null);
    accepted.extend(more);
    let running = world.ended(&running).await;
    assert_eq!(attempts(&running, "/outcome"), ["succeeded"], "the finished attempt is not repeated");
    assert_eq!(world.receiver.received("/hook").len(), 1);
    check_tasks_after_kill(&mut world, &accepted).await;
    world.end().await;
}

#[tokio::test]
async fn full_disk_is_reported_and_recovered_from() {
    check_recovery_from(Fault::Full).await;
}

#[tokio::test]
async fn read_only_disk_is_reported_and_recovered_from() {
    check_recovery_from(Fault::ReadOnly).await;
}

#[tokio::test]
async fn broken_disk_is_reported_and_recovered_from() {
    check_recovery_from(Fault::Broken).await;
}

#[tokio::test]
async fn start_on_an_unwritable_disk_fails_with_the_reason() {
    let mut world = World::on_a_bad_machine(ENOUGH_HANDLES).await;
    let task = world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
    world.stop().await;
    for (fault, word) in [(Fault::Full, "disk"), (Fault::ReadOnly, "Read-only"), (Fault::Broken, "I/O error")]
    {
        world.disk().fail(fault);
        let error = world.try_to_go_on().await.expect_err("the file cannot be written").to_string();
        assert!(error.contains("the file") && error.contains(word), "{fault:?}: {error}");
        world.disk().heal();
    }
    world.go_on().await;
    assert_eq!(world.task(&task).await, task);
    world.end().await;
}

#[tokio::test]
async fn excess_connections_block_others_only_while_they_are_open() {
    let mut world = World::on_a_bad_machine(64).await;
    let before = world.submit(&json!({"kind": "noop", "delay": 0.1})).await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        // A connection beyond the limit may be reset before it is established.
        crowd.extend(TcpStream::connect(world.address()).await);
    }
    let address = world.address();
    let post = || exchange(address, "POST", "/v1/tasks", &[], r#"{"kind": "noop"}"#);
    // Half of the handles are reserved for files and calls. The server closes connections beyond the other
    // half.
    assert!(post().await.is_err(), "the open connections use up the limit");
    drop(crowd);
    let mut accepted = vec![before];
    let begun = Instant::now();
    while accepted.len() < 20 {
        match post().await {
            Ok(answer) => accepted.push(answer.json()),
            // The server has not noticed yet that the connections are closed.
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    }
    check_tasks_after_kill(&mut world, &accepted).await;
    world.end().await;
}
