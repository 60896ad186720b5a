//! Effect of an endpoint that is down: number of its calls, and delay of another endpoint. The real engines
//! run on a real store in virtual time.
//!
//! For half an hour only one endpoint is called, at random times. Then many tasks come for another endpoint,
//! which is down for half an hour and healthy after that. Every store call takes time, so refused tasks delay
//! the others.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nobat_core::auth::audit::{Action, Actor, Entry};
use nobat_core::config::endpoint::{Endpoint, EndpointStatus, ResponsePolicy};
use nobat_core::limits::{BreakerPolicy, Limits, RateLimit};
use nobat_core::ports::config_store::RecordResult;
use nobat_core::ports::{Clock, InsertResult};
use nobat_core::secrets::secret_set::SecretSet;
use nobat_core::service::backend::Backend;
use nobat_core::service::config_cache::ConfigEpoch;
use nobat_core::task::retry::{Exponential, Jitter, RetryPolicy, Schedule};
use nobat_core::task::{Task, TaskOptions};
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use nobat_worker::execution::runner::Runner;
use nobat_worker::handler::Handler;
use nobat_worker::handler::context::TaskContext;
use nobat_worker::handler::failure::Failure;
use nobat_worker::handler::registry::Handlers;
use nobat_worker::maintenance::sweeper::Sweeper;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::sample;
use crate::serve::serve;
use crate::simulation::executor::{Executor, Step};
use crate::simulation::rng::Dice;
use crate::slow::Slow;
use crate::time::{MachineClock, Time};

/// Size of a run and its environment.
pub struct Plan {
    /// Number of tasks for the endpoint that is down.
    pub crowd: usize,
    /// Average interval between tasks for the healthy endpoint.
    pub every: Duration,
    /// Duration of a store call.
    pub latency: Duration,
    /// Interval between sweeps.
    pub sweep: Duration,
    /// Runtime for store calls, if they need one. Each call blocks everything else.
    pub runtime: Option<Handle>,
}

/// Measurements.
#[derive(Debug)]
pub struct Seen {
    /// Calls of the down endpoint while it was down.
    pub calls: usize,
    /// Tasks of the healthy endpoint that were done in each half hour.
    pub done: [usize; 2],
    /// 99th percentile of their waiting time, in each half hour.
    pub p99: [Duration; 2],
    /// Tasks of the down endpoint that were done at the end.
    pub crowd_done: usize,
}

/// Number of tasks that run at a time.
const CONCURRENCY: usize = 64;
/// Duration of each half of a run.
pub const HALF: Duration = Duration::from_mins(30);
/// Maximum time for the remaining tasks afterwards.
const AFTER: Duration = Duration::from_mins(40);
/// Number of tasks in one insert.
const BATCH: usize = 50;
/// Time until the down endpoint answers.
const ANSWER: Duration = Duration::from_millis(20);

/// State shared by the actors: environment and measurements.
struct Stage {
    time: Arc<Time>,
    clock: Arc<MachineClock>,
    dice: Arc<Dice>,
    begun: Timestamp,
    is_down: AtomicBool,
    calls: AtomicUsize,
    crowd_done: AtomicUsize,
    came: Mutex<HashMap<TaskId, Timestamp>>,
    /// Arrival and waiting time of each task of the healthy endpoint.
    waited: Mutex<Vec<(Timestamp, Duration)>>,
}

/// Handler for calls of the endpoint that is down.
struct Ill(Arc<Stage>);

impl Handler for Ill {
    const KIND: &'static str = "ill";
    type Input = Value;
    type Output = ();

