//! Commits of a task's changes.

use std::time::Duration;

use nobat_core::limits::{LimitScope, Reservation, ScopedReservation};
use nobat_core::ports::{CommitResult, ListQuery};
use nobat_core::task::lifecycle::{Change, Event, ReplayKey, Retry};
use nobat_core::task::{Outcome, State, Status, Task, TaskError};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::jitter_sample::JitterSample;

use super::{Hints, World, begin, fail, succeed};
use crate::sample;

/// A task goes through its whole life three times. After every step, the stored task equals the written one.
pub async fn reads_back_every_transition(world: World) {
    let mut task = world.insert(sample::with_attempts(1, 30, world.now())).await;
    for round in 0..3 {
        task = world.claim(&task).await;
        task = step(&world, &task, Event::Release { token: task.token }).await;
        task = world.claim(&task).await;
        let until = world.now() + Duration::from_millis(1_501);
        let promise = Some(ScopedReservation {
            scope: LimitScope::Endpoint(sample::name("billing")),
            reservation: Reservation { slot: 7, interval: 1 },
        });
        let hold = Event::Hold {
            token: task.token,
            reason: HeldReason::RateLimited,
            until,
            reserved: promise.into(),
        };
        task = step(&world, &task, hold).await;
        assert_eq!(task.hold.holds, 1);
        for attempt in 0..9 {
            world.time.advance(Duration::from_millis(3_003));
            task = world.claim(&task).await;
            task = match attempt % 3 {
                0 if attempt > 0 => {
                    step(&world, &task, fail(&task, Retry::Defer(HeldReason::RetryAfter, world.now()))).await
                }
                0 => {
                    assert!(task.hold.reservations.rate.is_some(), "a claim keeps the reservation");
                    step(&world, &task, fail(&task, Retry::Backoff)).await
                }
                1 => step(&world, &task, Event::Interrupt { token: task.token }).await,
                _ => {
                    world.time.advance(Duration::from_mins(2));
                    step(&world, &task, Event::LeaseExpired { spread: JitterSample::from_bits(u64::MAX) })
                        .await
                }
            };
        }
        world.time.advance(Duration::from_secs(5));
        task = end_in_turn(&world, task, round).await;
        assert_eq!(task.finished_at(), Some(world.now()));
        let key = if round == 1 { ReplayKey::New } else { ReplayKey::Same };
        task = step(&world, &task, Event::Replay { key, generation: None }).await;
    }
    assert_eq!(task.attempts.len(), Task::KEPT_ATTEMPTS);
    assert_eq!(task.generation, 4);
    task = step(&world, &task, Event::Cancel).await;
    assert_eq!(task.status(world.now()), Status::Ended(Outcome::Canceled));
}

async fn end_in_turn(world: &World, task: Task, round: u32) -> Task {
    let mut task = world.claim(&task).await;
    match round {
        0 => step(world, &task, succeed(&task)).await,
        1 => {
            let message = "a very long sentence – ".repeat(100);
            let error = TaskError::new("my.own_code-1", message);
            let spread = JitterSample::from_bits(0);
            step(
                world,
                &task,
                Event::Fail { token: task.token, error, retry: Retry::Never, policy: None, spread },
            )
            .await
        }
        _ => {
            task = step(world, &task, Event::Cancel).await;
            step(world, &task, Event::Stop { token: task.token }).await
        }
    }
}

async fn step(world: &World, task: &Task, event: Event) -> Task {
    let change = world.change(task, event);
    let written = world.commit(change.clone()).await;
    assert_eq!(written, change.task);
    assert_eq!(world.get(task).await, change.task);
    change.task
}

