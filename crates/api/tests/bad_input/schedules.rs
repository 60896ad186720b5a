//! Schedules with too large configuration.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn schedule_of_the_maximum_size_can_be_paused() {
    let world = World::guarded().await;
    let key = world.key("acme", "config:write").await;
    let put = async |size: usize| {
        let task = json!({"kind": "noop", "payload": "a".repeat(size)});
        let schedule = json!({"every": 60, "paused": false, "task": task});
        world.ask_with(&key, "PUT", "/v1/schedules/large", &schedule.to_string()).await
    };
    let (mut accepted, mut refused) = (1, 40_000);
    while refused - accepted > 1 {
        let size = usize::midpoint(accepted, refused);
        if put(size).await.status < 300 { accepted = size } else { refused = size }
    }
    let problem = put(refused).await.problem(422, "validation_failed");
    assert!(problem.to_string().contains("expected at most 32768 bytes in total"), "{problem}");
    // The record of a paused schedule is larger.
    assert_eq!(put(accepted).await.status, 200);
    for change in ["pause", "resume"] {
        let answer = world.ask_with(&key, "POST", &format!("/v1/schedules/large/{change}"), "").await;
        assert_eq!(answer.status, 200, "{change}: {}", answer.text());
    }
}
