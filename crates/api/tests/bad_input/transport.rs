//! Rows 1 to 9, 17, 18 and 20: faults below the JSON level, in heads, framing and timing.

use std::num::NonZeroUsize;
use std::time::Duration;

use nobat_api::Limits;

use crate::world::{World, post};

const LIMIT: usize = 256 * 1024;

/// Returns a submission of exactly this many bytes.
fn submission(length: usize) -> String {
    let frame = r#"{"kind":"noop","payload":""}"#;
    frame.replace("\"\"", &format!("\"{}\"", "x".repeat(length - frame.len())))
}

#[tokio::test]
async fn row_1_body_declared_too_long_is_refused_unread() {
    let world = World::start().await;
    let head = format!(
        "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        LIMIT + 1
    );
    for rest in ["\r\n", "Expect: 100-continue\r\n\r\n", &format!("\r\n{}", " ".repeat(200_000))] {
        let mut client = world.connect().await;
        client.send(format!("{head}{rest}")).await;
        let answer = client.answer().await.unwrap();
        answer.problem(413, "body_too_large");
        assert_eq!(answer.header("connection"), Some("close"));
        client.closed().await;
    }
    assert_eq!(world.post("/v1/tasks", submission(LIMIT)).await.status, 202);
    world.post("/v1/tasks", submission(LIMIT + 1)).await.problem(413, "body_too_large");
}

/// Many clients that get a reset while they send report only the reset, and not the answer that explains it.
#[tokio::test]
async fn refused_client_can_finish_sending() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client.send("POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 300000\r\n\r\n").await;
    client.send(" ".repeat(200_000)).await;
    client.answer().await.unwrap().problem(413, "body_too_large");
    client.send(" ".repeat(100_000)).await;
    client.try_send(" ").await.unwrap();
}

#[tokio::test]
async fn row_2_chunked_body_above_the_limit_is_refused() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client.send("POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
    for _ in 0..=LIMIT / 0x4000 {
        client.send(&chunk).await;
    }
    let answer = client.answer().await.unwrap();
    answer.problem(413, "body_too_large");
    assert_eq!(answer.header("connection"), Some("close"));
    client.closed().await;
}

#[tokio::test]
async fn row_3_compressed_body_is_refused() {
    let world = World::start().await;
    for encoding in ["gzip", "br", "zstd", "deflate", "identity, gzip", "x"] {
        let answer = world
            .post_with("/v1/tasks", &format!("Content-Encoding: {encoding}\r\n"), r#"{"kind":"noop"}"#)
            .await;
        answer.problem(415, "unsupported_content_encoding");
    }
    assert_eq!(
        world.post_with("/v1/tasks", "Content-Encoding: identity\r\n", r#"{"kind":"noop"}"#).await.status,
        202
    );
}

/// Regressions: RUSTSEC-2021-0020, -0078, -0079.
#[tokio::test]
async fn row_4_no_request_is_smuggled_in_another() {
    let world = World::start().await;
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for framing in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 99999999999999999999999999",
        "Content-Length : 5",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "X: a\r\n folded: b",
        "X: \0",
    ] {
        let mut client = world.connect().await;
        client
            .send(format!(
                "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{framing}\r\n\r\n0\r\n\r\n{smuggled}"
            ))
            .await;
        assert_eq!(client.answer().await.expect(framing).status, 400, "{framing}");
        client.closed().await;
    }
    // Two equal `Content-Length` fields count as one (RFC 9110, section 8.6).
    let same = "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}";
    world.ask(same).await.problem(422, "validation_failed");
    for framing in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let mut client = world.connect().await;
        client
            .send(format!(
                "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{framing}\r\n\r\n0\r\n\r\n{smuggled}"
            ))
            .await;
        client.answer().await.unwrap().problem(400, "malformed_json");
        client.closed().await;
    }
    assert!(world.store.all().is_empty());
}

/// RFC 9112, section 3.2.
#[tokio::test]
async fn missing_repeated_or_invalid_host_is_refused() {
    let world = World::guarded().await;
    for headers in [
        "",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost\r\nHost: other\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
    ] {
        let mut client = world.connect().await;
        client.send(format!("GET /healthz HTTP/1.1\r\n{headers}\r\n")).await;
        assert_eq!(client.answer().await.unwrap().status, 400, "{headers}");
        client.closed().await;
    }
    for head in [
        "HTTP/1.0\r\n",
        "HTTP/1.0\r\nHost: a\r\n",
        "HTTP/1.1\r\nHost: any.example:80\r\n",
        "HTTP/1.1\r\nHost: [2001:db8::1]\r\n",
    ] {
        assert_eq!(world.ask(format!("GET /healthz {head}\r\n")).await.status, 200, "{head}");
    }
    assert_eq!(world.ask("GET /healthz HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n").await.status, 400);
    assert_eq!(world.ask("GET http://a@b/healthz HTTP/1.1\r\nHost: b\r\n\r\n").await.status, 400);
}

