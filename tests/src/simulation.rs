//! Simulation of everything that can go wrong, in an order that a seed decides and a second run repeats.
//!
//! The real engines work on a real store in virtual time. Calls fail, hang and lose their answers. Hints are
//! lost and doubled. Processes crash or freeze at any point where they wait. The promises of the design are
//! checked after every step, and once more when everything has come to rest. One seed is one run.

pub mod actors;
pub mod client;
pub mod closed;
pub mod config_mutator;
pub mod context;
pub mod dead_letter_checks;
pub mod dead_letter_worker;
pub mod executor;
pub mod external_server;
pub mod faulty;
pub mod final_checks;
pub mod handlers;
pub mod ledger;
pub mod limits;
pub mod liveness_checks;
pub mod plan;
pub mod repeats;
pub mod rng;
mod run;
pub mod sabotage;
pub mod starts;
pub mod store_monitor;
mod transition_checks;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use nobat_core::service::backend::Backend;

use crate::conformance::{RETENTION, Removal};
use crate::model::backend_quirks::{Habits, Shown};
use crate::model::{Model, ModelQueue};
use crate::time::MachineClock;
use context::Stage;
use plan::Plan;
use rng::Dice;
use run::Run;
use sabotage::{Sabotage, sabotaged};
use store_monitor::Witness;

/// Backend under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `SQLite` backend, in memory.
    Sqlite,
    /// Separate store and queue, as in the cloud.
    Model,
}

/// Broken promise, and the steps that led to it.
#[derive(Debug)]
pub struct Violation {
    /// Backend of the run.
    pub subject: Subject,
    /// Seed of the run.
    pub seed: u64,
    /// Description of the broken promise.
    pub what: String,
    /// Last steps before the violation was noticed.
    pub trace: Vec<String>,
}

/// Summary of a run. Two runs of one seed have equal summaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of steps.
    pub steps: u64,
    /// Number of tasks whose acceptance a client saw.
    pub accepted: u64,
    /// Number of handler executions.
    pub executions: u64,
    /// Number of crashed processes.
    pub crashes: u64,
    /// Virtual time that passed.
    pub passed: Duration,
    /// Counts of the cloud's habits.
    pub shown: Shown,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.accepted += other.accepted;
        self.executions += other.executions;
        self.crashes += other.crashes;
        self.passed += other.passed;
        self.shown += other.shown;
    }
}

/// Makes one run.
pub fn simulate(seed: u64, subject: Subject) -> Result<Summary, Box<Violation>> {
    simulate_with(seed, subject, None)
}

/// Makes one run. With `sabotage`, the backend breaks a promise.
pub fn simulate_with(
    seed: u64,
    subject: Subject,
    sabotage: Option<Sabotage>,
) -> Result<Summary, Box<Violation>> {
    // Drawn from a separate generator, so that runs without limits are the same as before limits were added.
    let laid = limits::drawn(&Dice::seeded(!seed));
    let stage = Stage::new(seed, |dice| laid.over(subject.plan(dice)));
    let clocks = subject.clocks(&stage);
    let (backend, dead_letters) = subject.backend(&stage, &clocks[0]);
    let backend = match sabotage {
        Some(sabotage) => sabotaged(backend, sabotage, stage.calls.clone()),
        None => backend,
    };
    limits::write_limits(&stage, &backend);
    let witness = Witness::new(&stage, backend.clone());
    let mut run = Run::new(stage.clone(), witness.clone(), clocks, dead_letters, sabotage);
    let outcome = run.play().and_then(|()| {
        let summary = run.summary();
        final_checks::check_reservations(&stage, &backend, run.ended_at())?;
        final_checks::judge(&stage, &witness, &backend, subject.removal())?;
        Ok(Summary { shown: stage.shown(), ..summary })
    });
    outcome.map_err(|what| Box::new(Violation { subject, seed, what, trace: stage.traced() }))
}

impl Subject {
    /// Both backends.
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Model];

    /// Returns the plan of a run.
    fn plan(self, dice: &Dice) -> Plan {
        let plan = if dice.per_mille(150) { Plan::calm(dice) } else { Plan::stormy(dice) };
        match self {
            Self::Sqlite => plan,
            Self::Model => plan.in_the_cloud(dice),
        }
    }

    /// Returns the clock of each process: its own, or on SQLite the one of the machine that all share.
    fn clocks(self, stage: &Stage) -> Vec<Arc<MachineClock>> {
        let processes = stage.plan.workers + 1 + stage.plan.clients;
        match self {
            Self::Sqlite => vec![stage.time.clock(); processes],
            // One more for the process that handles dead letters.
            Self::Model => (0..=processes).map(|_| stage.time.clock()).collect(),
        }
    }

    /// Returns the backend under test and its dead-letter queue.
    fn backend(self, stage: &Arc<Stage>, clock: &Arc<MachineClock>) -> (Backend, Option<Arc<ModelQueue>>) {
        match self {
            Self::Sqlite => {
                let sqlite = nobat_sqlite::Sqlite::in_memory(RETENTION, clock.clone())
                    .unwrap_or_else(|error| panic!("{error}"));
                (sqlite.backend(), None)
            }
            Self::Model => {
                let (habits, timeout): (Arc<dyn Habits>, _) =
                    (stage.clone(), stage.plan.cloud.function_timeout);
                let model = Model::new(
                    &stage.time,
                    RETENTION,
                    timeout.unwrap_or_default(),
                    stage.calls.clone(),
                    &habits,
                );
                (model.backend(), Some(model.dead_letters))
            }
        }
    }

    /// Returns the actor that removes expired tasks.
    fn removal(self) -> Removal {
        match self {
            Self::Sqlite => Removal::ByPruning,
            Self::Model => Removal::ByItself,
        }
    }

    /// Returns the name of the backend, as in the command line.
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
        Self::ALL
            .into_iter()
            .find(|subject| subject.as_str() == word)
            .ok_or_else(|| format!("`{word}` is neither `sqlite` nor `model`"))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "{}", self.what)?;
        let (subject, seed) = (self.subject.as_str(), self.seed);
        write!(
            f,
            "seed {seed} on {subject}; to repeat: cargo run -p nobat-tests --bin simulate -- --backend {subject} --seed {seed}"
        )
    }
}
