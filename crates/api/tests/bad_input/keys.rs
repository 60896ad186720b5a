//! Rows 21 to 28: idempotency keys.

use std::time::Duration;

use crate::world::World;

const BODY: &str = r#"{"kind":"noop"}"#;

#[tokio::test]
async fn row_24_invalid_idempotency_key_is_refused() {
    let world = World::start().await;
    let long = "k".repeat(256);
    for key in [
        "",
        "\"\"",
        &long,
        "a b",
        "a,b",
        "a\tb",
        "ключ",
        "\"a",
        "\"a\"b\"",
        "a\r\nIdempotency-Key: a",
        "a\r\nIdempotency-Key: b",
    ] {
        for path in ["/v1/tasks", "/v1/tasks/batch"] {
            world
                .post_with(path, &format!("Idempotency-Key: {key}\r\n"), BODY)
                .await
                .problem(400, "invalid_idempotency_key");
        }
    }
    assert!(world.store.all().is_empty());
}

#[tokio::test]
async fn rows_21_and_23_the_same_key_is_the_same_request() {
    let world = World::start().await;
    let first = world.post_with("/v1/tasks", "Idempotency-Key: \"order 7\"\r\n", BODY).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, None));
    let id = first.json()["id"].as_str().unwrap().to_owned();
    world.run(&id).await;
    world.succeed(&id).await;
    let again = world.post_with("/v1/tasks", "idempotency-key:   \"order 7\"\r\n", BODY).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, Some("true")));
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!((&again.json()["id"], &again.json()["status"]), (&first.json()["id"], &"succeeded".into()));
    let other = world.post_with("/v1/tasks", "Idempotency-Key: \"order 7\"\r\n", r#"{"kind": "noop"}"#).await;
    other.problem(422, "idempotency_key_reused");
    assert_eq!(world.store.all().len(), 1);
}

#[tokio::test]
async fn row_27_key_is_free_after_the_retention_of_its_task() {
    let world = World::guarded().await;
    let key = world.key("acme", "tasks:write,tasks:read").await;
    let submit =
        async |body: &str| world.ask_from("Idempotency-Key: k\r\n", &key, "POST", "/v1/tasks", body).await;
    let id = submit(BODY).await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(world.ask_with(&key, "POST", &format!("/v1/tasks/{id}/cancel"), "").await.status, 200);
    world.clock.advance(Duration::from_hours(24) + Duration::from_millis(1));
    let missing = world
        .ask_with(&key, "GET", "/v1/tasks/task_01jd0000000000000000000000", "")
        .await
        .problem(404, "task_not_found");
    let mut gone =
        world.ask_with(&key, "GET", &format!("/v1/tasks/{id}"), "").await.problem(404, "task_not_found");
    gone["instance"] = missing["instance"].clone();
    assert_eq!(gone, missing, "an expired task looks like a missing one");
    let other = submit(r#"{"kind":"noop","payload":2}"#).await;
    assert_eq!((other.status, other.header("idempotency-replayed")), (202, None));
    assert_eq!((&other.json()["id"], &other.json()["status"]), (&id.into(), &"queued".into()));
}

#[tokio::test]
async fn quoted_and_bare_are_one_key() {
    let world = World::start().await;
    let quoted = world.post_with("/v1/tasks", "Idempotency-Key: \"a\"\r\n", BODY).await.json();
    assert_eq!(world.post_with("/v1/tasks", "Idempotency-Key: a\r\n", BODY).await.json()["id"], quoted["id"]);
}

#[tokio::test]
async fn row_26_same_key_on_another_route_is_another_key() {
    let world = World::start().await;
    let header = "Idempotency-Key: a\r\n";
    let batch = format!(r#"{{"tasks":[{BODY},{BODY}]}}"#);
    assert_eq!(world.post_with("/v1/tasks", header, BODY).await.status, 202);
    let first = world.post_with("/v1/tasks/batch", header, &batch).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, None));
    let again = world.post_with("/v1/tasks/batch", header, &batch).await;
    assert_eq!(
        (again.json(), again.header("idempotency-replayed")),
        (first.json(), Some("true")),
        "the tasks are in the order of the request"
    );
    world
        .post_with("/v1/tasks/batch", header, format!(r#"{{"tasks":[{BODY}]}}"#))
        .await
        .problem(422, "idempotency_key_reused");
    assert_eq!(world.store.all().len(), 3);
}

#[tokio::test]
async fn repeated_batch_with_expired_tasks_is_refused() {
    let world = World::start().await;
    let batch = format!(r#"{{"tasks":[{BODY},{BODY}]}}"#);
    let first = world.post_with("/v1/tasks/batch", "Idempotency-Key: a\r\n", &batch).await.json();
    world.store.forget(first["data"][1]["id"].as_str().unwrap());
    let answer = world.post_with("/v1/tasks/batch", "Idempotency-Key: a\r\n", &batch).await;
    assert!(
        answer.problem(409, "idempotency_key_partly_expired")["detail"]
            .as_str()
            .unwrap()
            .contains("new Idempotency-Key")
    );
    assert_eq!(world.store.all().len(), 1);
}

#[tokio::test]
async fn row_28_invalid_request_leaves_its_key_free() {
    let world = World::start().await;
    let header = "Idempotency-Key: a\r\n";
    world.post_with("/v1/tasks", header, r#"{"kind":"nope"}"#).await.problem(422, "unknown_kind");
    world.post_with("/v1/tasks", header, "{").await.problem(400, "malformed_json");
    let batch = r#"{"tasks":[{"kind":"nope"},{"kind":"noop"}]}"#;
    world.post_with("/v1/tasks/batch", header, batch).await.problem(422, "unknown_kind");
    assert_eq!(world.post_with("/v1/tasks", header, BODY).await.status, 202);
}

/// A repeated request is accepted even if its body has become invalid since the first one.
#[tokio::test]
async fn repeated_request_is_recognised_after_it_became_invalid() {
    let world = World::start().await;
    let header = "Idempotency-Key: a\r\n";
    let body = r#"{"kind":"noop","expires_at":"2026-11-30T09:31:00Z"}"#;
    let batch = format!(r#"{{"tasks":[{body},{body}]}}"#);
    let one = world.post_with("/v1/tasks", header, body).await.json();
    let two = world.post_with("/v1/tasks/batch", header, &batch).await.json();
    world.clock.advance(Duration::from_hours(1));
    let again = world.post_with("/v1/tasks", header, body).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, Some("true")));
    assert_eq!(again.json(), one);
    assert_eq!(world.post_with("/v1/tasks/batch", header, &batch).await.json(), two);
    world.post_with("/v1/tasks", header, r#"{"kind":"nope"}"#).await.problem(422, "idempotency_key_reused");
    world.post_with("/v1/tasks", "Idempotency-Key: b\r\n", body).await.names(
        422,
        "validation_failed",
        &["/expires_at"],
    );
    world.post_with("/v1/tasks", "", body).await.names(422, "validation_failed", &["/expires_at"]);
}
