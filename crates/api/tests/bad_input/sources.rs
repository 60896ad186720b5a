//! Sources: forged, repeated and unusual requests of providers, and invalid configuration.

use std::time::Duration;

use nobat_core::config::source_counts::SourceCounts;
use nobat_core::types::name::{Name, Tenant};
use ring::hmac::{HMAC_SHA256, Key, sign};
use serde_json::{Value, json};

use crate::world::{Answer, World, post};

const SECRET: &str = "whsec_3q2-correct-horse";

/// World with one tenant, its key, and helpers for its sources.
struct Sources {
    world: World,
    key: String,
}

impl Sources {
    async fn start() -> Self {
        let world = World::guarded().await;
        let key = world.key("acme", "config:write,tasks:read,tasks:write,payload:view").await;
        Self { world, key }
    }

    async fn put(&self, name: &str, source: &Value) -> Answer {
        self.world.ask_with(&self.key, "PUT", &format!("/v1/sources/{name}"), &source.to_string()).await
    }

    async fn get(&self, path: &str) -> Value {
        self.world.ask_with(&self.key, "GET", path, "").await.json()
    }

    async fn receive(&self, name: &str, headers: &str, body: &str) -> Answer {
        let request = post(&format!("/v1/in/acme/{name}"), headers, body);
        self.world.ask(request).await
    }

    /// Sends a request as Stripe signs it.
    async fn stripe(&self, secret: &str, seconds_ago: i64, body: &str) -> Answer {
        let time = self.world.clock_now().millis() / 1_000 - seconds_ago;
        let signature = hex(secret, &format!("{time}.{body}"));
        self.receive("stripe", &format!("Stripe-Signature: t={time},v1={signature}\r\n"), body).await
    }

    async fn events(&self) -> usize {
        self.get("/v1/events").await["data"].as_array().unwrap().len()
    }
}

fn hex(secret: &str, content: &str) -> String {
    let signature = sign(&Key::new(HMAC_SHA256, secret.as_bytes()), content.as_bytes());
    data_encoding::HEXLOWER.encode(signature.as_ref())
}

fn preset(name: &str) -> Value {
    json!({"verify": {"preset": name, "secrets": [SECRET]}, "event": {}})
}

