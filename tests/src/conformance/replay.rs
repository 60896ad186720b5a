//! Repeated replays.

use futures_util::future::join_all;
use nobat_core::auth::audit::{Action, Actor, Entry};
use nobat_core::service::backend::{Applied, ApplyError};
use nobat_core::task::lifecycle::{Event, ReplayKey, TransitionError};
use nobat_core::task::{KeyedRequest, Task};

use super::World;
use crate::sample;

/// Only one of eight replays that name the same generation starts the next generation, even if that ends
/// before the others arrive.
pub async fn same_generation_is_replayed_once(world: World) {
    let task = ended(&world, 1).await;
    let outcomes = join_all((0..8).map(async |mark| {
        let outcome = replay(&world, &task, Some(1), None, mark).await;
        if outcome.is_ok() {
            world.backend.apply(&task.key(), None, Event::Cancel, world.now()).await.unwrap();
        }
        outcome
    }));
    let outcomes = outcomes.await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    let is_expected = |outcome: &Result<Applied, ApplyError>| match outcome {
        Ok(Applied::Done(task)) => task.generation == 2,
        Ok(Applied::Repeated(_)) => false,
        Err(error) => matches!(error, ApplyError::Refused(TransitionError::OtherGeneration(2))),
    };
    assert!(outcomes.iter().all(is_expected), "{outcomes:?}");
    assert_eq!(world.get(&task).await.generation, 2);
    assert_eq!(done(replay(&world, &task, Some(2), None, 9).await).generation, 3);
}

/// A replay with an idempotency key is carried out once, even after the generation that it started has ended.
pub async fn carries_out_a_request_once(world: World) {
    let (task, request) = (ended(&world, 1).await, sample::request(1));
    let outcomes = join_all((0..4).map(|mark| replay(&world, &task, None, Some(request), mark))).await;
    let is_repeated = |outcome: &Result<Applied, ApplyError>| match outcome {
        Ok(Applied::Repeated(task)) => task.generation == 2 && task.requests == [request],
        _ => false,
    };
    assert_eq!(outcomes.iter().filter(|outcome| is_repeated(outcome)).count(), 3, "{outcomes:?}");
    world.bring(&world.get(&task).await, Event::Cancel).await;
    assert!(is_repeated(&replay(&world, &task, None, Some(request), 5).await));
    let other_body = KeyedRequest { body: [9; 8], ..request };
    assert!(matches!(
        replay(&world, &task, None, Some(other_body), 6).await,
        Err(ApplyError::Refused(TransitionError::KeyReused))
    ));
    assert_eq!(done(replay(&world, &task, None, Some(sample::request(2)), 7).await).generation, 3);
}

/// A task remembers its newest `KEPT_REQUESTS` requests and forgets the oldest first.
pub async fn remembers_a_bounded_number_of_requests(world: World) {
    let task = ended(&world, 1).await;
    for number in 0..=u8::try_from(Task::KEPT_REQUESTS).unwrap() {
        let replayed = done(replay(&world, &task, None, Some(sample::request(number)), number.into()).await);
        world.bring(&replayed, Event::Cancel).await;
    }
    let found = world.get(&task).await;
    assert_eq!(found.requests.len(), Task::KEPT_REQUESTS);
    assert_eq!((found.requests[0], found.earlier(sample::request(0))), (sample::request(1), None));
}

fn done(outcome: Result<Applied, ApplyError>) -> Task {
    match outcome {
        Ok(Applied::Done(task)) => task,
        other => panic!("{other:?}"),
    }
}

async fn ended(world: &World, number: u128) -> Task {
    let task = world.insert(sample::task(number, world.now())).await;
    world.bring(&task, Event::Cancel).await
}

async fn replay(
    world: &World,
    task: &Task,
    generation: Option<u32>,
    request: Option<KeyedRequest>,
    mark: u64,
) -> Result<Applied, ApplyError> {
    let entry = Entry {
        tenant: task.tenant.clone(),
        at: world.now(),
        actor: Actor::Operator,
        action: Action::TaskReplayed,
        target: task.id.to_string(),
        mark,
    };
    let event = Event::Replay { key: ReplayKey::Same, generation };
    world.backend.apply_on_record(&task.key(), None, event, entry, request, world.now()).await
}
