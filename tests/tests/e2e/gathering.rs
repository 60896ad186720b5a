//! Endpoints with batches: many tasks in one request.

use std::collections::BTreeSet;
use std::time::Duration;

use nobat_core::secrets::webhook::signature;
use nobat_core::types::time::Timestamp;
use nobat_tests::harness::receiver::{Gate, Reply};
use nobat_tests::harness::{World, attempts, from_now, moment};
use serde_json::{Value, json};

const PATH: &str = "/v1/endpoints/events";

/// Creates the endpoint `events`, which is the receiver, with this batch configuration, and returns its
/// secret.
async fn put_endpoint(world: &World, batch: Value, limiter: Value) -> String {
    let endpoint = json!({"url": world.receiver.url("/api"), "batch": batch, "limits": limiter, "circuit_breaker": {"enabled": false}});
    let answer = world.ask("PUT", PATH, &endpoint).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["secret"].as_str().unwrap().to_owned()
}

fn event(number: usize) -> Value {
    let payload = json!({"path": "/collect", "body": {"number": number}});
    json!({"kind": "http", "endpoint": "events", "payload": payload, "retry": {"delays": [0.1]}})
}

async fn submit_all(world: &World, tasks: Vec<Value>) -> Vec<Value> {
    let mut submitted = Vec::new();
    for some in tasks.chunks(100) {
        let answer = world.post("/v1/tasks/batch", &json!({"tasks": some})).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        submitted.extend(answer.json()["data"].as_array().unwrap().clone());
    }
    submitted
}

/// Returns the number of items in each request to that path, and the numbers of all items.
fn sizes(world: &World, path: &str) -> (Vec<usize>, BTreeSet<u64>) {
    let received = world.receiver.received(path);
    let items: Vec<Vec<Value>> =
        received.iter().map(|request| request.json().as_array().unwrap().clone()).collect();
    let numbers = items.iter().flatten().map(|item| item["number"].as_u64().unwrap()).collect();
    (items.iter().map(Vec::len).collect(), numbers)
}

#[tokio::test]
async fn a_thousand_tasks_are_sent_in_about_ten_requests() {
    let world = World::start().await;
    let secret =
        put_endpoint(&world, json!({"max_items": 100, "max_wait": 1}), json!({})).await.parse().unwrap();
    for task in submit_all(&world, (0..1_000).map(event).collect()).await {
        let task = world.ended(&task).await;
        assert_eq!(
            (&task["status"], &task["attempt"], &task["result"]["status"]),
            (&json!("succeeded"), &json!(1), &json!(200)),
            "{task:#}"
        );
    }
    let (sizes, numbers) = sizes(&world, "/api/collect");
    assert_eq!(
        (sizes.iter().sum::<usize>(), numbers.len()),
        (1_000, 1_000),
        "each task is sent once: {sizes:?}"
    );
    assert!((10..=20).contains(&sizes.len()), "{sizes:?}");
    for request in world.receiver.received("/api/collect") {
        assert_eq!(request.header("nobat-batch-items"), request.json().as_array().unwrap().len().to_string());
        assert_eq!(
            (request.header("nobat-task-id"), request.header("webhook-id")),
            ("", request.header("idempotency-key"))
        );
        let at = Timestamp::from_millis(request.header("webhook-timestamp").parse::<i64>().unwrap() * 1_000);
        assert_eq!(
            request.header("webhook-signature"),
            signature([&secret], request.header("webhook-id"), at, &request.body)
        );
    }
    world.end().await;
}

#[tokio::test]
async fn rate_counts_requests_and_a_backlog_fills_batches() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 10, "max_wait": 0.5}), json!({"rate": 4})).await;
    for task in submit_all(&world, (0..100).map(event).collect()).await {
        assert_eq!(world.ended(&task).await["attempt"], 1);
    }
    let (sizes, numbers) = sizes(&world, "/api/collect");
    assert_eq!(numbers.len(), 100);
    assert!((10..=16).contains(&sizes.len()), "{sizes:?}");
    world.end().await;
}

#[tokio::test]
async fn failed_batch_request_fails_and_retries_each_task() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 3, "max_wait": 60}), json!({})).await;
    world.receiver.script("/api/collect", [Reply::status(503), Reply::status(200)]);
    for task in submit_all(&world, (0..3).map(event).collect()).await {
        let task = world.ended(&task).await;
        assert_eq!(
            (&task["status"], attempts(&task, "/error/code")),
            (&json!("succeeded"), vec!["http_503".to_owned(), "-".to_owned()])
        );
    }
    assert_eq!(sizes(&world, "/api/collect").0, [3, 3]);
    let received = world.receiver.received("/api/collect");
    assert_eq!(
        received[0].header("idempotency-key"),
        received[1].header("idempotency-key"),
        "the same tasks have the same key"
    );
    assert_eq!(received[0].body, received[1].body, "the repeated request has the same body");
    world.end().await;
}

