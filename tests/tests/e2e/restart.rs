use nobat_tests::harness::receiver::{Gate, Reply};
use nobat_tests::harness::{World, attempts};
use serde_json::json;

#[tokio::test]
async fn waiting_tasks_survive_a_kill() {
    let mut world = World::start().await;
    let mut tasks = Vec::new();
    for _ in 0..20 {
        tasks.push(world.submit(&json!({"kind": "noop", "delay": 1, "payload": {"sleep": 0.01}})).await);
    }
    world.kill().await;
    world.go_on().await;
    for task in tasks {
        let task = world.ended(&task).await;
        assert_eq!((&task["status"], &task["attempt"]), (&json!("succeeded"), &json!(1)));
    }
    world.end().await;
}

#[tokio::test]
async fn running_task_is_retried_as_crashed_after_a_kill() {
    let mut world = World::start().await;
    let never = Gate::default();
    world.receiver.script("/hook", [Reply::status(200).behind(&never), Reply::status(200)]);
    let call =
        json!({"kind": "http", "payload": {"url": world.receiver.url("/hook")}, "retry": {"delays": [0]}});
    let task = world.submit(&call).await;
    world.receiver.wait_for("/hook", 1).await;
    world.kill().await;
    world.go_on().await;
    let task = world.ended(&task).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("succeeded"), &json!(2)));
    assert_eq!(attempts(&task, "/outcome"), ["crashed", "succeeded"]);
    assert_eq!(attempts(&task, "/error/code"), ["crashed", "-"]);
    let requests = world.receiver.received("/hook");
    assert_eq!(requests[0].header("idempotency-key"), requests[1].header("idempotency-key"));
    world.end().await;
}

#[tokio::test]
async fn task_killed_at_every_attempt_fails_as_crashed() {
    let mut world = World::start().await;
    let never = Gate::default();
    world.receiver.script("/hook", [Reply::status(200).behind(&never)]);
    let call =
        json!({"kind": "http", "payload": {"url": world.receiver.url("/hook")}, "retry": {"delays": [0, 0]}});
    let task = world.submit(&call).await;
    for attempt in 1..=3 {
        world.receiver.wait_for("/hook", attempt).await;
        world.kill().await;
        world.go_on().await;
    }
    let task = world.ended(&task).await;
    assert_eq!((&task["status"], &task["error"]["code"]), (&json!("failed"), &json!("crashed")));
    assert_eq!(attempts(&task, "/outcome"), ["crashed"; 3]);
    world.end().await;
}

#[tokio::test]
async fn unfinished_task_is_returned_at_shutdown_and_done_later() {
    let mut world = World::with(&["--allow-private-networks", "127.0.0.0/8", "--drain-timeout", "1"]).await;
    let (never, soon) = (Gate::default(), Gate::default());
    world.receiver.script("/long", [Reply::status(200).behind(&never), Reply::status(200)]);
    world.receiver.script("/short", [Reply::status(200).behind(&soon)]);
    let call = |path: &str| json!({"kind": "http", "payload": {"url": world.receiver.url(path)}});
    let (long, short) = (world.submit(&call("/long")).await, world.submit(&call("/short")).await);
    let waiting = world.submit(&json!({"kind": "noop", "delay": 1})).await;
    world.receiver.wait_for("/long", 1).await;
    world.receiver.wait_for("/short", 1).await;
    soon.open();
    world.stop().await;
    world.go_on().await;
    let (long, short, waiting) =
        (world.ended(&long).await, world.ended(&short).await, world.ended(&waiting).await);
    assert_eq!(
        (&long["status"], attempts(&long, "/outcome")),
        (&json!("succeeded"), vec!["interrupted".to_owned(), "succeeded".to_owned()])
    );
    assert_eq!(long["attempt"], 1, "an interruption costs no attempt");
    assert_eq!(
        (&short["status"], attempts(&short, "/outcome")),
        (&json!("succeeded"), vec!["succeeded".to_owned()])
    );
    assert_eq!((&waiting["status"], &waiting["attempt"]), (&json!("succeeded"), &json!(1)));
    world.end().await;
}

#[tokio::test]
async fn waiting_client_is_answered_at_shutdown() {
    let mut world = World::start().await;
    let task = world.submit(&json!({"kind": "noop", "delay": 1})).await;
    let (address, path) = (world.address(), format!("/v1/tasks/{}?wait=20", task["id"].as_str().unwrap()));
    let waiting = tokio::spawn(async move {
        nobat_tests::harness::exchange::exchange(address, "GET", &path, &[], "").await
    });
    // Once this many later requests are answered, the server has read the waiting one.
    for _ in 0..20 {
        world.get("/healthz").await;
    }
    world.stop().await;
    match waiting.await.unwrap() {
        Ok(answer) => assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("scheduled"))),
        Err(error) => panic!("{error}"),
    }
    world.go_on().await;
    world.ended(&task).await;
    world.end().await;
}
