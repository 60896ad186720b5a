//! Answers of endpoints, as nobat reads and stores them.

use nobat_tests::harness::raw_receiver::{RawReceiver, Reaction, answer};
use nobat_tests::harness::receiver::Reply;
use nobat_tests::harness::{World, attempts};
use serde_json::{Value, json};

/// `{"ok": true}` in gzip, zlib, raw deflate and brotli.
const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xabV\xca\xcfV\xb2R()*M\xad\x05\x00\xc6\x19\xab\x17\x0c\x00\x00\x00";
const ZLIB: &[u8] = b"x\x9c\xabV\xca\xcfV\xb2R()*M\xad\x05\x00\x19w\x041";
const DEFLATE: &[u8] = b"\xabV\xca\xcfV\xb2R()*M\xad\x05\x00";
const BROTLI: &[u8] = b"\x8b\x05\x80{\"ok\": true}\x03";

/// Returns a task that calls this URL once.
fn call(url: &str) -> Value {
    json!({"kind": "http", "payload": {"url": url, "body": {"n": 1}}, "retry": {"max_attempts": 1}})
}

async fn result(world: &World, receiver: &RawReceiver) -> Value {
    let task = world.ended(&world.submit(&call(&receiver.url("/hook"))).await).await;
    assert_eq!(task["status"], "succeeded", "{task:#}");
    task["result"].clone()
}

#[tokio::test]
async fn compressed_response_is_decoded() {
    let world = World::start().await;
    for (coding, body) in
        [("gzip", GZIP), ("x-gzip", GZIP), ("deflate", ZLIB), ("Deflate", DEFLATE), ("br", BROTLI)]
    {
        let headers = format!("content-type: application/json\r\ncontent-encoding: {coding}\r\n");
        let receiver = RawReceiver::sending(answer(200, &headers, body)).await;
        let result = result(&world, &receiver).await;
        assert_eq!(
            (&result["body"], &result["truncated"]),
            (&json!({"ok": true}), &json!(false)),
            "{coding}"
        );
        assert_eq!(
            result["headers"],
            json!({"content-type": "application/json"}),
            "the result has no content-encoding"
        );
        assert_eq!(receiver.received()[0].header("accept-encoding"), ["identity"]);
        let endpoint = json!({"url": receiver.url("/api"), "headers": {"accept-encoding": "gzip"}});
        assert!(world.ask("PUT", "/v1/endpoints/billing", &endpoint).await.status < 300);
        let tested = world.post("/v1/endpoints/billing/test", &json!({})).await.json();
        assert_eq!(tested["response"]["body"], json!({"ok": true}));
        assert_eq!(
            receiver.received()[1].header("accept-encoding"),
            ["gzip"],
            "the endpoint sets its own accept-encoding"
        );
    }
    world.end().await;
}

#[tokio::test]
async fn response_is_kept_as_text_or_as_base64() {
    let world = World::start().await;
    let json_type = "content-type: application/json\r\n";
    for (headers, body, kept, base64) in [
        (json_type, &b"\xef\xbb\xbf{\"ok\": true}"[..], json!({"ok": true}), json!(null)),
        ("", b"\xef\xbb\xbfhello", json!("hello"), json!(null)),
        ("content-type: image/png\r\n", b"\x89PNG\r\n\x1a\n\x00", json!(null), json!("iVBORw0KGgoA")),
        (json_type, b"{\"caf\xe9\": 1}", json!(null), json!("eyJjYWbpIjogMX0=")),
        ("content-encoding: zstd\r\n", b"\x28\xb5\x2f\xfd\x00\xff", json!(null), json!("KLUv/QD/")),
        ("content-encoding: gzip\r\n", b"not gzip at all", json!("not gzip at all"), json!(null)),
    ] {
        let result = result(&world, &RawReceiver::sending(answer(200, headers, body)).await).await;
        assert_eq!((&result["body"], &result["body_base64"]), (&kept, &base64), "{result}");
    }
    world.end().await;
}

/// Function that writes the results for an item's id.
type Results = fn(&str) -> String;

