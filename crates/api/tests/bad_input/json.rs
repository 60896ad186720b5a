//! Rows 10 to 16 and 19: malformed bodies.

use crate::world::World;

#[tokio::test]
async fn row_10_other_media_types_are_refused() {
    let world = World::start().await;
    let body = r#"{"kind":"noop"}"#;
    for media_type in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: application/json; charset=latin1\r\n",
        "Content-Type: application/json\r\nContent-Type: application/json\r\n",
        "Content-Type: \x7f\r\n",
        "Content-Type: application/jso\r\n",
    ] {
        let answer = world
            .ask(format!(
                "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\n{media_type}Content-Length: 15\r\n\r\n{body}"
            ))
            .await;
        if answer.status != 400 || answer.header("content-type").is_some() {
            answer.problem(415, "unsupported_media_type");
        }
    }
    let answer = world
        .ask(format!(
            "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\ncontent-type: Application/Json; Charset=\"UTF-8\"\r\nContent-Length: 15\r\n\r\n{body}"
        ))
        .await;
    assert_eq!(answer.status, 202);
}

#[tokio::test]
async fn row_11_malformed_json_is_refused_with_its_position() {
    let world = World::start().await;
    let bodies: [&[u8]; 13] = [
        b"",
        b" ",
        b"{",
        b"hunter2",
        b"{\"kind\":\"noop\"} hunter2",
        b"{\"kind\":\"noop\"}{}",
        b"{\"kind\":NaN}",
        b"{\"kind\":\"\xffhunter2\"}",
        b"{\"kind\":\"hunter2\ntab\"}",
        b"{'kind':'hunter2'}",
        b"{\"kind\":\"noop\",}",
        b"\xef\xbb\xbf{\"kind\":\"noop\"}",
        b"{\"kind\":\"\\ud83d\"}",
    ];
    let in_batch = |body: &[u8]| [b"{\"tasks\":[{\"kind\":\"noop\"},", body, b"]}"].concat();
    for body in bodies {
        for answer in
            [world.post("/v1/tasks", body).await, world.post("/v1/tasks/batch", in_batch(body)).await]
        {
            let problem = answer.problem(400, "malformed_json");
            assert!(!answer.text().contains("hunter2"), "{problem}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(" at line ") && detail.contains(", column "), "{detail}");
        }
    }
    for body in [
        &b"{\"kind\":\"noop\",\"payload\":\"\xff\"}"[..],
        b"{\"kind\":\"noop\",\"payload\":NaN}",
        b"{\"kind\":\"noop\",\"payload\":{\"a\":Infinity}}",
    ] {
        world.post("/v1/tasks", body).await.problem(400, "malformed_json");
    }
    let half = world.post("/v1/tasks", r#"{"kind":"noop","payload":"\ud83d"}"#).await;
    half.names(400, "malformed_json", &["/payload"]);
    assert!(world.store.all().is_empty());
}

#[tokio::test]
async fn row_12_depth_is_bounded() {
    let world = World::start().await;
    let nested =
        |depth: usize| format!(r#"{{"kind":"noop","payload":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(world.post("/v1/tasks", nested(120)).await.status, 202);
    world.post("/v1/tasks", nested(121)).await.names(400, "malformed_json", &["/payload"]);
    world.post("/v1/tasks", nested(10_000)).await.names(400, "malformed_json", &["/payload"]);
    world.post("/v1/tasks", "[".repeat(10_000)).await.problem(400, "malformed_json");
    let batch = format!(r#"{{"tasks":[{},{{"kind":"noop"}}]}}"#, nested(121));
    world.post("/v1/tasks/batch", batch).await.names(400, "malformed_json", &["/tasks/0/payload"]);
}

#[tokio::test]
async fn row_13_repeated_field_is_refused() {
    let world = World::start().await;
    for body in [
        r#"{"kind":"noop","kind":"http"}"#,
        r#"{"kind":"noop","kind":"noop"}"#,
        r#"{"kind":"noop","payload":1,"payload":1}"#,
        r#"{"kind":"noop","retry":{"initial_delay":1,"initial_delay":1}}"#,
        r#"{"kind":"noop","\u006bind":"noop"}"#,
        r#"{"kind":"noop","labels":{"a":"1","a":"2"}}"#,
    ] {
        world.post("/v1/tasks", body).await.problem(400, "malformed_json");
        world
            .post("/v1/tasks/batch", format!(r#"{{"tasks":[{body}]}}"#))
            .await
            .problem(400, "malformed_json");
    }
    world.post("/v1/tasks/batch", r#"{"tasks":[],"tasks":[]}"#).await.problem(400, "malformed_json");
    let kept = r#"{"a":1,"a" : 2}"#;
    let answer = world.post("/v1/tasks", format!(r#"{{"kind":"noop","payload":{kept}}}"#)).await;
    assert!(answer.text().contains(kept), "a payload is stored unchanged: {}", answer.text());
}

#[tokio::test]
async fn row_14_numbers_in_a_payload_are_unchanged() {
    let world = World::start().await;
    let digits = "1".repeat(400);
    for number in ["9007199254740993", "1.10", "1e400", "-0", &digits] {
        let answer =
            world.post("/v1/tasks", format!(r#"{{"kind":"noop","payload":{{"n":{number}}}}}"#)).await;
        assert_eq!(answer.status, 202);
        assert!(answer.text().contains(&format!(r#""payload":{{"n":{number}}}"#)), "{}", answer.text());
        world
            .post("/v1/tasks", format!(r#"{{"kind":"noop","retry":{{"max_attempts":{number}}}}}"#))
            .await
            .problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn row_15_and_16_unknown_fields_are_refused_by_name() {
    let world = World::start().await;
    for field in [
        "max_retires",
        "tenant_id",
        "tenant",
        "state",
        "status",
        "attempt",
        "id",
        "generation",
        "token",
        "__proto__",
        "",
    ] {
        let answer = world.post("/v1/tasks", format!(r#"{{"kind":"noop","{field}":1}}"#)).await;
        answer.names(422, "validation_failed", &[&format!("/{field}")]);
        assert!(answer.text().contains(&format!("`{field}`")), "{}", answer.text());
    }
    world.post("/v1/tasks", r#"{"kind":"noop","retry":{"max_retires":1}}"#).await.names(
        422,
        "validation_failed",
        &["/retry/max_retires"],
    );
    world.post("/v1/tasks/batch", r#"{"tasks":[{"kind":"noop"},{"kind":"noop","id":1}]}"#).await.names(
        422,
        "validation_failed",
        &["/tasks/1/id"],
    );
    world.post("/v1/tasks/batch", r#"{"tasks":[],"more":1}"#).await.names(
        422,
        "validation_failed",
        &["/more"],
    );
    let long = "x".repeat(200_000);
    let answer = world.post("/v1/tasks", format!(r#"{{"kind":"noop","{long}":1}}"#)).await;
    answer.problem(422, "validation_failed");
    assert!(answer.text().len() < 2_000, "a response does not repeat a long field name");
    assert!(world.store.all().is_empty());
}

#[tokio::test]
async fn value_of_a_wrong_type_is_refused_and_not_echoed() {
    let world = World::start().await;
    for (body, pointer) in [
        (r#""hunter2""#, ""),
        ("7", ""),
        ("null", ""),
        (r#"{"kind":["hunter2"]}"#, "/kind"),
        (r#"{"kind":"noop","delay":"hunter2"}"#, "/delay"),
        (r#"{"kind":"noop","labels":{"a":{"hunter2":1}}}"#, "/labels/a"),
        (r#"{"kind":"noop","callback":{"url":"https://x","on":["hunter2"]}}"#, "/callback/on/0"),
        (r#"{"kind":"noop","run_at":"hunter2"}"#, "/run_at"),
        ("{}", "/kind"),
    ] {
        let answer = world.post("/v1/tasks", body).await;
        answer.names(422, "validation_failed", &[pointer]);
        assert!(!answer.text().contains("hunter2"), "{}", answer.text());
    }
}

#[tokio::test]
async fn row_19_invalid_names_are_refused() {
    let world = World::start().await;
    let long = "x".repeat(65);
    let huge = "x".repeat(200_000);
    for name in ["", " ", "a b", "a/b", "\\u0000", "\u{202e}abc", "ключ", "a\\n", &long, &huge] {
        world.post("/v1/tasks", format!(r#"{{"kind":"noop","queue":"{name}"}}"#)).await.names(
            422,
            "validation_failed",
            &["/queue"],
        );
        let answer = world.post("/v1/tasks", format!(r#"{{"kind":"{name}"}}"#)).await;
        answer.names(422, "validation_failed", &["/kind"]);
        assert!(answer.text().len() < 2_000);
    }
    world.post("/v1/tasks", r#"{"kind":"noop","labels":{"a b":"\u0000"}}"#).await.names(
        422,
        "validation_failed",
        &["/labels/a b", "/labels/a b"],
    );
    world.post("/v1/tasks", "{\"kind\":\"noop\",\"labels\":{\"a\":\"x\u{202e}y\"}}").await.names(
        422,
        "validation_failed",
        &["/labels/a"],
    );
}

#[tokio::test]
async fn number_of_errors_in_a_response_is_limited() {
    let world = World::start().await;
    let labels: Vec<_> = (0..10_000).map(|place| format!(r#""b {place}":"""#)).collect();
    let answer =
        world.post("/v1/tasks", format!(r#"{{"kind":"noop","labels":{{{}}}}}"#, labels.join(","))).await;
    assert_eq!(answer.problem(422, "validation_failed")["errors"].as_array().unwrap().len(), 100);
}
