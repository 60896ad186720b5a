//! Inserts of tasks.

use nobat_core::json::Json;
use nobat_core::ports::InsertResult;
use nobat_core::task::Task;

use super::World;
use crate::sample;

/// A task is read back as given, in every field.
pub async fn reads_back_bit_for_bit(world: World) {
    let now = world.now();
    for task in [sample::task(1, now), sample::elaborate(2, now), sample::listed(3, now)] {
        let inserted = world.insert(task.clone()).await;
        assert_eq!(inserted, task);
        let read = world.get(&task).await;
        assert_eq!(read, task);
        assert_eq!(read.payload.get(), task.payload.get());
    }
}

/// A second task of the same name is not written. The answer is the stored task in its present state.
pub async fn existing_id_returns_the_stored_task(world: World) {
    let now = world.now();
    let first = world.insert(sample::elaborate(1, now)).await;
    let first = world.bring(&first, nobat_core::task::lifecycle::Event::Cancel).await;
    let second = Task { payload: Json::null(), ..sample::elaborate(1, now) };
    match world.backend.store.insert(vec![second], now).await.unwrap() {
        InsertResult::Existing(tasks) => assert_eq!(tasks, std::slice::from_ref(&first)),
        created @ InsertResult::Created(_) => panic!("{created:?}"),
    }
    assert_eq!(world.get(&first).await, first);
}

/// If one task of a batch exists already, none is written. Otherwise all are.
pub async fn writes_a_batch_whole_or_not_at_all(world: World) {
    let now = world.now();
    let tasks: Vec<Task> = (0..100).map(|number| sample::task(number, now)).collect();
    let known = world.insert(tasks[57].clone()).await;
    match world.backend.store.insert(tasks.clone(), now).await.unwrap() {
        InsertResult::Existing(existing) => assert_eq!(existing, [known]),
        created @ InsertResult::Created(_) => panic!("{created:?}"),
    }
    for task in tasks.iter().filter(|task| task.id != tasks[57].id) {
        assert_eq!(world.find(&task.key()).await, None);
    }
    let others: Vec<Task> = (100..200).map(|number| sample::task(number, now)).collect();
    assert_eq!(world.insert_all(others.clone()).await, others, "the tasks are in the order of the insert");
    for task in &others {
        assert_eq!(world.get(task).await, *task);
    }
}

/// The same id in two tenants names two tasks.
pub async fn keeps_tenants_apart(world: World) {
    let now = world.now();
    let ours = world.insert(sample::task(1, now)).await;
    let theirs = world
        .insert(Task { tenant: sample::tenant("other"), payload: sample::json("2"), ..sample::task(1, now) })
        .await;
    assert_eq!(ours.id, theirs.id);
    let running = world.claim(&theirs).await;
    assert_eq!(world.get(&ours).await, ours);
    world.bring(&ours, nobat_core::task::lifecycle::Event::Cancel).await;
    assert_eq!(world.get(&theirs).await, running);
}

/// Payloads come back whole through every write, up to the largest webhook. The sizes include those at which
/// stores move payloads elsewhere, or split them.
pub async fn takes_the_largest_payload(world: World) {
    for (number, bytes) in [
        0,
        1,
        1_000,
        1_021,
        1_022,
        1_023,
        1_024,
        4_096,
        65_536,
        256 * 1024 - 2,
        358_398,
        358_399,
        358_400,
        1_500_000,
    ]
    .into_iter()
    .enumerate()
    {
        let payload = sample::json(&format!("\"{}\"", "é".repeat(bytes / 2) + &"x".repeat(bytes % 2)));
        let task = Task { payload, ..sample::task(number as u128, world.now()) };
        world.insert(task.clone()).await;
        assert!(world.get(&task).await == task, "{bytes} bytes");
        let running = world.claim(&task).await;
        assert!(running.payload == task.payload, "{bytes} bytes, claimed");
        let ended = world.bring(&running, super::succeed(&running)).await;
        assert!(ended.payload == task.payload && world.get(&task).await == ended, "{bytes} bytes, ended");
    }
}

/// A name that was never inserted is not found.
pub async fn missing_task_is_not_found(world: World) {
    world.insert(sample::task(1, world.now())).await;
    assert_eq!(world.find(&sample::task(2, world.now()).key()).await, None);
    let elsewhere = Task { tenant: sample::tenant("other"), ..sample::task(1, world.now()) };
    assert_eq!(world.find(&elsewhere.key()).await, None);
}
