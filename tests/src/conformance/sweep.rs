//! Tasks that the store shows to the sweeper.

use std::time::Duration;

use nobat_core::json::Json;
use nobat_core::ports::Heartbeat;
use nobat_core::task::lifecycle::Event;
use nobat_core::task::{CancelRequest, Task};
use nobat_core::types::intervals::LEASE;

use super::{Hints, World, names, succeed};
use crate::sample;

async fn due(world: &World) -> Vec<Task> {
    world.backend.store.due(100, world.now()).await.unwrap()
}

fn with_deadline(mut task: Task, after: Duration) -> Task {
    task.options.expires_at = Some(task.created_at + after);
    task
}

/// An expired lease is shown, with the whole task except perhaps its payload. A renewed lease is not shown.
pub async fn shows_an_expired_lease(world: World) {
    let dead = world.claim(&world.insert(sample::elaborate_due(1, world.now())).await).await;
    let alive = world.claim(&world.insert(sample::task(2, world.now())).await).await;
    world.time.advance(LEASE / 2);
    let until = world.now() + Duration::from_hours(2);
    let beat = world.backend.store.heartbeat(&alive.key(), alive.token, until, None).await.unwrap();
    assert_eq!(beat, Heartbeat::Renewed { cancel: CancelRequest::None });
    assert_eq!(due(&world).await, []);
    world.time.advance(Duration::from_mins(3));
    let mut shown = due(&world).await;
    if world.hints == Hints::Apart {
        // The sweep mark may be due before the lease ends; the sweeper then moves the mark.
        shown.retain(|task| task.id != alive.id);
    }
    assert_eq!(shown, [without_payload(&shown[0], dead)]);
}

/// Returns the task without its payload if `shown` has none.
fn without_payload(shown: &Task, task: Task) -> Task {
    let payload = if shown.payload == Json::null() { Json::null() } else { task.payload };
    Task { payload, ..task }
}

/// A passed deadline of a waiting task is shown, however far off its start is.
pub async fn shows_a_passed_deadline(world: World) {
    let deadline = Duration::from_secs(90);
    let now = world.now();
    let soon = world.insert(with_deadline(sample::task(1, now), deadline)).await;
    let much_later = Task { due_at: now + Duration::from_hours(48), ..sample::task(2, now) };
    let much_later = world.insert(with_deadline(much_later, deadline)).await;
    world.time.advance_to(now + deadline - Duration::from_millis(1));
    assert_eq!(due(&world).await, []);
    world.time.advance(Duration::from_millis(1));
    let mut shown = due(&world).await;
    shown.sort_by_key(|task| task.id);
    assert_eq!(shown, [soon, much_later]);
}

/// A task that has been due for a while is shown if its hint can be lost. Without hints, it is not shown.
pub async fn shows_a_due_task_whose_hint_was_lost(world: World) {
    let task = world
        .insert(Task { due_at: world.now() + Duration::from_mins(10), ..sample::task(1, world.now()) })
        .await;
    let later = world
        .insert(Task { due_at: world.now() + Duration::from_hours(3), ..sample::task(2, world.now()) })
        .await;
    world.time.advance(Duration::from_mins(13));
    match world.hints {
        Hints::InTheStore => {
            assert_eq!(due(&world).await, []);
            assert_eq!(names(&world.receive(10).await), [task.key()]);
        }
        Hints::Apart => {
            assert_eq!(due(&world).await, [task]);
            // The start is beyond any queue's maximum delay, so the hint is sent shortly before it.
            world.time.advance_to(later.due_at - Duration::from_mins(1));
            assert!(due(&world).await.contains(&later));
        }
    }
}

/// The store shows at most the requested number of tasks.
pub async fn shows_a_bounded_number(world: World) {
    let tasks: Vec<Task> = (0..10)
        .map(|number| with_deadline(sample::task(number, world.now()), Duration::from_secs(1)))
        .collect();
    world.insert_all(tasks).await;
    world.time.advance(Duration::from_secs(1));
    assert_eq!(world.backend.store.due(3, world.now()).await.unwrap().len(), 3);
    assert_eq!(due(&world).await.len(), 10);
}

/// Tasks that wait for their time, have just become due, run, or have ended are not shown.
pub async fn hides_tasks_that_need_no_sweep(world: World) {
    let now = world.now();
    world.insert(Task { due_at: now + Duration::from_hours(1), ..sample::task(1, now) }).await;
    world.insert(with_deadline(sample::task(2, now), Duration::from_hours(1))).await;
    world.claim(&world.insert(sample::task(3, now)).await).await;
    let running =
        world.claim(&world.insert(with_deadline(sample::task(4, now), Duration::from_secs(1))).await).await;
    let ended =
        world.claim(&world.insert(with_deadline(sample::task(5, now), Duration::from_secs(1))).await).await;
    world.bring(&ended, succeed(&ended)).await;
    world.bring(&world.insert(sample::task(6, now)).await, Event::Cancel).await;
    world.time.advance(Duration::from_secs(30));
    let shown = due(&world).await;
    match world.hints {
        Hints::InTheStore => assert_eq!(shown, []),
        // A claim keeps the mark, and this mark is at the deadline.
        Hints::Apart => assert!(shown.iter().all(|task| *task == running), "{shown:?}"),
    }
}

/// A postponed task is not shown until then. Otherwise every sweep would see it.
pub async fn hides_a_postponed_task(world: World) {
    let task = world.insert(sample::task(1, world.now())).await;
    world.time.advance(Duration::from_mins(10));
    let until = world.now() + Duration::from_mins(5);
    world.backend.store.postpone(&task, until).await.unwrap();
    assert_eq!(due(&world).await, []);
    assert_eq!(world.get(&task).await, task);
    if world.hints == Hints::Apart {
        world.time.advance_to(until);
        assert_eq!(due(&world).await, [task]);
    }
}

/// A slow sweep postpones only the version that it saw, not later changes.
pub async fn stale_postponement_does_not_hide_a_change(world: World) {
    let seen = world.insert(sample::task(1, world.now())).await;
    let running = world.claim(&seen).await;
    world.backend.store.postpone(&seen, world.now() + Duration::from_hours(10)).await.unwrap();
    assert_eq!(world.get(&seen).await, running);
    world.time.advance(Duration::from_mins(10));
    assert_eq!(due(&world).await, [running]);
}