#[tokio::test]
async fn per_item_results_decide_each_tasks_outcome() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 4, "max_wait": 2, "per_item_results": true}), json!({})).await;
    let gate = Gate::default();
    let tasks = submit_all(&world, (0..3).map(event).collect()).await;
    let [good, bad, slow] = [0, 1, 2].map(|place: usize| tasks[place]["id"].as_str().unwrap().to_owned());
    let first = json!({"results": [
        {"id": slow, "status": 503}, {"id": good, "status": 201, "body": {"made": 7}}, {"id": bad, "status": 422}, {"id": "other", "status": 200},
    ]});
    let second = json!({"results": [{"id": slow, "status": 200}]});
    world.receiver.script(
        "/api/collect",
        [first, second].map(|answer| Reply::status(200).body(answer.to_string()).behind(&gate)),
    );
    gate.open();
    let [good, bad, slow] = [&tasks[0], &tasks[1], &tasks[2]];
    let good = world.ended(good).await;
    assert_eq!(
        (&good["status"], &good["result"]["status"], &good["result"]["body"]["made"]),
        (&json!("succeeded"), &json!(201), &json!(7))
    );
    let bad = world.ended(bad).await;
    assert_eq!(
        (&bad["status"], attempts(&bad, "/error/code")),
        (&json!("failed"), vec!["http_422".to_owned()])
    );
    let slow = world.ended(slow).await;
    assert_eq!(
        (&slow["status"], attempts(&slow, "/error/code")),
        (&json!("succeeded"), vec!["http_503".to_owned(), "-".to_owned()])
    );
    let requests = world.receiver.received("/api/collect");
    let ids = |place: usize| {
        requests[place].json().as_array().unwrap().iter().map(|item| item["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((ids(0).len(), ids(1)), (3, vec![slow["id"].clone()]));
    assert_eq!(requests[1].json()[0]["body"], json!({"number": 2}));
    assert_eq!(requests[1].json()[0]["idempotency_key"], slow["id"]);
    world.end().await;
}

#[tokio::test]
async fn item_without_a_result_is_retried() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 2, "max_wait": 60, "per_item_results": true}), json!({})).await;
    world.receiver.script(
        "/api/collect",
        [Reply::status(200).body(r#"{"results": []}"#), Reply::status(200).body("done")],
    );
    for task in submit_all(&world, (0..2).map(event).collect()).await {
        let task = world.ended(&task).await;
        assert_eq!(
            (&task["status"], attempts(&task, "/error/code")),
            (&json!("failed"), ["item_result_missing", "invalid_response"].map(String::from).to_vec())
        );
    }
    world.end().await;
}

#[tokio::test]
async fn too_large_per_item_response_fails_the_attempt() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 1, "max_wait": 60, "per_item_results": true}), json!({})).await;
    let long = json!({"results": [{"id": "another", "status": 200, "body": "x".repeat(65_536)}]});
    world.receiver.script("/api/collect", [Reply::status(200).body(long.to_string())]);
    let task = world.submit(&event(0)).await;
    let task = world.ended(&task).await;
    assert_eq!(
        (&task["status"], attempts(&task, "/error/code")),
        (&json!("failed"), vec!["response_too_large".to_owned(); 2])
    );
    world.end().await;
}

#[tokio::test]
async fn batching_tasks_are_held_and_can_be_canceled() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 3, "max_wait": 600}), json!({})).await;
    let tasks = submit_all(&world, vec![event(0), event(1)]).await;
    for task in &tasks {
        let held = world.until(task, |task| task["held"]["reason"] == "batching").await;
        assert_eq!(held["attempt"], 0);
    }
    let canceled = world
        .post(&format!("/v1/tasks/{}/cancel", tasks[0]["id"].as_str().unwrap()), &json!({}))
        .await
        .json();
    assert_eq!(canceled["status"], "canceled");
    let last = submit_all(&world, vec![event(2), event(3)]).await;
    for task in [&tasks[1], &last[0], &last[1]] {
        assert_eq!(world.ended(task).await["status"], "succeeded");
    }
    let (sizes, numbers) = sizes(&world, "/api/collect");
    assert_eq!(
        (sizes, numbers),
        (vec![3], BTreeSet::from([1, 2, 3])),
        "a canceled task takes no place in the batch"
    );
    world.end().await;
}

