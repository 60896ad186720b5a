use nobat_tests::aws::stack::Stack;
use nobat_tests::harness::path;
use serde_json::json;

on_each_deployment![request_without_a_valid_key_is_refused, tenant_key_gives_access_to_its_tenant_only];

async fn request_without_a_valid_key_is_refused(stack: &Stack) {
    for key in ["", "nb_live_guess"] {
        let refused = stack
            .post_with("/v1/tasks", &[("authorization", &format!("Bearer {key}"))], &json!({"kind": "noop"}))
            .await;
        assert_eq!(
            (refused.status, refused.json()["code"].clone()),
            (401, json!("unauthorized")),
            "{}",
            refused.text()
        );
    }
}

async fn tenant_key_gives_access_to_its_tenant_only(stack: &Stack) {
    let scopes = json!(["tasks:write", "tasks:read"]);
    let made = stack
        .post("/v1/keys", &json!({"tenant": "acme", "scopes": scopes, "networks": ["127.0.0.0/8", "::1"]}))
        .await;
    assert_eq!(made.status, 201, "{}", made.text());
    let authorization = format!("Bearer {}", made.json()["key"].as_str().unwrap());
    let acme = [("authorization", authorization.as_str())];
    let task = stack.post_with("/v1/tasks", &acme, &json!({"kind": "noop", "delay": 3600})).await.json();
    assert_eq!(task["submitted_by"], made.json()["id"], "{task:#}");
    assert_eq!(stack.get(&path(&task)).await.status, 404, "a key sees no task of another tenant");
    let canceled = stack.post_with(&format!("{}/cancel", path(&task)), &acme, &json!({})).await;
    assert_eq!(canceled.status, 200, "{}", canceled.text());
    let audit = stack.get("/v1/audit?tenant=acme").await.json();
    assert_eq!(
        (&audit["data"][0]["action"], &audit["data"][0]["actor"]),
        (&json!("task.canceled"), &made.json()["id"]),
        "{audit:#}"
    );
    let limited = stack.put("/v1/tenants/acme", &json!({"request_rate": {"rate": 1, "burst": 1}})).await;
    assert_eq!(limited.status, 200, "{}", limited.text());
    assert!(stack.get("/v1/tenants").await.text().contains("acme"));
}
