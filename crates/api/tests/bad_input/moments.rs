//! Timestamps at the end of the representable range, and with more digits than nobat keeps.

use crate::world::World;

const LAST: &str = "9999-12-31T23:59:59Z";

#[tokio::test]
async fn last_representable_time_is_accepted_without_a_limit() {
    let world = World::start().await;
    for end in
        [LAST, "9999-12-31T23:59:59.999999999999Z", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:60Z"]
    {
        let task = world.submit(&format!(r#"{{"kind":"noop","expires_at":"{end}"}}"#)).await;
        let task = world.get(&format!("/v1/tasks/{task}")).await.json();
        assert_eq!(task["expires_at"], "9999-12-30T22:00:00.000Z", "{end}");
        let end = end.replace('+', "%2B");
        for query in [format!("created_before={end}"), format!("created_after={end}")] {
            assert_eq!(world.get(&format!("/v1/tasks?{query}")).await.status, 200, "{query}");
        }
    }
    let created = world.post("/v1/keys", &format!(r#"{{"scopes":["work"],"expires_at":"{LAST}"}}"#)).await;
    assert_eq!((created.status, &created.json()["expires_at"]), (201, &"9999-12-30T22:00:00.000Z".into()));
}

#[tokio::test]
async fn start_too_late_is_refused_with_the_limit() {
    let world = World::start().await;
    let answer = world.post("/v1/tasks", &format!(r#"{{"kind":"noop","run_at":"{LAST}"}}"#)).await;
    answer.names(422, "validation_failed", &["/run_at"]);
    assert!(answer.text().contains("366 days"), "{}", answer.text());
}

#[tokio::test]
async fn digits_beyond_the_ninth_are_cut_off() {
    let world = World::start().await;
    let task = world.submit(r#"{"kind":"noop","run_at":"2026-12-01T08:00:00.12345678901234567890Z"}"#).await;
    assert_eq!(world.get(&format!("/v1/tasks/{task}")).await.json()["run_at"], "2026-12-01T08:00:00.123Z");
}
