use std::time::Duration;

use futures_util::future::join_all;
use nobat_core::secrets::webhook::{WebhookSecret, signature};
use nobat_core::types::time::Timestamp;
use nobat_tests::harness::receiver::{Gate, Received, Reply};
use nobat_tests::harness::{World, attempts, has_ended, moment};
use nobat_tests::size::size;
use serde_json::{Value, json};

const PATH: &str = "/v1/endpoints/billing";

/// Creates or replaces the endpoint `billing`, which is the receiver, with these additional fields.
async fn put_endpoint(world: &World, besides: Value) -> Value {
    let mut endpoint = json!({"url": world.receiver.url("/api"), "circuit_breaker": {"enabled": false}});
    for (field, value) in besides.as_object().unwrap() {
        endpoint[field] = value.clone();
    }
    let answer = world.ask("PUT", PATH, &endpoint).await;
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
    answer.json()
}

/// Returns a task for the endpoint, with two retries after 0.1 seconds each.
fn call(path: &str) -> Value {
    json!({"kind": "http", "endpoint": "billing", "payload": {"path": path, "body": {"order": 7}}, "retry": {"delays": [0.1, 0.1]}})
}

async fn held(world: &World, task: &Value, reason: &str) -> Value {
    world.until(task, |task| task["held"]["reason"] == reason).await
}

/// Returns the `webhook-signature` header that these secrets make.
fn expected(request: &Received, secrets: &[&str]) -> String {
    let secrets: Vec<WebhookSecret> = secrets.iter().map(|secret| secret.parse().unwrap()).collect();
    let seconds: i64 = request.header("webhook-timestamp").parse().unwrap();
    signature(&secrets, request.header("webhook-id"), Timestamp::from_millis(seconds * 1_000), &request.body)
}

#[tokio::test]
async fn endpoint_headers_and_secrets_apply_to_all_its_calls() {
    let world = World::start().await;
    let endpoint = put_endpoint(&world, json!({"headers": {"Authorization": "Bearer hunter2"}})).await;
    let first = endpoint["secret"].as_str().unwrap().to_owned();
    let mut task = call("/charge?now=1");
    task["payload"]["headers"] = json!({"authorization": "Bearer mine", "x-a": "b"});
    let task = world.ended(&world.submit(&task).await).await;
    assert_eq!((&task["status"], &task["endpoint"]), (&json!("succeeded"), &json!("billing")));
    let request = world.receiver.received("/api/charge").remove(0);
    assert_eq!(
        (request.header("authorization"), request.header("x-a")),
        ("Bearer hunter2", "b"),
        "headers of the endpoint override those of the task"
    );
    assert_eq!(request.header("webhook-signature"), expected(&request, &[&first]));
    assert_eq!(request.header("webhook-id"), request.header("nobat-task-id"));

    let rotated = world.post(&format!("{PATH}/rotate"), &json!({})).await.json();
    let second = rotated["secret"].as_str().unwrap().to_owned();
    world.ended(&world.submit(&call("/both")).await).await;
    let request = world.receiver.received("/api/both").remove(0);
    assert_eq!(request.header("webhook-signature"), expected(&request, &[&second, &first]));

    let shown = world.get(PATH).await.text().clone();
    assert!(!shown.contains("hunter2") && !shown.contains("whsec_"), "{shown}");
    let listed = world.get("/v1/endpoints").await.json();
    assert_eq!(
        (&listed["data"][0]["name"], &listed["data"][0]["headers"]),
        (&json!("billing"), &json!({"authorization": null}))
    );
    world.end().await;
}

#[tokio::test]
async fn waiting_task_uses_the_endpoint_configuration_at_its_start() {
    let world = World::start().await;
    put_endpoint(&world, json!({"retry": {"delays": [3600]}})).await;
    let mut task = call("/late");
    task.as_object_mut().unwrap().remove("retry");
    task["delay"] = json!(1);
    let task = world.submit(&task).await;
    world.receiver.script("/v2/late", [Reply::status(500), Reply::status(200)]);
    put_endpoint(&world, json!({"url": world.receiver.url("/v2"), "retry": {"delays": [0.1]}})).await;
    let task = world.ended(&task).await;
    assert_eq!(
        (&task["status"], world.receiver.received("/v2/late").len()),
        (&json!("succeeded"), 2),
        "{task:#}"
    );
    world.end().await;
}

