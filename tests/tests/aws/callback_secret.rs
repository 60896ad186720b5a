use nobat_core::secrets::webhook::{WebhookSecret, signature};
use nobat_core::types::time::Timestamp;
use nobat_tests::aws::stack::Stack;
use nobat_tests::harness::receiver::Receiver;
use serde_json::json;

on_each_deployment![a_callback_is_signed_with_its_tenants_secret];

async fn a_callback_is_signed_with_its_tenants_secret(stack: &Stack) {
    let receiver = Receiver::start().await.unwrap();
    let made =
        stack.post("/v1/keys", &json!({"tenant": "signed", "scopes": ["tasks:write", "config:write"]})).await;
    let authorization = format!("Bearer {}", made.json()["key"].as_str().unwrap());
    let signed = [("authorization", authorization.as_str())];
    let rotated = stack.post_with("/v1/callback-secret/rotate", &signed, &json!({"grace_period": 0})).await;
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    let secret: WebhookSecret = rotated.json()["secret"].as_str().unwrap().parse().unwrap();
    let task = json!({"kind": "noop", "callback": {"url": receiver.url("/done")}});
    assert_eq!(stack.post_with("/v1/tasks", &signed, &task).await.status, 202);
    let report = receiver.wait_for("/done", 1).await.remove(0);
    let at = Timestamp::from_millis(report.header("webhook-timestamp").parse::<i64>().unwrap() * 1_000);
    assert_eq!(
        report.header("webhook-signature"),
        signature([&secret], report.header("webhook-id"), at, &report.body)
    );
}
