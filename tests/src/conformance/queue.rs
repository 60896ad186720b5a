//! Delivery of tasks to the workers.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use nobat_core::task::Task;
use nobat_core::task::lifecycle::{Event, Retry};

use super::{Hints, World, begin, fail, names, succeed};
use crate::sample::{self, tenant};

/// Receives until a task comes, as workers do.
async fn receive_some(world: &World, max: usize) -> Vec<Task> {
    loop {
        let received = world.receive(max).await;
        if !received.is_empty() {
            return received;
        }
    }
}

/// One call delivers a task that was accepted before it.
pub async fn delivers_a_due_task(world: World) {
    let task = sample::elaborate_due(1, world.now());
    world.accept(vec![task.clone()]).await;
    let received = world.receive(10).await;
    assert_eq!(names(&received), [task.key()]);
    assert_eq!(received[0].token, 1);
    assert_eq!(world.get(&task).await, received[0]);
}

/// A waiting receiver gets a task that was accepted for later, when the task is due.
pub async fn delivers_a_task_when_it_becomes_due(world: World) {
    let task = Task { due_at: world.now() + Duration::from_secs(15), ..sample::task(1, world.now()) };
    world.accept(vec![task.clone()]).await;
    let mut receiving = pin!(receive_some(&world, 10));
    assert!(begin(&mut receiving).await.is_none());
    world.time.advance(Duration::from_secs(15));
    assert_eq!(names(&receiving.await), [task.key()]);
}

/// A waiting receiver gets a task that is accepted meanwhile.
pub async fn delivers_a_task_inserted_while_waiting(world: World) {
    let mut receiving = pin!(receive_some(&world, 10));
    assert!(begin(&mut receiving).await.is_none());
    let task = sample::task(1, world.now());
    world.accept(vec![task.clone()]).await;
    let received = receiving.await;
    assert_eq!(names(&received), [task.key()]);
    assert_eq!(world.get(&task).await, received[0]);
}

/// Each task is handed to exactly one worker as long as its lease lasts.
pub async fn delivers_each_task_to_one_worker(world: World) {
    let tasks: Vec<Task> = (0..9).map(|number| sample::task(number, world.now())).collect();
    world.accept(tasks.clone()).await;
    let mut taken = Vec::new();
    while taken.len() < tasks.len() {
        taken.extend(names(&receive_some(&world, 2).await));
    }
    let given: BTreeSet<_> = taken.iter().map(|name| name.id).collect();
    assert_eq!(given, tasks.iter().map(|task| task.id).collect());
    assert_eq!(taken.len(), tasks.len());
    world.time.advance(Duration::from_secs(59));
    world.receives_next(sample::task(100, world.now())).await;
}

/// A receive returns at most the requested number of tasks and loses none of the others.
pub async fn delivers_no_more_than_requested(world: World) {
    world.accept((0..10).map(|number| sample::task(number, world.now())).collect()).await;
    let mut taken = 0;
    while taken < 10 {
        let received = receive_some(&world, 3).await.len();
        assert!((1..=3).contains(&received), "{received}");
        taken += received;
    }
    let mut receiving = pin!(receive_some(&world, 2));
    assert!(begin(&mut receiving).await.is_none());
    world.accept((10..15).map(|number| sample::task(number, world.now())).collect()).await;
    let mut taken = receiving.await.len();
    assert!((1..=2).contains(&taken), "{taken}");
    while taken < 5 {
        taken += receive_some(&world, 5).await.len();
    }
    assert_eq!(taken, 5);
}

/// A task is handed over in the millisecond in which it is due, not in the one before.
pub async fn delivers_no_task_before_it_is_due(world: World) {
    let task = Task { due_at: world.now() + Duration::from_mins(1), ..sample::task(1, world.now()) };
    world.accept(vec![task.clone()]).await;
    world.time.advance(Duration::from_millis(59_999));
    world.receives_next(sample::task(2, world.now())).await;
    world.time.advance(Duration::from_millis(1));
    assert_eq!(names(&receive_some(&world, 10).await), [task.key()]);
}

