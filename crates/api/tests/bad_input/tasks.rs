//! Valid input, for comparison: the normal answer of each route, and row 31.

use nobat_core::ports::Clock;
use nobat_core::task::lifecycle::{Event, transition};

use crate::world::{World, post};

#[tokio::test]
async fn task_is_accepted_shown_and_listed() {
    let world = World::start().await;
    let answer =
        world.post("/v1/tasks", r#"{"kind":"noop","payload":{"a":1.0},"labels":{"customer":"42"}}"#).await;
    assert_eq!((answer.status, answer.header("content-type")), (202, Some("application/json")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let task = answer.json();
    assert_eq!(task["status"], "queued");
    let shown = world.get(answer.header("location").unwrap()).await;
    assert_eq!((shown.status, shown.json()), (200, task.clone()));
    let list = world.get("/v1/tasks").await.json();
    assert_eq!((&list["data"][0]["id"], &list["next_cursor"]), (&task["id"], &serde_json::Value::Null));
    for absent in ["payload", "result", "attempts"] {
        assert!(list["data"][0].get(absent).is_none(), "{absent}");
    }
}

#[tokio::test]
async fn wait_ends_when_the_task_ends() {
    let world = World::start().await;
    let id = world.submit(r#"{"kind":"noop"}"#).await;
    world.run(&id).await;
    let mut client = world.connect().await;
    client.send(format!("GET /v1/tasks/{id}?wait=25 HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    world.clock.sleepers(1).await;
    world.succeed(&id).await;
    let task = client.answer().await.unwrap().json();
    assert_eq!((&task["status"], task["result"]["n"].as_f64()), (&"succeeded".into(), Some(1.0)));
    let slept = world.clock.slept();
    let ended = world.get(&format!("/v1/tasks/{id}?wait=25")).await;
    assert_eq!(
        (ended.status, world.clock.slept()),
        (200, slept),
        "the server does not wait for an ended task"
    );
}

#[tokio::test]
async fn wait_notices_an_end_right_after_its_read() {
    let world = World::start().await;
    let id = world.submit(r#"{"kind":"noop"}"#).await;
    let task = world.store.all().remove(0);
    world.store.write_after_next_read(transition(task, Event::Cancel, world.clock.now()).unwrap());
    assert_eq!(world.get(&format!("/v1/tasks/{id}?wait=25")).await.json()["status"], "canceled");
}

#[tokio::test]
async fn wait_ends_when_its_time_is_up() {
    let world = World::start().await;
    let id = world.submit(r#"{"kind":"noop","delay":60}"#).await;
    let mut client = world.connect().await;
    client.send(format!("GET /v1/tasks/{id}?wait=1e9 HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    world.clock.sleepers(1).await;
    world.clock.end_sleeps();
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, &answer.json()["status"]), (200, &"scheduled".into()));
}

#[tokio::test]
async fn wait_ends_when_the_client_disconnects() {
    let world = World::start().await;
    let id = world.submit(r#"{"kind":"noop","delay":60}"#).await;
    let mut client = world.connect().await;
    client.send(format!("GET /v1/tasks/{id}?wait=25 HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    world.clock.sleepers(1).await;
    assert_eq!(world.store.watchers(), 1);
    drop(client);
    while world.store.watchers() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn row_31_cancel() {
    let world = World::start().await;
    let (waiting, running) =
        (world.submit(r#"{"kind":"noop"}"#).await, world.submit(r#"{"kind":"noop"}"#).await);
    world.run(&running).await;
    let canceled = world.post(&format!("/v1/tasks/{waiting}/cancel"), "").await;
    assert_eq!((canceled.status, &canceled.json()["status"]), (200, &"canceled".into()));
    let asked = world.post(&format!("/v1/tasks/{running}/cancel"), "{}").await;
    assert_eq!((asked.status, &asked.json()["status"]), (202, &"running".into()));
    let version = || world.store.all().iter().find(|task| task.id.to_string() == running).unwrap().version;
    let before = version();
    let again = world.post(&format!("/v1/tasks/{running}/cancel"), "").await;
    assert_eq!(
        (again.status, &again.json()["status"], version()),
        (202, &"running".into(), before),
        "a repeated cancellation writes nothing"
    );
    world.post(&format!("/v1/tasks/{waiting}/cancel"), "").await.problem(409, "task_ended");
    world.post(&format!("/v1/tasks/{running}/cancel"), r#"{"force":true}"#).await.names(
        422,
        "validation_failed",
        &["/force"],
    );
}

#[tokio::test]
async fn replay() {
    let world = World::start().await;
    let id = world.submit(r#"{"kind":"noop"}"#).await;
    let path = format!("/v1/tasks/{id}/replay");
    world.post(&path, "").await.problem(409, "task_not_ended");
    for (body, new_key) in
        [("", None), ("{}", None), (r#"{"new_key":false}"#, None), (r#"{"new_key":true}"#, Some(5))]
    {
        world.post(&format!("/v1/tasks/{id}/cancel"), "").await;
        let replayed = world.post(&path, body).await;
        assert_eq!((replayed.status, &replayed.json()["status"]), (202, &"queued".into()));
        assert_eq!(world.store.all()[0].options.key_generation, new_key);
    }
    for (body, pointer) in
        [(r#"{"new_kye":true}"#, "/new_kye"), (r#"{"new_key":1}"#, "/new_key"), ("null", "")]
    {
        world.post(&path, body).await.names(422, "validation_failed", &[pointer]);
    }
    world.post(&path, "{").await.problem(400, "malformed_json");
    world
        .ask(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}"))
        .await
        .problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn connection_carries_many_requests() {
    let world = World::start().await;
    let mut client = world.connect().await;
    for _ in 0..100 {
        client.send(post("/v1/tasks", "", r#"{"kind":"noop"}"#)).await;
        assert_eq!(client.answer().await.unwrap().status, 202);
    }
    assert_eq!(world.store.all().len(), 100);
}

#[tokio::test]
async fn document_lists_only_existing_routes() {
    let world = World::start().await;
    let document = world.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document, serde_json::to_value(nobat_api::openapi()).unwrap());
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = path.replace("{id}", "task_01jd8rkz5m3q4v9x2y7w6t0abc").replace("{name}", "acme");
            let answer = world
                .ask(format!("{} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n", method.to_uppercase()))
                .await;
            let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
            assert!(code != "not_found" && code != "method_not_allowed", "{method} {path}");
        }
    }
    assert_eq!(world.get("/healthz").await.json()["status"], "ok");
    assert_eq!(world.get("/readyz").await.json()["status"], "ok");
}
