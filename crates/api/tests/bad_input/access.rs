//! Invalid keys, addresses that are not admitted, and tenants kept apart: rows 26, 33 and 39 to 47.

use std::time::Duration;

use nobat_api::{AccessPolicy, AuthMode};
use nobat_core::auth::api_key::Key;
use nobat_core::auth::network::Network;
use serde_json::{Value, json};

use crate::world::World;

const NOOP: &str = r#"{"kind":"noop"}"#;
const ALL: &str = "tasks:write,tasks:read,payload:view,tasks:replay,config:write,work,admin";

fn networks(texts: &[&str]) -> Vec<Network> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn id_of(key: &str) -> String {
    key.parse::<nobat_core::auth::api_key::KeyText>().unwrap().digest().id().to_string()
}

#[tokio::test]
async fn invalid_keys_get_the_same_response() {
    let world = World::guarded().await;
    let now = world.clock_now();
    let expired = world.key_that("acme", ALL, |key| Key { expires_at: Some(now), ..key }).await;
    let revoked = world.key_that("acme", ALL, |key| Key { revoked_at: Some(now), ..key }).await;
    let unknown = nobat_core::auth::api_key::KeyText::new([3; 20]);
    let mistyped = world.key("acme", ALL).await.replace("nb_live_", "nb_life_");
    let mut answers = Vec::new();
    for key in [expired.as_str(), &revoked, unknown.as_str(), &mistyped, "", "x"] {
        let mut problem = world.ask_with(key, "GET", "/v1/tasks", "").await.problem(401, "unauthorized");
        problem["instance"].take();
        answers.push(problem);
    }
    let mut without =
        world.ask("GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\n\r\n").await.problem(401, "unauthorized");
    without["instance"].take();
    answers.push(without);
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");
}

#[tokio::test]
async fn key_outside_the_authorization_header_is_refused() {
    let world = World::guarded().await;
    let key = world.key("acme", ALL).await;
    let bare = |header: &str| format!("GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n");
    for header in [
        format!("X-Api-Key: {key}"),
        format!("Authorization: Basic {key}"),
        format!("Authorization: {key}"),
        format!("Cookie: key={key}"),
    ] {
        world.ask(bare(&header)).await.problem(401, "unauthorized");
    }
    let twice = format!("Authorization: Bearer {key}\r\nAuthorization: Bearer {key}");
    world.ask(bare(&twice)).await.problem(401, "unauthorized");
    world.get(&format!("/v1/tasks?key={key}")).await.problem(401, "unauthorized");
    world.ask_with(&key, "GET", &format!("/v1/tasks?key={key}"), "").await.problem(401, "unauthorized");
    assert_eq!(world.ask(bare(&format!("authorization: bEARER {key}"))).await.status, 200);
}

#[tokio::test]
async fn address_guessing_keys_is_blocked_and_a_valid_key_is_not() {
    let world = World::guarded().await;
    let key = world.key("acme", ALL).await;
    assert_eq!(world.ask_with(&key, "GET", "/v1/tasks", "").await.status, 200);
    for _ in 0..20 {
        world.ask_with("nb_live_guess", "GET", "/v1/tasks", "").await.problem(401, "unauthorized");
    }
    let refused = world.ask_with("nb_live_guess", "GET", "/v1/tasks", "").await;
    refused.problem(429, "too_many_auth_failures");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(world.ask_with(&key, "GET", "/v1/tasks", "").await.status, 200, "a cached key is accepted");
    for _ in 0..12 {
        world.clock.advance(Duration::from_secs(1));
        world.ask_with("nb_live_guess", "GET", "/v1/tasks", "").await.problem(401, "unauthorized");
        world.ask_with("nb_live_guess", "GET", "/v1/tasks", "").await.problem(429, "too_many_auth_failures");
    }
    assert_eq!(
        world.ask_with(&key, "GET", "/v1/tasks", "").await.status,
        200,
        "a key whose cache entry has expired is accepted"
    );
}