#[tokio::test]
async fn forged_webhooks_are_refused_and_counted() {
    let sources = Sources::start().await;
    assert_eq!(sources.put("stripe", &preset("stripe")).await.status, 201);
    let mut other = preset("stripe");
    other["verify"]["secrets"] = json!(["whsec_of-another-source"]);
    assert_eq!(sources.put("other", &other).await.status, 201);
    let body = r#"{"id":"evt_1","type":"payment_intent.succeeded"}"#;
    for (secret, ago, cause) in [
        ("whsec_of-another-source", 0, "signature_wrong"),
        ("", 0, "signature_wrong"),
        (SECRET, 301, "timestamp"),
        (SECRET, -301, "timestamp"),
    ] {
        sources.stripe(secret, ago, body).await.problem(401, "webhook_not_verified");
        let last =
            sources.get("/v1/sources/stripe").await["last_rejections"].as_array().unwrap().last().cloned();
        assert_eq!(last.unwrap()["cause"], cause, "{secret} {ago}");
    }
    let time = sources.world.clock_now().millis() / 1_000;
    let signature = hex(SECRET, &format!("{time}.{body}"));
    for (header, body) in [
        (String::new(), body),
        (format!("Stripe-Signature: t={time},v1=\r\n"), body),
        (format!("Stripe-Signature: t={time},v1={}\r\n", &signature[..32]), body),
        (format!("Stripe-Signature: t={time},v0={signature}\r\n"), body),
        (format!("Stripe-Signature: t={},v1={signature}\r\n", time + 1), body),
        (format!("Stripe-Signature: t={time},v1={signature}\r\n"), r#"{"id":"evt_1","type":"x"}"#),
        (format!("Stripe-Signature: t={time},v1={signature}\r\nStripe-Signature: t=1\r\n"), body),
    ] {
        sources.receive("stripe", &header, body).await.problem(401, "webhook_not_verified");
    }
    assert_eq!(sources.events().await, 0);
    let source = sources.get("/v1/sources/stripe").await;
    let counts =
        json!({"signature_missing": 2, "signature_malformed": 1, "signature_wrong": 6, "timestamp": 2});
    assert_eq!((&source["rejected"], &source["accepted"]), (&counts, &json!(0)));
    assert!(source["last_rejections"].as_array().unwrap().iter().all(|last| last["address"] == "127.0.0.1"));
    assert!(!source.to_string().contains("evt_1"), "rejected bodies are not kept");
    assert_eq!(sources.stripe(SECRET, 300, body).await.status, 200);
}

#[tokio::test]
async fn repeated_webhook_becomes_one_event() {
    let sources = Sources::start().await;
    sources.put("stripe", &preset("stripe")).await;
    sources.put("github", &preset("github")).await;
    let body = r#" {"id":"evt_1","type":"payment_intent.succeeded","data":{"n":1.50}} "#;
    for _ in 0..3 {
        assert_eq!(sources.stripe(SECRET, 0, body).await.status, 200);
    }
    // Stripe changes `pending_webhooks` when it sends an event again.
    let changed = r#"{"id":"evt_1","type":"payment_intent.succeeded","pending_webhooks":0}"#;
    assert_eq!(sources.stripe(SECRET, 0, changed).await.status, 200);
    let github = async |delivery: &str, body: &str| {
        let headers = format!(
            "X-Hub-Signature-256: sha256={}\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: {delivery}\r\n",
            hex(SECRET, body)
        );
        sources.receive("github", &headers, body).await
    };
    assert_eq!((github("d1", "{}").await.status, github("d1", "{}").await.status), (200, 200));
    github("d1", r#"{"a":1}"#).await.problem(409, "event_id_reused");
    assert_eq!(github("d2", "{}").await.status, 200);
    assert_eq!(sources.events().await, 3);
    let source = sources.get("/v1/sources/github").await;
    assert_eq!((&source["accepted"], &source["repeated"]), (&json!(2), &json!(1)));
    assert_eq!(source["rejected"], json!({"body_changed": 1}));
    let events = sources.get("/v1/events?source=/in/stripe").await;
    let id = events["data"][0]["id"].as_str().unwrap();
    let event = sources.get(&format!("/v1/events/{id}")).await;
    let event = &event["event"];
    assert_eq!((&event["id"], &event["type"]), (&json!("evt_1"), &json!("payment_intent.succeeded")));
    assert_eq!((&event["bodystart"], &event["bodyend"]), (&json!("IA=="), &json!("IA==")));
    assert!(event["signature"].as_str().unwrap().starts_with("t="));
}

#[tokio::test]
async fn webhook_becomes_the_task_of_the_template() {
    let sources = Sources::start().await;
    let source = json!({
        "verify": {"hmac": {"header": "X-Signature"}, "secrets": [SECRET, "older secret"]},
        "event_id": "/payment/id",
        "task": {"kind": "noop", "payload": {"order": {"$event": "/data/payment/order"}}},
        "respond": {"status": 202, "body": "{\"ok\":true}", "content_type": "application/json"},
    });
    let created = sources.put("bank", &source).await;
    assert_eq!(created.json()["path"], "/v1/in/acme/bank");
    let body = r#"{"payment":{"id":7,"order":"o-1"}}"#;
    for secret in [SECRET, "older secret"] {
        let answer = sources.receive("bank", &format!("X-Signature: {}\r\n", hex(secret, body)), body).await;
        assert_eq!((answer.status, answer.text().as_str()), (202, r#"{"ok":true}"#));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let tasks = sources.get("/v1/tasks").await["data"].clone();
    assert_eq!((tasks.as_array().unwrap().len(), &tasks[0]["source"]), (1, &json!("bank")));
    let task = sources.get(&format!("/v1/tasks/{}", tasks[0]["id"].as_str().unwrap())).await;
    assert_eq!(task["payload"], json!({"order": "o-1"}));
}

#[tokio::test]
async fn body_that_is_not_json_is_kept() {
    let sources = Sources::start().await;
    let source =
        json!({"verify": {"token": {"header": "X-Token"}, "secrets": [SECRET]}, "event": {"type": "paid"}});
    sources.put("bank", &source).await;
    let send = async |content_type: &str, body: &[u8]| {
        let head = format!(
            "POST /v1/in/acme/bank HTTP/1.1\r\nHost: localhost\r\nX-Token: {SECRET}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = sources.world.ask([head.as_bytes(), body].concat()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let events = sources.get("/v1/events").await;
        let id = events["data"][0]["id"].as_str().unwrap().to_owned();
        sources.get(&format!("/v1/events/{id}")).await["event"].clone()
    };
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    for (content_type, body, field, data) in [
        ("application/x-www-form-urlencoded", &b"a=1&b=%20"[..], "data", json!("a=1&b=%20")),
        ("text/xml", b"<paid/>", "data", json!("<paid/>")),
        ("application/json", b"\xef\xbb\xbf{}", "data_base64", json!("77u/e30=")),
        ("application/json", b"{", "data_base64", json!("ew==")),
        ("application/json", b"[1e999]", "data_base64", json!("WzFlOTk5XQ==")),
        (
            "application/json",
            deep.as_bytes(),
            "data_base64",
            json!(data_encoding::BASE64.encode(deep.as_bytes())),
        ),
        ("application/octet-stream", b"\xff\x00", "data_base64", json!("/wA=")),
    ] {
        let event = send(content_type, body).await;
        assert_eq!((&event[field], &event["type"]), (&data, &json!("paid")), "{content_type}");
    }
}

#[tokio::test]
async fn checks_of_the_url_are_answered() {
    let sources = Sources::start().await;
    sources.put("slack", &preset("slack")).await;
    let body = r#"{"type":"url_verification","challenge":"3eZb"}"#;
    let time = sources.world.clock_now().millis() / 1_000;
    let signed = |secret: &str| {
        let signature = hex(secret, &format!("v0:{time}:{body}"));
        format!("X-Slack-Request-Timestamp: {time}\r\nX-Slack-Signature: v0={signature}\r\n")
    };
    let answer = sources.receive("slack", &signed(SECRET), body).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "3eZb"));
    sources.receive("slack", &signed("wrong secret"), body).await.problem(401, "webhook_not_verified");
    assert_eq!(sources.events().await, 0);
    let mut meta = preset("meta");
    meta["verify"]["verify_token"] = json!("a token of mine");
    sources.put("meta", &meta).await;
    let check =
        async |source: &str, query: &str| sources.world.get(&format!("/v1/in/acme/{source}{query}")).await;
    let answer =
        check("meta", "?hub.mode=subscribe&hub.challenge=115&hub.verify_token=a+token+of+mine").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "115"));
    for query in [
        "",
        "?hub.challenge=115",
        "?hub.challenge=115&hub.verify_token=",
        "?hub.challenge=115&hub.verify_token=a+token+of+min",
        "?hub.challenge=115&hub.verify_token=x&hub.verify_token=a+token+of+mine",
        "?hub.verify_token=a+token+of+mine",
    ] {
        check("meta", query).await.problem(401, "webhook_not_verified");
    }
    check("slack", "?hub.challenge=115&hub.verify_token=").await.problem(401, "webhook_not_verified");
    check("nothing", "").await.problem(404, "source_not_found");
}

#[tokio::test]
async fn missing_source_looks_the_same_for_every_tenant() {
    let sources = Sources::start().await;
    sources.put("stripe", &preset("stripe")).await;
    let mut answers = Vec::new();
    for path in ["/v1/in/acme/none", "/v1/in/none/stripe", "/v1/in/acme/a%20b", "/v1/in/a%20b/stripe"] {
        let mut problem = sources.world.ask(post(path, "", "{}")).await.problem(404, "source_not_found");
        problem["instance"].take();
        answers.push(problem);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test]
async fn too_large_and_compressed_webhooks_are_refused() {
    let sources = Sources::start().await;
    sources.put("stripe", &preset("stripe")).await;
    let large = " ".repeat(1024 * 1024 + 1);
    sources.receive("stripe", "", &large).await.problem(413, "body_too_large");
    sources
        .receive("stripe", "Content-Encoding: gzip\r\n", "{}")
        .await
        .problem(415, "unsupported_content_encoding");
    assert_eq!(sources.get("/v1/sources/stripe").await["rejected"], json!({"body": 2}));
}

#[tokio::test]
async fn secrets_stay_until_they_are_replaced() {
    let sources = Sources::start().await;
    let body = r#"{"id":"evt_1"}"#;
    let shown = sources.put("stripe", &preset("stripe")).await.json();
    assert_eq!((&shown["verify"]["secrets"], shown.to_string().contains(SECRET)), (&json!(1), false));
    let kept = json!({"verify": {"preset": "stripe", "tolerance": 60}, "event": {}});
    assert_eq!(sources.put("stripe", &kept).await.status, 200);
    assert_eq!(sources.stripe(SECRET, 60, body).await.status, 200);
    sources.stripe(SECRET, 61, body).await.problem(401, "webhook_not_verified");
    let mut both = kept.clone();
    both["verify"]["secrets"] = json!(["whsec_the-new-secret", SECRET]);
    sources.put("stripe", &both).await;
    assert_eq!(sources.stripe("whsec_the-new-secret", 0, body).await.status, 200);
    assert_eq!(sources.stripe(SECRET, 0, body).await.status, 200);
    both["verify"]["secrets"] = json!(["whsec_the-new-secret"]);
    sources.put("stripe", &both).await;
    sources.stripe(SECRET, 0, body).await.problem(401, "webhook_not_verified");
    // The secrets of another scheme do not carry over.
    let github = json!({"verify": {"preset": "github"}, "event": {}});
    sources.put("stripe", &github).await.names(422, "validation_failed", &["/verify/secrets"]);
    sources.world.clock.advance(Duration::from_millis(1));
    let removed = sources.world.ask_with(&sources.key, "DELETE", "/v1/sources/stripe", "").await;
    assert_eq!(removed.status, 200);
    let counts = SourceCounts::record_name(&Tenant::new("acme").unwrap(), &Name::new("stripe").unwrap());
    let counts = sources.world.backend.config.find(&counts).await.unwrap().unwrap();
    assert!(!counts.body.contains("127.0.0.1"), "addresses are removed with the source: {}", counts.body);
    sources.stripe("whsec_the-new-secret", 0, body).await.problem(404, "source_not_found");
    sources.world.clock.advance(Duration::from_millis(1));
    assert_eq!(sources.put("stripe", &preset("stripe")).await.status, 201);
    let counts = sources.get("/v1/sources/stripe").await;
    assert_eq!(
        (&counts["accepted"], &counts["rejected"]),
        (&json!(0), &json!({})),
        "a new source has new counts"
    );
}

#[tokio::test]
async fn invalid_sources_are_refused_with_the_field() {
    let sources = Sources::start().await;
    let hmac = |hmac: Value| json!({"verify": {"hmac": hmac, "secrets": [SECRET]}, "event": {}});
    let stripe = |field: &str, value: Value| {
        let mut source = preset("stripe");
        source["verify"][field] = value;
        source
    };
    for (source, pointer) in [
        (json!({"verify": {}, "event": {}}), "/verify"),
        (json!({"verify": [], "event": {}}), "/verify"),
        (json!({"event": {}}), "/verify"),
        (json!({"verify": {"networks": []}, "event": {}}), "/verify"),
        (json!({"verify": {"networks": ["10.0.0.1/8"]}, "event": {}}), "/verify/networks/0"),
        (json!({"verify": {"networks": ["10.0.0.1"], "secrets": [SECRET]}, "event": {}}), "/verify/secrets"),
        (json!({"verify": {"preset": "stripe"}, "event": {}}), "/verify/secrets"),
        (json!({"verify": {"preset": "strip", "secrets": [SECRET]}, "event": {}}), "/verify/preset"),
        (stripe("token", json!({"header": "x"})), "/verify"),
        (stripe("secrets", json!([])), "/verify/secrets"),
        (stripe("secrets", json!([""])), "/verify/secrets/0"),
        (stripe("secrets", json!([SECRET, "        "])), "/verify/secrets/1"),
        (stripe("secrets", json!(["aaaaaaaaaaaa"])), "/verify/secrets/0"),
        (stripe("secrets", json!(["short"])), "/verify/secrets/0"),
        (stripe("secrets", json!(vec![SECRET; 6])), "/verify/secrets"),
        (stripe("tolerance", json!(0)), "/verify/tolerance"),
        (stripe("tolerance", json!(86_401)), "/verify/tolerance"),
        (stripe("verify_token", json!("a token of mine")), "/verify/verify_token"),
        (json!({"verify": {"preset": "twilio", "secrets": [SECRET]}, "event": {}}), "/verify/url"),
        (
            json!({"verify": {"preset": "adyen", "secrets": ["no hexadecimal"]}, "event": {}}),
            "/verify/secrets/0",
        ),
        (
            json!({"verify": {"basic": {"user": "a:b"}, "secrets": [SECRET]}, "event": {}}),
            "/verify/basic/user",
        ),
        (
            json!({"verify": {"token": {"header": "a b"}, "secrets": [SECRET]}, "event": {}}),
            "/verify/token/header",
        ),
        (hmac(json!({})), "/verify/hmac"),
        (hmac(json!({"header": "x", "pointer": "/x"})), "/verify/hmac"),
        (hmac(json!({"header": "x", "algorithm": "md5"})), "/verify/hmac/algorithm"),
        (hmac(json!({"header": "x", "content": "{url}"})), "/verify/hmac/content"),
        (hmac(json!({"header": "x", "content": "{timestamp}.{body}"})), "/verify/hmac/content"),
        (hmac(json!({"header": "x", "timestamp": {"header": "t"}})), "/verify/hmac/content"),
        (
            hmac(json!({"header": "x", "content": "{timestamp}.{body}", "timestamp": {"prefix": "t="}})),
            "/verify/hmac/timestamp/prefix",
        ),
        (hmac(json!({"header": "x", "separator": ""})), "/verify/hmac/separator"),
        (json!({"verify": {"networks": ["10.0.0.1"]}}), ""),
        (json!({"verify": {"networks": ["10.0.0.1"]}, "event": {}, "task": {"kind": "noop"}}), "/event"),
        (json!({"verify": {"networks": ["10.0.0.1"]}, "event": {}, "body": "data"}), "/body"),
        (json!({"verify": {"networks": ["10.0.0.1"]}, "event": {"type": ""}}), "/event/type"),
        (json!({"verify": {"networks": ["10.0.0.1"]}, "event": {"subject": "x"}}), "/event/subject"),
        (json!({"verify": {"networks": ["10.0.0.1"]}, "event": {}, "event_id": "id"}), "/event_id"),
        (json!({"verify": {"networks": ["10.0.0.1"]}, "event": {}, "event_id": []}), "/event_id"),
        (
            json!({"verify": {"networks": ["10.0.0.1"]}, "task": {"kind": "noop", "queue": "a b"}}),
            "/task/queue",
        ),
        (
            json!({"verify": {"networks": ["10.0.0.1"]}, "task": {"kind": "noop", "run_at": "2026-12-01T00:00:00Z"}}),
            "/task/run_at",
        ),
        (
            json!({"verify": {"networks": ["10.0.0.1"]}, "event": {}, "respond": {"status": 500}}),
            "/respond/status",
        ),
        (
            json!({"verify": {"networks": ["10.0.0.1"]}, "event": {}, "respond": {"content_type": "a\r\nb"}}),
            "/respond/content_type",
        ),
    ] {
        let answer = sources.put("x", &source).await;
        assert_eq!(answer.status, 422, "{source}: {}", answer.text());
        answer.names(422, "validation_failed", &[pointer]);
    }
    assert_eq!(sources.get("/v1/sources").await["data"], json!([]));
}

#[tokio::test]
async fn webhook_of_a_mebibyte_is_stored() {
    let sources = Sources::start().await;
    sources.put("github", &preset("github")).await;
    let body = format!(r#"{{"a":"{}"}}"#, "x".repeat(1024 * 1024 - 8));
    let headers = format!("X-Hub-Signature-256: sha256={}\r\nX-GitHub-Delivery: d1\r\n", hex(SECRET, &body));
    for _ in 0..2 {
        assert_eq!((body.len(), sources.receive("github", &headers, &body).await.status), (1024 * 1024, 200));
    }
    assert_eq!(sources.get("/v1/sources/github").await["repeated"], 1);
    let id = sources.get("/v1/events").await["data"][0]["id"].as_str().unwrap().to_owned();
    let event = sources.get(&format!("/v1/events/{id}")).await;
    assert_eq!(event["event"]["data"]["a"].as_str().unwrap().len(), 1024 * 1024 - 8);
}

/// Only a source publishes events in the name of a source, so a client can neither forge nor block a webhook.
#[tokio::test]
async fn client_cannot_publish_the_event_of_a_source() {
    let sources = Sources::start().await;
    sources.put("stripe", &preset("stripe")).await;
    let event = r#"{"specversion":"1.0","type":"paid","source":"/in/stripe","id":"evt_1"}"#;
    let refused = sources.world.ask_with(&sources.key, "POST", "/v1/events", event).await;
    refused.names(422, "validation_failed", &["/source"]);
    for (content_type, body, pointer) in [
        ("application/cloudevents+json", event.to_owned(), "/source"),
        ("application/cloudevents-batch+json", format!("[{event}]"), "/0/source"),
    ] {
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
            sources.key,
            body.len()
        );
        sources.world.ask(head).await.names(422, "validation_failed", &[pointer]);
    }
    let other = event.replace("/in/stripe", "/in");
    assert_eq!(sources.world.ask_with(&sources.key, "POST", "/v1/events", &other).await.status, 202);
    assert_eq!(sources.stripe(SECRET, 0, r#"{"id":"evt_1"}"#).await.status, 200);
    assert_eq!(sources.events().await, 2);
}
