use nobat_tests::aws::stack::{Stack, reached};
use nobat_tests::harness::path;
use nobat_tests::harness::receiver::{Receiver, Reply};
use serde_json::{Value, json};

on_each_deployment![accepted_call_waits_for_its_completion_or_times_out];

async fn accepted_call_waits_for_its_completion_or_times_out(stack: &Stack) {
    let receiver = Receiver::start().await.unwrap();
    receiver.script("/print", [Reply::status(202)]);
    let then = json!({"kind": "http", "payload": {"url": receiver.url("/notify")}});
    let call = |seconds: u32| {
        let wait = json!({"timeout": seconds, "then": then});
        json!({"kind": "http", "payload": {"url": receiver.url("/print"), "wait": wait}})
    };
    let completed = stack.submit(&call(3_600)).await;
    let get = async || stack.get(&path(&completed)).await.json();
    let is_waiting = |task: &Value| task["held"]["reason"] == "waiting";
    reached("the task waits", get, is_waiting).await;
    let called = receiver.received("/print").remove(0);
    let token = called.header("nobat-completion-token");
    let headers = [("nobat-completion-token", token)];
    let complete = format!("{}/complete", path(&completed));
    for replayed in ["", "true"] {
        let done = stack.post_with(&complete, &headers, &json!({"result": 7})).await;
        assert_eq!((done.status, done.header("idempotency-replayed")), (200, replayed), "{}", done.text());
    }
    let ended = stack.ended(&completed).await;
    assert_eq!((&ended["status"], &ended["result"]), (&json!("succeeded"), &json!(7)));

    let late = stack.submit(&call(2)).await;
    let ended = stack.ended(&late).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!("wait_timeout")));
    assert_eq!(receiver.wait_for("/notify", 1).await.len(), 1);
}