/// A client with one IPv6 network has 2^64 addresses, and can use another one for every guess.
#[tokio::test]
async fn guessing_addresses_of_one_ipv6_network_count_as_one() {
    let world = World::behind(AccessPolicy {
        keys: AuthMode::Required,
        admitted: Vec::new(),
        proxies: networks(&["127.0.0.1"]),
    })
    .await;
    let guess = async |from: &str| {
        world.ask_from(&format!("X-Forwarded-For: {from}\r\n"), "nb_live_guess", "GET", "/v1/tasks", "").await
    };
    for place in 0..20 {
        guess(&format!("2001:db8:0:1:{place:x}::{place:x}")).await.problem(401, "unauthorized");
    }
    guess("2001:db8:0:1:ffff::1").await.problem(429, "too_many_auth_failures");
    guess("2001:db8:0:2::1").await.problem(401, "unauthorized");
    guess("203.0.113.7").await.problem(401, "unauthorized");
}

#[tokio::test]
async fn revoked_key_is_refused() {
    let world = World::guarded().await;
    let (admin, key) = (world.key("ops", "admin").await, world.key("acme", ALL).await);
    assert_eq!(world.ask_with(&key, "GET", "/v1/tasks", "").await.status, 200);
    let revoked = world.ask_with(&admin, "DELETE", &format!("/v1/keys/{}", id_of(&key)), "").await;
    assert!(revoked.status == 200 && revoked.json()["revoked_at"].is_string(), "{}", revoked.text());
    world.ask_with(&key, "GET", "/v1/tasks", "").await.problem(401, "unauthorized");
    world
        .ask_with(&admin, "DELETE", &format!("/v1/keys/{}", id_of(&key)), "")
        .await
        .problem(409, "key_inactive");
    world
        .ask_with(&admin, "DELETE", "/v1/keys/key_00000000000000000000000000", "")
        .await
        .problem(404, "key_not_found");
}

#[tokio::test]
async fn key_revoked_by_another_process_ends_within_ten_seconds() {
    let world = World::guarded().await;
    let key = world.key("acme", ALL).await;
    assert_eq!(world.ask_with(&key, "GET", "/v1/tasks", "").await.status, 200);
    let registry = &world.backend.config;
    let id = id_of(&key).parse().unwrap();
    let found = registry.key(id).await.unwrap().unwrap();
    let revoked = Key { revoked_at: Some(world.clock_now()), version: 2, ..found };
    world.rewrite(&revoked).await;
    assert_eq!(
        world.ask_with(&key, "GET", "/v1/tasks", "").await.status,
        200,
        "the cached key is still accepted"
    );
    world.clock.advance(Duration::from_secs(10));
    world.ask_with(&key, "GET", "/v1/tasks", "").await.problem(401, "unauthorized");
}

