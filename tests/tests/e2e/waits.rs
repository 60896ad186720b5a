//! Tasks whose receiver accepts the call and reports the outcome later.

use nobat_tests::harness::exchange::Answer;
use nobat_tests::harness::receiver::{Gate, Received, Reply};
use nobat_tests::harness::{World, attempts, path};
use serde_json::{Value, json};

async fn world() -> World {
    World::with(&["--allow-private-networks", "127.0.0.0/8"]).await
}

/// Task that calls a path of the receiver, and waits.
fn call(world: &World, to: &str, wait: &Value) -> Value {
    json!({
        "kind": "http",
        "payload": {"url": world.receiver.url(to), "wait": wait},
        "retry": {"delays": [0.0, 0.0, 0.0]},
    })
}

fn token(call: &Received) -> String {
    call.header("nobat-completion-token").to_owned()
}

async fn report(world: &World, task: &Value, token: &str, route: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("nobat-completion-token", token)];
    world.post_with(&format!("{}/{route}", path(task)), &headers, &body.to_string()).await
}

async fn waiting(world: &World, task: &Value) -> Value {
    world.until(task, |task| task["held"]["reason"] == "waiting").await
}

#[tokio::test]
async fn receiver_reports_the_outcome_after_its_response() {
    let world = world().await;
    world.receiver.script("/print", [Reply::status(202)]);
    let mut submission = call(&world, "/print", &json!({"timeout": 3600}));
    submission["callback"] = json!({"url": world.receiver.url("/done")});
    let task = world.submit(&submission).await;
    let called = world.receiver.wait_for("/print", 1).await.remove(0);
    assert_eq!(called.header("nobat-task-id"), task["id"].as_str().unwrap());
    let held = waiting(&world, &task).await;
    assert_eq!(
        (&held["status"], &held["attempt"], &held["result"]),
        (&json!("held"), &json!(1), &Value::Null)
    );
    assert_eq!(held["attempts"][0]["outcome"], "waiting");
    assert_eq!(world.tasks("status=held&").await.len(), 1);
    let explained = world.get(&format!("{}/explain", path(&task))).await.json();
    assert_eq!((&explained["code"], &explained["until"]), (&json!("waiting"), &held["held"]["until"]));
    assert!(
        explained["reason"].as_str().unwrap().ends_with("the task fails with wait_timeout"),
        "{explained}"
    );

    let token = token(&called);
    let done = report(&world, &task, &token, "complete", &json!({"result": {"pages": 2}})).await;
    assert_eq!((done.status, &done.json()["status"]), (200, &json!("succeeded")), "{}", done.text());
    let ended = world.ended(&task).await;
    assert_eq!(
        (&ended["result"], attempts(&ended, "/outcome")),
        (&json!({"pages": 2}), vec!["succeeded".to_owned()])
    );
    let callback = world.receiver.wait_for("/done", 1).await.remove(0).json();
    assert_eq!((&callback["type"], &callback["result"]), (&json!("task.succeeded"), &json!({"pages": 2})));
    let again = report(&world, &task, &token, "complete", &json!({"result": {"pages": 2}})).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, "true"));
    let other = report(&world, &task, &token, "complete", &json!({"result": {"pages": 3}})).await;
    assert_eq!(other.problem(), (409, "wait_ended".to_owned()));
    let secret = token.split_once(':').unwrap().1;
    assert!(!world.log().contains(secret), "the token is not logged");
    for callback in world.tasks("queue=callbacks&").await {
        world.ended(&callback).await;
    }
    world.end().await;
}

#[tokio::test]
async fn each_attempt_has_a_token_of_its_own() {
    let world = world().await;
    world.receiver.script("/print", [Reply::status(503), Reply::status(202)]);
    let task = world.submit(&call(&world, "/print", &json!({"timeout": 3600}))).await;
    let calls = world.receiver.wait_for("/print", 2).await;
    waiting(&world, &task).await;
    let failure = json!({"error": {"code": "out_of_paper", "message": "no paper"}, "retry": true});
    let spent = report(&world, &task, &token(&calls[0]), "complete", &json!({})).await;
    assert_eq!(spent.problem(), (409, "wait_ended".to_owned()));
    let refused = report(&world, &task, "default:guess", "complete", &json!({})).await;
    assert_eq!(refused.problem(), (401, "invalid_completion_token".to_owned()));
    assert_eq!(report(&world, &task, &token(&calls[1]), "fail", &failure).await.status, 200);
    let third = world.receiver.wait_for("/print", 3).await.remove(2);
    waiting(&world, &task).await;
    let failure = json!({"error": {"message": "it burns"}});
    assert_eq!(report(&world, &task, &token(&third), "fail", &failure).await.json()["status"], "failed");
    let ended = world.ended(&task).await;
    assert_eq!(attempts(&ended, "/error/code"), ["http_503", "out_of_paper", "handler_error"]);
    assert_eq!(ended["error"], json!({"code": "handler_error", "message": "it burns"}));
    world.end().await;
}

