use nobat_tests::harness::World;
use nobat_tests::harness::receiver::Reply;
use serde_json::json;

#[tokio::test]
async fn no_payload_no_header_and_no_key_is_ever_logged() {
    let mut world = World::with(&["--allow-private-networks", "127.0.0.0/8", "--log", "trace"]).await;
    world.receiver.script(
        "/sesame/hook",
        [Reply::status(500).header("x-answer", "sesame").body("sesame"), Reply::status(200)],
    );
    let url = world.receiver.url("/sesame/hook?token=sesame");
    let task = json!({
        "kind": "http", "labels": {"secret": "sesame"}, "retry": {"delays": [0]}, "callback": {"url": world.receiver.url("/sesame")},
        "payload": {"url": url, "headers": {"authorization": "Bearer sesame"}, "body": {"card": "sesame"}},
    });
    let task = world
        .post_with(
            "/v1/tasks",
            &[("idempotency-key", "sesame"), ("authorization", "Bearer sesame")],
            &task.to_string(),
        )
        .await;
    assert_eq!(world.ended(&task.json()).await["status"], "succeeded");
    let refused =
        world.post_with("/v1/tasks", &[], r#"{"kind": "noop", "payload": "sesame", "sesame": 1}"#).await;
    assert_eq!(refused.status, 422);
    world.receiver.wait_for("/sesame", 1).await;
    assert_eq!(world.get("/v1/tasks/%0a%7b%22level%22%3a%22ERROR%22%7d%1b%5b2J").await.status, 404);
    for task in world.tasks("").await {
        world.ended(&task).await;
    }
    world.stop().await;
    let told = world.log();
    let leaks: Vec<_> = told.lines().filter(|line| line.contains("sesame")).collect();
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    for line in told.lines() {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok(),
            "input cannot break a log line: {line}"
        );
    }
    world.go_on().await;
    world.end().await;
}