#[tokio::test]
async fn configured_statuses_decide_success_and_retry() {
    let world = World::start().await;
    put_endpoint(
        &world,
        json!({"success_statuses": ["200-299", "404"], "retry_statuses": [">=500", "!501"]}),
    )
    .await;
    for (path, replies, status, outcomes) in [
        ("/gone-already", vec![Reply::status(404)], "succeeded", vec!["succeeded"]),
        ("/not-made", vec![Reply::status(501)], "failed", vec!["failed"]),
        ("/again", vec![Reply::status(500), Reply::status(200)], "succeeded", vec!["failed", "succeeded"]),
        ("/never", vec![Reply::status(500).header("nobat-no-retry", "1")], "failed", vec!["failed"]),
    ] {
        world.receiver.script(&format!("/api{path}"), replies);
        let task = world.ended(&world.submit(&call(path)).await).await;
        assert_eq!(
            (task["status"].as_str().unwrap(), attempts(&task, "/outcome")),
            (status, outcomes.iter().map(ToString::to_string).collect()),
            "{path}"
        );
    }
    let mut own = call("/own");
    own["payload"]["success_statuses"] = json!(["418"]);
    world.receiver.script("/api/own", [Reply::status(418)]);
    assert_eq!(
        world.ended(&world.submit(&own).await).await["status"],
        "succeeded",
        "a task can set its own success statuses"
    );
    world.end().await;
}

#[tokio::test]
async fn gone_endpoint_holds_its_tasks_until_it_is_resumed() {
    let world = World::start().await;
    put_endpoint(&world, json!({})).await;
    world.receiver.script("/api/hook", [Reply::status(410), Reply::status(200)]);
    let first = world.submit(&call("/hook")).await;
    let first = held(&world, &first, "endpoint_gone").await;
    assert_eq!(
        (&first["attempt"], attempts(&first, "/error/code")),
        (&json!(0), vec!["http_410".to_owned()]),
        "the attempt is recorded but not counted"
    );
    assert_eq!(world.get(PATH).await.json()["gone"], true);
    let second = world.submit(&call("/hook")).await;
    held(&world, &second, "endpoint_gone").await;
    assert_eq!(world.receiver.received("/api/hook").len(), 1, "a gone endpoint is not called again");
    let audit = world.get("/v1/audit").await.json();
    assert_eq!(
        (&audit["data"][0]["action"], &audit["data"][0]["actor"]),
        (&json!("endpoint.gone"), &json!("worker"))
    );
    assert_eq!(world.post(&format!("{PATH}/resume"), &json!({})).await.json()["gone"], false);
    for task in [first, second] {
        assert_eq!(world.ended(&task).await["status"], "succeeded");
    }
    world.end().await;
}

#[tokio::test]
async fn second_410_fails_the_task_and_not_the_endpoint() {
    let world = World::start().await;
    put_endpoint(&world, json!({})).await;
    world.receiver.script("/api/subscriptions/9", [410, 410].map(Reply::status));
    let task = world.submit(&call("/subscriptions/9")).await;
    held(&world, &task, "endpoint_gone").await;
    assert_eq!(world.post(&format!("{PATH}/resume"), &json!({})).await.status, 200);
    let task = world.ended(&task).await;
    assert_eq!(
        (&task["status"], attempts(&task, "/error/code")),
        (&json!("failed"), vec!["http_410".to_owned(); 2])
    );
    assert_eq!(world.get(PATH).await.json()["gone"], false);
    world.end().await;
}

#[tokio::test]
async fn status_410_of_the_old_url_does_not_mark_the_endpoint_gone() {
    let world = World::start().await;
    put_endpoint(&world, json!({})).await;
    let gate = Gate::default();
    world.receiver.script("/api/hook", [Reply::status(410).behind(&gate)]);
    let task = world.submit(&call("/hook")).await;
    world.receiver.wait_for("/api/hook", 1).await;
    put_endpoint(&world, json!({"url": world.receiver.url("/v2")})).await;
    gate.open();
    assert_eq!(world.ended(&task).await["status"], "succeeded", "the next attempt calls the new URL");
    assert_eq!(
        (&world.get(PATH).await.json()["gone"], world.receiver.received("/v2/hook").len()),
        (&json!(false), 1)
    );
    world.end().await;
}

