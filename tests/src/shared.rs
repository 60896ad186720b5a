//! Limit shared by many processes: the real engines on a real store, in virtual time, with many more tasks
//! than the limit allows.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use nobat_core::auth::audit::{Action, Actor, Entry};
use nobat_core::config::queue::QueueConfig;
use nobat_core::config::record::RecordKind;
use nobat_core::limits::{Limits, RateLimit};
use nobat_core::ports::config_store::RecordResult;
use nobat_core::ports::{Clock, InsertResult};
use nobat_core::service::backend::Backend;
use nobat_core::service::config_cache::ConfigEpoch;
use nobat_core::task::{Task, TaskOptions};
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use nobat_worker::execution::runner::Runner;
use nobat_worker::handler::Handler;
use nobat_worker::handler::context::TaskContext;
use nobat_worker::handler::failure::Failure;
use nobat_worker::handler::registry::Handlers;
use nobat_worker::maintenance::sweeper::Sweeper;
use serde_json::Value;

use crate::sample;
use crate::serve::serve;
use crate::simulation::executor::{Executor, Step};
use crate::simulation::rng::Dice;
use crate::slow::Slow;
use crate::time::{MachineClock, Time};

/// Number of workers in all. Each runs one task at a time.
pub const WORKERS: usize = 64;
/// Maximum starts per second.
pub const RATE: u32 = 50;
/// Maximum number of running tasks.
pub const CONCURRENCY: u32 = 4;
/// Limit key of all tasks.
const KEY: &str = "partner";
/// Number of tasks in one insert.
const BATCH: usize = 50;

/// Measurements.
#[derive(Debug)]
pub struct Seen {
    /// Number of starts.
    pub starts: usize,
    /// Maximum number of starts in any second.
    pub most_in_a_second: usize,
    /// Maximum number of tasks that ran at once.
    pub most_at_once: usize,
}

struct Stage {
    time: Arc<Time>,
    clock: Arc<MachineClock>,
    dice: Arc<Dice>,
    starts: Mutex<Vec<Timestamp>>,
    running: AtomicUsize,
    most_at_once: AtomicUsize,
}

struct Work(Arc<Stage>);

impl Handler for Work {
    const KIND: &'static str = "work";
    type Input = Value;
    type Output = ();

    async fn run(&self, _: Value, _: &TaskContext) -> Result<(), Failure> {
        let stage = &self.0;
        stage.starts.lock().expect("the lock is not poisoned").push(stage.time.now());
        let running = stage.running.fetch_add(1, Ordering::Relaxed) + 1;
        stage.most_at_once.fetch_max(running, Ordering::Relaxed);
        stage.clock.sleep(Duration::from_millis(stage.dice.between(20, 49))).await;
        stage.running.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Processes that share the limit, and duration of the run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of processes that the workers are divided into.
    pub processes: usize,
    /// Duration of a store call.
    pub latency: Duration,
    /// Number of tasks that wait from the beginning.
    pub tasks: usize,
    /// Duration of the run.
    pub lasts: Duration,
}

/// Runs tasks with a shared limit on an empty backend, and measures their starts.
pub fn play(time: &Arc<Time>, backend: &Backend, plan: Plan) -> Seen {
    let Plan { processes, latency, tasks, lasts } = plan;
    let stage = Arc::new(Stage {
        time: Arc::clone(time),
        clock: time.clock(),
        dice: Arc::new(Dice::seeded(1)),
        starts: Mutex::default(),
        running: AtomicUsize::new(0),
        most_at_once: AtomicUsize::new(0),
    });
    let begun = time.now();
    write_limits(backend, begun);
    for first in (0..tasks).step_by(BATCH) {
        let tasks = (first..tasks.min(first + BATCH)).map(|number| task(number, begun)).collect();
        let inserted = backend.accept(tasks, begun).now_or_never().expect("the store answers at once");
        assert!(matches!(inserted, Ok(InsertResult::Created(_))), "{inserted:?}");
    }
    let slow = Slow::backend(backend, time, latency, None);
    let mut executor = Executor::new(Arc::clone(time));
    for process in 0..processes {
        let (stage, backend) = (Arc::clone(&stage), slow.clone());
        executor.add(format!("process {process}"), move || {
            let (clock, dice): (Arc<dyn Clock>, _) = (stage.clock.clone(), stage.dice.clone());
            let handlers = Handlers::new().with(Work(Arc::clone(&stage)));
            let runner = Runner::new(backend.clone(), handlers, clock, dice, ConfigEpoch::default());
            Box::pin(async move { serve(&runner, WORKERS / processes).await })
        });
    }
    let (staged, shared) = (Arc::clone(&stage), slow);
    executor.add("sweeper".to_owned(), move || {
        let (stage, sweeper) =
            (Arc::clone(&staged), Sweeper { backend: shared.clone(), random: staged.dice.clone() });
        Box::pin(async move {
            loop {
                stage.clock.sleep(Duration::from_mins(1)).await;
                sweeper.run_once(stage.time.now()).await.expect("the store answers");
            }
        })
    });
    while time.now() < begun + lasts {
        match executor.step(&stage.dice) {
            Step::Acted(_) | Step::TimePassed => {}
            step => panic!("{step:?} at {}", time.now()),
        }
    }
    let starts = stage.starts.lock().expect("the lock is not poisoned");
    Seen {
        starts: starts.len(),
        // A start follows its permit by some store calls, and their number varies by up to one.
        most_in_a_second: most_within(&starts, Duration::from_secs(1).saturating_sub(latency * 4)),
        most_at_once: stage.most_at_once.load(Ordering::Relaxed),
    }
}

/// Returns the maximum number of starts in any interval of this length.
fn most_within(starts: &[Timestamp], length: Duration) -> usize {
    let within = |(place, start): (usize, &Timestamp)| {
        starts[place..].iter().take_while(|later| later.since(*start) < length).count()
    };
    starts.iter().enumerate().map(within).max().unwrap_or(0)
}

fn task(number: usize, now: Timestamp) -> Task {
    let settings = TaskOptions { limit_key: Some(sample::name(KEY)), ..TaskOptions::default() };
    Task {
        kind: sample::name(Work::KIND),
        options: Box::new(settings),
        ..sample::task(u128::try_from(number).expect("the number fits in a u128"), now)
    }
}

fn write_limits(backend: &Backend, now: Timestamp) {
    let count = |count| NonZeroU32::new(count).expect("the count is positive");
    let rate_limit = RateLimit { rate: count(RATE), period: Duration::from_secs(1), burst: count(1) };
    let limits = Limits { rate: Some(rate_limit), concurrency: Some(count(CONCURRENCY)), breaker: None };
    let tenant = Tenant::default();
    let record = QueueConfig { limits, version: 1, ..QueueConfig::default() }
        .record(QueueConfig::record_name(&tenant, RecordKind::LimitKey, &sample::name(KEY)));
    let (actor, action) = (Actor::Operator, Action::LimitsChanged);
    let entry = Entry { tenant, at: now, actor, action, target: KEY.to_owned(), mark: 0 };
    let written = backend.config.write(vec![record], entry).now_or_never();
    assert!(matches!(written, Some(Ok(RecordResult::Done))), "{written:?}");
}
