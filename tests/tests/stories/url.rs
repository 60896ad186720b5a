use nobat_tests::world::World;
use nobat_tests::world::receiver::Receiver;
use serde_json::{Value, json};

const PATH: &str = "/v1/endpoints/e";

#[tokio::test]
async fn stored_header_goes_to_no_other_destination() {
    let world = World::start().await;
    let thief = Receiver::start().await.unwrap();
    let (own, foreign) = (world.receiver.address(), thief.address());
    let put = async |url: &str, value: Value| world.ask("PUT", PATH, &json!({"url": url, "headers": {"authorization": value}})).await;
    for url in [format!("http:///{own}/x"), format!("http:////{own}/x"), format!("http:{own}/x"), format!("http:\\\\{own}\\x")] {
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