#[tokio::test]
async fn repeated_retry_after_zero_causes_growing_pauses() {
    let world = World::start().await;
    put_endpoint(&world, json!({})).await;
    world
        .receiver
        .script("/api/hook", [503, 503, 200].map(|status| Reply::status(status).header("retry-after", "0")));
    let task = world.ended(&world.submit(&call("/hook")).await).await;
    assert_eq!((&task["status"], &task["attempt"]), (&json!("succeeded"), &json!(1)));
    let moment_of = |place: usize, field| moment(&task["attempts"][place], field);
    for (place, least) in [(1, 500), (2, 1_000)] {
        let pause = moment_of(place, "started_at").since(moment_of(place - 1, "finished_at"));
        assert!(pause >= Duration::from_millis(least), "{pause:?}");
    }
    world.end().await;
}

#[tokio::test]
async fn pause_holds_tasks_and_spends_no_attempt() {
    let world = World::start().await;
    put_endpoint(&world, json!({})).await;
    for (pause, resume) in [
        (("POST", format!("{PATH}/pause"), Value::Null), ("POST", format!("{PATH}/resume"), Value::Null)),
        (
            ("PUT", "/v1/queues/default".to_owned(), json!({"paused": true})),
            ("PUT", "/v1/queues/default".to_owned(), json!({"paused": false})),
        ),
        (
            ("PUT", "/v1/kinds/http".to_owned(), json!({"paused": true})),
            ("PUT", "/v1/kinds/http".to_owned(), json!({"paused": false})),
        ),
    ] {
        assert_eq!(world.ask(pause.0, &pause.1, &pause.2).await.json()["paused"], true);
        let task = world.submit(&call("/hook")).await;
        let waiting = held(&world, &task, "paused").await;
        assert_eq!((&waiting["status"], &waiting["attempt"]), (&json!("held"), &json!(0)));
        assert_eq!(world.ask(resume.0, &resume.1, &resume.2).await.json()["paused"], false);
        assert_eq!(world.ended(&task).await["status"], "succeeded", "{}", pause.1);
    }
    assert_eq!(world.receiver.received("/api/hook").len(), 3);
    world.end().await;
}

#[tokio::test]
async fn deleted_endpoint_holds_its_tasks_until_it_is_recreated() {
    let world = World::start().await;
    put_endpoint(&world, json!({"paused": true})).await;
    let task = world.submit(&call("/hook")).await;
    held(&world, &task, "paused").await;
    assert_eq!(world.ask("DELETE", PATH, &Value::Null).await.status, 200);
    held(&world, &task, "endpoint_missing").await;
    assert_eq!(world.post("/v1/tasks", &call("/hook")).await.status, 422);
    put_endpoint(&world, json!({})).await;
    assert_eq!(world.ended(&task).await["status"], "succeeded");
    world.end().await;
}

#[tokio::test]
async fn a_rate_is_kept_by_all_tasks_of_a_key() {
    let world = World::start().await;
    let laid = world.ask("PUT", "/v1/limits/customer-42", &json!({"rate": 5, "period": 1})).await.json();
    assert_eq!((&laid["key"], &laid["rate"], &laid["burst"]), (&json!("customer-42"), &json!(5), &json!(1)));
    let tasks: Vec<Value> = (0..10).map(|_| json!({"kind": "noop", "limit_key": "customer-42"})).collect();
    let tasks = world.post("/v1/tasks/batch", &json!({"tasks": tasks})).await.json();
    let mut starts = Vec::new();
    for task in tasks["data"].as_array().unwrap() {
        starts.push(moment(&world.ended(task).await["attempts"][0], "started_at"));
    }
    starts.sort();
    for window in starts.windows(6) {
        assert!(
            window[5].since(window[0]) >= Duration::from_millis(980),
            "six starts within a second: {starts:?}"
        );
    }
    world.end().await;
}

#[tokio::test]
async fn concurrency_limit_is_not_exceeded() {
    let world = World::start().await;
    put_endpoint(&world, json!({"limits": {"concurrency": 1}})).await;
    let gate = Gate::default();
    world.receiver.script("/api/slow", [Reply::status(200).behind(&gate)]);
    let first = world.submit(&call("/slow")).await;
    world.receiver.wait_for("/api/slow", 1).await;
    let second = world.submit(&call("/quick")).await;
    held(&world, &second, "concurrency_limited").await;
    assert_eq!(world.receiver.received("/api/quick").len(), 0);
    gate.open();
    for task in [first, second] {
        assert_eq!(world.ended(&task).await["status"], "succeeded");
    }
    world.end().await;
}