/// A task that a worker releases is handed over again.
pub async fn delivers_a_released_task_again(world: World) {
    let task = sample::task(1, world.now());
    world.accept(vec![task]).await;
    for token in 1..4 {
        let received = receive_some(&world, 10).await.remove(0);
        assert_eq!((received.token, received.attempt), (token, 1));
        world
            .backend
            .apply(&received.key(), Some(received.clone()), Event::Release { token }, world.now())
            .await
            .unwrap();
    }
}

/// A retry is handed over after its delay, a callback at once.
pub async fn delivers_a_retry_and_a_callback(world: World) {
    world.accept(vec![sample::reported(sample::with_attempts(1, 2, world.now()))]).await;
    let first = receive_some(&world, 10).await.remove(0);
    world
        .backend
        .apply(&first.key(), Some(first.clone()), fail(&first, Retry::Backoff), world.now())
        .await
        .unwrap();
    world.time.advance(Duration::from_millis(999));
    world.receives_next(sample::task(2, world.now())).await;
    world.time.advance(Duration::from_millis(1));
    let second = receive_some(&world, 10).await.remove(0);
    assert_eq!((second.id, second.attempt), (first.id, 2));
    world.backend.apply(&second.key(), Some(second.clone()), succeed(&second), world.now()).await.unwrap();
    let callback = receive_some(&world, 10).await.remove(0);
    assert_eq!(callback.options.parent, Some(first.id));
}

/// A dropped receive loses no task, even one that was on its way to it.
pub async fn loses_no_task_when_dropped(world: World) {
    {
        let mut receiving = pin!(receive_some(&world, 10));
        assert!(begin(&mut receiving).await.is_none());
    }
    let task = sample::task(1, world.now());
    world.accept(vec![task.clone()]).await;
    assert_eq!(names(&receive_some(&world, 10).await), [task.key()]);
    let task = sample::task(2, world.now());
    {
        let mut receiving = pin!(receive_some(&world, 10));
        assert!(begin(&mut receiving).await.is_none());
        world.accept(vec![task.clone()]).await;
    }
    assert_eq!(names(&receive_some(&world, 10).await), [task.key()]);
}

/// A task past its deadline is not started. If the backend ends it at once, it writes the same as the sweep.
pub async fn delivers_no_expired_task(world: World) {
    let mut task = Task {
        due_at: world.now() + Duration::from_secs(1),
        ..sample::reported(sample::task(1, world.now()))
    };
    task.options.expires_at = Some(world.now() + Duration::from_secs(2));
    world.accept(vec![task.clone()]).await;
    world.time.advance(Duration::from_secs(2));
    let sentinel = sample::task(2, world.now());
    world.accept(vec![sentinel.clone()]).await;
    let mut received = Vec::new();
    while !received.contains(&sentinel.key()) {
        received.extend(names(&receive_some(&world, 10).await));
    }
    assert!(!received.contains(&task.key()));
    let expected = world.change(&task, Event::Expire);
    let found = world.get(&task).await;
    if found != task {
        assert_eq!(found, expected.task);
        let callback = expected.callback.unwrap();
        assert!(world.find(&callback.key()).await.is_some());
    }
}

/// A tenant with many tasks does not make other tenants wait for all of them. A separate queue of hints
/// decides this by itself.
pub async fn delivers_tasks_of_every_tenant(world: World) {
    if world.hints == Hints::Apart {
        return;
    }
    let task = |number, of: &str| Task { tenant: tenant(of), ..sample::task(number, world.now()) };
    world.accept((1..=100).map(|number| task(number, "busy")).collect()).await;
    for (number, of) in [(101, "b"), (102, "c")] {
        world.accept(vec![task(number, of)]).await;
    }
    let mut tenants: Vec<String> =
        world.receive(6).await.iter().map(|task| task.tenant.to_string()).collect();
    tenants.sort_unstable();
    assert_eq!(
        tenants,
        ["b", "busy", "busy", "busy", "busy", "c"],
        "the busy tenant gets the remaining room"
    );
    world.accept(vec![task(103, "b")]).await;
    assert_eq!(world.receive(1).await[0].tenant, tenant("b"), "the other tenant is next");
}