/// The next member leads at once, not only after the 2 seconds for which it waits for a missing leader.
#[tokio::test]
async fn next_member_leads_when_the_leader_is_canceled_or_held() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 9, "max_wait": 3}), json!({})).await;
    for hold in [false, true] {
        let mut leader = event(0);
        leader["queue"] = json!("slow");
        let leader = world.submit(&leader).await;
        let begun = moment(&leader, "created_at");
        world.until(&leader, |task| task["held"]["reason"] == "batching").await;
        let others = submit_all(&world, vec![event(1), event(2)]).await;
        for task in &others {
            world.until(task, |task| task["held"]["reason"] == "batching").await;
        }
        if hold {
            assert_eq!(world.ask("PUT", "/v1/queues/slow", &json!({"paused": true})).await.status, 200);
        } else {
            let canceled =
                world.post(&format!("/v1/tasks/{}/cancel", leader["id"].as_str().unwrap()), &json!({})).await;
            assert_eq!(canceled.json()["status"], "canceled");
        }
        for task in others {
            let task = world.ended(&task).await;
            let waited = moment(&task, "started_at").since(begun);
            assert!(waited < Duration::from_millis(4_500), "hold: {hold}, {waited:?}: {task:#}");
        }
        if hold {
            let canceled =
                world.post(&format!("/v1/tasks/{}/cancel", leader["id"].as_str().unwrap()), &json!({})).await;
            assert_eq!(canceled.json()["status"], "canceled");
        }
    }
    world.end().await;
}

#[tokio::test]
async fn tasks_with_different_requests_are_not_batched() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 2, "max_wait": 60}), json!({})).await;
    let with = |field: &str, value: Value| {
        let mut event = event(0);
        event["payload"][field] = value;
        event
    };
    let tasks = [
        with("headers", json!({"x-a": "1"})),
        with("method", json!("PUT")),
        with("headers", json!({"x-a": "1"})),
        with("method", json!("PUT")),
        with("method", json!("GET")),
        with("headers", json!({"content-type": "text/plain"})),
    ];
    for task in submit_all(&world, tasks.to_vec()).await {
        assert_eq!(world.ended(&task).await["status"], "succeeded");
    }
    let received = world.receiver.received("/api/collect");
    let mut kinds: Vec<_> = received
        .iter()
        .map(|request| (request.method.as_str(), request.header("nobat-batch-items")))
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [("GET", ""), ("POST", ""), ("POST", "2"), ("PUT", "2")]);
    world.end().await;
}

#[tokio::test]
async fn task_paused_by_its_queue_does_not_block_its_batch() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 3, "max_wait": 60}), json!({})).await;
    let limit = json!({"limits": {"concurrency": 1}, "paused": true});
    assert_eq!(world.ask("PUT", "/v1/queues/slow", &json!({"paused": false})).await.status, 200);
    let mut slow = event(0);
    slow["queue"] = json!("slow");
    let slow = world.submit(&slow).await;
    world.until(&slow, |task| task["held"]["reason"] == "batching").await;
    assert_eq!(world.ask("PUT", "/v1/queues/slow", &limit).await.status, 200);
    for task in submit_all(&world, vec![event(1), event(2)]).await {
        assert_eq!(world.ended(&task).await["status"], "succeeded");
    }
    world.until(&slow, |task| task["held"]["reason"] == "paused").await;
    assert_eq!(sizes(&world, "/api/collect"), (vec![2], BTreeSet::from([1, 2])));
    assert_eq!(
        world.post(&format!("/v1/tasks/{}/cancel", slow["id"].as_str().unwrap()), &json!({})).await.json()["status"],
        "canceled"
    );
    world.end().await;
}

/// A task that waits first for its own limit and then for its batch must keep its reservation. Otherwise only
/// one task would start per batch wait, and these 200 tasks would take an hour.
#[tokio::test]
async fn batched_tasks_start_at_the_rate_of_their_limit_key() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 10, "max_wait": 20}), json!({})).await;
    assert_eq!(world.ask("PUT", "/v1/limits/customer", &json!({"rate": 50, "period": 1})).await.status, 200);
    let of_customer = |number| {
        let mut task = event(number);
        task["limit_key"] = json!("customer");
        // Far more than the test takes, and far less than the hour without reservations.
        task["expires_at"] = json!(from_now(Duration::from_mins(3)));
        task
    };
    for task in submit_all(&world, (0..200).map(of_customer).collect()).await {
        assert_eq!(world.ended(&task).await["status"], "succeeded");
    }
    let (sizes, numbers) = sizes(&world, "/api/collect");
    assert_eq!(numbers.len(), 200, "{sizes:?}");
    world.end().await;
}

