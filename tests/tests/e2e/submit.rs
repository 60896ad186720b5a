use nobat_tests::harness::{World, path};
use serde_json::{Value, json};

#[tokio::test]
async fn noop_is_accepted_with_its_location_and_succeeds() {
    let world = World::start().await;
    let answer = world.post("/v1/tasks", &json!({"kind": "noop", "labels": {"customer": "42"}})).await;
    let task = answer.json();
    assert_eq!((answer.status, answer.header("location")), (202, path(&task).as_str()));
    let task = world.ended(&task).await;
    assert_eq!(
        (&task["status"], &task["attempt"], &task["error"]),
        (&json!("succeeded"), &json!(1), &Value::Null)
    );
    assert_eq!(task["labels"], json!({"customer": "42"}));
    world.end().await;
}

#[tokio::test]
async fn task_accepted_without_workers_runs_after_a_restart() {
    let mut world = World::with(&["--concurrency", "0"]).await;
    let task = world.submit(&json!({"kind": "noop"})).await;
    let waited = world.get(&format!("{}?wait=0.2", path(&task))).await.json();
    assert_eq!((&waited["status"], &waited["attempt"]), (&json!("queued"), &json!(0)));
    world.stop().await;
    world.go_on_with(&[]).await;
    assert_eq!(world.ended(&task).await["status"], "succeeded");
    world.end().await;
}

#[tokio::test]
async fn unknown_field_is_refused_by_name() {
    let world = World::start().await;
    let answer = world.post("/v1/tasks", &json!({"kind": "noop", "retry": {"max_retires": 3}})).await;
    assert_eq!(answer.problem(), (422, "validation_failed".to_owned()));
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(answer.json()["errors"].to_string().contains("max_retires"), "{}", answer.text());
    assert_eq!(world.tasks("").await.len(), 0);
    world.end().await;
}

#[tokio::test]
async fn unknown_kind_is_refused() {
    let world = World::start().await;
    assert_eq!(
        world.post("/v1/tasks", &json!({"kind": "greet"})).await.problem(),
        (422, "unknown_kind".to_owned())
    );
    world.end().await;
}

#[tokio::test]
async fn local_url_is_refused_without_permission() {
    let world = World::with(&[]).await;
    let port = world.receiver.address().port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "127.1",
        "0x7f.1",
        "2130706433",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "10.0.0.1",
    ] {
        let url = format!("http://{host}:{port}/");
        let answer = world.post("/v1/tasks", &json!({"kind": "http", "payload": {"url": url}})).await;
        assert_eq!(answer.problem(), (422, "blocked_address".to_owned()), "{url}");
        let answer = world.post("/v1/tasks", &json!({"kind": "noop", "callback": {"url": url}})).await;
        assert_eq!(answer.problem(), (422, "blocked_address".to_owned()), "as a callback: {url}");
    }
    assert_eq!(world.tasks("").await.len(), 0);
    world.end().await;
}

#[tokio::test]
async fn accepted_url_is_blocked_at_the_call_if_no_longer_allowed() {
    let mut world = World::start().await;
    let call = json!({"kind": "http", "delay": 1, "payload": {"url": world.receiver.url("/hook")}});
    let task = world.submit(&call).await;
    world.stop().await;
    world.go_on_with(&[]).await;
    let task = world.ended(&task).await;
    assert_eq!((&task["status"], &task["error"]["code"]), (&json!("failed"), &json!("blocked_address")));
    assert_eq!(world.receiver.received("/hook").len(), 0);
    world.end().await;
}

#[tokio::test]
async fn name_of_a_local_address_is_blocked_at_the_call() {
    let name = local_name().expect("a name in /etc/hosts that leads to this machine or its network");
    let world = World::with(&[]).await;
    let url = format!("http://{name}:{}/hook", world.receiver.address().port());
    // The name itself is valid, so the submission is accepted. Its address is known only at the call.
    let task = world.submit(&json!({"kind": "http", "payload": {"url": url}})).await;
    let task = world.ended(&task).await;
    assert_eq!(
        (&task["status"], &task["error"]["code"]),
        (&json!("failed"), &json!("blocked_address")),
        "{url}"
    );
    assert_eq!((&task["attempt"], world.receiver.received("/hook").len()), (&json!(1), 0));
    world.end().await;
}

/// Returns a name from `/etc/hosts` with a non-public address, but not one that is local by its top-level
/// domain.
fn local_name() -> Option<String> {
    let table = std::fs::read_to_string("/etc/hosts").ok()?;
    let lines = table
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>());
    let is_local = |address: &str| {
        address.starts_with("127.")
            || address == "::1"
            || address.starts_with("10.")
            || address.starts_with("172.")
    };
    let is_plain = |name: &str| {
        let last = name.rsplit('.').next().unwrap_or_default();
        !matches!(last, "localhost" | "local" | "internal")
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte))
    };
    let names = lines
        .filter(|line| line.first().is_some_and(|address| is_local(address)))
        .flat_map(|line| line.into_iter().skip(1));
    names.filter(|name| is_plain(name)).map(str::to_owned).next()
}
