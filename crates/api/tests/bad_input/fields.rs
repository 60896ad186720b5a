//! Rows 33, 34, 36 to 38 and 52: values out of bounds, in bodies and in queries.

use crate::world::World;

#[tokio::test]
async fn row_33_cursor_of_another_list_is_refused() {
    let world = World::start().await;
    for _ in 0..3 {
        world.submit(r#"{"kind":"noop"}"#).await;
    }
    let page = world.get("/v1/tasks?limit=2&kind=noop").await.json();
    assert_eq!(page["data"].as_array().unwrap().len(), 2);
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = world.get(&format!("/v1/tasks?limit=100&kind=noop&cursor={cursor}")).await.json();
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &serde_json::Value::Null));

    let flipped = cursor.replacen(|_: char| true, if cursor.starts_with('0') { "1" } else { "0" }, 1);
    for query in [
        format!("kind=http&cursor={cursor}"),
        format!("cursor={cursor}"),
        format!("kind=noop&status=queued&cursor={cursor}"),
        format!("kind=noop&cursor={flipped}"),
        format!("kind=noop&cursor={cursor}00"),
        "kind=noop&cursor=".into(),
        "kind=noop&cursor=0".into(),
        "kind=noop&cursor=%00".into(),
        "kind=noop&cursor=task_01jd8rkz5m3q4v9x2y7w6t0abc".into(),
    ] {
        world.get(&format!("/v1/tasks?{query}")).await.problem(400, "invalid_cursor");
    }
}

