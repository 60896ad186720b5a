use nobat_tests::harness::World;
use serde_json::{Value, json};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text} is not JSON: {error}"))
}

#[tokio::test]
async fn a_task_is_submitted_waited_for_and_shown_in_a_table() {
    let world = World::start().await;
    let ran = world
        .run(&["submit", "noop", "--payload", r#"{"sleep": 0.1}"#, "--label", "customer=42", "--wait"])
        .await;
    let id = ran.stderr.strip_prefix("accepted: ").unwrap_or_else(|| panic!("{ran:?}")).trim();
    assert!(ran.code == 0 && ran.stdout.contains(id), "{ran:?}");
    for cell in ["succeeded", "noop", r#"{"customer":"42"}"#, "attempt 1"] {
        assert!(ran.stdout.contains(cell), "{cell} is not in\n{}", ran.stdout);
    }
    let ran = world.run(&["list"]).await;
    assert!(ran.code == 0 && ran.stdout.starts_with("ID "), "{ran:?}");
    assert_eq!(ran.stdout.lines().count(), 2);
    world.end().await;
}

#[tokio::test]
async fn commands_print_json_on_request() {
    let world = World::start().await;
    let submitted = world.run(&["submit", "noop", "--json", "--idempotency-key", "k", "--queue", "q"]).await;
    assert_eq!(submitted.code, 0, "{submitted:?}");
    let task = json_of(&submitted.stdout);
    let id = task["id"].as_str().expect("an id");
    let waited = world.run(&["wait", id, "--json"]).await;
    assert_eq!((waited.code, &json_of(&waited.stdout)["status"]), (0, &json!("succeeded")));
    assert_eq!(json_of(&world.run(&["get", id, "--json"]).await.stdout), world.task(&task).await);
    let listed =
        world.run(&["list", "--json", "--queue", "q", "--status", "succeeded", "--kind", "noop"]).await;
    assert_eq!(json_of(&listed.stdout)[0]["id"], task["id"]);
    let again = world.run(&["submit", "noop", "--json", "--idempotency-key", "k", "--queue", "q"]).await;
    assert_eq!(json_of(&again.stdout)["id"], task["id"]);
    world.end().await;
}

#[tokio::test]
async fn list_command_reads_several_pages() {
    let world = World::start().await;
    for _ in 0..2 {
        let tasks = vec![json!({"kind": "noop"}); 75];
        assert_eq!(world.post("/v1/tasks/batch", &json!({"tasks": tasks})).await.status, 202);
    }
    for task in world.tasks("").await {
        world.ended(&task).await;
    }
    let listed = async |limit: &str| {
        json_of(&world.run(&["list", "--json", "--limit", limit]).await.stdout).as_array().map(Vec::len)
    };
    assert_eq!((listed("120").await, listed("1000").await), (Some(120), Some(150)));
    world.end().await;
}

#[tokio::test]
async fn a_task_is_canceled_and_replayed() {
    let world = World::start().await;
    let task = json_of(&world.run(&["submit", "noop", "--delay", "3600", "--json"]).await.stdout);
    let id = task["id"].as_str().expect("an id");
    let early = world.run(&["replay", id]).await;
    assert!(early.code == 3 && early.stderr.contains("task_not_ended"), "{early:?}");
    let canceled = world.run(&["cancel", id]).await;
    assert!(canceled.code == 0 && canceled.stdout.contains("canceled"), "{canceled:?}");
    let late = world.run(&["cancel", id]).await;
    assert!(late.code == 3 && late.stderr.contains("task_ended"), "{late:?}");
    let replayed = world.run(&["replay", id, "--new-key", "--json"]).await;
    assert_eq!((replayed.code, &json_of(&replayed.stdout)["generation"]), (0, &json!(2)));
    assert_eq!(world.run(&["wait", id]).await.code, 0);
    world.end().await;
}

#[tokio::test]
async fn exit_codes_distinguish_the_outcomes() {
    let mut world = World::start().await;
    let failing = ["submit", "noop", "--payload", r#"{"fail": 1}"#, "--retry-max-attempts", "1", "--wait"];
    let failed = world.run(&failing).await;
    assert!(failed.code == 4 && failed.stdout.contains("noop_failed"), "{failed:?}");
    let task = json_of(&world.run(&["submit", "noop", "--delay", "3600", "--json"]).await.stdout);
    let id = task["id"].as_str().expect("an id");
    assert_eq!(world.run(&["wait", id, "--timeout", "0.2"]).await.code, 5);
    assert_eq!(world.run(&["cancel", id]).await.code, 0);
    assert_eq!(world.run(&["wait", id]).await.code, 4);
    let missing = world.run(&["get", "task_01jd8rkz5m3q4v9x2y7w6t0abc"]).await;
    assert!(missing.code == 3 && missing.stderr.contains("task_not_found"), "{missing:?}");
    let invalid = world.run(&["submit", "noop", "--timeout", "0"]).await;
    assert!(invalid.code == 3 && invalid.stderr.contains("--timeout"), "{invalid:?}");
    assert_eq!(world.run(&["submit"]).await.code, 2);
    assert_eq!(world.run(&["get", "x", "--url", "ftp://x"]).await.code, 1);
    let url = format!("http://{}", world.address());
    world.stop().await;
    let away = world.run(&["list", "--url", &url]).await;
    assert!(away.code == 1 && away.stderr.contains("is `nobat serve` running there?"), "{away:?}");
    world.go_on().await;
    world.end().await;
}

#[tokio::test]
async fn a_payload_can_come_from_a_file() {
    let world = World::start().await;
    let file = world.folder().join("payload.json");
    std::fs::write(&file, r#"{"sleep": 0.01}"#).unwrap();
    let from_file = world
        .run(&["submit", "noop", "--payload", &format!("@{}", file.display()), "--wait", "--json"])
        .await;
    assert_eq!((from_file.code, &json_of(&from_file.stdout)["payload"]), (0, &json!({"sleep": 0.01})));
    let broken = world.run(&["submit", "noop", "--payload", "{"]).await;
    assert!(broken.code == 1 && broken.stderr.contains("not JSON"), "{broken:?}");
    world.end().await;
}

#[tokio::test]
async fn callback_url_flag_sends_the_end_to_a_receiver() {
    let world = World::start().await;
    let url = world.receiver.url("/done");
    assert_eq!(world.run(&["submit", "noop", "--callback-url", &url]).await.code, 0);
    assert_eq!(world.receiver.wait_for("/done", 1).await[0].json()["status"], "succeeded");
    for task in world.tasks("").await {
        world.ended(&task).await;
    }
    world.end().await;
}
