use futures_util::future::join_all;
use nobat_tests::harness::receiver::{Gate, Reply};
use nobat_tests::harness::{World, attempts, path};
use nobat_tests::size::size;
use serde_json::json;

#[tokio::test]
async fn dead_letter_replay_keeps_its_key_and_history() {
    let world = World::start().await;
    world.receiver.script("/hook", [400, 503, 200].map(Reply::status));
    let call =
        json!({"kind": "http", "payload": {"url": world.receiver.url("/hook")}, "retry": {"delays": [0]}});
    let dead = world.ended(&world.submit(&call).await).await;
    assert_eq!(world.tasks("status=failed&").await[0]["id"], dead["id"]);
    let answer = world.post_with(&format!("{}/replay", path(&dead)), &[], "").await;
    assert_eq!((answer.status, &answer.json()["generation"]), (202, &json!(2)));
    let task = world.ended(&dead).await;
    assert_eq!(
        (&task["status"], &task["attempt"], &task["error"]),
        (&json!("succeeded"), &json!(2), &json!(null))
    );
    assert_eq!(attempts(&task, "/error/code"), ["http_400", "http_503", "-"]);
    assert_eq!(task["attempts"][2]["number"], 3, "attempt numbers continue across generations");
    let keys: Vec<_> = world
        .receiver
        .received("/hook")
        .iter()
        .map(|request| request.header("idempotency-key").to_owned())
        .collect();
    assert_eq!(keys, vec![task["id"].as_str().unwrap(); 3]);
    assert_eq!(world.tasks("status=failed&").await.len(), 0);
    world.end().await;
}

#[tokio::test]
async fn replay_can_request_a_new_key() {
    let world = World::start().await;
    let task = world.submit(&json!({"kind": "http", "payload": {"url": world.receiver.url("/hook")}})).await;
    world.ended(&task).await;
    assert_eq!(world.post(&format!("{}/replay", path(&task)), &json!({"new_key": true})).await.status, 202);
    world.ended(&task).await;
    assert_eq!(world.post(&format!("{}/replay", path(&task)), &json!({})).await.status, 202);
    world.ended(&task).await;
    let keys: Vec<_> = world
        .receiver
        .received("/hook")
        .iter()
        .map(|request| request.header("idempotency-key").to_owned())
        .collect();
    assert!(keys[0] != keys[1] && keys[1] == keys[2], "{keys:?}");
    world.end().await;
}

#[tokio::test]
async fn only_one_replay_of_a_generation_is_accepted() {
    let world = World::start().await;
    for round in 0..size(10, 500) {
        let task = world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
        // Each generation ends within a moment. Without `generation`, a replay that comes a little later
        // would start another one.
        let (replay, body) = (format!("{}/replay", path(&task)), json!({"generation": 1}));
        let answers = join_all((0..8).map(|_| world.post(&replay, &body))).await;
        let (replayed, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 202);
        assert_eq!((replayed.len(), refused.len()), (1, 7), "round {round}");
        for answer in refused {
            assert_eq!(answer.problem(), (409, "generation_mismatch".to_owned()));
            assert!(answer.json()["detail"].as_str().unwrap().contains("generation 2"), "{}", answer.text());
        }
        assert_eq!(world.ended(&task).await["generation"], 2, "round {round}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_replay_with_an_idempotency_key_is_carried_out_once() {
    let world = World::start().await;
    let task = world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
    let (replay, key) = (format!("{}/replay", path(&task)), [("idempotency-key", "replay-7")]);
    let first = world.post_with(&replay, &key, "{}").await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, ""));
    world.ended(&task).await;
    let again = world.post_with(&replay, &key, "{}").await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed"), &again.json()["generation"]),
        (202, "true", &json!(2))
    );
    assert_eq!(
        world.post_with(&replay, &key, r#"{"new_key": true}"#).await.problem(),
        (422, "idempotency_key_reused".to_owned())
    );
    assert_eq!(world.ended(&task).await["generation"], 2);
    world.end().await;
}

#[tokio::test]
async fn replay_command_checks_the_given_generation() {
    let world = World::start().await;
    let task = world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
    let replay = async |generation: &str| {
        world.run(&["replay", task["id"].as_str().unwrap(), "--generation", generation]).await
    };
    let refused = replay("2").await;
    assert!(refused.code != 0 && refused.stderr.contains("generation 1"), "{refused:?}");
    assert_eq!(replay("1").await.code, 0);
    assert_eq!(world.ended(&task).await["generation"], 2);
    world.end().await;
}

#[tokio::test]
async fn concurrent_replays_start_one_generation() {
    let world = World::start().await;
    for round in 0..size(10, 500) {
        // The replayed task must not end before the other replays arrive.
        let (place, gate) = (format!("/round-{round}"), Gate::default());
        world.receiver.script(&place, [Reply::status(200), Reply::status(200).behind(&gate)]);
        let task =
            world.submit(&json!({"kind": "http", "payload": {"url": world.receiver.url(&place)}})).await;
        world.ended(&task).await;
        let (replay, body) = (format!("{}/replay", path(&task)), json!({}));
        let mut answers: Vec<u16> = join_all((0..8).map(|_| world.post(&replay, &body)))
            .await
            .iter()
            .map(|answer| answer.status)
            .collect();
        answers.sort_unstable();
        assert_eq!(answers, [202, 409, 409, 409, 409, 409, 409, 409], "round {round}");
        gate.open();
        let task = world.ended(&task).await;
        assert_eq!((&task["generation"], attempts(&task, "/outcome").len()), (&json!(2), 2), "round {round}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_task_that_has_not_ended_cannot_be_replayed() {
    let world = World::start().await;
    let task = world.submit(&json!({"kind": "noop", "delay": 3600})).await;
    let answer = world.post(&format!("{}/replay", path(&task)), &json!({})).await;
    assert_eq!(answer.problem(), (409, "task_not_ended".to_owned()));
    let answer = world.post(&format!("{}/replay", path(&task)), &json!({"newkey": true})).await;
    assert!(answer.status == 422 && answer.text().contains("newkey"), "{}", answer.text());
    world.post(&format!("{}/cancel", path(&task)), &json!({})).await;
    world.end().await;
}