/// RFC 9112, section 6.1.
#[tokio::test]
async fn transfer_coding_other_than_chunked_is_not_implemented() {
    let world = World::start().await;
    for coding in [
        "gzip, chunked",
        "gzip\r\nTransfer-Encoding: chunked",
        "chunked, chunked",
        "identity, chunked",
        ", chunked",
    ] {
        let mut client = world.connect().await;
        let head = "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        client.send(format!("{head}Transfer-Encoding: {coding}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")).await;
        assert_eq!(client.answer().await.unwrap().status, 501, "{coding}");
        client.closed().await;
    }
    for coding in ["chunked", "Chunked", " chunked "] {
        let head = "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        let answer =
            world.ask(format!("{head}Transfer-Encoding: {coding}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")).await;
        answer.problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn row_4_malformed_chunks_are_refused() {
    let world = World::start().await;
    for chunks in
        ["fffffffffffffffff\r\nx", "10000000000000001\r\nx", "g\r\nx", "+1\r\nx", "1\r\nxx\r\n0\r\n\r\n"]
    {
        let mut client = world.connect().await;
        let head = "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}{chunks}")).await;
        client.answer().await.unwrap().problem(400, "malformed_body");
        client.closed().await;
    }
    let well = "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
        8\r\n{\"kind\":\r\n7\r\n\"noop\"}\r\n0\r\nX-Trailer: y\r\n\r\n";
    assert_eq!(world.ask(well).await.status, 202);
}

#[tokio::test(start_paused = true)]
async fn row_5_incomplete_head_is_closed_at_its_deadline() {
    let world = World::start().await;
    let began = tokio::time::Instant::now();
    for beginning in ["", "POST /v1/tasks HTT", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "] {
        let mut client = world.connect().await;
        client.send(beginning).await;
        client.closed().await;
    }
    assert!(began.elapsed() < Duration::from_secs(3 * 12));
}

#[tokio::test]
async fn row_6_slow_body_is_refused_at_its_deadline() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client
        .send("POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"kind\":")
        .await;
    world.clock.sleepers(1).await;
    // The deadline applies to the whole body. Slow pieces do not extend it.
    client.send("\"n").await;
    client.send("oo").await;
    assert_eq!((world.clock.slept(), world.clock.longest()), (1, Duration::from_secs(15)));
    world.clock.end_sleeps();
    let answer = client.answer().await.unwrap();
    answer.problem(408, "body_timeout");
    assert_eq!(answer.header("connection"), Some("close"));
    client.closed().await;
    assert!(world.store.all().is_empty());
}

#[tokio::test]
async fn stalled_bodies_of_a_tenant_leave_room_for_others() {
    let world = World::guarded().await;
    let (theirs, ours) = (world.key("theirs", "tasks:write").await, world.key("ours", "tasks:write").await);
    let submit = async |key: &str| world.ask_with(key, "POST", "/v1/tasks", &submission(LIMIT)).await;
    let head = format!(
        "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {theirs}\r\nContent-Type: application/json\r\n\
        Content-Length: {LIMIT}\r\n\r\n"
    );
    let mut stalled = Vec::new();
    // 128 of them are 32 MiB, half of the total.
    for _ in 0..130 {
        let mut client = world.connect().await;
        client.send(format!("{head}{}", " ".repeat(LIMIT - 1))).await;
        stalled.push(client);
    }
    let refused = until(async || Some(submit(&theirs).await).filter(|answer| answer.status != 202)).await;
    refused.problem(503, "overloaded");
    assert!(refused.header("retry-after").is_some() && refused.header("connection") == Some("close"));
    assert_eq!(submit(&ours).await.status, 202);
    assert_eq!(
        world.ask_with(&theirs, "POST", "/v1/tasks", r#"{"kind":"noop"}"#).await.status,
        202,
        "a body in one piece needs no reservation"
    );
    drop(stalled);
    until(async || Some(submit(&theirs).await).filter(|answer| answer.status == 202)).await;
}

/// Repeats a request until it returns a value.
async fn until<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn client_that_reads_nothing_is_reset_and_frees_its_slot() {
    let write = Duration::from_millis(300);
    let limits = Limits { connections: 8, write, ..Limits::default() };
    let metrics = std::sync::Arc::clone(&limits.metrics);
    let world = World::start_within(limits).await;
    let request = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut client = world.connect().await;
        client.send(&request).await;
        stalled.push(client);
    }
    until(async || (metrics.open() == 4).then_some(())).await;
    world.connect().await.closed().await;
    assert_eq!(metrics.refused_address(), 1, "one address gets half of all connections");
    until(async || (metrics.open() == 0).then_some(())).await;
    assert_eq!(metrics.write_timeouts(), 4);
    assert_eq!(world.get("/healthz").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn connection_without_a_further_request_is_closed() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().status, 200);
    let answered = tokio::time::Instant::now();
    client.closed().await;
    assert!(answered.elapsed() < Duration::from_secs(12), "{:?}", answered.elapsed());
}

