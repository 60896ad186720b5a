//! Events and subscriptions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nobat_tests::harness::exchange::{Answer, exchange};
use nobat_tests::harness::receiver::Reply;
use nobat_tests::harness::{World, path};
use nobat_tests::size::size;
use serde_json::{Value, json};
use tokio::sync::watch;

const EVENTS: &str = "/v1/events";

/// Creates an endpoint and a subscription of this name. Both call the receiver's path of this name.
async fn subscribe(world: &World, name: &str, subscription: &Value) -> Answer {
    let endpoint = json!({"url": world.receiver.url(&format!("/{name}")), "retry": {"max_attempts": 1}});
    let created = world.ask("PUT", &format!("/v1/endpoints/{name}"), &endpoint).await;
    assert!(created.status < 300, "{}", created.text());
    let mut subscription = subscription.clone();
    subscription["task"] = json!({"kind": "http", "endpoint": name});
    world.ask("PUT", &format!("/v1/subscriptions/{name}"), &subscription).await
}

/// Publishes an event and waits until its tasks exist. Returns the event with its tasks.
async fn publish(world: &World, event: &Value) -> Value {
    let accepted = world.post(EVENTS, event).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    fanned_out(world, accepted.json()["id"].as_str().unwrap()).await
}

/// Returns the task that keeps the event.
fn keeper(id: &str) -> Value {
    json!({"id": id.replace("event_", "task_")})
}

/// Waits until the tasks of an event exist, and returns the event.
async fn fanned_out(world: &World, id: &str) -> Value {
    world.ended(&keeper(id)).await;
    world.get(&format!("{EVENTS}/{id}")).await.json()
}

/// Waits until all tasks have ended, and ends the test.
async fn finish(world: World) {
    for task in world.tasks("").await {
        world.ended(&task).await;
    }
    // The events ended, so that no task is added.
    for task in world.tasks("").await {
        world.ended(&task).await;
    }
    world.end().await;
}

