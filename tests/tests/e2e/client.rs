//! Client commands: they pass JSON through unchanged, always print an accepted task's id, and cover every
//! resource.

use nobat_tests::harness::World;
use nobat_tests::harness::process::run;
use nobat_tests::harness::program::Program;
use nobat_tests::harness::receiver::Reply;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// JSON that must not be rewritten: numbers that a double alters or cannot hold, a duplicate key, keys out of
/// order.
const FRAGILE: &str =
    r#"{"ratio":1e999,"price":1.10,"zero":-0,"digits":123456789012345678901234567890,"a":1,"a":2,"B":0}"#;

#[tokio::test]
async fn task_json_is_printed_unchanged() {
    let world = World::start().await;
    world
        .receiver
        .script("/rates", [Reply::status(200).header("content-type", "application/json").body(FRAGILE)]);
    let payload = format!(r#"{{"url":"{}","body":{FRAGILE}}}"#, world.receiver.url("/rates"));
    let submitted = world.run(&["submit", "http", "--payload", &payload, "--wait"]).await;
    let id = submitted.stderr.strip_prefix("accepted: ").unwrap_or_else(|| panic!("{submitted:?}")).trim();
    assert_eq!(submitted.code, 0, "{submitted:?}");
    let asked = world.get(&format!("/v1/tasks/{id}")).await.text();
    assert_eq!(asked.matches(FRAGILE).count(), 2, "{asked}");
    for command in [["get", id], ["wait", id]] {
        let shown = world.run(&[&command[..], &["--json"]].concat()).await;
        assert_eq!((shown.code, shown.stdout), (0, format!("{asked}\n")), "{command:?}");
        let table = world.run(&command).await;
        assert!(table.code == 0 && table.stdout.matches(FRAGILE).count() == 2, "{table:?}");
    }
    assert_eq!(submitted.stdout.matches(FRAGILE).count(), 2, "{submitted:?}");
    let again = world.run(&["submit", "http", "--payload", &payload, "--delay", "3600", "--json"]).await;
    assert!(again.code == 0 && again.stdout.contains(FRAGILE), "{again:?}");
    let canceled = world
        .run(&[
            "cancel",
            serde_json::from_str::<Value>(&again.stdout.replace("1e999", "1")).unwrap()["id"]
                .as_str()
                .unwrap(),
        ])
        .await;
    assert!(canceled.code == 0 && canceled.stdout.contains(FRAGILE), "{canceled:?}");
    let (page, listed) = (world.get("/v1/tasks").await.text(), world.run(&["list", "--json"]).await);
    assert_eq!(page, format!(r#"{{"data":{},"next_cursor":null}}"#, listed.stdout.trim_end()));
    assert_eq!(world.run(&["list"]).await.code, 0);
    let replayed = world.run(&["replay", id, "--json"]).await;
    assert!(replayed.code == 0 && replayed.stdout.contains(FRAGILE), "{replayed:?}");
    assert_eq!(world.run(&["wait", id]).await.code, 0);
    world.end().await;
}

#[tokio::test]
async fn accepted_task_id_is_printed_despite_a_broken_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let id = "task_01jd8rkz5m3q4v9x2y7w6t0abc";
    let server = tokio::spawn(async move {
        // The head of a 202 and half of its body; then a whole 202, and no answer to the waiting request.
        let half =
            format!("HTTP/1.1 202 Accepted\r\nLocation: /v1/tasks/{id}\r\nContent-Length: 100\r\n\r\n{{");
        let body = format!(r#"{{"id":"{id}"}}"#);
        let whole = format!(
            "HTTP/1.1 202 Accepted\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        for answer in [half, whole, String::new()] {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    for _ in 0..2 {
        let ran =
            run(&Program::Nobat.path(), &["submit", "noop", "--wait", "--url", &url], None).await.unwrap();
        assert!(ran.code == 1 && ran.stderr.contains(&format!("accepted: {id}\n")), "{ran:?}");
    }
    server.await.unwrap();
}

#[tokio::test]
async fn value_out_of_range_is_refused_with_its_flag_and_range() {
    let world = World::start().await;
    for (flag, value, error) in [
        ("--delay", "-1", "--delay: expected seconds from 0 to 31622400"),
        ("--timeout", "0", "--timeout: expected seconds from 0.001 to 43200"),
        ("--timeout", "43201", "--timeout: expected seconds from 0.001 to 43200"),
        ("--retry-max-attempts", "51", "--retry-max-attempts: expected a whole number from 1 to 50"),
        ("--retry-delays", "5,-1", "--retry-delays 1: expected seconds from 0 to 31622400"),
        ("--retry-jitter", "half", "--retry-jitter: expected `full` or `none`"),
        (
            "--callback-retry-initial-delay",
            "-0.5",
            "--callback-retry-initial-delay: expected seconds from 0 to 31622400",
        ),
    ] {
        let refused =
            world.run(&["submit", "noop", "--callback-url", "https://example.com", flag, value]).await;
        assert!(refused.code == 3 && refused.stderr.contains(error), "{refused:?}");
    }
    let wrong = world.run(&["submit", "noop", "--delay", "soon"]).await;
    assert!(
        wrong.code == 2 && wrong.stderr.contains("--delay") && wrong.stderr.contains("expected a number"),
        "{wrong:?}"
    );
    assert!(world.tasks("").await.is_empty());
    world.end().await;
}

#[tokio::test]
async fn a_task_for_an_endpoint_is_submitted_by_flags() {
    let world = World::start().await;
    let endpoint = json!({"url": world.receiver.url("/api")}).to_string();
    let put = world.run(&["endpoints", "put", "billing", "--body", &endpoint]).await;
    assert!(put.code == 0 && put.stdout.contains("whsec_"), "{put:?}");
    let flags = [
        "--endpoint",
        "billing",
        "--limit-key",
        "customer-42",
        "--retry-delays",
        "1,2",
        "--payload",
        r#"{"path": "/charge"}"#,
    ];
    let submitted = world.run(&[&["submit", "http", "--json"], &flags[..]].concat()).await;
    let task: Value = serde_json::from_str(&submitted.stdout).unwrap_or_else(|_| panic!("{submitted:?}"));
    assert_eq!(
        (&task["endpoint"], &task["limit_key"], &task["max_attempts"]),
        (&json!("billing"), &json!("customer-42"), &json!(3))
    );
    assert_eq!(world.ended(&task).await["status"], "succeeded");
    assert_eq!(world.receiver.received("/api/charge").len(), 1);
    world.end().await;
}

#[tokio::test]
async fn events_schedules_and_sources_have_commands() {
    let world = World::start().await;
    let json_of = async |arguments: &[&str]| {
        let ran = world.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str::<Value>(&ran.stdout).unwrap()
    };
    let subscription = r#"{"topic": "order.*", "task": {"kind": "noop"}}"#;
    assert_eq!(json_of(&["subscriptions", "put", "stock", "--body", subscription]).await["topic"], "order.*");
    let event = r#"{"type": "order.created"}"#;
    let tested = world.run(&["subscriptions", "test", "stock", "--body", event]).await;
    assert!(tested.code == 0 && tested.stdout.contains("topic_matches"), "{tested:?}");
    let published = json_of(&["events", "publish", "--body", event]).await;
    let id = published["id"].as_str().unwrap();
    world.ended(&json!({"id": id.replace("event_", "task_")})).await;
    assert_eq!(json_of(&["events", "get", id]).await["tasks"][0]["subscription"], "stock");
    assert_eq!(json_of(&["events", "list"]).await[0]["type"], "order.created");
    let schedule = r#"{"every": 3600, "task": {"kind": "noop"}}"#;
    assert_eq!(json_of(&["schedules", "put", "hourly", "--body", schedule]).await["every"], 3600.0);
    assert_eq!(json_of(&["schedules", "pause", "hourly"]).await["paused"], true);
    assert_eq!(json_of(&["schedules", "resume", "hourly"]).await["paused"], false);
    assert_eq!(json_of(&["schedules", "run", "hourly"]).await["schedule"], "hourly");
    let source = r#"{"verify": {"preset": "github", "secrets": ["correct horse"]}, "event": {}}"#;
    assert_eq!(
        json_of(&["sources", "put", "github", "--body", source]).await["path"],
        "/v1/in/default/github"
    );
    assert_eq!(json_of(&["sources", "get", "github"]).await["accepted"], 0);
    for resource in ["subscriptions", "schedules", "sources"] {
        let table = world.run(&[resource, "list"]).await;
        assert!(table.stdout.starts_with("NAME ") && table.stdout.lines().count() == 2, "{table:?}");
    }
    for (resource, name) in [("subscriptions", "stock"), ("schedules", "hourly"), ("sources", "github")] {
        assert_eq!(json_of(&[resource, "delete", name]).await["name"], name);
    }
    for task in world.tasks("").await {
        world.ended(&task).await;
    }
    world.end().await;
}

#[tokio::test]
async fn resources_are_configured_by_commands() {
    let world = World::start().await;
    let file = world.folder().join("endpoint.json");
    std::fs::write(&file, json!({"url": world.receiver.url("/api")}).to_string()).unwrap();
    let from_file = format!("@{}", file.display());
    let json_of = async |arguments: &[&str]| {
        let ran = world.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str::<Value>(&ran.stdout).unwrap()
    };
    assert_eq!(json_of(&["endpoints", "put", "billing", "--body", &from_file]).await["name"], "billing");
    assert_eq!(json_of(&["endpoints", "list"]).await[0]["name"], "billing");
    assert_eq!(json_of(&["endpoints", "pause", "billing"]).await["paused"], true);
    assert_eq!(json_of(&["endpoints", "resume", "billing"]).await["paused"], false);
    assert_eq!(
        json_of(&["endpoints", "rotate", "billing", "--body", r#"{"grace_period": 60}"#]).await["secrets"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(json_of(&["endpoints", "test", "billing"]).await["response"]["status"], 200);
    world.receiver.script("/api", [Reply::status(500)]);
    assert_eq!(world.run(&["endpoints", "test", "billing"]).await.code, 4, "the test fails as a task would");
    let table = world.run(&["endpoints", "list"]).await;
    assert!(table.stdout.starts_with("NAME ") && table.stdout.lines().count() == 2, "{table:?}");
    assert_eq!(json_of(&["endpoints", "delete", "billing"]).await["name"], "billing");
    assert_eq!(world.run(&["endpoints", "get", "billing"]).await.code, 3);
    assert_eq!(
        json_of(&["queues", "put", "default", "--body", r#"{"limits": {"rate": 5}}"#]).await["limits"]["rate"],
        5
    );
    let paused = json_of(&["queues", "pause", "default"]).await;
    assert_eq!(
        (&paused["paused"], &paused["limits"]["rate"]),
        (&json!(true), &json!(5)),
        "the limits are kept"
    );
    assert_eq!(json_of(&["queues", "resume", "default"]).await["paused"], false);
    assert_eq!(json_of(&["kinds", "pause", "noop"]).await["paused"], true);
    assert_eq!(json_of(&["kinds", "resume", "noop"]).await["paused"], false);
    assert_eq!(
        json_of(&["limits", "put", "customer-42", "--body", r#"{"concurrency": 2}"#]).await["concurrency"],
        2
    );
    assert_eq!(json_of(&["limits", "get", "customer-42"]).await["concurrency"], 2);
    assert_eq!(
        json_of(&["tenants", "put", "acme", "--body", r#"{"max_pending_tasks": 10}"#]).await["max_pending_tasks"],
        10
    );
    assert_eq!(json_of(&["tenants", "list"]).await[0]["name"], "acme");
    assert!(json_of(&["callback-secret", "put"]).await["secret"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!(json_of(&["callback-secret", "delete"]).await["secrets"], json!([]));
    let wrong = world.run(&["queues", "put", "default", "--body", r#"{"limits": {"rate": 0}}"#]).await;
    assert!(
        wrong.code == 3 && wrong.stderr.contains("/limits/rate: expected a whole number from 1 to 100000"),
        "{wrong:?}"
    );
    assert_eq!(world.run(&["queues", "put", "default"]).await.code, 2, "a body is required");
    world.end().await;
}