/// A commit over an older version changes nothing and returns a conflict.
pub async fn refuses_a_stale_version(world: World) {
    let read = world.insert(sample::with_attempts(1, 3, world.now())).await;
    let running = world.claim(&read).await;
    let late = world.change(&read, Event::Cancel);
    assert_conflict(&world, late).await;
    assert_eq!(world.get(&read).await, running);

    let early = world.change(&running, Event::Cancel);
    let twice = early.clone();
    let written = world.commit(early).await;
    assert_conflict(&world, twice).await;
    assert_eq!(world.get(&read).await, written);

    let ahead = Change { read_version: written.version + 1, ..world.change(&written, succeed(&written)) };
    assert_conflict(&world, ahead).await;
    assert_eq!(world.get(&read).await, written);
}

/// A change of a missing task creates none.
pub async fn refuses_a_missing_task(world: World) {
    let task = sample::task(1, world.now());
    let change = world.change(&task, Event::Cancel);
    assert_conflict(&world, change).await;
    assert_eq!(world.find(&task.key()).await, None);
}

async fn assert_conflict(world: &World, change: Change) {
    let committed = world.backend.store.commit(change, world.now()).await.unwrap();
    assert!(matches!(committed, CommitResult::Conflict), "{committed:?}");
}

/// The callback is written with the end, for every kind of end, and is a task like any other.
pub async fn writes_the_callback_with_the_end(world: World) {
    let now = world.now();
    let new = |number| sample::reported(sample::with_attempts(number, 2, now));
    let mut expiring = new(4);
    expiring.options.expires_at = Some(now + Duration::from_secs(5));
    let tasks = world.insert_all(vec![new(1), new(2), new(3), expiring]).await;
    let (succeeding, failing) = (world.claim(&tasks[0]).await, world.claim(&tasks[1]).await);
    world.time.advance(Duration::from_secs(5));
    let changes = [
        world.change(&succeeding, succeed(&succeeding)),
        world.change(&failing, fail(&failing, Retry::Never)),
        world.change(&tasks[2], Event::Cancel),
        world.change(&tasks[3], Event::Expire),
    ];
    for change in changes {
        let callback = change.callback.clone().unwrap();
        assert_eq!(world.find(&callback.key()).await, None);
        let ended = world.commit(change).await;
        assert!(matches!(ended.state, State::Ended(_)));
        assert_eq!(world.get(&ended).await, ended);
        assert_eq!(world.get(&callback).await, callback);
        let running = world.claim(&callback).await;
        world.bring(&running, succeed(&running)).await;
    }
}

/// A refused change writes no callback.
pub async fn writes_no_callback_when_refused(world: World) {
    let task = world.insert(sample::reported(sample::task(1, world.now()))).await;
    let change = world.change(&task, Event::Cancel);
    world.claim(&task).await;
    let callback = change.callback.clone().unwrap();
    assert_conflict(&world, change).await;
    assert_eq!(world.find(&callback.key()).await, None);
    let query = ListQuery::all(task.tenant, 10);
    assert_eq!(world.backend.store.list(&query, world.now()).await.unwrap().tasks.len(), 1);
}

/// Results of 64 KiB and 256 KiB are read back whole.
pub async fn takes_a_large_result(world: World) {
    for (number, bytes) in [64 * 1024, 256 * 1024].into_iter().enumerate() {
        let task = world.insert(sample::task(number as u128, world.now())).await;
        let running = world.claim(&task).await;
        let result = sample::json(&format!("\"{}\"", "r".repeat(bytes - 2)));
        let ended =
            world.bring(&running, Event::Succeed { token: running.token, result: result.clone() }).await;
        assert!(ended.result.as_ref() == Some(&result));
        assert!(world.get(&task).await == ended);
    }
}

/// A change of a task wakes those who wait for it, if the store can tell.
pub async fn wakes_waiting_callers(world: World) {
    let task = world.insert(sample::task(1, world.now())).await;
    let name = task.key();
    let mut waiting = world.backend.store.changed(&name);
    assert_eq!(begin(&mut waiting).await, None);
    let running = world.claim(&task).await;
    world.bring(&running, succeed(&running)).await;
    match world.hints {
        Hints::InTheStore => waiting.await,
        Hints::Apart => {
            assert_eq!(begin(&mut waiting).await, None, "a separate store does not report writes");
        }
    }
}