fn subscriptions(event: &Value) -> Vec<&str> {
    event["tasks"].as_array().unwrap().iter().map(|task| task["subscription"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn event_creates_a_task_for_each_matching_subscription() {
    let world = World::start().await;
    world.receiver.script("/stock", [Reply::status(500)]);
    for (name, subscription) in [
        ("stock", json!({"topic": "order.*"})),
        ("payment", json!({"topic": "order.created", "body": "data"})),
        ("large", json!({"topic": "#", "filter": {"data": {"amount": [{"numeric": [">", 100]}]}}})),
        ("other", json!({"topic": "invoice.#"})),
    ] {
        let created = subscribe(&world, name, &subscription).await;
        assert_eq!(created.status, 201, "{}", created.text());
    }
    let event = json!({"type": "order.created", "source": "/shop", "subject": "order/7", "data": {"order_id": 7, "amount": 90}});
    let event = publish(&world, &event).await;
    assert_eq!((subscriptions(&event), &event["status"]), (vec!["payment", "stock"], &json!("fanned_out")));

    let stock = world.receiver.wait_for("/stock", 1).await.remove(0);
    assert_eq!(stock.header("content-type"), "application/cloudevents+json");
    assert_eq!(
        (&stock.json()["type"], &stock.json()["data"]["order_id"]),
        (&json!("order.created"), &json!(7))
    );
    let payment = world.receiver.wait_for("/payment", 1).await.remove(0);
    assert_eq!(payment.json(), json!({"order_id": 7, "amount": 90}));
    assert_eq!((payment.header("ce-type"), payment.header("ce-subject")), ("order.created", "order/7"));

    // One consumer that fails does not affect the other.
    for task in event["tasks"].as_array().unwrap() {
        let ended = world.ended(task).await;
        let expected = if task["subscription"] == "stock" { "failed" } else { "succeeded" };
        assert_eq!((&ended["status"], &ended["event"]), (&json!(expected), &event["id"]), "{ended}");
    }
    let of_event = world.tasks(&format!("event={}&", event["id"].as_str().unwrap())).await;
    assert_eq!(of_event.len(), 2);
    finish(world).await;
}

#[tokio::test]
async fn repeated_event_creates_no_second_task() {
    let world = World::start().await;
    subscribe(&world, "stock", &json!({"topic": "#"})).await;
    let event = json!({"type": "order.created", "source": "/shop", "id": "7"});
    let first = publish(&world, &event).await;
    let changed = json!({"type": "order.paid", "source": "/shop", "id": "7"});
    let again = world.post(EVENTS, &changed).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, "true"));
    assert_eq!((&again.json()["id"], &again.json()["type"]), (&first["id"], &json!("order.created")));
    publish(&world, &json!({"type": "order.created", "source": "/other", "id": "7"})).await;
    world.receiver.wait_for("/stock", 2).await;
    assert_eq!(world.receiver.received("/stock").len(), 2);
    finish(world).await;
}

#[tokio::test]
async fn idempotency_key_identifies_an_event_without_id() {
    let world = World::start().await;
    let (event, other) = (json!({"type": "a", "data": 1}), json!({"type": "a", "source": "/other"}));
    let key = [("idempotency-key", "\"k\"")];
    let first = world.post_with(EVENTS, &key, &event.to_string()).await;
    let again = world.post_with(EVENTS, &key, &event.to_string()).await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(
        (first.json()["id"].clone(), again.header("idempotency-replayed")),
        (again.json()["id"].clone(), "true")
    );
    let refused = world.post_with(EVENTS, &key, &other.to_string()).await;
    assert_eq!(refused.problem(), (422, "idempotency_key_reused".to_owned()));
    finish(world).await;
}

#[tokio::test]
async fn every_accepted_event_is_fanned_out() {
    let world = World::start().await;
    subscribe(&world, "all", &json!({"topic": "#", "body": "data"})).await;
    let attributes = |count: usize| {
        let extensions = (0..count).map(|number| (format!("ext{number}"), json!("é\u{1F980} %\"")));
        Value::Object(extensions.chain([("type".to_owned(), json!("a"))]).collect())
    };
    let nested =
        |depth: usize| format!("{{\"type\":\"a\",\"data\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let bodies = [
        attributes(25).to_string(),
        nested(116),
        json!({"type": "a", "data": "\u{7}".repeat(40_000)}).to_string(),
        r#"{"type":"a","data":[1e308,-0,12345678901234567890]}"#.to_owned(),
    ];
    for body in &bodies {
        let accepted = world.post_with(EVENTS, &[], body).await;
        assert_eq!(accepted.status, 202, "{} {}", accepted.text(), &body[..60.min(body.len())]);
        let event = fanned_out(&world, accepted.json()["id"].as_str().unwrap()).await;
        assert_eq!((&event["status"], subscriptions(&event)), (&json!("fanned_out"), vec!["all"]), "{event}");
    }
    let refused = [attributes(50).to_string(), nested(117), r#"{"type":"a","data":1e400}"#.to_owned()];
    for body in &refused {
        let answer = world.post_with(EVENTS, &[], body).await;
        assert_eq!(
            answer.problem(),
            (422, "validation_failed".to_owned()),
            "{}",
            &body[..60.min(body.len())]
        );
    }
    let text = [
        ("content-type", "text/plain"),
        ("ce-specversion", "1.0"),
        ("ce-id", "9"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
    ];
    let answer = world.post_with(EVENTS, &text, &"\u{7}".repeat(100_000)).await;
    assert_eq!(answer.problem(), (422, "validation_failed".to_owned()), "600,000 bytes as JSON");
    for (name, value) in [("ce-data", "x"), ("ce-foo", "a%0Ab"), ("ce-f_o", "x")] {
        let headers = [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "4"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
            (name, value),
        ];
        let answer = world.post_with(EVENTS, &headers, "{}").await;
        assert_eq!(answer.problem(), (422, "validation_failed".to_owned()), "{name}");
    }
    finish(world).await;
}

#[tokio::test]
async fn replay_for_a_new_subscription_is_carried_out_once() {
    let world = World::start().await;
    let event = publish(&world, &json!({"type": "a"})).await;
    subscribe(&world, "late", &json!({"topic": "#"})).await;
    let replay = format!("{EVENTS}/{}/replay", event["id"].as_str().unwrap());
    let (key, body) = ([("idempotency-key", "\"r\"")], json!({"subscription": "late"}).to_string());
    let created = world.post_with(&replay, &key, &body).await;
    assert_eq!(world.ended(&created.json()).await["status"], "succeeded");
    let again = world.post_with(&replay, &key, &body).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, "true"));
    assert_eq!((&again.json()["id"], &again.json()["generation"]), (&created.json()["id"], &json!(1)));
    finish(world).await;
}

#[tokio::test]
async fn event_without_subscription_is_stored() {
    let world = World::start().await;
    let event = publish(&world, &json!({"type": "order.created", "data": [1.10]})).await;
    assert_eq!((&event["status"], &event["tasks"]), (&json!("fanned_out"), &json!([])));
    assert_eq!((&event["source"], &event["event"]["data"]), (&json!("/"), &json!([1.10])));
    let page = world.get(&format!("{EVENTS}?type=order.created")).await.json();
    assert_eq!((page["data"].as_array().unwrap().len(), &page["data"][0]["id"]), (1, &event["id"]));
    assert_eq!(world.get(&format!("{EVENTS}?type=order.paid")).await.json()["data"], json!([]));
    assert_eq!(world.get(&format!("{EVENTS}?source=%2F")).await.json()["data"].as_array().unwrap().len(), 1);
    let unknown = world.get("/v1/events/event_00000000000000000000000000").await;
    assert_eq!(unknown.problem(), (404, "event_not_found".to_owned()));
    finish(world).await;
}

#[tokio::test]
async fn cloud_events_arrive_in_all_modes() {
    let world = World::start().await;
    subscribe(&world, "all", &json!({"topic": "#"})).await;
    let event = |id: &str| json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t", "ext": 7, "data": {"n": id}});
    let structured = [("content-type", "application/cloudevents+json; charset=utf-8")];
    assert_eq!(world.post_with(EVENTS, &structured, &event("1").to_string()).await.status, 202);
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let accepted =
        world.post_with(EVENTS, &batch, &json!([event("2"), event("3"), event("2")]).to_string()).await;
    assert_eq!(
        (accepted.status, accepted.json()["data"].as_array().map(Vec::len)),
        (202, Some(3)),
        "{}",
        accepted.text()
    );
    let binary = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "4"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-subject", "caf%C3%A9"),
    ];
    let accepted = world.post_with(EVENTS, &binary, "{\"n\": \"4\"}").await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let mut received = world.receiver.wait_for("/all", 4).await;
    received.sort_by_key(|request| request.json()["id"].to_string());
    let data: Vec<Value> = received.iter().map(|request| request.json()["data"]["n"].clone()).collect();
    assert_eq!(data, ["1", "2", "3", "4"]);
    assert_eq!((&received[0].json()["ext"], &received[3].json()["subject"]), (&json!(7), &json!("café")));
    for (headers, problem) in [
        (vec![("content-type", "text/plain")], (415, "unsupported_media_type")),
        (vec![("content-type", "application/cloudevents+xml")], (415, "unsupported_media_type")),
    ] {
        let refused = world.post_with(EVENTS, &headers, &event("9").to_string()).await;
        assert_eq!(refused.problem(), (problem.0, problem.1.to_owned()), "{headers:?}");
    }
    finish(world).await;
}