#[tokio::test]
async fn replaced_key_is_valid_for_the_grace_period() {
    let world = World::guarded().await;
    let (admin, key) = (world.key("ops", "admin").await, world.key("acme", "tasks:read").await);
    let rotated = world
        .ask_with(&admin, "POST", &format!("/v1/keys/{}/rotate", id_of(&key)), r#"{"grace_period": 60}"#)
        .await;
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    let new = rotated.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(
        (&rotated.json()["tenant"], &rotated.json()["scopes"]),
        (&json!("acme"), &json!(["tasks:read"]))
    );
    world.clock.advance(Duration::from_secs(59));
    for good in [&key, &new] {
        assert_eq!(world.ask_with(good, "GET", "/v1/tasks", "").await.status, 200);
    }
    world.clock.advance(Duration::from_secs(1));
    world.ask_with(&key, "GET", "/v1/tasks", "").await.problem(401, "unauthorized");
    assert_eq!(world.ask_with(&new, "GET", "/v1/tasks", "").await.status, 200);
    // The client lost the answer to a rotation and rotates again. The resulting key is valid for as long as
    // the first one was to be.
    for _ in 0..2 {
        let again = world
            .ask_with(&admin, "POST", &format!("/v1/keys/{}/rotate", id_of(&new)), r#"{"grace_period": 60}"#)
            .await;
        assert_eq!(
            (again.status, again.json()["expires_at"].clone()),
            (201, serde_json::Value::Null),
            "{}",
            again.text()
        );
    }
    for overlap in ["-1", "2592001", "1e300"] {
        let body = format!("{{\"grace_period\": {overlap}}}");
        world.ask_with(&admin, "POST", &format!("/v1/keys/{}/rotate", id_of(&new)), &body).await.names(
            422,
            "validation_failed",
            &["/grace_period"],
        );
    }
}

#[tokio::test]
async fn key_is_shown_only_once() {
    let world = World::guarded().await;
    let admin = world.key("ops", "admin").await;
    let body = r#"{"tenant": "acme", "label": "the shop", "scopes": ["tasks:write", "tasks:read"], "networks": ["127.0.0.0/8"]}"#;
    let created = world.ask_with(&admin, "POST", "/v1/keys", body).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let mut created = created.json();
    let text = created["key"].take();
    assert!(text.as_str().unwrap().starts_with("nb_live_"));
    assert_eq!(world.ask_with(text.as_str().unwrap(), "POST", "/v1/tasks", NOOP).await.status, 202);
    created.as_object_mut().unwrap().remove("key");
    let shown = world
        .ask_with(&admin, "GET", &format!("/v1/keys/{}", created["id"].as_str().unwrap()), "")
        .await
        .json();
    let listed = world.ask_with(&admin, "GET", "/v1/keys?tenant=acme", "").await.json();
    assert_eq!((&shown, &listed["data"]), (&created, &json!([created])));
    let stored = world
        .backend
        .config
        .key(created["id"].as_str().unwrap().parse().unwrap())
        .await
        .unwrap()
        .unwrap()
        .to_text();
    assert!(!stored.contains(&text.as_str().unwrap()["nb_live_".len()..]), "only its hash is stored");
}

#[tokio::test]
async fn invalid_key_configuration_is_refused() {
    let world = World::guarded().await;
    let admin = world.key("ops", "admin").await;
    for (body, pointer) in [
        (r#"{"scopes": []}"#, "/scopes"),
        (r#"{"scopes": ["tasks:wrote"]}"#, "/scopes/0"),
        (r#"{"scopes": ["work"], "tenant": "a b"}"#, "/tenant"),
        (r#"{"scopes": ["work"], "networks": ["10.0.0.1/8"]}"#, "/networks/0"),
        (r#"{"scopes": ["work"], "networks": ["0.0.0.0/0"]}"#, "/networks/0"),
        (r#"{"scopes": ["work"], "networks": ["::ffff:0:0/96"]}"#, "/networks/0"),
        (r#"{"scopes": ["work"], "expires_at": "2020-01-01T00:00:00Z"}"#, "/expires_at"),
        (r#"{"scopes": ["work"], "label": "a\u202eb"}"#, "/label"),
        (r#"{"scopes": ["work"], "id": "key_00000000000000000000000000"}"#, "/id"),
    ] {
        world.ask_with(&admin, "POST", "/v1/keys", body).await.names(422, "validation_failed", &[pointer]);
    }
    let listed = world.ask_with(&admin, "GET", "/v1/keys", "").await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "only the admin key exists: {listed:#}");
}

#[tokio::test]
async fn keys_are_listed_page_by_page() {
    let world = World::guarded().await;
    let admin = world.key("ops", "admin").await;
    for _ in 0..4 {
        world.key("acme", "work").await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.ask_with(&admin, "GET", &format!("/v1/keys?limit=2{cursor}"), "").await.json();
        seen.extend(
            page["data"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), 5);
    world.ask_with(&admin, "GET", "/v1/keys?cursor=x", "").await.problem(400, "invalid_cursor");
}

#[tokio::test]
async fn admin_cursor_opens_only_its_own_list() {
    let world = World::guarded().await;
    let admin = world.key("ops", "admin").await;
    for tenant in ["acme", "other"] {
        world.key(tenant, "work").await;
        assert_eq!(world.ask_with(&admin, "PUT", &format!("/v1/tenants/{tenant}"), "{}").await.status, 200);
    }
    let ask = async |path: &str| world.ask_with(&admin, "GET", path, "").await;
    let cursor = async |path: &str| {
        ask(path).await.json()["next_cursor"].as_str().expect("the list has another page").to_owned()
    };
    let (keys, tenants) = (cursor("/v1/keys?limit=1").await, cursor("/v1/tenants?limit=1").await);
    let audit = cursor("/v1/audit?tenant=acme&limit=1").await;
    for (path, cursors) in [
        ("/v1/keys?", [&tenants, &audit]),
        ("/v1/keys?tenant=acme&", [&keys, &audit]),
        ("/v1/tenants?", [&keys, &audit]),
        ("/v1/audit?tenant=other&", [&audit, &keys]),
    ] {
        for cursor in cursors {
            ask(&format!("{path}cursor={cursor}")).await.problem(400, "invalid_cursor");
        }
        for cursor in ["", "x", "acme", "key_00000000000000000000000000"] {
            ask(&format!("{path}cursor={cursor}")).await.problem(400, "invalid_cursor");
        }
    }
    assert_eq!(ask(&format!("/v1/tenants?cursor={tenants}")).await.json()["data"][0]["name"], "other");
    for list in ["keys", "tenants", "audit"] {
        for limit in ["1000000", "0", "-1", "1.5", ""] {
            ask(&format!("/v1/{list}?limit={limit}")).await.names(422, "validation_failed", &["?limit"]);
        }
        ask(&format!("/v1/{list}?offset=1")).await.names(422, "validation_failed", &["?offset"]);
    }
    for id in ["%00", "..%2f", "KEY_00000000000000000000000000", "x"] {
        ask(&format!("/v1/keys/{id}")).await.problem(404, "key_not_found");
    }
}

#[tokio::test]
async fn request_from_outside_the_allow_list_is_refused() {
    let admitted = networks(&["203.0.113.0/24"]);
    let world =
        World::behind(AccessPolicy { keys: AuthMode::Required, admitted, proxies: networks(&["127.0.0.1"]) })
            .await;
    let key = world.key("acme", ALL).await;
    let from = async |forwarded: &str| {
        world.ask_from(&format!("X-Forwarded-For: {forwarded}\r\n"), &key, "GET", "/v1/tasks", "").await
    };
    assert_eq!(from("203.0.113.9").await.status, 200);
    assert_eq!(from("::ffff:203.0.113.9").await.status, 200, "an IPv4-mapped address is the same address");
    for stranger in ["198.51.100.7", "203.0.113.9, 198.51.100.7", "unknown", ""] {
        from(stranger).await.problem(403, "address_not_allowed");
    }
    world.ask_with(&key, "GET", "/v1/tasks", "").await.problem(403, "address_not_allowed");
    assert_eq!(world.get("/healthz").await.status, 200, "the health check ignores the allow-list");
}

#[tokio::test]
async fn forwarded_address_from_an_untrusted_client_is_ignored() {
    let world = World::behind(AccessPolicy {
        keys: AuthMode::Required,
        admitted: networks(&["203.0.113.0/24"]),
        proxies: Vec::new(),
    })
    .await;
    let key = world.key("acme", ALL).await;
    let lie = "X-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n";
    world.ask_from(lie, &key, "GET", "/v1/tasks", "").await.problem(403, "address_not_allowed");
}

#[tokio::test]
async fn unauthorized_request_is_refused_before_its_body_is_read() {
    let world = World::behind(AccessPolicy {
        keys: AuthMode::Required,
        admitted: networks(&["203.0.113.0/24"]),
        proxies: Vec::new(),
    })
    .await;
    for path in ["/v1/tasks", "/v1/tasks/batch", "/v1/keys"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 200000\r\n\r\n"
        );
        world.ask(head).await.problem(403, "address_not_allowed");
    }
    let world = World::guarded().await;
    let head = "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 200000\r\n\r\n";
    world.ask(head).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn key_is_accepted_only_from_its_networks() {
    let world = World::behind(AccessPolicy {
        keys: AuthMode::Required,
        admitted: Vec::new(),
        proxies: networks(&["127.0.0.1"]),
    })
    .await;
    let key = world.key_that("acme", ALL, |key| Key { networks: networks(&["2001:db8::/32"]), ..key }).await;
    let from = async |forwarded: &str| {
        world.ask_from(&format!("X-Forwarded-For: {forwarded}\r\n"), &key, "GET", "/v1/tasks", "").await
    };
    assert_eq!(from("2001:db8::7").await.status, 200);
    from("2001:db9::7").await.problem(403, "address_not_allowed");
}

#[tokio::test]
async fn server_without_keys_accepts_only_local_requests() {
    let world = World::start().await;
    for host in ["localhost:8080", "127.0.0.1", "[::1]:8080"] {
        assert_eq!(
            world.ask(format!("GET /v1/tasks HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.status,
            200,
            "{host}"
        );
    }
    for head in [
        "Host: attacker.example",
        "Host: localhost\r\nOrigin: https://attacker.example",
        "Host: localhost\r\nOrigin: null",
        "Host: 127.0.0.1:8080\r\nX-Forwarded-For: 203.0.113.9",
        "Host: 127.0.0.1:8080\r\nVia: 1.1 proxy",
    ] {
        world
            .ask(format!("GET /v1/tasks HTTP/1.1\r\n{head}\r\n\r\n"))
            .await
            .problem(421, "misdirected_request");
    }
    let own = "POST /v1/tasks HTTP/1.1\r\nHost: localhost:8080\r\nOrigin: http://localhost:8080\r\nContent-Type: application/json\r\n";
    assert_eq!(world.ask(format!("{own}Content-Length: {}\r\n\r\n{NOOP}", NOOP.len())).await.status, 202);
}

#[tokio::test]
async fn first_key_makes_keys_required() {
    let world =
        World::behind(AccessPolicy { keys: AuthMode::NotYet, admitted: Vec::new(), proxies: Vec::new() })
            .await;
    let created = world.post("/v1/keys", r#"{"scopes": ["admin", "tasks:read"]}"#).await.json();
    world.get("/v1/tasks").await.problem(401, "unauthorized");
    let key = created["key"].as_str().unwrap();
    assert_eq!(world.ask_with(key, "GET", "/v1/tasks", "").await.status, 200);
    let audit = world.ask_with(key, "GET", "/v1/audit", "").await.json();
    assert_eq!(
        (&audit["data"][0]["actor"], &audit["data"][0]["action"]),
        (&json!("anonymous"), &json!("key.created")),
        "{audit:#}"
    );
}

#[tokio::test]
async fn first_key_of_another_process_is_required_in_ten_seconds() {
    let world =
        World::behind(AccessPolicy { keys: AuthMode::NotYet, admitted: Vec::new(), proxies: Vec::new() })
            .await;
    assert_eq!(world.get("/v1/tasks").await.status, 200);
    let key = world.key("default", "tasks:read").await;
    world.clock.advance(Duration::from_secs(10));
    world.get("/v1/tasks").await.problem(401, "unauthorized");
    assert_eq!(world.ask_with(&key, "GET", "/v1/tasks", "").await.status, 200);
}

#[tokio::test]
async fn tenants_do_not_see_each_others_tasks() {
    let world = World::guarded().await;
    let (ours, theirs) = (world.key("ours", ALL).await, world.key("theirs", ALL).await);
    let keyed = async |key: &str, body: &str| {
        world.ask_from("Idempotency-Key: k\r\n", key, "POST", "/v1/tasks", body).await
    };
    let (first, second) = (keyed(&ours, NOOP).await, keyed(&theirs, r#"{"kind":"noop","delay":1}"#).await);
    assert_eq!((first.status, second.status), (202, 202), "{}", second.text());
    assert_ne!(first.json()["id"], second.json()["id"], "an idempotency key belongs to one tenant");
    assert_eq!(first.json()["submitted_by"], json!(id_of(&ours)));
    keyed(&ours, NOOP).await;
    let other = world.ask_with(&ours, "POST", "/v1/tasks", NOOP).await.json();
    let listed =
        async |key: &str, query: &str| world.ask_with(key, "GET", &format!("/v1/tasks{query}"), "").await;
    let ids = |page: &Value| {
        page["data"].as_array().unwrap().iter().map(|task| task["id"].clone()).collect::<Vec<_>>()
    };
    let mut seen = ids(&listed(&ours, "").await.json());
    seen.sort_by_key(ToString::to_string);
    let mut expected = vec![first.json()["id"].clone(), other["id"].clone()];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(seen, expected);
    assert_eq!(ids(&listed(&theirs, "").await.json()), [second.json()["id"].clone()]);
    let page = listed(&ours, "?limit=1").await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(listed(&ours, &format!("?limit=1&cursor={cursor}")).await.status, 200);
    listed(&theirs, &format!("?limit=1&cursor={cursor}")).await.problem(400, "invalid_cursor");
}

#[tokio::test]
async fn payload_and_result_require_the_scope_payload_view() {
    let world = World::guarded().await;
    let (seeing, blind) = (
        world.key("acme", "tasks:write,tasks:read,tasks:replay,payload:view").await,
        world.key("acme", "tasks:write,tasks:read,tasks:replay").await,
    );
    let body = r#"{"kind":"noop","payload":{"secret":"hunter2"}}"#;
    let task = world.ask_with(&seeing, "POST", "/v1/tasks", body).await.json();
    assert_eq!(task["payload"], json!({"secret": "hunter2"}));
    let path = format!("/v1/tasks/{}", task["id"].as_str().unwrap());
    for (method, path, body) in [
        ("GET", path.clone(), ""),
        ("POST", format!("{path}/cancel"), ""),
        ("POST", format!("{path}/replay"), ""),
        ("POST", "/v1/tasks".to_owned(), body),
        (
            "POST",
            "/v1/tasks/batch".to_owned(),
            r#"{"tasks":[{"kind":"noop","payload":{"secret":"hunter2"}}]}"#,
        ),
    ] {
        let answer = world.ask_with(&blind, method, &path, body).await;
        assert!(
            answer.status < 300
                && !answer.text().contains("hunter2")
                && !answer.text().contains("\"result\""),
            "{path}: {}",
            answer.text()
        );
    }
    assert!(world.ask_with(&seeing, "GET", &path, "").await.text().contains("hunter2"));
}

#[tokio::test]
async fn audit_trail_names_actions_and_keys() {
    let world = World::guarded().await;
    let (admin, key) = (world.key("ops", "admin").await, world.key("acme", ALL).await);
    let task =
        world.ask_with(&key, "POST", "/v1/tasks", NOOP).await.json()["id"].as_str().unwrap().to_owned();
    world.ask_with(&key, "POST", &format!("/v1/tasks/{task}/cancel"), "").await;
    world.ask_with(&key, "POST", &format!("/v1/tasks/{task}/cancel"), "").await.problem(409, "task_ended");
    world.ask_with(&key, "POST", &format!("/v1/tasks/{task}/replay"), "").await;
    world.ask_with(&admin, "PUT", "/v1/tenants/acme", r#"{"max_pending_tasks": 7}"#).await;
    let page = world.ask_with(&admin, "GET", "/v1/audit?tenant=acme&limit=3", "").await.json();
    let told: Vec<_> = page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["action"].clone(), entry["actor"].clone(), entry["target"].clone()))
        .collect();
    assert_eq!(
        told,
        [
            (json!("tenant.changed"), json!(id_of(&admin)), json!("acme")),
            (json!("task.replayed"), json!(id_of(&key)), json!(task)),
            (json!("task.canceled"), json!(id_of(&key)), json!(task)),
        ]
    );
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest =
        world.ask_with(&admin, "GET", &format!("/v1/audit?tenant=acme&cursor={cursor}"), "").await.json();
    assert_eq!(
        (&rest["data"][0]["action"], &rest["next_cursor"]),
        (&json!("key.created"), &Value::Null),
        "{rest:#}"
    );
    world
        .ask_with(&admin, "GET", &format!("/v1/audit?tenant=ops&cursor={cursor}"), "")
        .await
        .problem(400, "invalid_cursor");
    for method in ["DELETE", "PUT", "POST", "PATCH"] {
        world.ask_with(&admin, method, "/v1/audit", "").await.problem(405, "method_not_allowed");
    }
}
