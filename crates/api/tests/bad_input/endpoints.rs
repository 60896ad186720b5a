//! Endpoints, queues, kinds and limit keys with invalid configuration, and tasks that name missing ones.

use serde_json::{Value, json};

use crate::world::{Answer, World};

async fn send(world: &World, method: &str, path: &str, body: &str) -> Answer {
    let key = world.key("acme", "config:write,tasks:write,admin").await;
    world.ask_with(&key, method, path, body).await
}

async fn put(world: &World, path: &str, body: &Value) -> Answer {
    send(world, "PUT", path, &body.to_string()).await
}

fn pointers(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn invalid_endpoint_is_refused_and_not_stored() {
    let world = World::guarded().await;
    let url = "https://example.com";
    for (body, expected) in [
        (json!({"url": "https://example.com?a=b"}), vec!["/url"]),
        (json!({"url": url, "headers": {"authorization": null}}), vec!["/headers/authorization"]),
        (json!({"url": url, "secret": "hunter2"}), vec!["/secret"]),
        (json!({"url": url, "timeout": 0}), vec!["/timeout"]),
        (json!({"url": url, "success_statuses": []}), vec!["/success_statuses"]),
        (json!({"url": url, "retry_statuses": ["200", "5xx"]}), vec!["/retry_statuses/1"]),
        (json!({"url": url, "limits": {"burst": 2}}), vec!["/limits/rate"]),
        (
            json!({"url": url, "circuit_breaker": {"failure_rate": 0}, "retry": {"multiplier": 0.5}}),
            vec!["/retry/multiplier", "/circuit_breaker/failure_rate"],
        ),
        (json!({"url": url, "limits": {"rate": 0}}), vec!["/limits/rate"]),
        (json!({"url": url, "colour": "red"}), vec!["/colour"]),
        (json!({}), vec!["/url"]),
    ] {
        let problem = put(&world, "/v1/endpoints/billing", &body).await.problem(422, "validation_failed");
        assert_eq!(pointers(&problem), expected, "{body}");
        assert!(!problem.to_string().contains("hunter2"));
    }
    put(&world, "/v1/endpoints/billing", &json!({"url": "https://127.0.0.1/"}))
        .await
        .problem(422, "blocked_address");
    put(&world, "/v1/endpoints/b%20g", &json!({"url": url})).await.problem(404, "not_found");
    for (method, path) in [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/rotate"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/test"),
    ] {
        send(&world, method, &format!("/v1/endpoints/b%20g{path}"), "").await.problem(404, "not_found");
    }
    send(&world, "GET", "/v1/endpoints/billing", "").await.problem(404, "endpoint_not_found");
    let large = json!({"url": url, "headers": {"x-a": "a".repeat(40_000)}});
    put(&world, "/v1/endpoints/billing", &large).await.problem(422, "validation_failed");
}

#[tokio::test]
async fn invalid_queue_kind_or_limits_are_refused() {
    let world = World::guarded().await;
    for (path, body, expected) in [
        ("/v1/queues/default", json!({"limits": {"rate": 100_001}}), "/limits/rate"),
        ("/v1/queues/default", json!({"retry": {"max_attempts": 51}}), "/retry/max_attempts"),
        ("/v1/kinds/http", json!({"retry": {}}), "/retry"),
        ("/v1/kinds/http", json!({"limits": {"period": 2}}), "/limits/rate"),
        ("/v1/limits/customer-42", json!({"rate": 1, "period": 0}), "/period"),
        ("/v1/limits/customer-42", json!({"paused": true}), "/paused"),
        ("/v1/tenants/acme", json!({"limits": {"concurrency": 100_001}}), "/limits/concurrency"),
    ] {
        let problem = put(&world, path, &body).await.problem(422, "validation_failed");
        assert_eq!(pointers(&problem), [expected], "{path} {body}");
    }
}

#[tokio::test]
async fn task_for_an_unknown_endpoint_is_refused() {
    let world = World::guarded().await;
    let submit = async |task: Value| send(&world, "POST", "/v1/tasks", &task.to_string()).await;
    let task = json!({"kind": "noop", "endpoint": "billing"});
    let problem = submit(task.clone()).await.problem(422, "unknown_endpoint");
    assert_eq!(pointers(&problem), ["/endpoint"]);
    assert!(
        problem["errors"][0]["detail"].as_str().unwrap().contains("PUT /v1/endpoints/billing"),
        "the text names the request that creates the endpoint: {problem}"
    );
    assert_eq!(
        put(&world, "/v1/endpoints/billing", &json!({"url": "https://example.com"})).await.status,
        201
    );
    assert_eq!(submit(task).await.status, 202, "a task for an existing endpoint is accepted");
    submit(json!({"kind": "noop", "endpoint": "b g", "limit_key": "a/b"}))
        .await
        .problem(422, "validation_failed");
}