#[tokio::test]
async fn completion_arrives_before_the_response() {
    let world = world().await;
    let gate = Gate::default();
    world.receiver.script("/print", [Reply::status(202).behind(&gate)]);
    let task = world.submit(&call(&world, "/print", &json!({"timeout": 3600}))).await;
    let called = world.receiver.wait_for("/print", 1).await.remove(0);
    let done = report(&world, &task, &token(&called), "complete", &json!({"result": 7})).await;
    assert_eq!((done.status, &done.json()["status"]), (200, &json!("succeeded")), "{}", done.text());
    gate.open();
    let ended = world.ended(&task).await;
    assert_eq!((&ended["result"], ended["attempts"].as_array().unwrap().len()), (&json!(7), 1));
    world.end().await;
}

#[tokio::test]
async fn time_out_fails_retries_or_starts_a_task() {
    let world = world().await;
    let submit =
        async |then: Value| world.submit(&call(&world, "/print", &json!({"timeout": 1, "then": then}))).await;
    let then =
        json!({"kind": "http", "payload": {"url": world.receiver.url("/notify")}, "labels": {"a": "b"}});
    let (fails, retries, starts) =
        (submit(json!("fail")).await, submit(json!("retry")).await, submit(then).await);
    for task in [&fails, &retries, &starts] {
        let ended = world.ended(task).await;
        assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!("wait_timeout")));
    }
    assert_eq!(world.ended(&fails).await["attempt"], 1);
    let ended = world.ended(&retries).await;
    assert_eq!((&ended["attempt"], attempts(&ended, "/outcome")), (&json!(4), vec!["failed".to_owned(); 4]));
    world.receiver.wait_for("/notify", 1).await;
    let all = world.tasks("").await;
    let created: Vec<&Value> = all.iter().filter(|task| task["timed_out_task"] == starts["id"]).collect();
    let [created] = created.as_slice() else { panic!("{all:?}") };
    assert_eq!(
        (&world.ended(created).await["status"], &created["labels"]["a"]),
        (&json!("succeeded"), &json!("b"))
    );
    let error = world.ended(&starts).await["error"]["message"].to_string();
    assert!(error.contains(created["id"].as_str().unwrap()), "{error}");
    world.end().await;
}

/// The process dies during the call, during the wait, and when the time-out is due.
#[tokio::test]
async fn wait_survives_kills_and_ends_once() {
    let mut world = world().await;
    let gate = Gate::default();
    world.receiver.script("/print", [Reply::status(202).behind(&gate), Reply::status(202)]);
    let then = json!({"kind": "http", "payload": {"url": world.receiver.url("/notify")}});
    let task = world.submit(&call(&world, "/print", &json!({"timeout": 3600}))).await;
    world.receiver.wait_for("/print", 1).await;
    world.kill().await;
    gate.open();
    world.go_on().await;
    let calls = world.receiver.wait_for("/print", 2).await;
    waiting(&world, &task).await;
    world.kill().await;
    world.go_on().await;
    let spent = report(&world, &task, &token(&calls[0]), "complete", &json!({})).await;
    assert_eq!(spent.problem(), (409, "wait_ended".to_owned()));
    let done = report(&world, &task, &token(&calls[1]), "complete", &json!({"result": 1})).await;
    assert_eq!(done.json()["status"], "succeeded", "{}", done.text());
    assert_eq!(attempts(&world.ended(&task).await, "/outcome"), ["crashed", "succeeded"]);

    let late: Vec<Value> = {
        let mut late = Vec::new();
        for _ in 0..20 {
            late.push(world.submit(&call(&world, "/later", &json!({"timeout": 1, "then": then}))).await);
        }
        late
    };
    world.receiver.wait_for("/later", 20).await;
    for kill in 1..=3 {
        // Kills the program in the middle of the time-outs.
        let created =
            |tasks: Vec<Value>| tasks.iter().filter(|task| task["timed_out_task"].is_string()).count();
        while created(world.tasks("").await) < 5 * kill {}
        world.kill().await;
        world.go_on().await;
    }
    for task in &late {
        assert_eq!(world.ended(task).await["error"]["code"], "wait_timeout");
    }
    let all = world.tasks("").await;
    for task in &late {
        let created = all.iter().filter(|other| other["timed_out_task"] == task["id"]).count();
        assert_eq!(created, 1, "{task}");
    }
    for task in &all {
        world.ended(task).await;
    }
    world.end().await;
}

