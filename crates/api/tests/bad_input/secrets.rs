//! Secrets: malformed ones are refused (row 73), and stored ones are never shown again.

use std::sync::Arc;
use std::time::Duration;

use nobat_core::secrets::vault::Without;
use nobat_core::types::name::Tenant;
use serde_json::{Value, json};

use crate::world::{Answer, World};

const PATH: &str = "/v1/callback-secret";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn rotate(world: &World, key: &str, body: &Value) -> Answer {
    world.ask_with(key, "POST", "/v1/callback-secret/rotate", &body.to_string()).await
}

#[tokio::test]
async fn invalid_secret_is_refused_and_not_echoed() {
    let world = World::guarded().await;
    let key = world.key("acme", "config:write").await;
    let short = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa==";
    for secret in [
        "",
        "   ",
        "hunter2",
        "whsec_",
        "whsec_    ",
        &SECRET["whsec_".len()..],
        short,
        &format!("whsec_{}", "A".repeat(88)),
    ] {
        for answer in [
            world.ask_with(&key, "PUT", PATH, &json!({"secret": secret}).to_string()).await,
            rotate(&world, &key, &json!({"secret": secret})).await,
        ] {
            let problem = answer.problem(422, "validation_failed");
            assert_eq!(
                problem["errors"],
                json!([{"pointer": "/secret", "detail": "expected `whsec_` and 24 to 64 random bytes in base64"}])
            );
        }
    }
    for body in
        [json!({"secret": 7}), json!({"secrets": SECRET}), json!({"secret": SECRET, "grace_period": 60})]
    {
        world.ask_with(&key, "PUT", PATH, &body.to_string()).await.problem(422, "validation_failed");
    }
    for overlap in [
        json!(-1),
        json!(0.5),
        json!(1e-9),
        json!(9.9),
        json!(2_592_000.000_000_000_5),
        json!(2_592_001),
        json!("1"),
        json!(null),
    ] {
        rotate(&world, &key, &json!({"grace_period": overlap})).await.problem(422, "validation_failed");
    }
    assert_eq!(
        world.ask_with(&key, "GET", PATH, "").await.json(),
        json!({"secrets": []}),
        "no secret is set"
    );
}

#[tokio::test]
async fn secret_is_shown_only_when_it_is_generated() {
    let world = World::guarded().await;
    let key = world.key("acme", "config:write").await;
    let made = world.ask_with(&key, "PUT", PATH, "").await.json();
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.parse::<nobat_core::secrets::webhook::WebhookSecret>().is_ok(), "{secret}");
    let given = rotate(&world, &key, &json!({"secret": SECRET})).await;
    assert_eq!(
        (given.status, given.json()["secret"].clone()),
        (201, Value::Null),
        "a secret that the client sent is not shown"
    );
    let shown = world.ask_with(&key, "GET", PATH, "").await;
    let now = "2026-11-30T09:30:00.000Z";
    assert_eq!(
        shown.json(),
        json!({"secrets": [{"created_at": now, "expires_at": null}, {"created_at": now, "expires_at": "2026-12-01T09:30:00.000Z"}]})
    );
    let admin = world.key("acme", "admin").await;
    let audit = world.ask_with(&admin, "GET", "/v1/audit", "").await;
    let actions: Vec<Value> =
        audit.json()["data"].as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions[1..3], [json!("callback_secret.rotated"), json!("callback_secret.set")]);
    let stored =
        world.backend.config.callback_secrets(&Tenant::new("acme").unwrap()).await.unwrap().to_text();
    for seen in [shown.text(), audit.text(), stored] {
        for secret in [secret, SECRET] {
            assert!(!seen.contains(&secret["whsec_".len()..]), "{seen}");
        }
    }
}

#[tokio::test]
async fn secret_belongs_to_one_tenant() {
    let world = World::guarded().await;
    let (acme, other) = (world.key("acme", "config:write").await, world.key("other", "config:write").await);
    world.ask_with(&acme, "PUT", PATH, "").await;
    assert_eq!(world.ask_with(&other, "GET", PATH, "").await.json(), json!({"secrets": []}));
    assert_eq!(world.ask_with(&other, "DELETE", PATH, "").await.status, 200);
    assert_eq!(world.ask_with(&acme, "GET", PATH, "").await.json()["secrets"].as_array().unwrap().len(), 1);
    assert_eq!(world.ask_with(&acme, "DELETE", PATH, "").await.json(), json!({"secrets": []}));
    assert_eq!(world.ask_with(&acme, "GET", PATH, "").await.json(), json!({"secrets": []}));
}

#[tokio::test]
async fn number_of_signing_secrets_is_limited() {
    let world = World::guarded().await;
    let key = world.key("acme", "config:write").await;
    for _ in 0..5 {
        assert_eq!(rotate(&world, &key, &json!({"grace_period": 60})).await.status, 201);
    }
    rotate(&world, &key, &json!({"grace_period": 60})).await.problem(409, "too_many_secrets");
    world.clock.advance(Duration::from_mins(1));
    assert_eq!(rotate(&world, &key, &json!({"grace_period": 60})).await.status, 201);
    assert_eq!(
        world.ask_with(&key, "PUT", PATH, "").await.json()["secrets"].as_array().unwrap().len(),
        1,
        "PUT replaces all secrets"
    );
}

#[tokio::test]
async fn secret_without_a_master_key_is_refused() {
    let world = World::guarded_with(Arc::new(Without)).await;
    let key = world.key("acme", "config:write").await;
    let refused = world.ask_with(&key, "PUT", PATH, "").await.problem(501, "no_master_key");
    assert!(refused["detail"].as_str().unwrap().contains("NOBAT_MASTER_KEY"), "{refused}");
    assert_eq!(world.ask_with(&key, "GET", PATH, "").await.json(), json!({"secrets": []}));
}
