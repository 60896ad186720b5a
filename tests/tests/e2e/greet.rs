use nobat_tests::harness::program::Program;
use nobat_tests::harness::{World, attempts, path};
use serde_json::json;

#[tokio::test]
async fn custom_kind_runs_and_reports_progress() {
    let world = World::of(Program::Greet, &[]).await;
    let task = world.submit(&json!({"kind": "greet", "payload": {"name": "Ayna", "seconds": 2}})).await;
    let running = world.until(&task, |task| !task["progress"].is_null()).await;
    assert_eq!(running["status"], "running");
    let task = world.ended(&task).await;
    assert_eq!(
        (&task["status"], &task["result"]),
        (&json!("succeeded"), &json!({"text": "Salam, Ayna! (attempt 1)"}))
    );
    world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
    world.end().await;
}

#[tokio::test]
async fn custom_kind_can_be_canceled_and_checks_its_payload() {
    let world = World::of(Program::Greet, &[]).await;
    let refused = world.post("/v1/tasks", &json!({"kind": "greet", "payload": {"name": "Ayna"}})).await;
    assert!(refused.status == 422 && refused.text().contains("seconds"), "{}", refused.text());
    let task = world
        .submit(&json!({"kind": "greet", "payload": {"name": "Ayna", "seconds": 3600}, "timeout": 3600}))
        .await;
    world.until(&task, |task| !task["progress"].is_null()).await;
    assert_eq!(world.post(&format!("{}/cancel", path(&task)), &json!({})).await.status, 202);
    let task = world.ended(&task).await;
    assert_eq!(
        (&task["status"], attempts(&task, "/outcome")),
        (&json!("canceled"), vec!["canceled".to_owned()])
    );
    world.end().await;
}