#[tokio::test]
async fn batch_survives_kills_before_and_during_its_request() {
    let mut world = World::start().await;
    put_endpoint(&world, json!({"max_items": 3, "max_wait": 600}), json!({})).await;
    let early = submit_all(&world, vec![event(0), event(1)]).await;
    for task in &early {
        world.until(task, |task| task["held"]["reason"] == "batching").await;
    }
    world.kill().await;
    world.go_on().await;
    let gate = Gate::default();
    world.receiver.script("/api/collect", [Reply::status(200).behind(&gate), Reply::status(200)]);
    let last = world.submit(&event(2)).await;
    world.receiver.wait_for("/api/collect", 1).await;
    world.kill().await;
    world.go_on().await;
    for task in early.iter().chain([&last]) {
        let task = world.ended(task).await;
        assert_eq!(
            (&task["status"], attempts(&task, "/outcome")),
            (&json!("succeeded"), ["crashed", "succeeded"].map(String::from).to_vec())
        );
    }
    assert_eq!(
        sizes(&world, "/api/collect"),
        (vec![3, 3], BTreeSet::from([0, 1, 2])),
        "the same batch is sent again"
    );
    gate.open();
    world.end().await;
}

#[tokio::test]
async fn task_with_a_near_deadline_sends_its_batch_early() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 9, "max_wait": 600}), json!({})).await;
    let patient = world.submit(&event(0)).await;
    world.until(&patient, |task| task["held"]["reason"] == "batching").await;
    let mut hasty = event(1);
    hasty["expires_at"] = json!(from_now(Duration::from_secs(3)));
    for task in [world.submit(&hasty).await, patient] {
        assert_eq!(world.ended(&task).await["status"], "succeeded");
    }
    assert_eq!(sizes(&world, "/api/collect"), (vec![2], BTreeSet::from([0, 1])));
    world.end().await;
}

#[tokio::test]
async fn unreadable_item_result_does_not_affect_other_items() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 3, "max_wait": 2, "per_item_results": true}), json!({})).await;
    let gate = Gate::default();
    let mut once = event(0);
    once["retry"] = json!({"max_attempts": 1});
    let tasks = submit_all(&world, vec![once.clone(), once.clone(), once]).await;
    let results = json!({"results": [{"id": tasks[0]["id"], "status": 200}, {"id": tasks[1]["id"], "status": "done"}, 7, {"id": tasks[2]["id"], "status": 204}]});
    world.receiver.script("/api/collect", [Reply::status(200).body(results.to_string()).behind(&gate)]);
    gate.open();
    let mut ends = Vec::new();
    for task in &tasks {
        let task = world.ended(task).await;
        ends.push((task["status"].as_str().unwrap().to_owned(), attempts(&task, "/error/code").remove(0)));
    }
    let end = |status: &str, code: &str| (status.to_owned(), code.to_owned());
    assert_eq!(ends, [end("succeeded", "-"), end("failed", "item_result_missing"), end("succeeded", "-")]);
    world.end().await;
}

#[tokio::test]
async fn status_410_for_a_batch_marks_the_endpoint_gone() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 2, "max_wait": 1}), json!({})).await;
    world.receiver.script("/api/collect", [Reply::status(410), Reply::status(410), Reply::status(200)]);
    let before = world.submit(&event(0)).await;
    world.until(&before, |task| task["held"]["reason"] == "endpoint_gone").await;
    assert_eq!(world.post(&format!("{PATH}/resume"), &json!({})).await.status, 200);
    // This task gets its second 410, and the other its first.
    let after = world.submit(&event(1)).await;
    let before = world.ended(&before).await;
    assert_eq!(
        (&before["status"], attempts(&before, "/error/code")),
        (&json!("failed"), vec!["http_410".to_owned(); 2])
    );
    world.until(&after, |task| task["held"]["reason"] == "endpoint_gone").await;
    assert_eq!(world.get(PATH).await.json()["gone"], true);
    assert_eq!(world.post(&format!("{PATH}/resume"), &json!({})).await.status, 200);
    assert_eq!(world.ended(&after).await["status"], "succeeded");
    world.end().await;
}

#[tokio::test]
async fn retry_after_for_a_batch_holds_all_tasks_of_the_endpoint() {
    let world = World::start().await;
    put_endpoint(&world, json!({"max_items": 2, "max_wait": 60}), json!({})).await;
    world
        .receiver
        .script("/api/collect", [Reply::status(429).header("retry-after", "2"), Reply::status(200)]);
    let of = |key: &str| {
        let mut event = event(0);
        event["limit_key"] = json!(key);
        event
    };
    let first = submit_all(&world, vec![of("a"), of("b")]).await;
    let mut until = Vec::new();
    for task in &first {
        until.push(moment(
            &world.until(task, |task| task["held"]["reason"] == "retry_after").await["held"],
            "until",
        ));
    }
    let later = submit_all(&world, vec![of("c"), of("d")]).await;
    for task in first.iter().chain(&later) {
        let task = world.ended(task).await;
        assert_eq!((&task["status"], &task["attempt"]), (&json!("succeeded"), &json!(1)));
        let last = task["attempts"].as_array().unwrap().last().unwrap();
        assert!(
            moment(last, "finished_at") >= *until.iter().min().unwrap(),
            "no request is sent during the pause: {task:#}"
        );
    }
    world.end().await;
}
