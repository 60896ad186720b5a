//! Heartbeats of a worker.

use std::time::Duration;

use nobat_core::ports::{ClaimResult, CommitResult, Heartbeat};
use nobat_core::task::lifecycle::{Event, Retry};
use nobat_core::task::{CancelRequest, State, Task};
use nobat_core::types::intervals::LEASE;

use super::{World, fail, succeed};
use crate::sample;

async fn beat(world: &World, task: &Task, progress: Option<&str>) -> Heartbeat {
    let until = world.now() + LEASE;
    world.backend.store.heartbeat(&task.key(), task.token, until, progress.map(sample::json)).await.unwrap()
}

fn lease_until(task: &Task) -> nobat_core::types::time::Timestamp {
    match &task.state {
        State::Running(lease) => lease.until,
        other => panic!("{other:?}"),
    }
}

/// A heartbeat extends the lease and changes nothing else but the version.
pub async fn renews_the_lease(world: World) {
    let running = world.claim(&world.insert(sample::elaborate_due(1, world.now())).await).await;
    world.time.advance(Duration::from_secs(20));
    assert_eq!(beat(&world, &running, None).await, Heartbeat::Renewed { cancel: CancelRequest::None });
    let renewed = world.get(&running).await;
    assert_eq!(lease_until(&renewed), world.now() + LEASE);
    assert!(renewed.version > running.version);
    assert_eq!(Task { state: running.state.clone(), version: running.version, ..renewed }, running);
    world.time.advance(Duration::from_secs(59));
    let claim = world.backend.store.claim(&running.key(), world.now() + LEASE, world.now()).await.unwrap();
    assert!(
        matches!(claim, ClaimResult::Refused(nobat_core::task::lifecycle::TransitionError::Running, _)),
        "{claim:?}"
    );
}

/// The stored progress stays until a heartbeat brings other progress.
pub async fn keeps_the_progress_until_it_is_replaced(world: World) {
    let running = world.claim(&world.insert(sample::task(1, world.now())).await).await;
    for (said, kept) in [
        (None, None),
        (Some("{\"at\": 0.10}"), Some("{\"at\": 0.10}")),
        (None, Some("{\"at\": 0.10}")),
        (Some("2"), Some("2")),
    ] {
        beat(&world, &running, said).await;
        assert_eq!(world.get(&running).await.progress, kept.map(sample::json));
    }
    world.backend.apply(&running.key(), None, succeed(&running), world.now()).await.unwrap();
    assert_eq!(
        world.get(&running).await.progress,
        Some(sample::json("2")),
        "an ended task keeps its progress"
    );
}

/// A heartbeat reports a requested cancellation, and so does every later one.
pub async fn reports_a_requested_cancellation(world: World) {
    let running = world.claim(&world.insert(sample::task(1, world.now())).await).await;
    world.backend.apply(&running.key(), None, Event::Cancel, world.now()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            beat(&world, &running, None).await,
            Heartbeat::Renewed { cancel: CancelRequest::Requested }
        );
    }
}

/// Without the newest lease, a heartbeat renews nothing and writes nothing.
pub async fn is_lost_without_the_newest_lease(world: World) {
    let new = |number| sample::with_attempts(number, 5, world.now());
    let waiting = world.insert(new(1)).await;
    let first = world.claim(&world.insert(new(2)).await).await;
    let released = world.bring(&first, Event::Release { token: first.token }).await;
    let second = world.claim(&released).await;
    let running = world.claim(&world.insert(new(3)).await).await;
    let ended = world.bring(&running, succeed(&running)).await;
    let running = world.claim(&world.insert(new(4)).await).await;
    let retrying = world.bring(&running, fail(&running, Retry::Backoff)).await;

    let newer = Task { token: second.token + 1, ..second.clone() };
    for (task, stored) in
        [(&waiting, &waiting), (&first, &second), (&newer, &second), (&ended, &ended), (&retrying, &retrying)]
    {
        assert_eq!(beat(&world, task, Some("1")).await, Heartbeat::Lost);
        assert_eq!(world.get(task).await, *stored);
    }
    assert_eq!(beat(&world, &sample::task(5, world.now()), None).await, Heartbeat::Lost);
    assert_eq!(beat(&world, &second, None).await, Heartbeat::Renewed { cancel: CancelRequest::None });
}

/// A worker that settles with the copy it claimed meets a conflict. It reads the task again and succeeds.
pub async fn outdates_the_workers_copy(world: World) {
    let running = world.claim(&world.insert(sample::task(1, world.now())).await).await;
    beat(&world, &running, Some("1")).await;
    let committed =
        world.backend.store.commit(world.change(&running, succeed(&running)), world.now()).await.unwrap();
    assert!(matches!(committed, CommitResult::Conflict), "{committed:?}");
    let ended = world
        .backend
        .apply(&running.key(), Some(running.clone()), succeed(&running), world.now())
        .await
        .unwrap();
    assert!(matches!(ended.state, State::Ended(_)));
    assert_eq!(ended.progress, Some(sample::json("1")));
    assert_eq!(world.get(&running).await, ended);
}
