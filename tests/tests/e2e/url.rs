use nobat_tests::harness::World;
use nobat_tests::harness::receiver::Receiver;
use serde_json::{Value, json};

const PATH: &str = "/v1/endpoints/e";

fn payload(path: Option<&str>) -> Value {
    path.map_or_else(|| json!({"body": 1}), |path| json!({"path": path, "body": 1}))
}

/// Returns path and query of the only request that the receiver got after the first `count`.
async fn called(receiver: &Receiver, count: usize) -> String {
    let all = receiver.wait_for_all(count + 1).await;
    assert_eq!(all.len(), count + 1, "{all:?}");
    let last = &all[count];
    format!("{}{}{}", last.path, if last.query.is_empty() { "" } else { "?" }, last.query)
}

#[tokio::test]
async fn stored_header_goes_to_no_other_destination() {
    let world = World::start().await;
    let thief = Receiver::start().await.unwrap();
    let (own, foreign) = (world.receiver.address(), thief.address());
    let put = async |url: &str, value: Value| {
        world.ask("PUT", PATH, &json!({"url": url, "headers": {"authorization": value}})).await
    };
    for url in [
        format!("http:///{own}/x"),
        format!("http:////{own}/x"),
        format!("http:{own}/x"),
        format!("http:\\\\{own}\\x"),
    ] {
        let refused = put(&url, json!("Bearer S")).await;
        assert!(refused.status == 422 && refused.text().contains("/url"), "{url}: {}", refused.text());
    }
    assert_eq!(put(&format!("http://{own}/x"), json!("Bearer S")).await.status, 201);
    let port = foreign.port();
    for url in [
        format!("http://{foreign}/x"),
        format!("http:///{foreign}/x"),
        format!("http:{foreign}/x"),
        format!("http:\\\\{foreign}\\x"),
        format!(" http://{foreign}/x"),
        format!("http://{own}@{foreign}/x"),
        format!("http://127.1:{port}/x"),
    ] {
        let refused = put(&url, Value::Null).await;
        assert_eq!(refused.status, 422, "{url}: {}", refused.text());
        assert_eq!(world.post(&format!("{PATH}/test"), &json!({})).await.status, 200);
    }
    assert_eq!(thief.received("/x").len(), 0);
    // Another spelling of the same destination keeps the value.
    assert_eq!(put(&format!("HTTP://0x7f.1:{}/y", own.port()), Value::Null).await.status, 200);
    assert_eq!(world.post(&format!("{PATH}/test"), &json!({})).await.json()["error"], Value::Null);
    assert_eq!(world.receiver.received("/y")[0].header("authorization"), "Bearer S");
    world.end().await;
}

#[tokio::test]
async fn task_without_path_calls_the_registered_url() {
    let world = World::start().await;
    let mut count = 0;
    for (base, path, expected) in [
        ("/services/T0/B0", None, "/services/T0/B0"),
        ("/services/T0/B0/", None, "/services/T0/B0/"),
        ("/services/T0/B0", Some(""), "/services/T0/B0"),
        ("/services/T0/B0/", Some("?x=1"), "/services/T0/B0/?x=1"),
        ("/services/T0/B0", Some("?x=1"), "/services/T0/B0?x=1"),
        ("/services/T0/B0", Some("/c"), "/services/T0/B0/c"),
        ("/services/T0/B0/", Some("/c"), "/services/T0/B0/c"),
    ] {
        for batch in [Value::Null, json!({"max_wait": 0}), json!({"max_wait": 0, "per_item_results": true})] {
            let put = world.ask("PUT", PATH, &json!({"url": world.receiver.url(base), "batch": batch})).await;
            assert!(put.status < 300 && put.json()["url"] == world.receiver.url(base), "{}", put.text());
            let exchange = world.post(&format!("{PATH}/test"), &payload(path)).await.json();
            assert_eq!(exchange["request"]["url"], world.receiver.url(expected), "{exchange:#}");
            assert_eq!(called(&world.receiver, count).await, expected, "/test with {path:?} at {base}");
            let task = json!({"kind": "http", "endpoint": "e", "payload": payload(path), "retry": {"max_attempts": 1}});
            world.ended(&world.submit(&task).await).await;
            assert_eq!(
                called(&world.receiver, count + 1).await,
                expected,
                "a task with {path:?} at {base}, batch {batch}"
            );
            count += 2;
        }
    }
    world.end().await;
}

#[tokio::test]
async fn url_that_a_parser_would_repair_is_refused_with_the_reason() {
    let world = World::start().await;
    let address = world.receiver.address();
    for (url, reason) in [
        (format!("http:///{address}/x"), "after the scheme"),
        (format!("http:{address}/x"), "after the scheme"),
        (format!(" http://{address}/x"), "no space"),
        (format!("http://{address}\\x"), "no backslashes"),
        (format!("http://{address}/a/../b"), "segments"),
    ] {
        for (method, path, body) in [
            ("PUT", PATH, json!({"url": url})),
            ("POST", "/v1/tasks", json!({"kind": "http", "payload": {"url": url}})),
            ("POST", "/v1/tasks", json!({"kind": "noop", "callback": {"url": url}})),
        ] {
            let refused = world.ask(method, path, &body).await;
            let errors = refused.json()["errors"].as_array().unwrap().clone();
            assert_eq!((refused.status, errors.len()), (422, 1), "{body}: {}", refused.text());
            assert!(errors[0]["detail"].as_str().unwrap().contains(reason), "{}", refused.text());
        }
    }
    world.end().await;
}
