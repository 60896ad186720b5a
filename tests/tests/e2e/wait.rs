use std::time::{Duration, Instant};

use nobat_tests::harness::receiver::{Gate, Reply};
use nobat_tests::harness::{World, path};
use serde_json::json;

#[tokio::test]
async fn a_waiting_client_is_answered_as_soon_as_the_task_has_ended() {
    let world = World::start().await;
    let gate = Gate::default();
    world.receiver.script("/hook", [Reply::status(200).behind(&gate)]);
    let task = world.submit(&json!({"kind": "http", "payload": {"url": world.receiver.url("/hook")}})).await;
    world.receiver.wait_for("/hook", 1).await;
    let begun = Instant::now();
    let waiting = format!("{}?wait=20", path(&task));
    let (answer, ()) = tokio::join!(world.get(&waiting), async { gate.open() });
    assert_eq!(answer.json()["status"], "succeeded");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    world.end().await;
}

#[tokio::test]
async fn a_waiting_client_is_answered_when_its_time_is_up() {
    let world = World::start().await;
    let task = world.submit(&json!({"kind": "noop", "delay": 3600})).await;
    let begun = Instant::now();
    let answer = world.get(&format!("{}?wait=0.3", path(&task))).await.json();
    assert_eq!(answer["status"], "scheduled");
    assert!(
        (Duration::from_millis(300)..Duration::from_secs(10)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    world.post(&format!("{}/cancel", path(&task)), &json!({})).await;
    world.end().await;
}

#[tokio::test]
async fn wait_is_limited_to_the_operators_maximum() {
    let world = World::with(&["--max-wait", "1"]).await;
    let task = world.submit(&json!({"kind": "noop", "delay": 3600})).await;
    let begun = Instant::now();
    assert_eq!(world.get(&format!("{}?wait=3600", path(&task))).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    world.post(&format!("{}/cancel", path(&task)), &json!({})).await;
    world.end().await;
}

#[tokio::test]
async fn invalid_wait_is_refused() {
    let world = World::start().await;
    let task = world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
    for wait in ["-1", "soon", "NaN", ""] {
        assert_eq!(
            world.get(&format!("{}?wait={wait}", path(&task))).await.problem(),
            (422, "validation_failed".to_owned()),
            "{wait}"
        );
    }
    world.end().await;
}
