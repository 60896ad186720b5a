//! Everything that can go wrong, in an order that a seed decides and a second run repeats.
//!
//! The real engines work on a real store, in virtual time, while calls fail, hang and lose their answers, hints are lost and
//! doubled, and processes die or stand still at any point where they wait. The promises of the design are checked after
//! every step, and once more when everything has come to rest. One seed is one run.

pub mod actors;
pub mod client;
pub mod dice;
pub mod executor;
pub mod faulty;
pub mod handlers;
mod lawful;
pub mod ledger;
pub mod plan;
pub mod sabotage;
pub mod stage;
pub mod verdict;
pub mod witness;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use nobat_core::backend::Backend;
use nobat_core::ports::LEASE;

use crate::conformance::RETENTION;
use crate::model;
use crate::time::{MachineClock, Time};
use executor::{Executor, Step};
use faulty::Faulty;
use plan::Plan;
use sabotage::{Sabotage, sabotaged};
use stage::{Service, Stage};
use witness::Witness;

/// What is put to the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The `SQLite` backend, in memory.
    Sqlite,
    /// A store and a queue that stand apart, as in the cloud.
    Model,
}

/// A broken promise, and how it came about.
#[derive(Debug)]
pub struct Violation {
    /// On which backend.
    pub subject: Subject,
    /// In which run.
    pub seed: u64,
    /// Which promise.
    pub what: String,
    /// The last steps before it was noticed.
    pub trace: Vec<String>,
}

/// What a run came to. Two runs of one seed come to the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many steps were taken.
    pub steps: u64,
    /// How many tasks clients were told are accepted.
    pub accepted: u64,
    /// How many times a handler ran.
    pub executions: u64,
    /// How many times a process died.
    pub crashes: u64,
    /// How much time passed.
    pub passed: Duration,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.accepted += other.accepted;
        self.executions += other.executions;
        self.crashes += other.crashes;
        self.passed += other.passed;
    }
}

/// So many steps into a run things stop going wrong, if the clients are not through before.
const STORM_STEPS: u64 = 30_000;
/// After so many steps the tasks that have not ended are looked at, whether anybody else does or not.
const LOOK_EVERY: u64 = 32;
/// When this many steps and nothing going wrong have not brought everything to rest, something is stuck.
const CALM_STEPS: u64 = 100_000;

/// Makes one run.
pub fn simulate(seed: u64, subject: Subject) -> Result<Summary, Box<Violation>> {
    simulate_with(seed, subject, None)
}

/// Makes one run, on a backend that may have been tampered with.
pub fn simulate_with(seed: u64, subject: Subject, sabotage: Option<Sabotage>) -> Result<Summary, Box<Violation>> {
    let stage = Stage::new(seed, |dice| if dice.per_mille(150) { Plan::calm(dice) } else { Plan::stormy(dice) });
    let clocks = subject.clocks(&stage);
    let backend = subject.backend(&stage.time, &clocks[0]);
    let backend = match sabotage {
        Some(sabotage) => sabotaged(backend, sabotage),
        None => backend,
    };
    let witness = Witness::new(&stage, backend.clone());
    let mut run = Run::new(stage.clone(), witness.clone(), clocks);
    let outcome = run.play().and_then(|()| {
        let summary = run.summary();
        verdict::judge(&stage, &witness, &backend).map(|()| summary)
    });
    outcome.map_err(|what| Box::new(Violation { subject, seed, what, trace: stage.traced() }))
}

impl Subject {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Model];

    /// The clock of each process: a machine's own, or that of the one machine they are all on.
    fn clocks(self, stage: &Stage) -> Vec<Arc<MachineClock>> {
        let processes = stage.plan.workers + 1 + stage.plan.clients;
        match self {
            Self::Sqlite => vec![stage.time.clock(); processes],
            Self::Model => (0..processes).map(|_| stage.time.clock()).collect(),
        }
    }

    fn backend(self, time: &Arc<Time>, clock: &Arc<MachineClock>) -> Backend {
        match self {
            Self::Model => model::backend(time, RETENTION),
            Self::Sqlite => nobat_sqlite::Sqlite::in_memory(RETENTION, clock.clone()).unwrap_or_else(|error| panic!("{error}")).backend(),
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Model => "model",
        }
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|subject| subject.as_str() == word).ok_or_else(|| format!("`{word}` is neither `sqlite` nor `model`"))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "{}", self.what)?;
        let (subject, seed) = (self.subject.as_str(), self.seed);
        write!(f, "seed {seed} on {subject}; again: cargo run -p nobat-tests --bin simulate -- --backend {subject} --seed {seed}")
    }
}

/// One run under way.
struct Run {
    stage: Arc<Stage>,
    witness: Arc<Witness>,
    clocks: Vec<Arc<MachineClock>>,
    executor: Executor,
    steps: u64,
    crashes: u64,
}