#[tokio::test]
async fn retry_after_holds_all_endpoint_tasks_and_costs_no_attempt() {
    let world = World::start().await;
    put_endpoint(&world, json!({})).await;
    world.receiver.script("/api/hook", [Reply::status(503).header("retry-after", "2"), Reply::status(200)]);
    let mut task = call("/hook");
    task["retry"] = json!({"max_attempts": 1});
    let first = world.submit(&task).await;
    let until = held(&world, &first, "retry_after").await;
    let second = world.submit(&call("/other")).await;
    held(&world, &second, "retry_after").await;
    assert_eq!(world.receiver.received("/api/other").len(), 0);
    let first = world.ended(&first).await;
    assert_eq!(
        (&first["status"], &first["attempt"]),
        (&json!("succeeded"), &json!(1)),
        "the only attempt succeeds"
    );
    assert!(moment(&first["attempts"][1], "started_at") >= moment(&until["held"], "until"));
    assert_eq!(world.ended(&second).await["status"], "succeeded");
    world.end().await;
}

/// An endpoint that is resumed, one with a new URL, and a limit key and a queue with higher limits: each
/// releases its held tasks.
#[tokio::test]
async fn configuration_changes_and_resume_release_held_tasks() {
    let world = World::start().await;
    world.receiver.script("/api/busy", [Reply::status(503).header("retry-after", "600"), Reply::status(200)]);
    world.receiver.script("/api/moved", [Reply::status(503).header("retry-after", "600")]);
    world.receiver.script("/api/down", [500, 200].map(Reply::status));
    let (mut here, mut there) =
        (json!({"url": world.receiver.url("/api")}), json!({"url": world.receiver.url("/v2")}));
    for endpoint in [&mut here, &mut there] {
        endpoint["circuit_breaker"] = json!({"minimum_calls": 1, "failure_rate": 0.1, "open_duration": 600});
    }
    let put = async |path: String, body: &Value| {
        let answer = world.ask("PUT", &path, body).await;
        assert!(matches!(answer.status, 200 | 201), "{path}: {}", answer.text());
    };
    let mut tasks = Vec::new();
    for (path, reason) in [("busy", "retry_after"), ("down", "circuit_open"), ("moved", "retry_after")] {
        put(format!("/v1/endpoints/{path}"), &here).await;
        let task = json!({"kind": "http", "endpoint": path, "payload": {"path": format!("/{path}")}});
        tasks.push(world.submit(&task).await);
        held(&world, &tasks[tasks.len() - 1], reason).await;
    }
    let slow = json!({"rate": 1, "period": 3600});
    for (path, laid, task) in [
        ("limits/slow", slow.clone(), json!({"kind": "noop", "limit_key": "slow"})),
        ("queues/slow", json!({"limits": slow}), json!({"kind": "noop", "queue": "slow"})),
    ] {
        put(format!("/v1/{path}"), &laid).await;
        world.ended(&world.submit(&task).await).await;
        tasks.push(world.submit(&task).await);
        held(&world, &tasks[tasks.len() - 1], "rate_limited").await;
    }

    for name in ["busy", "down"] {
        assert_eq!(
            world.ask("POST", &format!("/v1/endpoints/{name}/resume"), &Value::Null).await.status,
            200
        );
    }
    put("/v1/endpoints/moved".to_owned(), &there).await;
    put("/v1/limits/slow".to_owned(), &json!({"rate": 1000})).await;
    put("/v1/queues/slow".to_owned(), &json!({"limits": null})).await;
    for task in &tasks {
        let task = world.ended(task).await;
        assert_eq!(task["status"], "succeeded", "{task:#}");
    }
    assert_eq!(world.receiver.received("/v2/moved").len(), 1, "the pause does not apply to the new URL");
    world.end().await;
}

