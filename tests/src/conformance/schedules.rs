//! Schedules: tasks at planned times.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nobat_core::auth::audit::{Action, Actor, Entry};
use nobat_core::config::schedule::Schedule;
use nobat_core::ports::config_store::RecordResult;
use nobat_core::ports::{Clock, ListQuery};
use nobat_core::schedules::advance::{Missed, Overlap, Rules, ScheduleState};
use nobat_core::schedules::timing::Timing;
use nobat_core::service::config_cache::{ConfigCache, ConfigEpoch};
use nobat_core::service::schedules::{Schedules, Tick, stored_state, task_key};
use nobat_core::task::lifecycle::Event;
use nobat_core::task::{State, Task};
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;

use super::World;
use crate::conformance::explain::Any;
use crate::sample;

fn schedule(world: &World, version: u64) -> Schedule {
    let timing = Timing::Every(Duration::from_secs(10));
    Schedule {
        rules: Rules { timing, overlap: Overlap::Allow, missed: Missed::All },
        jitter: Duration::ZERO,
        task: sample::json(r#"{"kind":"mail"}"#),
        paused: false,
        state: ScheduleState::new(world.now()),
        incarnation: 7,
        created_at: sample::start(),
        version,
    }
}

fn name() -> Name {
    sample::name("report")
}

/// Writes the schedule together with the task that runs it, and returns the task.
async fn put(world: &World, config_cache: &ConfigCache, schedule: &Schedule) -> Task {
    let task = schedules(world, config_cache).runner(&Tenant::default(), &name(), schedule).unwrap();
    let entry = Entry {
        tenant: Tenant::default(),
        at: world.now(),
        actor: Actor::Operator,
        action: Action::ScheduleChanged,
        target: "report".to_owned(),
        mark: schedule.version,
    };
    let records = vec![schedule.record(&Tenant::default(), &name())];
    let written = world.backend.configure(records, vec![task.clone()], entry, world.now()).await.unwrap();
    assert_eq!(written, RecordResult::Done);
    task
}

fn cache(world: &World) -> ConfigCache {
    ConfigCache::new(Arc::clone(&world.backend.config), world.time.clock(), ConfigEpoch::default())
}

fn schedules<'a>(world: &'a World, config_cache: &'a ConfigCache) -> Schedules<'a> {
    Schedules {
        backend: &world.backend,
        config_cache,
        kinds: &Any,
        max_timeout: Duration::from_mins(1),
        clock: &StoppedClock,
        now: world.now(),
    }
}

/// Clock for code that does not wait.
struct StoppedClock;

#[async_trait]
impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        sample::start()
    }

    async fn sleep(&self, _duration: Duration) {}
}

async fn mails(world: &World) -> Vec<Task> {
    let query = ListQuery { kind: Some(sample::name("mail")), ..ListQuery::all(Tenant::default(), 100) };
    world.backend.store.list(&query, world.now()).await.unwrap().tasks
}

/// Each planned time creates one task, however often its decision is repeated. The state survives from one
/// planned time to the next.
pub async fn planned_time_creates_one_task(world: World) {
    let config_cache = cache(&world);
    let mut task = put(&world, &config_cache, &schedule(&world, 1)).await;
    for count in 1..=3 {
        world.time.advance(Duration::from_secs(10));
        let claimed = world.claim(&task).await;
        // A worker that dies after the tasks were stored repeats the decision.
        for _ in 0..2 {
            let tick = schedules(&world, &config_cache).tick(&claimed).await.unwrap();
            let Tick::Continue(until, progress) = tick else { panic!("{tick:?}") };
            assert!(world.now() < until && until <= world.now() + Duration::from_secs(10));
            assert_eq!(mails(&world).await.len(), count);
            task = Task { progress: Some(progress), due_at: until, ..claimed.clone() };
        }
        let (until, progress) = (task.due_at, task.progress.clone().unwrap());
        task = world.bring(&claimed, Event::Reschedule { token: claimed.token, until, progress }).await;
        assert_eq!(stored_state(&world.get(&task).await).unwrap().unwrap().decisions.len(), count);
    }
    assert_eq!((task.attempt, task.attempts.len()), (0, 0), "no attempt is counted");
}

/// A changed schedule has a new task. The earlier one ends at its next planned time and creates nothing.
pub async fn changed_schedule_ends_its_earlier_task(world: World) {
    let config_cache = cache(&world);
    let first = put(&world, &config_cache, &schedule(&world, 1)).await;
    let changed = schedule(&world, 2);
    let second = put(&world, &config_cache, &changed).await;
    assert_eq!(second.key(), task_key(&Tenant::default(), &name(), &changed));
    world.time.advance(Duration::from_secs(10));
    let claimed = world.claim(&first).await;
    let tick = schedules(&world, &config_cache).tick(&claimed).await.unwrap();
    assert!(matches!(tick, Tick::End(_)), "{tick:?}");
    assert!(mails(&world).await.is_empty());
    assert!(matches!(world.get(&second).await.state, State::Waiting(_)));
}
