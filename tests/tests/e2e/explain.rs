use std::time::{Duration, Instant};

use nobat_tests::harness::receiver::{Gate, Reply};
use nobat_tests::harness::{PATIENCE, World, from_now, path};
use serde_json::{Value, json};

const ENDPOINT: &str = "/v1/endpoints/billing";

/// Creates or replaces the endpoint `billing`, which is the receiver, with these additional fields.
async fn put_endpoint(world: &World, besides: Value) {
    let mut endpoint = json!({"url": world.receiver.url("/api"), "circuit_breaker": {"enabled": false}});
    for (field, value) in besides.as_object().unwrap() {
        endpoint[field] = value.clone();
    }
    let answer = world.ask("PUT", ENDPOINT, &endpoint).await;
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
}

async fn put(world: &World, path: &str, body: Value) {
    let answer = world.ask("PUT", path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Returns a task for the endpoint.
fn call(path: &str) -> Value {
    json!({"kind": "http", "endpoint": "billing", "payload": {"path": path}, "retry": {"delays": [0, 0, 0]}})
}

/// Returns the explanation of a task.
async fn explain(world: &World, task: &Value) -> Value {
    let answer = world.get(&format!("{}/explain", path(task))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Waits until the explanation of a task has this code, and returns it.
async fn wait_for_code(world: &World, task: &Value, code: &str) -> Value {
    let begun = Instant::now();
    loop {
        let explanation = explain(world, task).await;
        if explanation["code"] == code {
            return explanation;
        }
        assert!(begun.elapsed() < PATIENCE, "the code is not {code} in time: {explanation:#}");
        // The server holds this request for 0.05 seconds, so that this is no busy loop.
        world.get(&format!("{}?wait=0.05", path(task))).await;
    }
}

fn reason(explanation: &Value) -> &str {
    explanation["reason"].as_str().unwrap_or_else(|| panic!("no reason: {explanation:#}"))
}

async fn cancel(world: &World, task: &Value) {
    let answer = world.post(&format!("{}/cancel", path(task)), &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(explain(world, task).await["code"], "canceled");
}

#[tokio::test]
async fn paused_task_explains_its_pauses_and_the_next_check() {
    let world = World::start().await;
    put_endpoint(&world, json!({})).await;
    put(&world, "/v1/queues/default", json!({"paused": true})).await;
    let task = world.submit(&call("/hook")).await;
    let held = wait_for_code(&world, &task, "paused").await;
    assert_eq!(
        (&held["blocked_by"], &held["status"]),
        (&json!({"type": "queue", "name": "default"}), &json!("held"))
    );
    assert_eq!(
        reason(&held),
        format!("queue default is paused; the task tries again at {}", held["until"].as_str().unwrap())
    );

    assert_eq!(world.post(&format!("{ENDPOINT}/pause"), &json!({})).await.status, 200);
    assert!(
        reason(&wait_for_code(&world, &task, "paused").await)
            .starts_with("queue default and endpoint billing are paused")
    );
    put(&world, "/v1/queues/default", json!({"paused": false})).await;
    let held = wait_for_code(&world, &task, "paused").await;
    assert_eq!(held["blocked_by"], json!({"type": "endpoint", "name": "billing"}));

    assert_eq!(world.post(&format!("{ENDPOINT}/resume"), &json!({})).await.status, 200);
    assert_eq!(world.ended(&task).await["status"], "succeeded");
    let ended = explain(&world, &task).await;
    assert_eq!((&ended["code"], &ended["until"]), (&json!("succeeded"), &Value::Null));
    world.end().await;
}

#[tokio::test]
async fn rate_limited_task_explains_its_rate_and_start_time() {
    let world = World::start().await;
    put(&world, "/v1/limits/customer-42", json!({"rate": 1, "period": 60})).await;
    let task = json!({"kind": "noop", "limit_key": "customer-42"});
    let first = world.ended(&world.submit(&task).await).await;
    assert_eq!(first["status"], "succeeded");
    let second = world.submit(&task).await;
    let held = wait_for_code(&world, &second, "rate_limited").await;
    assert_eq!(held["blocked_by"], json!({"type": "limit_key", "name": "customer-42"}));
    let until = held["until"].as_str().unwrap();
    assert_eq!(
        reason(&held),
        format!(
            "limit key customer-42 has a rate of 1 every 60 s (reserved starts: 1); the task's start is reserved for {until}"
        )
    );
    let limiter = world.get("/v1/limits/customer-42").await.json();
    let state = json!({"tokens": 0, "reserved_starts": 1, "running": null, "paused_until": null, "circuit_breaker": null});
    assert_eq!((&limiter["rate"], &limiter["state"]), (&json!(1), &state));
    cancel(&world, &second).await;
    world.end().await;
}

#[tokio::test]
async fn circuit_breaker_shows_its_state_and_changes() {
    let mut world = World::start().await;
    put_endpoint(&world, json!({"circuit_breaker": {"minimum_calls": 3, "open_duration": 2}})).await;
    let closed = world.get(ENDPOINT).await.json()["state"]["circuit_breaker"].clone();
    assert_eq!(closed, json!({"state": "closed", "since": null, "next_probe": null, "changes": []}));
    world.receiver.script("/api/down", [500, 500, 500, 200].map(Reply::status));
    let task = world.submit(&call("/down")).await;
    let held = wait_for_code(&world, &task, "circuit_open").await;
    assert_eq!((&held["attempt"], &held["error"]["code"]), (&json!(3), &json!("http_500")));
    assert!(
        reason(&held).starts_with("the circuit breaker of endpoint billing has been open since "),
        "{held:#}"
    );
    let open = world.get(ENDPOINT).await.json()["state"]["circuit_breaker"].clone();
    assert_eq!((&open["state"], &open["changes"][0]["to"]), (&json!("open"), &json!("open")));
    assert_eq!((&open["since"], open["next_probe"].is_string()), (&open["changes"][0]["at"], true));

    assert_eq!(world.ended(&task).await["status"], "succeeded");
    let begun = Instant::now();
    // The report of an attempt to the limiter is a separate write, which may come a moment after the task's
    // end.
    let closed = loop {
        let breaker = world.get(ENDPOINT).await.json()["state"]["circuit_breaker"].clone();
        if breaker["state"] == "closed" {
            break breaker;
        }
        assert!(begun.elapsed() < PATIENCE, "{breaker:#}");
    };
    let changes: Vec<&str> =
        closed["changes"].as_array().unwrap().iter().map(|change| change["to"].as_str().unwrap()).collect();
    assert_eq!(
        (changes, &closed["since"]),
        (vec!["open", "half_open", "closed"], &closed["changes"][2]["at"])
    );
    world.stop().await;
    let log = world.log();
    for state in ["open", "half_open", "closed"] {
        let told = log
            .lines()
            .filter(|line| {
                line.contains("endpoint/billing") && line.contains(&format!(r#""state":"{state}""#))
            })
            .count();
        assert_eq!(told, 1, "{state}: {log}");
    }
    world.go_on().await;
    world.end().await;
}

#[tokio::test]
async fn scheduled_and_retrying_tasks_explain_their_start_time() {
    let world = World::start().await;
    let at = from_now(Duration::from_hours(1));
    let scheduled = world.submit(&json!({"kind": "noop", "run_at": at})).await;
    let explanation = explain(&world, &scheduled).await;
    assert_eq!((&explanation["code"], &explanation["until"]), (&json!("scheduled"), &json!(at)));
    assert_eq!(reason(&explanation), format!("the task is due at {at}"));

    let retrying =
        world.submit(&json!({"kind": "noop", "payload": {"fail": 1}, "retry": {"delays": [3600]}})).await;
    let explanation = wait_for_code(&world, &retrying, "backoff").await;
    let until = explanation["until"].as_str().unwrap();
    assert_eq!(
        reason(&explanation),
        format!("attempt 1 of 2 failed with noop_failed, and attempt 2 is made at {until}")
    );
    assert_eq!((&explanation["error"]["code"], &explanation["held"]), (&json!("noop_failed"), &Value::Null));
    for task in [scheduled, retrying] {
        cancel(&world, &task).await;
    }
    world.end().await;
}

#[tokio::test]
async fn running_and_concurrency_limited_tasks_are_explained() {
    let world = World::start().await;
    put_endpoint(&world, json!({"limits": {"concurrency": 1}})).await;
    let gate = Gate::default();
    world.receiver.script("/api/slow", [Reply::status(400).behind(&gate)]);
    let first = world.submit(&call("/slow")).await;
    world.receiver.wait_for("/api/slow", 1).await;
    let running = explain(&world, &first).await;
    let started = world.task(&first).await["started_at"].as_str().unwrap().to_owned();
    assert_eq!((&running["code"], &running["attempt"]), (&json!("running"), &json!(1)));
    let until = running["until"].as_str().unwrap();
    assert_eq!(
        reason(&running),
        format!("attempt 1 of 4 has been running since {started}, under a lease until {until}")
    );
    let second = world.submit(&call("/quick")).await;
    let held = wait_for_code(&world, &second, "concurrency_limited").await;
    assert!(
        reason(&held).starts_with("endpoint billing has a concurrency of 1, and all slots are in use; "),
        "{held:#}"
    );
    assert_eq!(world.get(ENDPOINT).await.json()["state"]["running"], 1);
    gate.open();
    assert_eq!(
        (world.ended(&first).await["status"].as_str(), world.ended(&second).await["status"].as_str()),
        (Some("failed"), Some("succeeded"))
    );
    let failed = explain(&world, &first).await;
    assert_eq!((&failed["code"], &failed["error"]["code"]), (&json!("failed"), &json!("http_400")));
    assert!(reason(&failed).contains(", after 1 of 4 attempts, with http_400: "), "{failed:#}");
    world.end().await;
}

#[tokio::test]
async fn retry_after_hold_explains_its_endpoint_and_end() {
    let world = World::start().await;
    put_endpoint(&world, json!({})).await;
    world.receiver.script("/api/hook", [Reply::status(503).header("retry-after", "60"), Reply::status(200)]);
    let (first, other) = (
        world.submit(&call("/hook")).await,
        json!({"kind": "http", "endpoint": "billing", "payload": {"path": "/other"}}),
    );
    wait_for_code(&world, &first, "retry_after").await;
    let other = world.submit(&other).await;
    let held = wait_for_code(&world, &other, "retry_after").await;
    let until = world.get(ENDPOINT).await.json()["state"]["paused_until"].as_str().unwrap().to_owned();
    assert!(
        reason(&held)
            .starts_with(&format!("the receiver asked for a pause of endpoint billing until {until}; ")),
        "{held:#}"
    );
    for task in [first, other] {
        cancel(&world, &task).await;
    }
    world.end().await;
}

#[tokio::test]
async fn queued_task_without_workers_is_explained() {
    let mut world = World::with(&["--concurrency", "0"]).await;
    let task = world.submit(&json!({"kind": "noop"})).await;
    let explanation = explain(&world, &task).await;
    assert_eq!((&explanation["code"], &explanation["status"]), (&json!("queued"), &json!("queued")));
    put(&world, "/v1/kinds/noop", json!({"paused": true})).await;
    assert!(
        reason(&explain(&world, &task).await)
            .ends_with("the task will be held then, unless this changes: kind noop is paused")
    );
    let printed = world.run(&["explain", task["id"].as_str().unwrap()]).await;
    assert!(printed.code == 0 && printed.stdout.contains("kind noop is paused"), "{printed:?}");
    let printed = world.run(&["explain", task["id"].as_str().unwrap(), "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&printed.stdout).unwrap()["code"], "queued");
    put(&world, "/v1/kinds/noop", json!({"paused": false})).await;
    world.stop().await;
    world.go_on_with(&[]).await;
    assert_eq!(world.ended(&task).await["status"], "succeeded");
    world.end().await;
}
