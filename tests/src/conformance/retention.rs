//! Retention of ended tasks.

use std::time::Duration;

use nobat_core::ports::{ClaimResult, InsertResult, ListQuery};
use nobat_core::task::Task;
use nobat_core::task::lifecycle::{Event, ReplayKey};
use nobat_core::types::intervals::LEASE;

use super::{RETENTION, World, names, succeed};
use crate::sample;

const DAY: Duration = Duration::from_hours(24);

async fn ended(world: &World, task: Task) -> Task {
    let running = world.claim(&world.insert(task).await).await;
    world.bring(&running, succeed(&running)).await
}

/// An ended task is removed when its retention since the end is over. Other tasks are never removed.
pub async fn prunes_tasks_past_their_retention(world: World) {
    let waiting =
        world.insert(Task { due_at: world.now() + DAY * 300, ..sample::task(1, world.now()) }).await;
    let running = world.claim(&world.insert(sample::task(2, world.now())).await).await;
    let slow = world.claim(&world.insert(sample::task(3, world.now())).await).await;
    let first = ended(&world, sample::task(4, world.now())).await;
    world.time.advance(DAY);
    let slow = world.bring(&slow, succeed(&slow)).await;
    world.time.advance_to(world.now() + RETENTION - DAY - Duration::from_millis(1));
    world.prune(100, 0).await;
    assert_eq!(world.get(&first).await, first);
    world.time.advance(Duration::from_millis(2));
    world.prune(100, 1).await;
    assert_eq!(world.find(&first.key()).await, None);
    world.time.advance(DAY * 200);
    world.prune(100, 1).await;
    assert_eq!(world.find(&slow.key()).await, None);
    for task in [waiting, running] {
        assert_eq!(world.get(&task).await, task);
    }
}

/// A prune removes at most the requested number. The next prune continues.
pub async fn prunes_a_bounded_number(world: World) {
    for number in 0..5 {
        ended(&world, sample::task(number, world.now())).await;
    }
    world.time.advance(RETENTION + DAY);
    for removed in [2, 2, 1, 0] {
        world.prune(2, removed).await;
    }
}

/// A task whose retention is over is absent for every caller, even before it is removed.
pub async fn hides_tasks_past_their_retention(world: World) {
    let task = ended(&world, sample::reported(sample::task(1, world.now()))).await;
    world.time.advance(RETENTION + Duration::from_millis(1));
    assert_eq!(world.find(&task.key()).await, None);
    let claim = world.backend.store.claim(&task.key(), world.now() + LEASE, world.now()).await.unwrap();
    assert!(matches!(claim, ClaimResult::Missing), "{claim:?}");
    let replayed = world
        .backend
        .apply(&task.key(), None, Event::Replay { key: ReplayKey::Same, generation: None }, world.now())
        .await;
    assert!(matches!(replayed, Err(nobat_core::service::backend::ApplyError::Missing)), "{replayed:?}");
    let query = ListQuery { queue: Some(task.queue.clone()), ..ListQuery::all(task.tenant.clone(), 100) };
    assert_eq!(names(&world.backend.store.list(&query, world.now()).await.unwrap().tasks), []);
}

/// A task whose retention is over frees its name before it is removed. The next task of that name inherits
/// nothing.
pub async fn frees_the_name_for_another_task(world: World) {
    let large = sample::json(&format!("\"{}\"", "x".repeat(100_000)));
    for number in [1, 2] {
        ended(&world, Task { payload: large.clone(), ..sample::task(number, world.now()) }).await;
    }
    let began = world.now();
    world.time.advance(RETENTION + Duration::from_millis(1));
    let again = |number| Task {
        created_at: world.now(),
        generation_at: world.now(),
        due_at: world.now(),
        ..sample::task(number, began)
    };
    let alone = world.insert(again(1)).await;
    let batch = world.insert_all(vec![again(2), again(3)]).await;
    for task in [&alone, &batch[0], &batch[1]] {
        assert_eq!(world.get(task).await, *task);
    }
    match world.backend.store.insert(vec![again(1)], world.now()).await.unwrap() {
        InsertResult::Existing(existing) => assert_eq!(existing, std::slice::from_ref(&alone)),
        created @ InsertResult::Created(_) => panic!("{created:?}"),
    }
    world.prune(100, 0).await;
    assert_eq!(world.get(&alone).await, alone);
}

/// The first task's callback may outlast it, since the callback ended later. The second task gets a callback
/// with another id.
pub async fn reports_both_tasks_of_one_name(world: World) {
    let number = 1;
    let (began, mut reports) = (world.now(), Vec::new());
    for _ in 0..2 {
        let now = world.now();
        let task = sample::reported(Task {
            created_at: now,
            generation_at: now,
            due_at: now,
            ..sample::task(number, began)
        });
        let running = world.claim(&world.insert(task).await).await;
        let change = world.change(&running, succeed(&running));
        let report = change.callback.clone().unwrap();
        world.commit(change).await;
        assert_eq!(world.get(&report).await, report);
        reports.push(report.id);
        world.time.advance(RETENTION + Duration::from_millis(1));
    }
    assert_ne!(reports[0], reports[1]);
}

/// A replayed task is kept like any other, and its retention starts at its new end.
pub async fn restarts_after_a_replay(world: World) {
    let task = ended(&world, sample::task(1, world.now())).await;
    world.time.advance_to(world.now() + RETENTION - DAY);
    let replayed = world.bring(&task, Event::Replay { key: ReplayKey::Same, generation: None }).await;
    world.time.advance(DAY * 10);
    world.prune(100, 0).await;
    assert_eq!(world.get(&replayed).await, replayed);
    let running = world.claim(&replayed).await;
    let ended = world.bring(&running, succeed(&running)).await;
    world.time.advance_to(world.now() + RETENTION - DAY);
    assert_eq!(world.get(&ended).await, ended);
}
