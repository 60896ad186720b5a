//! Claims of a worker.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join;
use nobat_core::ports::ClaimResult;
use nobat_core::task::lifecycle::{Event, Retry, TransitionError, transition};
use nobat_core::task::{Task, TaskOptions};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::intervals::LEASE;

use super::{World, fail, succeed};
use crate::sample;

/// The store decides on claims by itself, and must decide as the core does: same answer, same task.
pub async fn agrees_with_the_lifecycle_on_every_state(world: World) {
    let tasks = in_every_state(&world).await;
    world.time.advance(Duration::from_secs(30));
    let (now, until) = (world.now(), world.now() + LEASE);
    let mut verdicts = BTreeSet::new();
    for task in tasks {
        let expected = transition(task.clone(), Event::Claim { until }, now);
        match (world.backend.store.claim(&task.key(), until, now).await.unwrap(), expected) {
            (ClaimResult::Granted(granted), Ok(change)) => {
                assert_eq!(granted, change.task);
                assert_eq!(world.get(&task).await, granted);
                verdicts.insert("granted".to_owned());
            }
            (ClaimResult::Refused(refused, found), Err(expected)) => {
                assert_eq!((refused, &found), (expected, &task));
                assert_eq!(world.get(&task).await, task, "a refused claim writes nothing");
                verdicts.insert(refused.to_string());
            }
            (claim, expected) => panic!("{claim:?}, not {expected:?}"),
        }
    }
    let refusals = [
        TransitionError::Ended,
        TransitionError::Running,
        TransitionError::PastDeadline,
        TransitionError::NotDue,
    ]
    .map(|refused| refused.to_string());
    assert_eq!(
        verdicts,
        refusals.into_iter().chain(["granted".to_owned()]).collect(),
        "every refusal occurs"
    );
}

/// Returns tasks in every state that a claim can meet 30 seconds from now.
async fn in_every_state(world: &World) -> Vec<Task> {
    let now = world.now();
    let new = |number| sample::with_attempts(number, 3, now);
    let due_in = |seconds, task| Task { due_at: now + Duration::from_secs(seconds), ..task };
    let until = |seconds, mut task: Task| {
        task.options =
            Box::new(TaskOptions { expires_at: Some(now + Duration::from_secs(seconds)), ..*task.options });
        task
    };
    let rest = |task: &Task, reason, seconds| Event::Hold {
        token: task.token,
        reason,
        until: now + Duration::from_secs(seconds),
        reserved: None.into(),
    };
    let mut tasks = world
        .insert_all(vec![
            new(1),
            due_in(30, new(2)),
            Task { due_at: now + Duration::from_millis(30_001), ..new(3) },
            due_in(3_600, new(4)),
            until(31, new(5)),
            until(30, new(6)),
            until(10, new(7)),
            until(10, due_in(3_600, new(8))),
        ])
        .await;
    let mut running = Vec::new();
    for number in 10..22 {
        running.push(world.claim(&world.insert(new(number)).await).await);
    }
    let [
        retrying,
        retrying_later,
        held,
        held_later,
        gathered,
        long_dead,
        asked,
        succeeded,
        failed,
        canceled,
        released,
        replayed,
    ] = &running[..]
    else {
        unreachable!("12 tasks are running")
    };
    tasks.extend([
        world.bring(retrying, fail(retrying, Retry::Backoff)).await,
        world.bring(retrying_later, fail(retrying_later, Retry::After(Duration::from_hours(1)))).await,
        world.bring(held, rest(held, HeldReason::NoHandler, 30)).await,
        world.bring(held_later, rest(held_later, HeldReason::NoHandler, 31)).await,
        world.bring(gathered, rest(gathered, HeldReason::Batching, 3_600)).await,
        long_dead.clone(),
        world.bring(asked, Event::Cancel).await,
        world.bring(succeeded, succeed(succeeded)).await,
        world.bring(failed, fail(failed, Retry::Never)).await,
        world.bring(canceled, Event::Stop { token: canceled.token }).await,
        world.bring(released, Event::Release { token: released.token }).await,
    ]);
    let ended = world.bring(replayed, succeed(replayed)).await;
    tasks.push(
        world
            .bring(
                &ended,
                Event::Replay { key: nobat_core::task::lifecycle::ReplayKey::New, generation: None },
            )
            .await,
    );
    tasks
}

/// A missing task cannot be claimed.
pub async fn missing_task_is_not_claimed(world: World) {
    let task = sample::task(1, world.now());
    assert!(matches!(
        world.backend.store.claim(&task.key(), world.now() + LEASE, world.now()).await.unwrap(),
        ClaimResult::Missing
    ));
}

/// Two concurrent claims of a task: one is granted, the other is refused because the task runs.
pub async fn grants_one_of_two_concurrent_claims(world: World) {
    for number in 0..20 {
        let name = world.insert(sample::task(number, world.now())).await.key();
        let claim = || world.backend.store.claim(&name, world.now() + LEASE, world.now());
        match join(claim(), claim()).await {
            (
                Ok(ClaimResult::Granted(granted)),
                Ok(ClaimResult::Refused(TransitionError::Running, found)),
            )
            | (
                Ok(ClaimResult::Refused(TransitionError::Running, found)),
                Ok(ClaimResult::Granted(granted)),
            ) => assert_eq!(granted, found),
            other => panic!("{other:?}"),
        }
    }
}

/// Each claim of a task gets a new token, greater by one than the last.
pub async fn grants_each_token_once(world: World) {
    let mut task = world.insert(sample::with_attempts(1, 5, world.now())).await;
    for token in 1..=5 {
        let running = world.claim(&task).await;
        assert_eq!(running.token, token);
        task = world.bring(&running, Event::Release { token }).await;
    }
}
