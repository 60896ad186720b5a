//! Extra cost of starts through a limited endpoint, and number of starts that one limit key can grant.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use nobat_aws::meter::Units;
use nobat_core::limits::{
    BreakerPolicy, CallHealth, CallReport, LimitScope, LimiterKey, LimiterState, Limits, RateLimit,
};
use nobat_core::ports::StoreError;
use nobat_core::ports::limiter_store::{LimiterStore, VersionedState, WriteResult};
use nobat_core::task::HoldState;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use nobat_worker::admission::limiter::{Entry, Limiter, Permits, ScopedLimits};

use crate::conformance::RETENTION;
use crate::cost::context::Stage;
use crate::simulation::executor::{Executor, Step};
use crate::simulation::rng::Dice;
use crate::time::Time;
use crate::{model, sample};

/// Usage of the limiter's item by [`COUNT`] starts, by the number of concurrent starts.
#[derive(Clone, Copy, Debug)]
pub struct Starts {
    /// Limits of the endpoint.
    pub limits: &'static str,
    /// Usage by one start after another.
    pub alone: Units,
    /// Usage by [`AT_ONCE`] concurrent starts.
    pub at_once: Units,
}

/// Load on one limit key through which as many tasks as possible start.
#[derive(Clone, Copy, Debug)]
pub struct Heat {
    /// Number of processes, each with [`IN_A_PROCESS`] tasks at a time.
    pub processes: u32,
    /// Starts per second.
    pub starts: u32,
    /// Attempted writes per second, including refused ones.
    pub writes: u32,
    /// Tasks per second that were held because their limiter was overloaded.
    pub turned_away: u32,
}

/// Number of starts that are counted.
pub const COUNT: usize = 1_000;
/// Number of concurrent starts.
pub const AT_ONCE: usize = 64;
/// Number of tasks that one process starts at a time: as many as messages in a Lambda batch.
pub const IN_A_PROCESS: usize = 10;
/// Minimum and maximum of the one-way latency to the table, in milliseconds.
const WAY: (u64, u64) = (2, 4);
/// Average duration of a call: two ways.
pub const CALL: Duration = Duration::from_millis(WAY.0 + WAY.1);
/// Duration of a task.
pub const WORK: Duration = Duration::from_millis(100);
/// Duration of the load.
const LENGTH: Duration = Duration::from_secs(30);

/// Counts the usage on the emulator.
pub async fn starts() -> Vec<Starts> {
    let rate_limit = Some(rate_limit(1_000));
    let breaker = Some(BreakerPolicy::default());
    let concurrency = NonZeroU32::new(100);
    let mut all = Vec::new();
    for (name, limits) in [
        ("a circuit breaker, as every endpoint has", Limits { breaker, ..Limits::default() }),
        ("`rate`, and no circuit breaker", Limits { rate: rate_limit, ..Limits::default() }),
        ("`rate` and a circuit breaker", Limits { rate: rate_limit, breaker, ..Limits::default() }),
        ("`rate`, `concurrency` and a circuit breaker", Limits { rate: rate_limit, breaker, concurrency }),
    ] {
        all.push(Starts {
            limits: name,
            alone: count(limits, 1).await,
            at_once: count(limits, AT_ONCE).await,
        });
    }
    all
}

async fn count(limits: Limits, at_once: usize) -> Units {
    let stage = Stage::set().await;
    let gate =
        Limiter::new(Arc::clone(&stage.backend.limiters), stage.time.clock(), Arc::new(Dice::seeded(1)));
    let limiter = [limited(LimitScope::Endpoint(sample::name("billing")), limits)];
    let left = AtomicU32::new(u32::try_from(COUNT).expect("the count fits in a u32"));
    join_all((0..at_once).map(|_| async {
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            start(&gate, &limiter).await.expect("the limiter answers");
        }
    }))
    .await;
    let reading = stage.reading();
    assert_eq!(reading.unknown(), 0, "{reading:#?}");
    reading.units()
}

/// Starts a task and completes it at once.
async fn start(gate: &Limiter, limiter: &[ScopedLimits]) -> Result<(), StoreError> {
    match gate.acquire(limiter, &HoldState::default(), Permits::default()).await? {
        Entry::Granted(passes) => {
            gate.complete(
                passes,
                &CallReport { health: CallHealth::Good, took: Duration::ZERO, pause_until: None },
                None,
            )
            .await;
            Ok(())
        }
        Entry::Denied { wait, .. } => panic!("{wait:?}"),
    }
}

