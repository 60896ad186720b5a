//! What starts through a limited endpoint cost besides, and how many of them one flow can grant.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use nobat_aws::meter::Units;
use nobat_core::flow::{BreakerPolicy, Flow, FlowName, FlowOf, Flows, Kept, Limits, Pace, Report, Verdict, Written};
use nobat_core::name::Tenant;
use nobat_core::ports::StoreError;
use nobat_core::task::Turn;
use nobat_core::time::Timestamp;
use nobat_worker::gate::{Entry, Gate, Limited, Passes};

use crate::conformance::RETENTION;
use crate::cost::stage::Stage;
use crate::model;
use crate::sample;
use crate::simulation::dice::Dice;
use crate::simulation::executor::{Executor, Step};
use crate::time::Time;

/// What so many starts used of their flow's item, by how many came at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Starts {
    /// What the endpoint was limited by.
    pub limits: &'static str,
    /// One after the other.
    pub alone: Units,
    /// [`AT_ONCE`] at a time.
    pub at_once: Units,
}

/// What one flow key came to that as many as possible started through.
#[derive(Clone, Copy, Debug)]
pub struct Heat {
    /// How many processes did, [`IN_A_PROCESS`] at a time each.
    pub processes: u32,
    /// How many started in a second.
    pub starts: u32,
    /// How many writes were tried in a second, the refused ones included.
    pub writes: u32,
    /// How many in a second were told that it is too much, and held.
    pub turned_away: u32,
}

/// How many starts are counted.
pub const COUNT: usize = 1_000;
/// How many come at the same time, where they do.
pub const AT_ONCE: usize = 64;
/// How many one process starts at a time: as many messages as Lambda hands to a worker.
pub const IN_A_PROCESS: usize = 10;
/// How long it takes to the table, and how long back, at least and at most, in milliseconds.
const WAY: (u64, u64) = (2, 4);
/// How long a call takes on the average.
pub const CALL: Duration = Duration::from_millis(WAY.0 + WAY.1);
/// How long a task takes.
pub const WORK: Duration = Duration::from_millis(100);
/// How long the flow is used.
const LENGTH: Duration = Duration::from_secs(30);

/// What is counted on the emulator.
pub async fn starts() -> Vec<Starts> {
    let pace = Some(pace(1_000));
    let breaker = Some(BreakerPolicy::default());
    let parallelism = NonZeroU32::new(100);
    let mut all = Vec::new();
    for (name, limits) in [
        ("a breaker, as every endpoint has", Limits { breaker, ..Limits::default() }),
        ("`rate`, and no breaker", Limits { pace, ..Limits::default() }),
        ("`rate` and a breaker", Limits { pace, breaker, ..Limits::default() }),
        ("`rate`, `parallelism` and a breaker", Limits { pace, breaker, parallelism }),
    ] {
        all.push(Starts { limits: name, alone: count(limits, 1).await, at_once: count(limits, AT_ONCE).await });
    }
    all
}

async fn count(limits: Limits, at_once: usize) -> Units {
    let stage = Stage::set().await;
    let gate = Gate::new(Arc::clone(&stage.backend.flows), stage.time.clock(), Arc::new(Dice::seeded(1)));
    let flow = [limited(FlowOf::Endpoint(sample::name("billing")), limits)];
    let left = AtomicU32::new(u32::try_from(COUNT).expect("a number"));
    join_all((0..at_once).map(|_| async {
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            start(&gate, &flow).await.expect("a flow that answers");
        }
    }))
    .await;
    let reading = stage.reading();
    assert_eq!(reading.unknown(), 0, "{reading:#?}");
    reading.units()
}

/// Starts a task and ends it, as one that takes no time.
async fn start(gate: &Gate, flow: &[Limited]) -> Result<(), StoreError> {
    match gate.enter(flow, &Turn::default(), Passes::default()).await? {
        Entry::Go(passes) => {
            gate.leave(passes, &Report { verdict: Verdict::Good, took: Duration::ZERO, pause_until: None }, None).await;
            Ok(())
        }
        Entry::Wait { wait, .. } => panic!("{wait:?}"),
    }
}

fn limited(of: FlowOf, limits: Limits) -> Limited {
    Limited { name: FlowName { tenant: Tenant::default(), of }, limits }
}

fn pace(rate: u32) -> Pace {
    let rate = NonZeroU32::new(rate).expect("a rate");
    Pace { rate, period: Duration::from_secs(1), burst: rate }
}

/// How many starts one flow key grants, in virtual time.
///
/// In a thread of its own: inside a runtime, whoever steps aside for others is woken by that runtime, which waits for this.
pub fn heat() -> Vec<Heat> {
    std::thread::spawn(|| [1, 5, 10, 20, 40].map(use_up).into()).join().expect("a run that goes well")
}

fn use_up(processes: u32) -> Heat {
    let time = Time::at(sample::start());
    let far = Arc::new(Far {
        inner: model::backend(&time, RETENTION).flows,
        time: Arc::clone(&time),
        dice: Dice::seeded(3),
        writes: AtomicU32::new(0),
    });
    let counts: Arc<[AtomicU32; 2]> = Arc::default();
    let mut executor = Executor::new(Arc::clone(&time));
    for process in 0..processes {
        let gate = Arc::new(Gate::new(far.clone(), time.clock(), Arc::new(Dice::seeded(u64::from(process) + 1))));
        let (counts, time) = (Arc::clone(&counts), Arc::clone(&time));
        executor.add(format!("process {process}"), move || {
            let (gate, counts, time) = (Arc::clone(&gate), Arc::clone(&counts), Arc::clone(&time));
            Box::pin(async move {
                // More than anybody gets.
                let flow = [limited(FlowOf::Key(sample::name("hot")), Limits { pace: Some(pace(1_000_000)), ..Limits::default() })];
                join_all((0..IN_A_PROCESS).map(|_| async {
                    loop {
                        let is_refused = start(&gate, &flow).await.is_err();
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
    let a_second = |count: u32| count / u32::try_from(LENGTH.as_secs()).expect("seconds");
    Heat {
        processes,
        starts: a_second(counts[0].load(Ordering::Relaxed)),
        writes: a_second(far.writes.load(Ordering::Relaxed)),
        turned_away: a_second(counts[1].load(Ordering::Relaxed)),
    }
}

/// How long a task is held whose flow could not be asked.
const HELD: Duration = Duration::from_secs(10);

/// Flows that are some way off.
struct Far {
    inner: Arc<dyn Flows>,
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
impl Flows for Far {
    async fn read(&self, name: &FlowName) -> Result<Kept, StoreError> {
        self.travel().await;
        let kept = self.inner.read(name).await;
        self.travel().await;
        kept
    }

    async fn write(&self, name: &FlowName, flow: &Flow, over: u64, now: Timestamp) -> Result<Written, StoreError> {
        self.travel().await;
        self.writes.fetch_add(1, Ordering::Relaxed);
        let written = self.inner.write(name, flow, over, now).await;
        self.travel().await;
        written
    }
}