#[tokio::test]
async fn pausing_a_queue_or_kind_keeps_its_limits() {
    let world = World::start().await;
    let laid = json!({"limits": {"rate": 5, "concurrency": 2}});
    for path in ["/v1/queues/slow", "/v1/kinds/noop"] {
        assert_eq!(world.ask("PUT", path, &laid).await.status, 200);
        for paused in [true, false] {
            let answer = world.ask("PUT", path, &json!({"paused": paused})).await.json();
            assert_eq!(
                (&answer["paused"], &answer["limits"]["rate"], &answer["limits"]["concurrency"]),
                (&json!(paused), &json!(5), &json!(2))
            );
        }
        let answer = world.ask("PUT", path, &json!({"limits": null})).await.json();
        assert_eq!((&answer["paused"], &answer["limits"]["rate"]), (&json!(false), &Value::Null));
    }
    world.end().await;
}

#[tokio::test]
async fn task_success_statuses_do_not_hide_failures_from_breaker() {
    let world = World::start().await;
    put_endpoint(
        &world,
        json!({"circuit_breaker": {"minimum_calls": 1, "failure_rate": 0.1, "open_duration": 600}}),
    )
    .await;
    world.receiver.script("/api/hook", [Reply::status(503)]);
    let mut task = call("/hook");
    task["payload"]["success_statuses"] = json!([">=100"]);
    let first = world.ended(&world.submit(&task).await).await;
    assert_eq!((&first["status"], &first["result"]["status"]), (&json!("succeeded"), &json!(503)));
    let second = world.submit(&call("/hook")).await;
    held(&world, &second, "circuit_open").await;
    world.post(&format!("/v1/tasks/{}/cancel", second["id"].as_str().unwrap()), &json!({})).await;
    assert_eq!(world.receiver.received("/api/hook").len(), 1);
    world.end().await;
}

#[tokio::test]
async fn circuit_breaker_opens_holds_tasks_and_closes_again() {
    let world = World::start().await;
    put_endpoint(&world, json!({"circuit_breaker": {"minimum_calls": 3, "open_duration": 4}})).await;
    world.receiver.script("/api/down", [500, 500, 500, 200].map(Reply::status));
    let task =
        world.submit(&json!({"kind": "http", "endpoint": "billing", "payload": {"path": "/down"}, "retry": {"delays": [0, 0, 0]}})).await;
    let waiting = held(&world, &task, "circuit_open").await;
    assert_eq!(waiting["attempt"], 3);
    let other = world.submit(&call("/other")).await;
    held(&world, &other, "circuit_open").await;
    assert_eq!(world.receiver.received("/api/other").len(), 0);
    for task in [task, other] {
        assert_eq!(world.ended(&task).await["status"], "succeeded");
    }
    world.end().await;
}