#[tokio::test]
async fn wait_uses_no_slot_and_no_batch_and_survives_a_resume() {
    let world = world().await;
    let endpoint = json!({
        "url": world.receiver.url(""),
        "limits": {"concurrency": 1},
        "batch": {"max_items": 10, "max_wait": 60},
    });
    assert_eq!(world.ask("PUT", "/v1/endpoints/printer", &endpoint).await.status, 201);
    let task = json!({"kind": "http", "endpoint": "printer", "payload": {"path": "/print", "wait": {"timeout": 3600}}});
    let tasks = [world.submit(&task).await, world.submit(&task).await];
    let calls = world.receiver.wait_for("/print", 2).await;
    for task in &tasks {
        waiting(&world, task).await;
    }
    world.post_with("/v1/endpoints/printer/pause", &[], "").await;
    world.post_with("/v1/endpoints/printer/resume", &[], "").await;
    for called in &calls {
        let task = json!({"id": called.header("nobat-task-id")});
        assert_eq!(waiting(&world, &task).await["status"], "held");
        let done = report(&world, &task, &token(called), "complete", &json!({})).await;
        assert_eq!(done.status, 200, "{}", done.text());
    }
    let canceled = world.submit(&task).await;
    waiting(&world, &canceled).await;
    let answer = world.post_with(&format!("{}/cancel", path(&canceled)), &[], "").await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("canceled")));
    let called = world.receiver.received("/print").pop().unwrap();
    let late = report(&world, &canceled, &token(&called), "complete", &json!({})).await;
    assert_eq!(late.problem(), (409, "task_ended".to_owned()));
    world.end().await;
}

#[tokio::test]
async fn invalid_wait_is_refused_with_its_field() {
    let world = world().await;
    let then = |then: Value| json!({"timeout": 60, "then": then});
    let url = "https://example.com/";
    for (wait, pointer) in [
        (json!({}), "/payload/wait/timeout"),
        (json!([60]), "/payload/wait"),
        (json!({"timeout": 0}), "/payload/wait/timeout"),
        (json!({"timeout": 31_622_401}), "/payload/wait/timeout"),
        (json!({"timeout": "60"}), "/payload/wait/timeout"),
        (json!({"timeout": 60, "and": 1}), "/payload/wait/and"),
        (then(json!("stop")), "/payload/wait/then"),
        (then(json!(["fail"])), "/payload/wait/then"),
        (then(json!({})), "/payload/wait/then/kind"),
        (then(json!({"kind": "none"})), "/payload/wait/then/kind"),
        (then(json!({"kind": "noop", "queue": "a b"})), "/payload/wait/then/queue"),
        (then(json!({"kind": "noop", "run_at": "2030-01-01T00:00:00Z"})), "/payload/wait/then/run_at"),
        (
            then(json!({"kind": "noop", "expires_at": "2030-01-01T00:00:00Z"})),
            "/payload/wait/then/expires_at",
        ),
        (
            then(json!({"kind": "noop", "retry": {"max_attempts": 0}})),
            "/payload/wait/then/retry/max_attempts",
        ),
        (then(json!({"kind": "http", "payload": {"url": "ftp://a"}})), "/payload/wait/then/payload/url"),
        (then(json!({"kind": "http", "endpoint": "none", "payload": {}})), "/payload/wait/then/endpoint"),
        (
            then(json!({"kind": "http", "payload": {"url": url, "wait": {"timeout": 5}}})),
            "/payload/wait/then/payload/wait",
        ),
    ] {
        let refused =
            world.post("/v1/tasks", &json!({"kind": "http", "payload": {"url": url, "wait": wait}})).await;
        assert_eq!(refused.status, 422, "{wait}: {}", refused.text());
        let problem = refused.json();
        let pointers: Vec<_> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(pointers, [pointer], "{wait}: {problem}");
    }
    world.end().await;
}