fn limited(of: LimitScope, limits: Limits) -> ScopedLimits {
    ScopedLimits { name: LimiterKey { tenant: Tenant::default(), scope: of }, limits }
}

fn rate_limit(rate: u32) -> RateLimit {
    let rate = NonZeroU32::new(rate).expect("the rate is positive");
    RateLimit { rate, period: Duration::from_secs(1), burst: rate }
}

/// Counts the starts that one limit key grants, in virtual time.
///
/// It runs in its own thread. Inside a runtime, a future that yields is woken by that runtime, which in turn
/// waits for this function.
pub fn heat() -> Vec<Heat> {
    std::thread::spawn(|| [1, 5, 10, 20, 40].map(measure_heat).into())
        .join()
        .expect("the measurement does not panic")
}

fn measure_heat(processes: u32) -> Heat {
    let time = Time::at(sample::start());
    let far = Arc::new(Far {
        inner: model::backend(&time, RETENTION).limiters,
        time: Arc::clone(&time),
        dice: Dice::seeded(3),
        writes: AtomicU32::new(0),
    });
    let counts: Arc<[AtomicU32; 2]> = Arc::default();
    let mut executor = Executor::new(Arc::clone(&time));
    for process in 0..processes {
        let gate =
            Arc::new(Limiter::new(far.clone(), time.clock(), Arc::new(Dice::seeded(u64::from(process) + 1))));
        let (counts, time) = (Arc::clone(&counts), Arc::clone(&time));
        executor.add(format!("process {process}"), move || {
            let (gate, counts, time) = (Arc::clone(&gate), Arc::clone(&counts), Arc::clone(&time));
            Box::pin(async move {
                // More than any task can use, so the rate itself never holds a task.
                let limiter = [limited(
                    LimitScope::Key(sample::name("hot")),
                    Limits { rate: Some(rate_limit(1_000_000)), ..Limits::default() },
                )];
                join_all((0..IN_A_PROCESS).map(|_| async {
                    loop {
                        let is_refused = start(&gate, &limiter).await.is_err();
                        counts[usize::from(is_refused)].fetch_add(1, Ordering::Relaxed);
                        let pause = if is_refused { HELD } else { WORK };
                        time.sleep_until(time.now() + pause).await;
                    }
                }))
                .await;
            })
        });
    }
    let dice = Dice::seeded(7);
    while time.now() < sample::start() + LENGTH {
        let step = executor.step(&dice);
        assert!(matches!(step, Step::Acted(_) | Step::TimePassed), "{step:?}");
    }
    let a_second = |count: u32| count / u32::try_from(LENGTH.as_secs()).expect("the length fits in a u32");
    Heat {
        processes,
        starts: a_second(counts[0].load(Ordering::Relaxed)),
        writes: a_second(far.writes.load(Ordering::Relaxed)),
        turned_away: a_second(counts[1].load(Ordering::Relaxed)),
    }
}

/// Delay of a task whose limiter is unavailable.
const HELD: Duration = Duration::from_secs(10);

/// Limiter store with network latency.
struct Far {
    inner: Arc<dyn LimiterStore>,
    time: Arc<Time>,
    dice: Dice,
    writes: AtomicU32,
}

impl Far {
    async fn travel(&self) {
        self.time.sleep_until(self.time.now() + Duration::from_millis(self.dice.between(WAY.0, WAY.1))).await;
    }
}

#[async_trait]
impl LimiterStore for Far {
    async fn read(&self, name: &LimiterKey) -> Result<VersionedState, StoreError> {
        self.travel().await;
        let kept = self.inner.read(name).await;
        self.travel().await;
        kept
    }

    async fn write(
        &self,
        name: &LimiterKey,
        limiter: &LimiterState,
        over: u64,
        now: Timestamp,
    ) -> Result<WriteResult, StoreError> {
        self.travel().await;
        self.writes.fetch_add(1, Ordering::Relaxed);
        let written = self.inner.write(name, limiter, over, now).await;
        self.travel().await;
        written
    }
}