impl Run {
    fn new(stage: Arc<Stage>, witness: Arc<Witness>, clocks: Vec<Arc<MachineClock>>) -> Self {
        let mut executor = Executor::new(stage.time.clone());
        let watched = witness.backend();
        let (workers, clients) = (stage.plan.workers, stage.plan.clients);
        for (place, clock) in clocks.iter().take(workers).cloned().enumerate() {
            let (stage, name) = (stage.clone(), format!("worker {place}"));
            let backend = Faulty::backend(&stage, &name, &watched);
            executor.add(name.clone(), move || actors::worker(&stage, name.clone(), place, clock.clone(), backend.clone()));
        }
        let (sweeping, clock, backend) = (stage.clone(), clocks[workers].clone(), Faulty::backend(&stage, "sweeper", &watched));
        executor.add("sweeper".to_owned(), move || actors::sweeper(&sweeping, clock.clone(), backend.clone()));
        for place in 0..clients {
            let (stage, name, clock) = (stage.clone(), format!("client {place}"), clocks[workers + 1 + place].clone());
            let backend = Faulty::backend(&stage, &name, &watched);
            let left = Arc::new(AtomicU32::new(stage.plan.requests));
            executor.add(name.clone(), move || client::client(stage.clone(), name.clone(), clock.clone(), backend.clone(), left.clone()));
        }
        let run = Self { stage, witness, clocks, executor, steps: 0, crashes: 0 };
        (0..run.clocks.len()).for_each(|clock| run.set_clock(clock));
        run
    }

    /// Lets things happen and go wrong until the clients are through; then lets them come to rest.
    fn play(&mut self) -> Result<(), String> {
        while !self.clients_are_through() && self.steps < STORM_STEPS {
            self.step()?;
            self.stir();
        }
        self.stage.end_trouble();
        self.stage.trace("", format_args!("from here on nothing goes wrong any more"));
        let last = self.steps + CALM_STEPS;
        while self.witness.unended() > 0 || !self.clients_are_through() {
            self.step()?;
            if self.steps.is_multiple_of(LOOK_EVERY) {
                self.witness.open_tasks();
            }
            if self.steps > last {
                let open = self.witness.open_tasks();
                return Err(format!("{} tasks do not end, such as {:?}", open.len(), open.first()));
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        match self.executor.step(&self.stage.dice) {
            Step::Acted(actor) => {
                let name = &self.executor.actors()[actor].name;
                if self.stage.ledger().killed.remove(name) {
                    self.crash(actor);
                }
            }
            Step::TimePassed => {}
            Step::Stuck => return Err("nobody has anything to do, and nobody ever will".to_owned()),
            Step::Panicked(actor) => return Err(format!("{} panicked", self.executor.actors()[actor].name)),
        }
        self.stage.violation().map_or(Ok(()), Err)
    }

    /// Lets something go wrong with the processes, or with what they rely on.
    fn stir(&mut self) {
        let (stage, plan) = (self.stage.clone(), &self.stage.plan);
        let actor = || usize::try_from(stage.dice.below(self.executor.actors().len() as u64)).unwrap_or(0);
        if stage.happens(plan.crashes) {
            let actor = actor();
            self.crash(actor);
        } else if stage.happens(plan.freezes) {
            let actor = actor();
            stage.trace(&self.executor.actors()[actor].name, format_args!("stands still"));
            self.executor.freeze(actor, LEASE * 3 / 2 + Duration::from_secs(stage.dice.below(120)));
        } else if stage.happens(plan.outages) {
            let service = if stage.dice.per_mille(600) { Service::Store } else { Service::Queue };
            stage.trace("", format_args!("{service:?} goes away"));
            stage.take_away(service, Duration::from_secs(stage.dice.between(10, 600)));
        } else if stage.happens(plan.clock_sets) {
            self.set_clock(actor());
        }
    }

    /// Sets a clock, which is wrong from then on.
    fn set_clock(&self, clock: usize) {
        let most = self.stage.plan.skew * 1_000;
        let skew = self.stage.dice.below(2 * most + 1).cast_signed() - most.cast_signed();
        self.clocks[clock].set_wrong_by(skew);
        self.stage.trace(&self.executor.actors()[clock].name, format_args!("has a clock that is wrong by {skew} ms"));
    }

    fn crash(&mut self, actor: usize) {
        self.crashes += 1;
        self.stage.trace(&self.executor.actors()[actor].name, format_args!("dies"));
        self.executor.crash(actor, Duration::from_secs(self.stage.dice.below(60)));
    }

    fn clients_are_through(&self) -> bool {
        let all = self.executor.actors().len();
        (all - self.stage.plan.clients..all).all(|client| self.executor.is_over(client))
    }

    fn summary(&self) -> Summary {
        let ledger = self.stage.ledger();
        Summary {
            steps: self.steps,
            accepted: ledger.accepted.len() as u64,
            executions: ledger.executions.len() as u64,
            crashes: self.crashes,
            passed: self.stage.time.now().since(crate::sample::start()),
        }
    }
}
