//! Explanations of tasks that do not run, and the state of limits: they use the task's own tenant's data, as
//! of now.

use std::num::NonZeroU32;
use std::time::Duration;

use nobat_core::limits::{
    AcquireRequest, AcquireResult as Said, BreakerPolicy, CallHealth, CallReport, HolderId, LimitScope,
    LimiterKey, LimiterState, Limits, RateLimit,
};
use nobat_core::ports::Clock;
use nobat_core::ports::limiter_store::WriteResult;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::name::{Name, Tenant};
use serde_json::{Value, json};

use crate::world::World;

const ALL: &str = "config:write,tasks:write,tasks:read";

/// Writes a configuration, with a key of the tenant that may do so.
async fn put(world: &World, tenant: &str, path: &str, body: &Value) {
    let answer = world.ask_with(&world.key(tenant, ALL).await, "PUT", path, &body.to_string()).await;
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
}

async fn get(world: &World, tenant: &str, path: &str) -> Value {
    let answer = world.ask_with(&world.key(tenant, ALL).await, "GET", path, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn submit(world: &World, tenant: &str, task: &Value) -> String {
    let answer = world.ask_with(&world.key(tenant, ALL).await, "POST", "/v1/tasks", &task.to_string()).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    format!("/v1/tasks/{}/explain", answer.json()["id"].as_str().unwrap())
}

/// Writes the limiter state that a worker would have written: two started tasks, one of which failed, and one
/// with a reservation.
async fn write_limiter(world: &World, tenant: &str, of: LimitScope) {
    let (count, now) = (|count| NonZeroU32::new(count).unwrap(), world.clock.now());
    let breaker = BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() };
    let rate_limit = RateLimit { rate: count(1), period: Duration::from_secs(10), burst: count(2) };
    let limits = Limits { rate: Some(rate_limit), concurrency: Some(count(5)), breaker: Some(breaker) };
    let mut limiter = LimiterState::default();
    let enter = |limiter: &mut LimiterState| {
        limiter.acquire(
            &limits,
            &AcquireRequest {
                holder: HolderId(1),
                reservation: None,
                has_due_reservation_elsewhere: false,
                holds: 0,
                jitter: JitterSample::from_bits(0),
            },
            now,
        )
    };
    let (first, _, _) = (enter(&mut limiter), enter(&mut limiter), enter(&mut limiter));
    let Said::Granted(first) = first else { panic!("{first:?}") };
    limiter.complete(
        &limits,
        first,
        HolderId(1),
        &CallReport { health: CallHealth::Bad, took: Duration::ZERO, pause_until: None },
        now,
    );
    let name = LimiterKey { tenant: Tenant::new(tenant).unwrap(), scope: of };
    assert_eq!(world.backend.limiters.write(&name, &limiter, 0, now).await.unwrap(), WriteResult::Done);
}

#[tokio::test]
async fn explanation_uses_the_current_configuration() {
    let world = World::guarded().await;
    put(&world, "acme", "/v1/endpoints/billing", &json!({"url": "https://example.com"})).await;
    let task =
        submit(&world, "acme", &json!({"kind": "noop", "endpoint": "billing", "limit_key": "customer-42"}))
            .await;
    let waits = get(&world, "acme", &task).await;
    assert_eq!(
        (&waits["code"], &waits["status"], &waits["until"], &waits["blocked_by"]),
        (&json!("queued"), &json!("queued"), &Value::Null, &Value::Null)
    );
    let says = async |what: &str| {
        let reason = get(&world, "acme", &task).await["reason"].as_str().unwrap().to_owned();
        assert!(reason.ends_with(what), "{reason}");
    };
    says("and waits for a worker").await;
    put(&world, "other", "/v1/queues/default", &json!({"paused": true})).await;
    says("and waits for a worker").await;
    put(&world, "acme", "/v1/queues/default", &json!({"paused": true})).await;
    put(&world, "acme", "/v1/kinds/noop", &json!({"paused": true})).await;
    says("the task will be held then, unless this changes: queue default and kind noop are paused").await;
    put(&world, "acme", "/v1/queues/default", &json!({"paused": false})).await;
    put(&world, "acme", "/v1/kinds/noop", &json!({"paused": false})).await;
    says("and waits for a worker").await;
    write_limiter(&world, "acme", LimitScope::Endpoint(Name::new("billing").unwrap())).await;
    says("and the next probe may start at 2026-11-30T09:30:30.000Z").await;
    world.clock.advance(Duration::from_secs(61));
    let waits = get(&world, "acme", &task).await;
    assert_eq!(waits["code"], "no_worker", "{waits}");
}

#[tokio::test]
async fn ended_task_is_explained_and_missing_one_is_not_found() {
    let world = World::guarded().await;
    let task = submit(&world, "acme", &json!({"kind": "noop", "delay": 60})).await;
    let waits = get(&world, "acme", &task).await;
    assert_eq!((&waits["code"], &waits["until"]), (&json!("scheduled"), &json!("2026-11-30T09:31:00.000Z")));
    let key = world.key("acme", ALL).await;
    assert_eq!(world.ask_with(&key, "POST", &task.replace("/explain", "/cancel"), "").await.status, 200);
    let ended = get(&world, "acme", &task).await;
    assert_eq!(
        (&ended["code"], &ended["status"], &ended["error"]["code"]),
        (&json!("canceled"), &json!("canceled"), &json!("canceled"))
    );
    for path in ["/v1/tasks/task_01jd8rkz5m3q4v9x2y7w6t0abc/explain", "/v1/tasks/x/explain"] {
        world.ask_with(&key, "GET", path, "").await.problem(404, "task_not_found");
    }
    world.ask_with(&key, "POST", &task, "").await.problem(405, "method_not_allowed");
}

#[tokio::test]
async fn limiter_state_is_shown_only_to_its_tenant() {
    let world = World::guarded().await;
    let limiter = json!({"rate": 1, "period": 10, "burst": 2, "concurrency": 5});
    let name = || Name::new("x").unwrap();
    put(
        &world,
        "acme",
        "/v1/endpoints/x",
        &json!({"url": "https://example.com", "limits": limiter, "circuit_breaker": {"minimum_calls": 1}}),
    )
    .await;
    put(&world, "acme", "/v1/queues/x", &json!({"limits": limiter})).await;
    put(&world, "acme", "/v1/kinds/x", &json!({"limits": limiter})).await;
    put(&world, "acme", "/v1/limits/x", &limiter).await;
    for of in [
        LimitScope::Endpoint(name()),
        LimitScope::Queue(name()),
        LimitScope::Kind(name()),
        LimitScope::Key(name()),
    ] {
        write_limiter(&world, "acme", of).await;
    }
    for path in ["/v1/queues/x", "/v1/kinds/x", "/v1/limits/x"] {
        let state = json!({"tokens": 0, "reserved_starts": 1, "running": 1, "paused_until": null, "circuit_breaker": null});
        assert_eq!(get(&world, "acme", path).await["state"], state, "{path}");
        let nothing = json!({"tokens": null, "reserved_starts": null, "running": null, "paused_until": null, "circuit_breaker": null});
        assert_eq!(
            get(&world, "other", path).await["state"],
            nothing,
            "{path}: the other tenant has no limits and no state"
        );
    }
    let endpoint = get(&world, "acme", "/v1/endpoints/x").await;
    let breaker = json!({
        "state": "open",
        "since": "2026-11-30T09:30:00.000Z",
        "next_probe": "2026-11-30T09:30:30.000Z",
        "changes": [{"to": "open", "at": "2026-11-30T09:30:00.000Z"}],
    });
    assert_eq!((&endpoint["state"]["circuit_breaker"], &endpoint["state"]["running"]), (&breaker, &json!(1)));
    let listed = get(&world, "acme", "/v1/endpoints").await;
    assert_eq!(listed["data"][0].get("state"), None, "a list shows no limiter state");
}
