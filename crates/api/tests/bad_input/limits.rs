//! Limits of tenants: rows 29 and 30.

use std::time::Duration;

use nobat_core::task::TaskKey;
use nobat_core::task::lifecycle::Event;
use nobat_core::types::name::Tenant;
use serde_json::json;

use crate::world::World;

const NOOP: &str = r#"{"kind":"noop"}"#;

async fn limited(world: &World, settings: &str) -> String {
    let admin = world.key("ops", "admin").await;
    let put = world.ask_with(&admin, "PUT", "/v1/tenants/acme", settings).await;
    assert_eq!(put.status, 200, "{}", put.text());
    world.key("acme", "tasks:write,tasks:read").await
}

#[tokio::test]
async fn request_above_the_rate_is_refused_with_retry_after() {
    let world = World::guarded().await;
    let key = limited(&world, r#"{"request_rate": {"rate": 2, "burst": 4}}"#).await;
    for _ in 0..4 {
        assert_eq!(world.ask_with(&key, "GET", "/v1/tasks", "").await.status, 200);
    }
    let refused = world.ask_with(&key, "GET", "/v1/tasks", "").await;
    refused.problem(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"requests\";q=4;w=2"));
    assert_eq!(refused.header("ratelimit"), Some("\"requests\";r=0;t=1"));
    let other = world.key("other", "tasks:read").await;
    assert_eq!(
        world.ask_with(&other, "GET", "/v1/tasks", "").await.status,
        200,
        "other tenants are not limited"
    );
    world.clock.advance(Duration::from_millis(500));
    assert_eq!(world.ask_with(&key, "GET", "/v1/tasks", "").await.status, 200);
    world.ask_with(&key, "GET", "/v1/tasks", "").await.problem(429, "rate_limited");
}

/// Row 30: an overloaded store does not affect accepted tasks.
#[tokio::test]
async fn overloaded_store_is_reported_with_retry_after() {
    let world = World::start().await;
    let id = world.submit(NOOP).await;
    world.store.overload();
    let refused = world.post("/v1/tasks", NOOP).await;
    refused.problem(503, "overloaded");
    let pause: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&pause), "{pause}");
    assert_eq!(world.store.all().len(), 1);
    assert_eq!(world.get(&format!("/v1/tasks/{id}")).await.status, 200);
}