#[tokio::test]
async fn endpoint_can_be_tested_while_paused_and_limited() {
    let world = World::start().await;
    let besides = json!({"headers": {"authorization": "Bearer hunter2"}, "paused": true, "limits": {"rate": 1, "period": 3600}});
    let secret = put_endpoint(&world, besides).await["secret"].as_str().unwrap().to_owned();
    world
        .receiver
        .script("/api/ping", [Reply::status(200).body("pong"), Reply::status(503), Reply::status(404)]);
    let test = async |call: Value| world.post(&format!("{PATH}/test"), &call).await.json();
    let exchange = test(json!({"path": "/ping", "headers": {"x-a": "b"}, "body": {"order": 7}})).await;
    assert_eq!(
        (&exchange["response"]["status"], &exchange["response"]["body"], &exchange["error"]),
        (&json!(200), &json!("pong"), &json!(null))
    );
    let (request, shown) = (world.receiver.received("/api/ping").remove(0), &exchange["request"]);
    assert_eq!(request.header("webhook-signature"), expected(&request, &[&secret]));
    assert_eq!((request.header("authorization"), request.json()), ("Bearer hunter2", json!({"order": 7})));
    assert_eq!(
        (&shown["url"], &shown["body"]),
        (&json!(world.receiver.url("/api/ping")), &json!(r#"{"order":7}"#))
    );
    assert_eq!((&shown["headers"]["authorization"], &shown["headers"]["x-a"]), (&json!(null), &json!("b")));
    assert_eq!(shown["headers"]["webhook-signature"], request.header("webhook-signature"));
    for (code, retry) in [("http_503", true), ("http_404", false)] {
        let exchange = test(json!({"path": "/ping"})).await;
        assert_eq!(
            (&exchange["error"]["code"], &exchange["error"]["retry"]),
            (&json!(code), &json!(retry)),
            "{exchange:#}"
        );
    }
    assert_eq!(
        world.receiver.received("/api/ping")[1].json()["type"],
        "nobat.test",
        "the default body is a sample"
    );
    let refused =
        world.post(&format!("{PATH}/test"), &json!({"url": "http://127.0.0.1/", "path": "/../a"})).await;
    let pointers: Vec<_> =
        refused.json()["errors"].as_array().unwrap().iter().map(|error| error["pointer"].clone()).collect();
    assert_eq!((refused.status, pointers), (422, vec![json!("/url"), json!("/path")]));
    assert_eq!(
        world.post("/v1/endpoints/other/test", &json!({})).await.problem(),
        (404, "endpoint_not_found".to_owned())
    );
    assert_eq!(world.tasks("").await.len(), 0);

    assert_eq!(
        world
            .ask(
                "PUT",
                PATH,
                &json!({"url": world.receiver.url("/api"), "batch": {"per_item_results": true}})
            )
            .await
            .status,
        200
    );
    test(json!({"path": "/many", "body": 1})).await;
    assert_eq!(
        world.receiver.received("/api/many")[0].json()[0]["body"],
        1,
        "the test has the format of a batch"
    );
    world.end().await;
}

/// Submits many tasks for that path.
async fn submit_many(world: &World, path: &str) -> Vec<Value> {
    let mut tasks = Vec::new();
    for _ in 0..size(100, 1_000) / 100 {
        let batch = world.post("/v1/tasks/batch", &json!({"tasks": vec![call(path); 100]})).await.json();
        tasks.extend(batch["data"].as_array().unwrap().clone());
    }
    tasks
}

/// Returns how many tasks started before their next check would have come. All of them must succeed at their
/// first counted attempt.
async fn count_started_early(world: &World, held: &[Value]) -> usize {
    let mut sooner = 0;
    for before in held {
        let task = world.ended(before).await;
        assert_eq!((&task["status"], &task["attempt"]), (&json!("succeeded"), &json!(1)), "{task:#}");
        let last = task["attempts"].as_array().unwrap().last().unwrap();
        // A task that is being checked at this moment is not held.
        let is_sooner =
            before["held"].is_null() || moment(last, "started_at") < moment(&before["held"], "until");
        sooner += usize::from(is_sooner);
    }
    sooner
}

#[tokio::test]
async fn resume_wakes_many_paused_tasks() {
    let world = World::start().await;
    put_endpoint(&world, json!({"paused": true})).await;
    let tasks = submit_many(&world, "/hook").await;
    let next_check_in = |task: &Value| moment(&task["held"], "until").since(moment(task, "created_at"));
    for task in &tasks {
        // After several checks, the next one comes only some seconds later.
        world
            .until(task, |task| {
                task["held"]["reason"] == "paused" && next_check_in(task) > Duration::from_secs(5)
            })
            .await;
    }
    let held = join_all(tasks.iter().map(|task| world.task(task))).await;
    assert_eq!(world.post(&format!("{PATH}/resume"), &json!({})).await.status, 200);
    let sooner = count_started_early(&world, &held).await;
    assert!(
        sooner * 10 > tasks.len() * 9,
        "{sooner} of {} tasks started before their next check",
        tasks.len()
    );
    world.end().await;
}

#[tokio::test]
async fn gone_or_deleted_endpoint_holds_many_tasks_and_loses_none() {
    let world = World::start().await;
    put_endpoint(&world, json!({})).await;
    world.receiver.script("/api/moved", [Reply::status(410)]);
    let tasks = submit_many(&world, "/moved").await;
    for task in &tasks {
        held(&world, task, "endpoint_gone").await;
    }
    assert_eq!(world.ask("DELETE", PATH, &Value::Null).await.status, 200);
    let tasks = join_all(tasks.iter().map(|task| world.task(task))).await;
    assert!(tasks.iter().all(|task| !has_ended(task)));
    let next = tasks
        .iter()
        .filter(|task| !task["held"].is_null())
        .min_by_key(|task| moment(&task["held"], "until"))
        .unwrap();
    held(&world, next, "endpoint_missing").await;
    world.receiver.script("/api/moved", [Reply::status(200)]);
    put_endpoint(&world, json!({})).await;
    count_started_early(&world, &tasks).await;
    world.end().await;
}