#[tokio::test]
async fn row_34_invalid_query_parameters_are_refused() {
    let world = World::start().await;
    for (query, pointers) in [
        ("limit=1000000", &["?limit"][..]),
        ("limit=-1", &["?limit"]),
        ("limit=0", &["?limit"]),
        ("limit=1.5", &["?limit"]),
        ("limit=", &["?limit"]),
        ("limit=1&limit=1", &["?limit"]),
        ("offset=100000", &["?offset"]),
        ("status=done", &["?status"]),
        ("status=", &["?status"]),
        ("queue=a%20b&kind=%00", &["?queue", "?kind"]),
        ("created_after=yesterday&created_before=1", &["?created_after", "?created_before"]),
        ("limit=0&stauts=queued", &["?stauts", "?limit"]),
    ] {
        world.get(&format!("/v1/tasks?{query}")).await.names(422, "validation_failed", pointers);
    }
    let answer = world.get("/v1/tasks?created_after=2026-12-01T10:00:00+02:00").await;
    assert!(
        answer.text().contains("%2B"),
        "the error text says that a plus is written as %2B: {}",
        answer.text()
    );
    let all = "/v1/tasks?status=queued&queue=default&kind=noop&created_after=2026-11-30T11:30:00%2B02:00&created_before=2027-01-01T00:00:00Z&limit=100";
    world.submit(r#"{"kind":"noop"}"#).await;
    assert_eq!(world.get(all).await.json()["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn invalid_wait_is_refused() {
    let world = World::start().await;
    let id = world.submit(r#"{"kind":"noop"}"#).await;
    for query in
        ["wait=-1", "wait=NaN", "wait=", "wait=soon", "wait=1&wait=1", "wait", "wait=1s", "wait=-inf"]
    {
        world.get(&format!("/v1/tasks/{id}?{query}")).await.names(422, "validation_failed", &["?wait"]);
    }
    world.get(&format!("/v1/tasks/{id}?wiat=1")).await.names(422, "validation_failed", &["?wiat"]);
    assert_eq!(world.get(&format!("/v1/tasks/{id}?")).await.status, 200);
    assert_eq!(world.get(&format!("/v1/tasks/{id}?wait=0")).await.status, 200);
}

#[tokio::test]
async fn rows_36_to_38_values_out_of_bounds_are_refused() {
    let world = World::start().await;
    for (fields, pointers) in [
        (r#""run_at":"2076-12-01T00:00:00Z""#, &["/run_at"][..]),
        (r#""run_at":"9999-12-31T23:59:59Z""#, &["/run_at"]),
        (r#""run_at":"10000-01-01T00:00:00Z""#, &["/run_at"]),
        (r#""run_at":"2026-12-01""#, &["/run_at"]),
        (r#""delay":-1"#, &["/delay"]),
        (r#""delay":31622401"#, &["/delay"]),
        (r#""delay":1,"run_at":"2026-12-01T00:00:00Z""#, &["/run_at"]),
        (r#""timeout":0"#, &["/timeout"]),
        (r#""timeout":-1"#, &["/timeout"]),
        (r#""timeout":43201"#, &["/timeout"]),
        (r#""timeout":1e300"#, &["/timeout"]),
        (r#""retry":{"max_attempts":1000000}"#, &["/retry/max_attempts"]),
        (r#""retry":{"max_attempts":0}"#, &["/retry/max_attempts"]),
        (
            r#""retry":{"max_attempts":51,"initial_delay":-1,"multiplier":0}"#,
            &["/retry/max_attempts", "/retry/multiplier", "/retry/initial_delay"],
        ),
        (r#""expires_at":"2020-01-01T00:00:00Z""#, &["/expires_at"]),
    ] {
        world.post("/v1/tasks", format!(r#"{{"kind":"noop",{fields}}}"#)).await.names(
            422,
            "validation_failed",
            pointers,
        );
    }
    assert!(world.store.all().is_empty());
    let past = world.post("/v1/tasks", r#"{"kind":"noop","run_at":"2020-01-01T00:00:00Z"}"#).await.json();
    assert_eq!((&past["status"], &past["run_at"]), (&"queued".into(), &past["created_at"]));
    let leap = world.post("/v1/tasks", r#"{"kind":"noop","run_at":"2026-12-31T23:59:60Z"}"#).await;
    assert_eq!(
        (leap.status, &leap.json()["run_at"]),
        (202, &"2026-12-31T23:59:59.000Z".into()),
        "{}",
        leap.text()
    );
    let fifty = format!(r#"{{"kind":"noop","retry":{{"delays":[{}]}}}}"#, ["0"; 50].join(","));
    world.post("/v1/tasks", fifty).await.names(422, "validation_failed", &["/retry/delays"]);
    assert_eq!(
        world
            .post("/v1/tasks", r#"{"kind":"noop","retry":{"max_attempts":50},"timeout":43200}"#)
            .await
            .status,
        202
    );
}

#[tokio::test]
async fn specific_code_is_the_code_of_the_response() {
    let world = World::start().await;
    world.post("/v1/tasks", r#"{"kind":"nope"}"#).await.names(422, "unknown_kind", &["/kind"]);
    let blocked = r#"{"kind":"http","payload":{"url":"https://127.0.0.1"}}"#;
    world.post("/v1/tasks", blocked).await.names(422, "blocked_address", &["/payload/url"]);
    world.post("/v1/tasks/batch", format!(r#"{{"tasks":[{blocked}]}}"#)).await.names(
        422,
        "blocked_address",
        &["/tasks/0/payload/url"],
    );
    let callback = r#"{"kind":"noop","callback":{"url":"https://127.0.0.1"}}"#;
    world.post("/v1/tasks", callback).await.names(422, "blocked_address", &["/callback/url"]);
    let both = r#"{"kind":"http","payload":{"url":"https://127.0.0.1"},"timeout":0}"#;
    world.post("/v1/tasks", both).await.names(422, "validation_failed", &["/timeout", "/payload/url"]);
}

#[tokio::test]
async fn row_35_invalid_task_refuses_the_whole_batch() {
    let world = World::start().await;
    let batch = r#"{"tasks":[{"kind":"noop"},{"kind":"noop","timeout":0},{"kind":"noop"},{"kind":"nope"}]}"#;
    world.post("/v1/tasks/batch", batch).await.names(
        422,
        "validation_failed",
        &["/tasks/1/timeout", "/tasks/3/kind"],
    );
    let many = |count| format!(r#"{{"tasks":[{}]}}"#, vec![r#"{"kind":"noop"}"#; count].join(","));
    world.post("/v1/tasks/batch", many(0)).await.names(422, "validation_failed", &["/tasks"]);
    world.post("/v1/tasks/batch", many(101)).await.names(422, "validation_failed", &["/tasks"]);
    world.post("/v1/tasks/batch", "{}").await.names(422, "validation_failed", &["/tasks"]);
    assert!(world.store.all().is_empty());
    assert_eq!(world.post("/v1/tasks/batch", many(100)).await.json()["data"].as_array().unwrap().len(), 100);
}