#[tokio::test]
async fn paused_subscription_holds_its_tasks() {
    let world = World::start().await;
    subscribe(&world, "stock", &json!({"topic": "#", "paused": true})).await;
    let event = publish(&world, &json!({"type": "order.created"})).await;
    let task = &event["tasks"][0];
    let held = world.until(task, |task| task["status"] == "held").await;
    assert_eq!(held["held"]["reason"], "paused");
    let explained = world.get(&format!("{}/explain", path(task))).await.json();
    assert_eq!(explained["blocked_by"], json!({"type": "subscription", "name": "stock"}), "{explained}");
    let resumed = subscribe(&world, "stock", &json!({"topic": "#", "paused": false})).await;
    assert_eq!((resumed.status, &resumed.json()["paused"]), (200, &json!(false)));
    assert_eq!(world.ended(task).await["status"], "succeeded");
    finish(world).await;
}

#[tokio::test]
async fn event_is_replayed_for_one_subscription() {
    let world = World::start().await;
    world.receiver.script("/stock", [Reply::status(500), Reply::status(200)]);
    subscribe(&world, "stock", &json!({"topic": "#"})).await;
    let event = publish(&world, &json!({"type": "order.created"})).await;
    let replay = format!("{EVENTS}/{}/replay", event["id"].as_str().unwrap());
    let failed = &event["tasks"][0];
    assert_eq!(world.ended(failed).await["status"], "failed");
    let again = world.post(&replay, &json!({"subscription": "stock"})).await;
    assert_eq!(
        (again.status, &again.json()["id"], &again.json()["generation"]),
        (202, &failed["id"], &json!(2))
    );
    assert_eq!(world.ended(failed).await["status"], "succeeded");

    let missing = world.post(&replay, &json!({"subscription": "late"})).await;
    assert_eq!(missing.problem(), (404, "subscription_not_found".to_owned()));
    subscribe(&world, "late", &json!({"topic": "#"})).await;
    let created = world.post(&replay, &json!({"subscription": "late"})).await;
    assert_eq!(created.status, 202, "{}", created.text());
    assert_eq!(world.ended(&created.json()).await["status"], "succeeded");
    let tasks = world.get(&format!("{EVENTS}/{}", event["id"].as_str().unwrap())).await.json();
    assert_eq!(subscriptions(&tasks), ["late", "stock"]);
    subscribe(&world, "other", &json!({"topic": "invoice.*"})).await;
    let refused = world.post(&replay, &json!({"subscription": "other"})).await;
    assert_eq!(refused.problem(), (422, "validation_failed".to_owned()));
    finish(world).await;
}

