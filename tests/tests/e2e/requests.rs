//! Requests to endpoints: framing, idempotency keys and bodies.

use nobat_tests::harness::raw_receiver::{RawReceiver, Reaction, answer};
use nobat_tests::harness::receiver::Reply;
use nobat_tests::harness::{World, attempts};
use serde_json::{Value, json};

/// Creates or replaces the endpoint `billing` and returns the status.
async fn put(world: &World, endpoint: &Value) -> u16 {
    world.ask("PUT", "/v1/endpoints/billing", endpoint).await.status
}

/// Submits a task with this payload, which must be refused, and returns the pointers of the errors.
async fn pointers(world: &World, payload: Value) -> Vec<String> {
    let refused = world.post("/v1/tasks", &json!({"kind": "http", "payload": payload})).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let errors = refused.json()["errors"].as_array().expect("errors").clone();
    errors.iter().map(|error| error["pointer"].as_str().expect("a pointer").to_owned()).collect()
}

#[tokio::test]
async fn request_without_body_states_its_length() {
    let world = World::start().await;
    let strict = RawReceiver::start(|request| {
        let is_framed = request.head.starts_with("GET")
            || request.head.starts_with("DELETE")
            || !request.header("content-length").is_empty();
        Reaction::Send(answer(if is_framed { 200 } else { 411 }, "", b""))
    })
    .await;
    assert_eq!(put(&world, &json!({"url": strict.url("/api")})).await, 201);
    let url = strict.url("/hook");
    for (method, length) in
        [("POST", vec!["0"]), ("PUT", vec!["0"]), ("PATCH", vec!["0"]), ("GET", vec![]), ("DELETE", vec![])]
    {
        let direct = json!({"kind": "http", "payload": {"method": method, "url": url}});
        let of_endpoint = json!({"kind": "http", "endpoint": "billing", "payload": {"method": method, "path": "/hook", "body": null}});
        for task in [direct, of_endpoint] {
            assert_eq!(world.ended(&world.submit(&task).await).await["status"], "succeeded", "{task}");
            assert_eq!(
                strict.received().last().expect("a request").header("content-length"),
                length,
                "{task}"
            );
        }
    }
    let tested = world
        .post("/v1/endpoints/billing/test", &json!({"method": "POST", "path": "/hook", "body_base64": ""}))
        .await
        .json();
    assert_eq!((&tested["response"]["status"], &tested["error"]), (&json!(200), &json!(null)), "{tested:#}");
    world.end().await;
}

#[tokio::test]
async fn given_idempotency_key_is_sent_with_every_attempt() {
    let world = World::start().await;
    world.receiver.script("/hook", [500, 200, 200, 200].map(Reply::status));
    let url = world.receiver.url("/hook");
    let task = json!({"kind": "http", "payload": {"url": url, "idempotency_key": "order-7"}, "retry": {"delays": [0.1]}});
    let task = world.ended(&world.submit(&task).await).await;
    assert_eq!((&task["status"], attempts(&task, "/outcome").len()), (&json!("succeeded"), 2));
    let path = format!("/v1/tasks/{}/replay", task["id"].as_str().expect("an id"));
    for options in [json!({}), json!({"new_key": true})] {
        assert_eq!(world.post(&path, &options).await.status, 202);
        world.ended(&task).await;
    }
    let received = world.receiver.received("/hook");
    assert_eq!(
        received.iter().map(|request| request.header("idempotency-key")).collect::<Vec<_>>(),
        ["order-7"; 4]
    );
    assert_eq!(received[0].header("nobat-task-id"), task["id"].as_str().expect("an id"));

    assert_eq!(put(&world, &json!({"url": world.receiver.url("/api")})).await, 201);
    let payload =
        json!({"path": "/charge", "headers": {"Idempotency-Key": "order-8"}, "idempotency_key": "order-8"});
    let task = world
        .ended(&world.submit(&json!({"kind": "http", "endpoint": "billing", "payload": payload})).await)
        .await;
    let charged = world.receiver.received("/api/charge").remove(0);
    assert_eq!(
        (charged.header("idempotency-key"), charged.headers.get_all("idempotency-key").iter().count()),
        ("order-8", 1)
    );
    assert_eq!(
        charged.header("webhook-id"),
        task["id"].as_str().expect("an id"),
        "the signature uses the id of the task"
    );
    world.end().await;
}

#[tokio::test]
async fn bad_idempotency_key_is_refused() {
    let world = World::start().await;
    let url = world.receiver.url("/hook");
    for key in ["", "a b", "caf\u{e9}", "a\nb", &"k".repeat(256)] {
        assert_eq!(
            pointers(&world, json!({"url": url, "idempotency_key": key})).await,
            ["/payload/idempotency_key"],
            "{key:?}"
        );
    }
    for key in ["", "a b", &"k".repeat(256)] {
        let found = pointers(&world, json!({"url": url, "headers": {"Idempotency-Key": key}})).await;
        assert_eq!(found, ["/payload/headers/Idempotency-Key"], "{key:?}");
    }
    let both = json!({"url": url, "idempotency_key": "a", "headers": {"idempotency-key": "b"}});
    assert_eq!(pointers(&world, both).await, ["/payload/idempotency_key"]);
    let endpoint = json!({"url": world.receiver.url("/api"), "headers": {"Idempotency-Key": "one-for-all"}});
    assert_eq!(put(&world, &endpoint).await, 422, "an endpoint cannot give all its tasks the same key");
    world.end().await;
}

#[tokio::test]
async fn binary_body_arrives_byte_for_byte() {
    let world = World::start().await;
    let bytes = [0x00, 0xff, 0xfe, 0x0d, 0x0a, 0x80];
    let url = world.receiver.url("/upload");
    for (headers, content_type) in
        [(json!({}), "application/octet-stream"), (json!({"content-type": "image/png"}), "image/png")]
    {
        let task =
            json!({"kind": "http", "payload": {"url": url, "headers": headers, "body_base64": "AP/+DQqA"}});
        assert_eq!(world.ended(&world.submit(&task).await).await["status"], "succeeded");
        let request = world.receiver.received("/upload").pop().expect("a request");
        assert_eq!((&request.body[..], request.header("content-type")), (&bytes[..], content_type));
    }
    for payload in
        [json!({"url": url, "body_base64": "no!"}), json!({"url": url, "body_base64": "AA==", "body": 1})]
    {
        assert_eq!(pointers(&world, payload).await, ["/payload/body_base64"]);
    }
    assert_eq!(
        put(&world, &json!({"url": world.receiver.url("/api"), "batch": {"max_wait": 600}})).await,
        201
    );
    let alone = json!({"kind": "http", "endpoint": "billing", "payload": {"path": "/raw", "body_base64": "AP/+DQqA"}});
    assert_eq!(
        world.ended(&world.submit(&alone).await).await["status"],
        "succeeded",
        "a binary body is not batched"
    );
    assert_eq!(world.receiver.received("/api/raw")[0].body[..], bytes);
    let tested = world
        .post("/v1/endpoints/billing/test", &json!({"path": "/raw", "body_base64": "AP/+DQqA"}))
        .await
        .json();
    assert_eq!(
        (&tested["request"]["body"], &tested["request"]["body_base64"]),
        (&json!(null), &json!("AP/+DQqA"))
    );
    world.end().await;
}