#[tokio::test]
async fn task_above_max_pending_tasks_is_refused() {
    let world = World::guarded().await;
    let key = limited(&world, r#"{"max_pending_tasks": 3}"#).await;
    let keyed = async || world.ask_from("Idempotency-Key: k\r\n", &key, "POST", "/v1/tasks", NOOP).await;
    let first = keyed().await;
    let two = world
        .ask_with(&key, "POST", "/v1/tasks/batch", r#"{"tasks":[{"kind":"noop"},{"kind":"noop"}]}"#)
        .await;
    assert_eq!((first.status, two.status), (202, 202), "{}", two.text());
    let refused = world.ask_with(&key, "POST", "/v1/tasks", NOOP).await;
    refused.problem(429, "quota_exceeded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let again = keyed().await;
    assert_eq!(
        (again.status, &again.json()["id"]),
        (202, &first.json()["id"]),
        "a repeated request is accepted at the limit"
    );
    let name = TaskKey {
        tenant: Tenant::new("acme").unwrap(),
        id: first.json()["id"].as_str().unwrap().parse().unwrap(),
    };
    world.backend.apply(&name, None, Event::Cancel, world.clock_now()).await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(
        world.ask_with(&key, "POST", "/v1/tasks", NOOP).await.status,
        202,
        "a task is accepted below the limit"
    );
    world.ask_with(&key, "POST", "/v1/tasks", NOOP).await.problem(429, "quota_exceeded");
}

#[tokio::test]
async fn batch_above_max_pending_tasks_is_refused_whole() {
    let world = World::guarded().await;
    let key = limited(&world, r#"{"max_pending_tasks": 1}"#).await;
    world
        .ask_with(&key, "POST", "/v1/tasks/batch", r#"{"tasks":[{"kind":"noop"},{"kind":"noop"}]}"#)
        .await
        .problem(429, "quota_exceeded");
    assert_eq!(world.ask_with(&key, "GET", "/v1/tasks", "").await.json()["data"], json!([]));
    assert_eq!(world.ask_with(&key, "POST", "/v1/tasks", NOOP).await.status, 202);
}

#[tokio::test]
async fn payload_above_max_payload_bytes_is_refused() {
    let world = World::guarded().await;
    let key = limited(&world, r#"{"max_payload_bytes": 10}"#).await;
    let submit = async |payload: &str| {
        world.ask_with(&key, "POST", "/v1/tasks", &format!(r#"{{"kind":"noop","payload":{payload}}}"#)).await
    };
    assert_eq!(submit(r#""12345678""#).await.status, 202);
    submit(r#""123456789""#).await.names(422, "validation_failed", &["/payload"]);
}

#[tokio::test]
async fn invalid_tenant_limits_are_refused() {
    let world = World::guarded().await;
    let admin = world.key("ops", "admin").await;
    for (body, pointer) in [
        (r#"{"request_rate": {"rate": 0}}"#, "/request_rate/rate"),
        (r#"{"request_rate": {"rate": 100001}}"#, "/request_rate/rate"),
        (r#"{"request_rate": {"rate": 1, "burst": 0}}"#, "/request_rate/burst"),
        (r#"{"request_rate": {"burst": 1}}"#, "/request_rate/rate"),
        (r#"{"max_pending_tasks": 0}"#, "/max_pending_tasks"),
        (r#"{"max_pending_tasks": -1}"#, "/max_pending_tasks"),
        (r#"{"max_payload_bytes": 1.5}"#, "/max_payload_bytes"),
        (r#"{"wating": 1}"#, "/wating"),
    ] {
        let answer = world.ask_with(&admin, "PUT", "/v1/tenants/acme", body).await;
        let named = &answer.problem(422, "validation_failed")["errors"][0]["pointer"];
        assert_eq!(named, pointer, "{body}");
    }
    world.ask_with(&admin, "PUT", "/v1/tenants/a%20b", "{}").await.problem(404, "not_found");
    let unlimited = json!({"rate": null, "period": null, "burst": null, "concurrency": null});
    let nothing = world.ask_with(&admin, "GET", "/v1/tenants/acme", "").await.json();
    assert_eq!(
        nothing,
        json!({"name": "acme", "request_rate": null, "max_pending_tasks": null, "max_payload_bytes": null, "limits": unlimited})
    );
}

#[tokio::test]
async fn tenant_limits_are_listed_and_can_be_removed() {
    let world = World::guarded().await;
    let admin = world.key("ops", "admin").await;
    for name in ["a", "b", "c"] {
        world
            .ask_with(
                &admin,
                "PUT",
                &format!("/v1/tenants/{name}"),
                r#"{"request_rate": {"rate": 5}, "limits": {"rate": 7}}"#,
            )
            .await;
    }
    let lifted = world.ask_with(&admin, "PUT", "/v1/tenants/b", "{}").await.json();
    assert_eq!(lifted["request_rate"], json!(null));
    let page = world.ask_with(&admin, "GET", "/v1/tenants?limit=2", "").await.json();
    assert_eq!(
        page["data"][0],
        json!({"name": "a", "request_rate": {"rate": 5, "burst": 5}, "max_pending_tasks": null, "max_payload_bytes": null, "limits": {"rate": 7, "period": 1.0, "burst": 1, "concurrency": null}})
    );
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest =
        world.ask_with(&admin, "GET", &format!("/v1/tenants?limit=2&cursor={cursor}"), "").await.json();
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &json!(null)));
}