#[tokio::test]
async fn body_that_arrives_with_its_head_needs_no_timer() {
    let world = World::start().await;
    let mut client = world.connect().await;
    for _ in 0..3 {
        client.send(post("/v1/tasks", "", r#"{"kind":"noop"}"#)).await;
        assert_eq!(client.answer().await.unwrap().status, 202);
    }
    client.send(post("/v1/tasks", "", r#"{"kind":"noop"}"#).repeat(3)).await;
    for _ in 0..3 {
        assert_eq!(client.answer().await.unwrap().status, 202);
    }
    assert_eq!(world.clock.slept(), 0);
}

#[tokio::test]
async fn row_7_connection_above_the_limit_is_closed() {
    let world = World::start_within(Limits {
        connections: 2,
        connections_per_address: NonZeroUsize::new(2),
        ..Limits::default()
    })
    .await;
    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (mut first, mut second) = (world.connect().await, world.connect().await);
    for client in [&mut first, &mut second] {
        client.send(health).await;
        assert_eq!(client.answer().await.unwrap().status, 200);
    }
    world.connect().await.closed().await;
    first.send(health).await;
    assert_eq!(first.answer().await.unwrap().status, 200);
    drop(first);
    // The server notices the closed connection a little later.
    let mut answer = None;
    while answer.is_none() {
        let mut client = world.connect().await;
        client.send(health).await;
        answer = client.answer().await;
    }
    second.send(health).await;
    assert_eq!(second.answer().await.unwrap().status, 200);
}

#[tokio::test]
async fn row_8_http_2_is_refused() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(client.answer().await.is_none_or(|answer| answer.status == 400));
    client.closed().await;
}

#[tokio::test]
async fn row_9_head_above_the_limit_is_refused() {
    let world = World::start().await;
    let long = format!("X: {}\r\n", "x".repeat(16 * 1024));
    let many = "X: y\r\n".repeat(101);
    for headers in [&long, &many] {
        let mut client = world.connect().await;
        client.send(format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
        assert_eq!(client.answer().await.unwrap().status, 431);
        client.closed().await;
    }
    let answer = world.ask(format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(20_000))).await;
    assert!(matches!(answer.status, 414 | 431), "{}", answer.status);
    let answer =
        world.ask(format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(90))).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn row_17_other_methods_are_refused_with_an_allow_header() {
    let world = World::start().await;
    for (method, path, allowed) in [
        ("DELETE", "/v1/tasks", "GET,HEAD,POST"),
        ("PUT", "/v1/tasks/batch", "POST"),
        ("GET", "/v1/tasks/batch", "POST"),
        ("PATCH", "/v1/tasks/task_01jd8rkz5m3q4v9x2y7w6t0abc", "GET,HEAD"),
        ("GET", "/v1/tasks/task_01jd8rkz5m3q4v9x2y7w6t0abc/cancel", "POST"),
        ("POST", "/healthz", "GET,HEAD"),
        ("BREW", "/readyz", "GET,HEAD"),
    ] {
        let answer = world.ask(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        answer.problem(405, "method_not_allowed");
        let mut named: Vec<_> = answer.header("allow").unwrap().split(',').collect();
        named.sort_unstable();
        assert_eq!(named.join(","), allowed, "{method} {path}");
    }
    let id = world.submit(r#"{"kind":"noop","delay":60}"#).await;
    let answer = world
        .ask(format!(
            "GET /v1/tasks/{id} HTTP/1.1\r\nHost: localhost\r\nX-HTTP-Method-Override: DELETE\r\n\r\n"
        ))
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn row_18_unknown_paths_are_not_found() {
    let world = World::start().await;
    for path in [
        "/",
        "//v1/tasks",
        "/v1//tasks",
        "/v1/tasks/",
        "/v1",
        "/V1/tasks",
        "/v1/tasks/a/b",
        "/v1/tasks/../tasks",
        "/%2e%2e/v1/tasks",
        "/v1/tasks/x/cancel/y",
        "/healthz/",
        "/openapi.json/..",
        "/v2/tasks",
    ] {
        let answer = world.get(path).await;
        assert_eq!(answer.problem(404, answer.json()["code"].as_str().unwrap())["status"], 404, "{path}");
    }
    let long = "a".repeat(8_000);
    let unknown = "task_01jd8rkz5m3q4v9x2y7w6t0abc";
    let mut bodies = Vec::new();
    for id in [
        unknown,
        "%00",
        "%ff",
        "..%2f..",
        "%2e%2e",
        "task_",
        "task_01JD8RKZ5M3Q4V9X2Y7W6T0ABC",
        "1",
        "*",
        "%F0%9F%98%80",
        &long,
    ] {
        let answer = world.get(&format!("/v1/tasks/{id}")).await;
        let mut problem = answer.problem(404, "task_not_found");
        problem["instance"].take();
        bodies.push(problem);
        world.post(&format!("/v1/tasks/{id}/cancel"), "").await.problem(404, "task_not_found");
        world.post(&format!("/v1/tasks/{id}/replay"), "").await.problem(404, "task_not_found");
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "all unknown ids get the same response (row 32)");
}

#[tokio::test]
async fn malformed_request_lines_are_refused() {
    let world = World::start().await;
    for line in [
        "OPTIONS * HTTP/1.1",
        "CONNECT h:443 HTTP/1.1",
        "GET http://other/nothing HTTP/1.1",
        "GET http://h HTTP/1.1",
    ] {
        let answer = world.ask(format!("{line}\r\nHost: localhost\r\n\r\n")).await;
        assert!((400..500).contains(&answer.status), "{line}: {}", answer.status);
    }
    for line in [
        "GET  /healthz HTTP/1.1",
        "GET /healthz",
        "GET /healthz HTTP/1.1 x",
        "GET /a b HTTP/1.1",
        "\0",
        "GET /healthz HTTP/3.0",
    ] {
        let mut client = world.connect().await;
        client.send(format!("{line}\r\nHost: localhost\r\n\r\n")).await;
        assert!(client.answer().await.is_none_or(|answer| answer.status == 400), "{line}");
    }
    assert_eq!(world.ask("GET /healthz HTTP/1.0\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn row_20_no_link_is_built_from_the_host_header() {
    let world = World::guarded().await;
    let (body, key) = (r#"{"kind":"noop"}"#, world.key("acme", "tasks:write").await);
    let head = "POST /v1/tasks HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\nContent-Type: application/json\r\nContent-Length: 15\r\n";
    let answer = world.ask(format!("{head}Authorization: Bearer {key}\r\n\r\n{body}")).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(&*format!("/v1/tasks/{id}")));
}

#[tokio::test]
async fn server_finishes_running_requests_at_shutdown() {
    let world = World::start_within(Limits {
        grace: Duration::from_hours(1),
        head: Duration::from_hours(1),
        ..Limits::default()
    })
    .await;
    let id = world.submit(r#"{"kind":"noop","delay":60}"#).await;
    let (mut idle, mut waiting) = (world.connect().await, world.connect().await);
    idle.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(idle.answer().await.unwrap().status, 200);
    waiting.send(format!("GET /v1/tasks/{id}?wait=25 HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    world.clock.sleepers(1).await;
    world.shutdown.cancel();
    assert_eq!(waiting.answer().await.unwrap().status, 200);
    idle.closed().await;
    world.server.await.unwrap();
    assert!(tokio::net::TcpStream::connect(world.address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_no_longer_than_the_grace_period() {
    let world = World::start_within(Limits { grace: Duration::from_secs(3), ..Limits::default() }).await;
    let mut client = world.connect().await;
    client.send("POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{").await;
    world.clock.sleepers(1).await;
    world.shutdown.cancel();
    world.server.await.unwrap();
    client.closed().await;
}
