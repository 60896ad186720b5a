use nobat_tests::aws::deployment::Source;
use nobat_tests::aws::stack::{Stack, reached};
use nobat_tests::harness::attempts;
use serde_json::json;

/// A panic must not end the worker: `cargo lambda build` aborts at a panic, unless the release profile says
/// otherwise.
#[tokio::test]
#[ignore = "builds a release for many minutes: cargo test --workspace --test aws -- --ignored"]
async fn functions_of_sam_build_do_their_work() {
    let stack = Stack::of(Source::SamBuild).await;
    let task = json!({"kind": "noop", "payload": {"panic": 1}, "retry": {"delays": [0]}});
    let task = stack.ended(&stack.submit(&task).await).await;
    assert_eq!(
        (&task["status"], attempts(&task, "/error/code")),
        (&json!("succeeded"), vec!["crashed".into(), "-".into()]),
        "{task:#}"
    );
    stack.sweep().await;
    stack.queues.send_dead(&json!({"tenant": "default", "id": task["id"]}).to_string()).await;
    reached("no dead letter", async || stack.queues.dead().await, |dead| *dead == 0).await;
}
