//! Lists of tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use nobat_core::ports::ListQuery;
use nobat_core::task::lifecycle::Event;
use nobat_core::task::{Outcome, Status, Task, TaskKey};
use nobat_core::types::name::Tenant;

use super::{World, names, succeed};
use crate::sample::{self, tenant};

fn everything() -> ListQuery {
    ListQuery::all(Tenant::default(), 100)
}

async fn listed(world: &World, query: &ListQuery) -> Vec<TaskKey> {
    names(&world.backend.store.list(query, world.now()).await.unwrap().tasks)
}

/// Inserts one task for each number, a second apart, and returns them newest first.
async fn insert_in_turn(world: &World, numbers: std::ops::Range<u128>) -> Vec<Task> {
    let mut tasks = Vec::new();
    for number in numbers {
        world.time.advance(Duration::from_secs(1));
        tasks.insert(0, world.insert(sample::task(number, world.now())).await);
    }
    tasks
}

/// The list is in reverse order of acceptance. Later changes of a task do not affect the order.
pub async fn shows_the_newest_first(world: World) {
    let tasks = insert_in_turn(&world, 0..10).await;
    let running = world.claim(&tasks[7]).await;
    world.bring(&running, succeed(&running)).await;
    world.insert(Task { tenant: sample::tenant("other"), ..sample::task(50, world.now()) }).await;
    assert_eq!(listed(&world, &everything()).await, names(&tasks));
    assert_eq!(listed(&world, &ListQuery { limit: 3, ..everything() }).await, names(&tasks[..3]));
}

/// Each filter, alone and combined, lets through exactly the matching tasks.
pub async fn filters(world: World) {
    let start = world.now();
    let mut tasks = Vec::new();
    for number in 0..24_u128 {
        let task = Task {
            kind: sample::name(["mail", "sms"][number as usize % 2]),
            queue: sample::name(["fast", "slow", "other"][number as usize % 3]),
            due_at: world.now() + Duration::from_secs(if number % 4 == 3 { 600 } else { 0 }),
            ..sample::task(number, world.now())
        };
        let task = world.insert(task).await;
        let task = match number % 8 {
            0 => world.claim(&task).await,
            1 => world.bring(&task, nobat_core::task::lifecycle::Event::Cancel).await,
            2 => {
                let running = world.claim(&task).await;
                world.bring(&running, super::fail(&running, nobat_core::task::lifecycle::Retry::Never)).await
            }
            _ => task,
        };
        tasks.insert(0, task);
        world.time.advance(Duration::from_millis(1));
    }
    let at = |millis| Some(start + Duration::from_millis(millis));
    let mut queries = vec![
        ListQuery { kind: Some(sample::name("sms")), ..everything() },
        ListQuery { queue: Some(sample::name("slow")), ..everything() },
        ListQuery { created_after: at(5), ..everything() },
        ListQuery { created_before: at(5), ..everything() },
        ListQuery { created_after: at(5), created_before: at(6), ..everything() },
        ListQuery { created_after: at(6), created_before: at(5), ..everything() },
        ListQuery { tenant: sample::tenant("other"), ..everything() },
        ListQuery { kind: Some(sample::name("MAIL")), ..everything() },
    ];
    queries.extend(Status::ALL.map(|status| ListQuery { status: Some(status), ..everything() }));
    queries.extend(Status::ALL.map(|status| ListQuery {
        status: Some(status),
        kind: Some(sample::name("mail")),
        queue: Some(sample::name("fast")),
        created_after: at(3),
        created_before: at(21),
        ..everything()
    }));
    for query in queries {
        let passing: Vec<Task> =
            tasks.iter().filter(|task| query.matches(task, world.now())).cloned().collect();
        assert_eq!(listed(&world, &query).await, names(&passing), "{query:?}");
    }
}

/// The pages show every task once, even while tasks are inserted and changed.
pub async fn pages_show_every_task_once(world: World) {
    let tasks = insert_in_turn(&world, 0..25).await;
    let mut seen: BTreeMap<[u8; 16], u32> = BTreeMap::new();
    let mut query = ListQuery { limit: 4, ..everything() };
    for page in 0..100 {
        let found = world.backend.store.list(&query, world.now()).await.unwrap();
        assert!(found.tasks.len() <= 4);
        found.tasks.iter().for_each(|task| *seen.entry(task.id.to_bytes()).or_default() += 1);
        insert_in_turn(&world, 1_000 + page * 10..1_003 + page * 10).await;
        world.claim(&tasks[page as usize]).await;
        match found.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    assert!(seen.values().all(|times| *times == 1), "no task is shown twice");
    assert!(tasks.iter().all(|task| seen.contains_key(&task.id.to_bytes())), "no task is left out");
}

/// A page scans at most `MAX_SCANNED` tasks, and returns a cursor even if none matches.
pub async fn page_scans_a_bounded_number(world: World) {
    let rare = Task { kind: sample::name("rare"), ..sample::task(0, world.now()) };
    world.insert(rare.clone()).await;
    for batch in 1..=21 {
        world.time.advance(Duration::from_secs(1));
        world
            .insert_all((0..100).map(|number| sample::task(batch * 100 + number, world.now())).collect())
            .await;
    }
    let mut query = ListQuery { kind: Some(rare.kind.clone()), ..everything() };
    let (mut pages, mut found) = (1, Vec::new());
    loop {
        let page = world.backend.store.list(&query, world.now()).await.unwrap();
        found.extend(names(&page.tasks));
        assert_eq!(found.is_empty(), pages * ListQuery::MAX_SCANNED <= 2_100, "page {pages}");
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
        pages += 1;
    }
    assert_eq!((pages, found), (3, vec![rare.key()]));
}

/// A listed task equals the stored one, except that payload, result and attempts may be omitted.
pub async fn listed_task_equals_the_stored_one(world: World) {
    let now = world.now();
    let running = world.claim(&world.insert(sample::elaborate_due(1, now)).await).await;
    let stored =
        [world.bring(&running, succeed(&running)).await, world.insert(sample::elaborate(2, now)).await];
    for stored in stored {
        let status = stored.status(now);
        let query = ListQuery { tenant: stored.tenant.clone(), status: Some(status), ..everything() };
        let mut listed = world.backend.store.list(&query, now).await.unwrap().tasks.remove(0);
        listed = Task {
            payload: stored.payload.clone(),
            result: stored.result.clone(),
            attempts: stored.attempts.clone(),
            ..listed
        };
        assert_eq!(listed, stored);
        assert!(matches!(status, Status::Scheduled | Status::Ended(Outcome::Succeeded)));
    }
}

/// Waiting tasks are counted for each tenant, up to the requested number. Running tasks may be counted; ended
/// ones are not.
pub async fn counts_waiting_tasks(world: World) {
    let (one, other) = (tenant("one"), tenant("other"));
    let task = |number, of: &Tenant| Task { tenant: of.clone(), ..sample::task(number, world.now()) };
    let tasks = world.insert_all((1..=5).map(|number| task(number, &one)).collect()).await;
    world.insert(Task { due_at: world.now() + Duration::from_hours(1), ..task(6, &one) }).await;
    world.insert(task(7, &other)).await;
    let waiting = async |of: &Tenant, at_most| world.backend.store.waiting(of, at_most).await.unwrap();
    assert_eq!((waiting(&one, 100).await, waiting(&one, 3).await, waiting(&other, 100).await), (6, 3, 1));
    world.bring(&tasks[0], Event::Cancel).await;
    assert_eq!((waiting(&one, 100).await, waiting(&tenant("nobody"), 100).await), (5, 0));
}
