use nobat_tests::harness::receiver::{Gate, Reply};
use nobat_tests::harness::{World, attempts, moment};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpListener;

/// Returns a task that calls the receiver, with two retries after 0.1 seconds each.
fn call(world: &World, path: &str) -> Value {
    json!({"kind": "http", "payload": {"url": world.receiver.url(path)}, "retry": {"delays": [0.1, 0.1]}})
}

#[tokio::test]
async fn request_arrives_byte_for_byte_with_its_identifiers() {
    let world = World::start().await;
    world.receiver.script(
        "/hook",
        [Reply::status(201).header("content-type", "application/json").body(r#"{"received": true}"#)],
    );
    let body = "{\"n\": 12345678901234567890.10, \"a\":[1 ,2], \"s\":\"\\u00e9 é \\/\", \"n\":null}";
    let task = format!(
        r#"{{"kind": "http", "payload": {{"method": "PUT", "url": "{}", "headers": {{"X-Shop": "7", "authorization": "Bearer s"}}, "body": {body}}}}}"#,
        world.receiver.url("/hook?a=1")
    );
    let task = world.post_with("/v1/tasks", &[], &task).await.json();
    let task = world.ended(&task).await;
    assert_eq!(task["status"], "succeeded");
    assert_eq!(
        (&task["result"]["status"], &task["result"]["body"]),
        (&json!(201), &json!({"received": true}))
    );
    let [request] = world.receiver.received("/hook").try_into().expect("one request");
    assert_eq!((request.method.as_str(), &request.body[..]), ("PUT", body.as_bytes()));
    assert_eq!((request.header("x-shop"), request.header("authorization")), ("7", "Bearer s"));
    assert_eq!((request.header("content-type"), request.header("nobat-attempt")), ("application/json", "1"));
    assert_eq!(
        (request.header("nobat-task-id"), request.header("idempotency-key")),
        (text(&task["id"]), text(&task["id"]))
    );
    world.end().await;
}

#[tokio::test]
async fn failing_server_is_retried_with_the_same_key() {
    let world = World::start().await;
    world.receiver.script("/hook", [503, 429, 200].map(Reply::status));
    let task = world.ended(&world.submit(&call(&world, "/hook")).await).await;
    assert_eq!(
        (&task["status"], &task["attempt"], &task["error"]),
        (&json!("succeeded"), &json!(3), &Value::Null)
    );
    assert_eq!(attempts(&task, "/outcome"), ["failed", "failed", "succeeded"]);
    assert_eq!(attempts(&task, "/error/code"), ["http_503", "http_429", "-"]);
    let requests = world.receiver.received("/hook");
    assert_eq!(
        requests.iter().map(|request| request.header("nobat-attempt")).collect::<Vec<_>>(),
        ["1", "2", "3"]
    );
    assert!(requests.iter().all(|request| request.header("idempotency-key") == text(&task["id"])));
    world.end().await;
}

#[tokio::test]
async fn server_is_not_called_before_its_retry_after() {
    let world = World::start().await;
    world.receiver.script("/hook", [Reply::status(503).header("retry-after", "1"), Reply::status(200)]);
    let task = world.ended(&world.submit(&call(&world, "/hook")).await).await;
    assert_eq!(attempts(&task, "/outcome"), ["failed", "succeeded"]);
    let pause = moment(&task["attempts"][1], "started_at").since(moment(&task["attempts"][0], "finished_at"));
    assert!(pause >= Duration::from_secs(1), "{pause:?}");
    world.end().await;
}

#[tokio::test]
async fn client_error_is_not_retried() {
    let world = World::start().await;
    world.receiver.script("/hook", [404, 200].map(Reply::status));
    let task = world.ended(&world.submit(&call(&world, "/hook")).await).await;
    assert_eq!(
        (&task["status"], &task["attempt"], &task["error"]["code"]),
        (&json!("failed"), &json!(1), &json!("http_404"))
    );
    assert_eq!(world.receiver.received("/hook").len(), 1);
    world.end().await;
}

#[tokio::test]
async fn refused_connection_is_retried_and_then_fails() {
    let world = World::start().await;
    // A free port, on which no server listens.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let call = json!({"kind": "http", "payload": {"url": format!("http://{address}/")}, "retry": {"delays": [0.1, 0.1]}});
    let task = world.ended(&world.submit(&call).await).await;
    assert_eq!((&task["status"], &task["error"]["code"]), (&json!("failed"), &json!("connection_refused")));
    assert_eq!(attempts(&task, "/error/code"), ["connection_refused"; 3]);
    world.end().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let world = World::start().await;
    world.receiver.script("/old", [Reply::status(302).header("location", world.receiver.url("/new"))]);
    let task = world.ended(&world.submit(&call(&world, "/old")).await).await;
    assert_eq!((&task["status"], &task["error"]["code"]), (&json!("failed"), &json!("http_302")));
    assert_eq!((world.receiver.received("/old").len(), world.receiver.received("/new").len()), (1, 0));
    world.end().await;
}

#[tokio::test]
async fn response_after_the_timeout_fails_the_attempt() {
    let world = World::start().await;
    let never = Gate::default();
    world.receiver.script("/hook", [Reply::status(200).behind(&never)]);
    for (timeout, payload) in [(json!(0.2), json!(null)), (json!(null), json!(0.2))] {
        let url = world.receiver.url("/hook");
        let task = json!({"kind": "http", "timeout": timeout, "payload": {"url": url, "timeout": payload}, "retry": {"max_attempts": 1}});
        let task = world.ended(&world.submit(&task).await).await;
        assert_eq!((&task["status"], &task["error"]["code"]), (&json!("failed"), &json!("timeout")));
    }
    world.end().await;
}

#[tokio::test]
async fn long_response_is_truncated() {
    let world = World::start().await;
    world.receiver.script("/hook", [Reply::status(200).body("x".repeat(100_000))]);
    let task = world.ended(&world.submit(&call(&world, "/hook")).await).await;
    assert_eq!((&task["status"], &task["result"]["truncated"]), (&json!("succeeded"), &json!(true)));
    assert_eq!(text(&task["result"]["body"]).len(), 64 * 1024);
    world.end().await;
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[tokio::test]
async fn tasks_that_create_each_other_end_at_the_hop_limit() {
    let world = World::start().await;
    let task = world.submit(&json!({"kind": "http", "payload": {"url": world.receiver.url("/hook")}})).await;
    world.ended(&task).await;
    assert_eq!(world.receiver.received("/hook")[0].header("nobat-hops"), "1");
    let body = json!({"kind": "http", "payload": {"url": world.receiver.url("/on")}, "callback": {"url": world.receiver.url("/done")}})
        .to_string();
    let through = async |hops: &str| world.post_with("/v1/tasks", &[("nobat-hops", hops)], &body).await;
    for hops in ["4", "256", "-1", "many"] {
        assert_eq!(through(hops).await.problem(), (422, "loop_detected".to_owned()), "{hops}");
    }
    world.ended(&through("3").await.json()).await;
    world.receiver.wait_for("/done", 1).await;
    for path in ["/on", "/done"] {
        assert_eq!(
            world.receiver.received(path)[0].header("nobat-hops"),
            "4",
            "a task submitted with this value is refused"
        );
    }
    for task in world.tasks("").await {
        world.ended(&task).await;
    }
    world.end().await;
}