    async fn run(&self, _: Value, _: &TaskContext) -> Result<(), Failure> {
        let is_down = self.0.is_down.load(Ordering::Relaxed);
        self.0.calls.fetch_add(usize::from(is_down), Ordering::Relaxed);
        self.0.clock.sleep(ANSWER).await;
        if is_down {
            return Err(Failure::retry("http_503", "the endpoint responded with 503"));
        }
        self.0.crowd_done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Handler for calls of the healthy endpoint.
struct Well(Arc<Stage>);

impl Handler for Well {
    const KIND: &'static str = "well";
    type Input = Value;
    type Output = ();

    async fn run(&self, _: Value, context: &TaskContext) -> Result<(), Failure> {
        if let Some(came) = self.0.came.lock().expect("the lock is not poisoned").remove(&context.name.id) {
            self.0
                .waited
                .lock()
                .expect("the lock is not poisoned")
                .push((came, self.0.time.now().since(came)));
        }
        self.0.clock.sleep(Duration::from_millis(self.0.dice.between(20, 200))).await;
        Ok(())
    }
}

/// Runs the plan on an empty backend that uses this time.
pub fn play(plan: Plan, time: &Arc<Time>, backend: &Backend) -> Seen {
    let stage = Arc::new(Stage {
        time: Arc::clone(time),
        clock: time.clock(),
        dice: Arc::new(Dice::seeded(1)),
        begun: time.now(),
        is_down: AtomicBool::new(false),
        calls: AtomicUsize::new(0),
        crowd_done: AtomicUsize::new(0),
        came: Mutex::default(),
        waited: Mutex::default(),
    });
    let backend = Slow::backend(backend, time, plan.latency, plan.runtime.clone());
    let plan = Arc::new(plan);
    let mut executor = Executor::new(Arc::clone(time));
    let (staged, shared) = (Arc::clone(&stage), backend.clone());
    executor.add("worker".to_owned(), move || Box::pin(work(Arc::clone(&staged), shared.clone())));
    let (staged, shared, planned) = (Arc::clone(&stage), backend.clone(), Arc::clone(&plan));
    executor.add("sweeper".to_owned(), move || {
        Box::pin(sweep(Arc::clone(&staged), shared.clone(), planned.sweep))
    });
    let (staged, planned) = (Arc::clone(&stage), Arc::clone(&plan));
    executor.add("clients".to_owned(), move || {
        Box::pin(submit(Arc::clone(&staged), backend.clone(), Arc::clone(&planned)))
    });
    let end = stage.begun + HALF * 2 + AFTER;
    while time.now() < end && stage.crowd_done.load(Ordering::Relaxed) < plan.crowd {
        match executor.step(&stage.dice) {
            Step::Acted(_) | Step::TimePassed => {}
            step => panic!("{step:?} at {}", time.now()),
        }
    }
    stage.seen()
}

impl Stage {
    fn seen(&self) -> Seen {
        let waited = self.waited.lock().expect("the lock is not poisoned");
        let half = |from: Timestamp| {
            let mut times: Vec<Duration> = waited
                .iter()
                .filter(|(came, _)| (from..from + HALF).contains(came))
                .map(|(_, waited)| *waited)
                .collect();
            times.sort_unstable();
            (times.len(), times[(times.len() * 99).div_ceil(100) - 1])
        };
        let (quiet, outage) = (half(self.begun), half(self.begun + HALF));
        Seen {
            calls: self.calls.load(Ordering::Relaxed),
            done: [quiet.0, outage.0],
            p99: [quiet.1, outage.1],
            crowd_done: self.crowd_done.load(Ordering::Relaxed),
        }
    }
}

/// Runs the worker.
async fn work(stage: Arc<Stage>, backend: Backend) {
    let handlers = Handlers::new().with(Ill(Arc::clone(&stage))).with(Well(Arc::clone(&stage)));
    let runner = Runner::new(
        backend,
        handlers,
        Arc::clone(&stage.clock) as Arc<dyn Clock>,
        stage.dice.clone(),
        ConfigEpoch::default(),
    );
    serve(&runner, CONCURRENCY).await;
}

async fn sweep(stage: Arc<Stage>, backend: Backend, every: Duration) {
    let sweeper = Sweeper { backend, random: stage.dice.clone() };
    loop {
        sweeper.run_until(&*stage.clock, stage.time.now() + every).await.expect("the store answers");
        stage.clock.sleep(every).await;
    }
}

/// Creates both endpoints. Then submits tasks for the healthy endpoint all the time, and the other tasks at
/// half time.
async fn submit(stage: Arc<Stage>, backend: Backend, plan: Arc<Plan>) {
    for kind in [Well::KIND, Ill::KIND] {
        name(&stage, &backend, kind).await;
    }
    let crowd = pin!(async {
        stage.time.sleep_until(stage.begun + HALF).await;
        stage.is_down.store(true, Ordering::Relaxed);
        let tasks: Vec<Task> = (0..plan.crowd).map(|number| task(&stage, Ill::KIND, number)).collect();
        for tasks in tasks.chunks(BATCH) {
            accept(&stage, &backend, tasks.to_vec()).await;
        }
        stage.time.sleep_until(stage.begun + HALF * 2).await;
        stage.is_down.store(false, Ordering::Relaxed);
    });
    let others = pin!(async {
        let most = u64::try_from(plan.every.as_millis() * 2).unwrap_or(u64::MAX);
        let mut number = plan.crowd;
        while stage.time.now() < stage.begun + HALF * 2 {
            stage.clock.sleep(Duration::from_millis(stage.dice.between(1, most))).await;
            number += 1;
            let task = task(&stage, Well::KIND, number);
            stage.came.lock().expect("the lock is not poisoned").insert(task.id, stage.time.now());
            accept(&stage, &backend, vec![task]).await;
        }
    });
    futures_util::future::join(crowd, others).await;
}

async fn accept(stage: &Stage, backend: &Backend, tasks: Vec<Task>) {
    let inserted = backend.accept(tasks, stage.time.now()).await;
    assert!(matches!(inserted, Ok(InsertResult::Created(_))), "{inserted:?}");
}

/// Returns a task of this kind for the endpoint of the same name. Its 50 attempts are more than it needs.
fn task(stage: &Stage, kind: &str, number: usize) -> Task {
    let exponential = Exponential {
        max_attempts: const { NonZeroU32::new(50).unwrap() },
        initial_delay: Duration::from_secs(10),
        multiplier: 1.0,
        max_delay: Duration::from_secs(10),
        jitter: Jitter::None,
    };
    let settings = TaskOptions {
        endpoint: Some(sample::name(kind)),
        retry: RetryPolicy { schedule: Schedule::Exponential(exponential), max_age: None },
        ..TaskOptions::default()
    };
    let plain = sample::task(u128::try_from(number).expect("the number fits in a u128"), stage.time.now());
    Task { kind: sample::name(kind), options: Box::new(settings), ..plain }
}

/// Creates an endpoint of this name with a rate of 100 calls a second and the default circuit breaker.
async fn name(stage: &Stage, backend: &Backend, name: &str) {
    let hundred = const { NonZeroU32::new(100).unwrap() };
    let rate_limit = RateLimit { rate: hundred, period: Duration::from_secs(1), burst: hundred };
    let endpoint = Endpoint {
        url: "https://example.com".parse().expect("the URL is valid"),
        headers: std::collections::BTreeMap::new(),
        secrets: SecretSet::default(),
        timeout: None,
        retry: None,
        answers: ResponsePolicy::default(),
        limits: Limits { rate: Some(rate_limit), concurrency: None, breaker: Some(BreakerPolicy::default()) },
        batch: None,
        status: EndpointStatus::Open,
        authority: None,
        created_at: stage.begun,
        version: 1,
    };
    let tenant = Tenant::default();
    let entry = Entry {
        tenant: tenant.clone(),
        at: stage.begun,
        actor: Actor::Operator,
        action: Action::EndpointChanged,
        target: name.to_owned(),
        mark: stage.dice.below(u64::MAX),
    };
    let written = backend.config.write(vec![endpoint.record(&tenant, &sample::name(name))], entry).await;
    assert!(matches!(written, Ok(RecordResult::Done)), "{written:?}");
}
