use nobat_tests::aws::stack::Stack;
use nobat_tests::harness::receiver::Receiver;
use serde_json::json;

on_each_deployment![webhook_is_stored_once_and_passed_on];

async fn webhook_is_stored_once_and_passed_on(stack: &Stack) {
    let receiver = Receiver::start().await.unwrap();
    let source = json!({
        "verify": {"token": {"header": "X-Token"}, "secrets": ["correct horse"]},
        "event_id": "/id",
        "task": {"kind": "http", "payload": {"url": receiver.url("/paid")}},
    });
    let created = stack.put("/v1/sources/bank", &source).await;
    assert!(created.status < 300, "{}", created.text());
    let path = created.json()["path"].as_str().unwrap().to_owned();
    let send = async |token: &str| {
        stack.post_with(&path, &[("x-token", token)], &json!({"id": "p-1", "amount": 12})).await
    };
    assert_eq!((send("wrong token").await.status, send("correct horse").await.status), (401, 200));
    assert_eq!(send("correct horse").await.status, 200);
    assert_eq!(receiver.wait_for("/paid", 1).await.remove(0).json(), json!({"id": "p-1", "amount": 12}));
    let shown = stack.get("/v1/sources/bank").await.json();
    assert_eq!(shown["rejected"], json!({"signature_wrong": 1}), "{shown}");
    assert_eq!(receiver.received("/paid").len(), 1);
}
