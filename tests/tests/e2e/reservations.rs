//! Tasks that wait for a rate hold reservations. A reservation ends with its task, and the next task gets it.

use std::time::{Duration, Instant};

use nobat_tests::harness::{PATIENCE, World, from_now, has_ended, moment, path};
use serde_json::{Value, json};

/// Seconds between two starts.
const PERIOD: u64 = 2;
/// Number of waiting tasks. Their reservations reach 40 seconds ahead.
const WAITING: u64 = 20;

/// Limit scope with a rate: the route that sets the rate, and the fields of a task that belongs to it.
struct Scope {
    route: &'static str,
    limits: fn(Value) -> Value,
    fields: Value,
}

fn scopes(world: &World) -> Vec<Scope> {
    let limiter = |limits| json!({ "limits": limits });
    vec![
        Scope {
            route: "/v1/limits/customer",
            limits: |limits| limits,
            fields: json!({"kind": "noop", "limit_key": "customer"}),
        },
        Scope {
            route: "/v1/queues/narrow",
            limits: limiter,
            fields: json!({"kind": "noop", "queue": "narrow"}),
        },
        Scope {
            route: "/v1/kinds/http",
            limits: limiter,
            fields: json!({"kind": "http", "payload": {"url": world.receiver.url("/kind")}}),
        },
    ]
}

fn rate() -> Value {
    json!({"rate": 1, "period": PERIOD})
}

async fn put(world: &World, route: &str, body: &Value) {
    let answer = world.ask("PUT", route, body).await;
    assert!([200, 201].contains(&answer.status), "{route}: {}", answer.text());
}

/// Submits tasks until one has started and `WAITING` others hold a reservation each.
async fn reserve(world: &World, task: &Value) -> (Value, Vec<Value>) {
    let first = world.ended(&world.submit(task).await).await;
    let answer = world
        .post("/v1/tasks/batch", &json!({"tasks": (0..WAITING).map(|_| task).collect::<Vec<_>>()}))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let waiting = answer.json()["data"].as_array().unwrap().clone();
    for task in &waiting {
        // The first of them may already have started.
        world.until(task, |task| task["held"]["reason"] == "rate_limited" || has_ended(task)).await;
    }
    (first, waiting)
}

/// Submits one task and checks that it starts when the rate allows it, and not after the reservations of
/// tasks that ended.
async fn starts_soon(world: &World, task: &Value, first: &Value) {
    let task = world.ended(&world.submit(task).await).await;
    assert_eq!(task["status"], "succeeded", "{task:#}");
    // The few tasks that started before the cancellations take two periods; the reservations reach ten times
    // as far.
    let waited = moment(&task, "started_at").since(moment(first, "started_at"));
    assert!(waited < Duration::from_secs(PERIOD * 5), "{waited:?}: {task:#}");
}

async fn cancel_all(world: &World, tasks: &[Value]) {
    for task in tasks {
        let answer = world.post(&format!("{}/cancel", path(task)), &json!({})).await;
        assert!([200, 202, 409].contains(&answer.status), "{}", answer.text());
    }
}

#[tokio::test]
async fn canceled_tasks_give_their_reservations_back_in_every_scope() {
    let world = World::start().await;
    for Scope { route, limits, fields } in scopes(&world) {
        put(&world, route, &limits(rate())).await;
        let (first, waiting) = reserve(&world, &fields).await;
        cancel_all(&world, &waiting).await;
        let begun = Instant::now();
        // A task that was claimed when it was canceled releases its reservation a moment later.
        while world.get(route).await.json()["state"]["reserved_starts"] != 0 {
            assert!(begun.elapsed() < PATIENCE, "{route}");
        }
        starts_soon(&world, &fields, &first).await;
    }
    world.end().await;
}

#[tokio::test]
async fn canceled_tasks_of_an_endpoint_give_their_reservations_back() {
    let world = World::start().await;
    let endpoint = json!({"url": world.receiver.url("/api"), "limits": rate()});
    put(&world, "/v1/endpoints/billing", &endpoint).await;
    let task = json!({"kind": "http", "endpoint": "billing", "payload": {"path": "/hook"}});
    let (first, waiting) = reserve(&world, &task).await;
    let promised =
        world.get("/v1/endpoints/billing").await.json()["state"]["reserved_starts"].as_u64().unwrap();
    assert!(promised > WAITING / 2, "{promised}");
    cancel_all(&world, &waiting).await;
    starts_soon(&world, &task, &first).await;
    world.end().await;
}

#[tokio::test]
async fn expired_tasks_give_their_reservations_back() {
    let world = World::start().await;
    put(&world, "/v1/limits/customer", &rate()).await;
    let task = json!({"kind": "noop", "limit_key": "customer"});
    let mut short = task.clone();
    short["expires_at"] = json!(from_now(Duration::from_secs(3)));
    let (first, waiting) = reserve(&world, &short).await;
    for task in &waiting {
        world.ended(task).await;
    }
    starts_soon(&world, &task, &first).await;
    world.end().await;
}

#[tokio::test]
async fn woken_tasks_take_the_earliest_free_reservations() {
    let world = World::start().await;
    put(&world, "/v1/limits/customer", &rate()).await;
    let task = json!({"kind": "noop", "limit_key": "customer"});
    let (_, mut waiting) = reserve(&world, &task).await;
    let last = waiting.pop().unwrap();
    cancel_all(&world, &waiting).await;
    let before = world.task(&last).await;
    // Writes the same limits again: waiting tasks ask again 10 seconds later, when every process knows the
    // change.
    put(&world, "/v1/limits/customer", &rate()).await;
    let woken = world.task(&last).await;
    let after = world.ended(&last).await;
    assert_eq!(after["status"], "succeeded");
    let limit = moment(&woken, "run_at").min(moment(&before, "run_at")) + Duration::from_secs(PERIOD * 2);
    assert!(moment(&after, "started_at") < limit, "{before:#} {after:#}");
    world.end().await;
}