#[tokio::test]
async fn common_forms_of_per_item_results_are_read() {
    let world = World::start().await;
    let put = async |url: String| {
        let endpoint = json!({"url": url, "batch": {"max_items": 2, "max_wait": 600, "per_item_results": true}, "circuit_breaker": {"enabled": false}});
        assert!(world.ask("PUT", "/v1/endpoints/events", &endpoint).await.status < 300);
    };
    let item =
        json!({"kind": "http", "endpoint": "events", "payload": {"body": 1}, "retry": {"max_attempts": 1}});
    let ends: [(&str, Results); 4] = [
        ("", |id| format!(r#"[{{"id": "{id}", "status": 200, "body": 1}}]"#)),
        ("", |id| {
            format!(
                "\u{feff}{{\"results\": [{{\"id\": \"{id}\", \"status\": \"200\", \"more\": 1, \"body\": 1}}], \"took\": 3}}"
            )
        }),
        ("", |id| {
            format!(r#"[{{"id": "{id}", "status": 500}}, {{"id": "{id}", "status": 200, "body": 1}}]"#)
        }),
        ("content-encoding: br\r\n", |id| format!(r#"[{{"id": "{id}", "status": 200, "body": 1}}]"#)),
    ];
    for (headers, results) in ends {
        let receiver = RawReceiver::start(move |request| {
            let items: Vec<Value> = serde_json::from_slice(&request.body).expect("an array");
            let mut all =
                items.iter().map(|item| results(item["id"].as_str().expect("an id"))).collect::<Vec<_>>();
            all.truncate(1);
            Reaction::Send(answer(
                200,
                headers,
                &if headers.is_empty() { all[0].clone().into_bytes() } else { stored_brotli(&all[0]) },
            ))
        })
        .await;
        put(receiver.url("/api")).await;
        let tasks = [world.submit(&item).await, world.submit(&item).await];
        let ended = [world.ended(&tasks[0]).await, world.ended(&tasks[1]).await];
        let succeeded: Vec<_> = ended.iter().filter(|task| task["status"] == "succeeded").collect();
        assert_eq!(succeeded.len(), 1, "the response names one item: {ended:#?}");
        assert_eq!(succeeded[0]["result"]["body"], 1);
        assert_eq!(
            ended.iter().filter(|task| task["error"]["code"] == "item_result_missing").count(),
            1,
            "{ended:#?}"
        );
    }
    world.end().await;
}

/// Returns Brotli data that stores its content uncompressed.
fn stored_brotli(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len() - 1).expect("a short text");
    // WBITS 16 (one bit 0), ISLAST 0, MNIBBLES 4 (00), MLEN - 1 in 16 bits, ISUNCOMPRESSED 1, padding to a
    // byte.
    let bits = length << 4 | 1 << 20;
    [&bits.to_le_bytes()[..3], text.as_bytes(), b"\x03"].concat()
}

#[tokio::test]
async fn response_with_many_headers_is_accepted() {
    let world = World::start().await;
    let headers = |count: usize| {
        (0..count).map(|number| format!("x-{number}: {number}\r\n")).collect::<Vec<_>>().concat()
    };
    for count in [150, 1_500] {
        let result = result(&world, &RawReceiver::sending(answer(200, &headers(count), b"ok")).await).await;
        assert_eq!(
            (&result["status"], result["headers"].as_object().map(serde_json::Map::len)),
            (&json!(200), Some(50))
        );
    }
    let endless =
        RawReceiver::sending(answer(200, &format!("x-long: {}\r\n", "x".repeat(200_000)), b"ok")).await;
    let task = world.ended(&world.submit(&call(&endless.url("/"))).await).await;
    assert_eq!(task["error"]["code"], "protocol", "the headers are longer than about 64 KiB");
    world.end().await;
}

#[tokio::test]
async fn connection_lost_before_the_response_is_replaced_at_once() {
    let world = World::start().await;
    let receiver = RawReceiver::start(|request| match request.number {
        1 => Reaction::Send(answer(200, "", b"ok")),
        _ => Reaction::Reset,
    })
    .await;
    for _ in 0..3 {
        let task = world.ended(&world.submit(&call(&receiver.url("/hook"))).await).await;
        assert_eq!(
            (&task["status"], attempts(&task, "/outcome").len()),
            (&json!("succeeded"), 1),
            "{task:#}"
        );
    }
    assert!(receiver.places().contains(&(1, 2)), "a connection was reused: {:?}", receiver.places());
    let requests = receiver.received();
    let place = requests.iter().position(|request| request.number == 2).expect("the lost request");
    let [lost, again] = [&requests[place], &requests[place + 1]];
    assert_eq!(
        (&again.head, &again.body),
        (&lost.head, &lost.body),
        "the repeated request has the same attempt number"
    );
    world.end().await;
}

#[tokio::test]
async fn connection_lost_within_the_response_fails_the_attempt() {
    let world = World::start().await;
    let receiver = RawReceiver::start(|request| match request.number {
        1 => Reaction::Send(answer(200, "", b"ok")),
        _ => Reaction::SendAndClose(b"HTTP/1.1 2".to_vec()),
    })
    .await;
    let fresh = RawReceiver::start(|_| Reaction::Reset).await;
    world.ended(&world.submit(&call(&receiver.url("/hook"))).await).await;
    for (receiver, places) in [(&receiver, vec![(1, 1), (1, 2)]), (&fresh, vec![(1, 1)])] {
        let task = world.ended(&world.submit(&call(&receiver.url("/hook"))).await).await;
        assert_eq!((&task["status"], &task["error"]["code"]), (&json!("failed"), &json!("connection_reset")));
        assert_eq!(receiver.places(), places);
    }
    world.end().await;
}

#[tokio::test]
async fn every_form_of_retry_after_holds_the_task() {
    let world = World::start().await;
    for (number, wish) in ["1.0", " 1 ", "0.5", "0, 1"].into_iter().enumerate() {
        let (name, path) = (format!("e{number}"), format!("/api{number}"));
        world.receiver.script(&path, [Reply::status(429).header("retry-after", wish), Reply::status(200)]);
        let endpoint = json!({"url": world.receiver.url(&path), "circuit_breaker": {"enabled": false}});
        assert_eq!(world.ask("PUT", &format!("/v1/endpoints/{name}"), &endpoint).await.status, 201);
        world.receiver.script(
            &format!("{path}/hook"),
            [Reply::status(429).header("retry-after", wish), Reply::status(200)],
        );
        let task = json!({"kind": "http", "endpoint": name, "payload": {"path": "/hook"}, "retry": {"max_attempts": 1}});
        let task = world.ended(&world.submit(&task).await).await;
        assert_eq!(
            (&task["status"], &task["attempt"]),
            (&json!("succeeded"), &json!(1)),
            "{wish:?}: {task:#}"
        );
    }
    world.end().await;
}