#[tokio::test]
async fn removed_endpoint_fails_the_fan_out_until_it_is_back() {
    let world = World::start().await;
    subscribe(&world, "gone", &json!({"topic": "#"})).await;
    subscribe(&world, "stock", &json!({"topic": "#"})).await;
    assert_eq!(world.ask("DELETE", "/v1/endpoints/gone", &Value::Null).await.status, 200);
    let accepted = world.post(EVENTS, &json!({"type": "order.created"})).await.json();
    let id = accepted["id"].as_str().unwrap();
    world.receiver.wait_for("/stock", 1).await;
    let retrying = world.until(&keeper(id), |task| task["error"].is_object()).await;
    assert_eq!(retrying["error"]["code"], "subscription_failed", "{retrying}");
    subscribe(&world, "gone", &json!({"topic": "#"})).await;
    let event = fanned_out(&world, id).await;
    assert_eq!((subscriptions(&event), &event["status"]), (vec!["gone", "stock"], &json!("fanned_out")));
    world.receiver.wait_for("/gone", 1).await;
    assert_eq!(world.receiver.received("/stock").len(), 1);
    finish(world).await;
}

/// Publishes an event until it is accepted, also by a program that was started again on another port.
async fn publish_until_accepted(mut address: watch::Receiver<SocketAddr>, number: usize) {
    let body =
        json!({"type": "order.created", "source": "/shop", "id": number.to_string(), "data": {"n": number}});
    loop {
        let current = *address.borrow_and_update();
        match exchange(current, "POST", EVENTS, &[], &body.to_string()).await {
            Ok(answer) if answer.status == 202 => return,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Clients publish while the program is killed again and again. Each event gets exactly one task for each
/// subscription.
#[tokio::test]
async fn events_and_their_tasks_survive_kills() {
    const CLIENTS: usize = 8;
    let (events, kills) = (size(400, 100_000), size(5, 50));
    let mut world = World::start().await;
    for name in ["a", "b", "c"] {
        let subscription = json!({"topic": "order.*", "task": {"kind": "noop"}});
        assert_eq!(world.ask("PUT", &format!("/v1/subscriptions/{name}"), &subscription).await.status, 201);
    }
    let (sender, address) = watch::channel(world.address());
    let accepted = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (address, accepted) = (address.clone(), Arc::clone(&accepted));
            tokio::spawn(async move {
                for number in (client..events).step_by(CLIENTS) {
                    publish_until_accepted(address.clone(), number).await;
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for kill in 1..=kills {
        while accepted.load(Ordering::Relaxed) < events * kill / (kills + 1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        world.kill().await;
        world.go_on().await;
        sender.send(world.address()).unwrap();
    }
    for client in clients {
        client.await.unwrap();
    }
    // Tasks that ran during a kill start again when their leases have expired.
    for status in ["running", "queued", "retrying", "held", "scheduled", "running", "queued"] {
        let path = format!("/v1/tasks?status={status}&limit=1");
        while world.get(&path).await.json()["data"][0].is_object() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    world.stop().await;
    let file = world.file();
    let count =
        |sql: &str| usize::try_from(file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()).unwrap();
    assert_eq!(count("SELECT count(*) FROM tasks WHERE kind = 'event'"), events);
    assert_eq!(count("SELECT count(*) FROM tasks WHERE ended_at IS NULL OR error IS NOT NULL"), 0);
    let complete =
        "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE kind = 'noop' GROUP BY options ->> 'event'
        HAVING count(*) = 3 AND count(DISTINCT options ->> 'subscription') = 3)";
    assert_eq!(count(complete), events);
    assert_eq!(count("SELECT count(*) FROM tasks WHERE kind = 'noop'"), 3 * events);
}

#[tokio::test]
async fn subscription_is_tested_without_effect() {
    let world = World::start().await;
    subscribe(&world, "stock", &json!({"topic": "order.*", "filter": {"data": {"n": [1]}}})).await;
    let selected = world
        .post("/v1/subscriptions/stock/test", &json!({"type": "order.paid", "data": {"n": 1}}))
        .await
        .json();
    assert_eq!(
        (&selected["topic_matches"], &selected["filter_matches"]),
        (&json!(true), &json!(true)),
        "{selected}"
    );
    assert_eq!(selected["task"]["payload"]["body"]["type"], "order.paid");
    let other = world
        .post("/v1/subscriptions/stock/test", &json!({"type": "order.paid", "data": {"n": 2}}))
        .await
        .json();
    assert_eq!((&other["filter_matches"], &other["task"]), (&json!(false), &Value::Null));
    assert!(world.tasks("").await.is_empty());
    finish(world).await;
}

#[tokio::test]
async fn invalid_subscription_is_refused() {
    let world = World::start().await;
    for (subscription, pointer) in [
        (json!({"topic": "order*", "task": {"kind": "noop"}}), "/topic"),
        (json!({"topic": "#", "filter": {"data": []}, "task": {"kind": "noop"}}), "/filter/data"),
        (json!({"topic": "order.*", "filter": {"type": ["x"]}, "task": {"kind": "noop"}}), "/filter/type"),
        (json!({"topic": "#", "task": {"kind": "event"}}), "/task/kind"),
        (json!({"topic": "#", "task": {"kind": "http", "endpoint": "none"}}), "/task/endpoint"),
        (json!({"topic": "#", "task": {"kind": "noop", "run_at": "2026-12-01T08:00:00Z"}}), "/task/run_at"),
        (json!({"topic": "#", "task": {"kind": "noop"}, "colour": 1}), "/colour"),
    ] {
        let refused = world.ask("PUT", "/v1/subscriptions/stock", &subscription).await;
        assert_eq!(refused.status, 422, "{subscription} {}", refused.text());
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{}", refused.text());
    }
    let unknown = world.get("/v1/subscriptions/stock").await;
    assert_eq!(unknown.problem(), (404, "subscription_not_found".to_owned()));
    finish(world).await;
}
