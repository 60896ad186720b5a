use nobat_tests::aws::stack::Stack;
use nobat_tests::world::path;
use serde_json::json;

told_of_both![nobody_comes_in_without_a_key, a_tenants_key_opens_its_own_alone];

async fn nobody_comes_in_without_a_key(stack: &Stack) {
    for key in ["", "nb_live_guess"] {
        let refused = stack.post_with("/v1/tasks", &[("authorization", &format!("Bearer {key}"))], &json!({"kind": "noop"})).await;
        assert_eq!((refused.status, refused.json()["code"].clone()), (401, json!("unauthorized")), "{}", refused.text());
    }
}

async fn a_tenants_key_opens_its_own_alone(stack: &Stack) {
    let scopes = json!(["tasks:write", "tasks:read"]);
    let made = stack.post("/v1/keys", &json!({"tenant": "acme", "scopes": scopes, "networks": ["127.0.0.0/8", "::1"]})).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let authorization = format!("Bearer {}", made.json()["key"].as_str().unwrap());
    let acme = [("authorization", authorization.as_str())];
    let task = stack.post_with("/v1/tasks", &acme, &json!({"kind": "noop", "delay": 3600})).await.json();
    assert_eq!(task["submitted_by"], made.json()["id"], "{task:#}");
    assert_eq!(stack.get(&path(&task)).await.status, 404, "another tenant's");
    let canceled = stack.post_with(&format!("{}/cancel", path(&task)), &acme, &json!({})).await;
    assert_eq!(canceled.status, 200, "{}", canceled.text());
    let trail = stack.get("/v1/audit?tenant=acme").await.json();
    assert_eq!((&trail["data"][0]["action"], &trail["data"][0]["actor"]), (&json!("task.canceled"), &made.json()["id"]), "{trail:#}");
    let limited = stack.put("/v1/tenants/acme", &json!({"request_rate": {"rate": 1, "burst": 1}})).await;
    assert_eq!(limited.status, 200, "{}", limited.text());
    assert!(stack.get("/v1/tenants").await.text().contains("acme"));
}
