//! One run: the processes, their faults, and the time until they come to rest.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use nobat_core::types::intervals::LEASE;
use nobat_core::types::time::Timestamp;
use nobat_worker::maintenance::dead_letters::DeadLetters;

use super::executor::{Executor, Step};
use super::faulty::Faulty;
use super::sabotage::Sabotage;
use super::{Summary, actors, client};
use crate::model::ModelQueue;
use crate::model::backend_quirks::Shown;
use crate::simulation::context::{Service, Stage};
use crate::simulation::dead_letter_worker::Undertaker;
use crate::simulation::store_monitor::Witness;
use crate::time::MachineClock;

/// Maximum number of steps with faults, if the clients do not finish before.
const STORM_STEPS: u64 = 30_000;
/// Interval in steps at which the unended tasks are read, even if no actor does so.
const LOOK_EVERY: u64 = 32;
/// Number of steps after the last task has ended.
const LAST_STEPS: u64 = 200;
/// Maximum number of steps without faults until everything is at rest. Beyond it, something is stuck.
const CALM_STEPS: u64 = 100_000;

/// Run in progress.
pub(super) struct Run {
    stage: Arc<Stage>,
    witness: Arc<Witness>,
    clocks: Vec<Arc<MachineClock>>,
    executor: Executor,
    steps: u64,
    crashes: u64,
    /// Time when the last task ended.
    ended_at: Timestamp,
}

impl Run {
    /// Creates the processes before any of them starts. One of them handles dead letters, if the backend has
    /// any.
    pub(super) fn new(
        stage: Arc<Stage>,
        witness: Arc<Witness>,
        clocks: Vec<Arc<MachineClock>>,
        dead_letters: Option<Arc<ModelQueue>>,
        sabotage: Option<Sabotage>,
    ) -> Self {
        let mut executor = Executor::new(stage.time.clone());
        let watched = witness.backend();
        let (workers, clients) = (stage.plan.workers, stage.plan.clients);
        for (place, clock) in clocks.iter().take(workers).cloned().enumerate() {
            let (stage, name) = (stage.clone(), format!("worker {place}"));
            let backend = Faulty::backend(&stage, &name, &watched);
            executor.add(name.clone(), move || {
                actors::worker(&stage, name.clone(), place, clock.clone(), backend.clone())
            });
        }
        let (sweeping, clock, backend) =
            (stage.clone(), clocks[workers].clone(), Faulty::backend(&stage, "sweeper", &watched));
        executor
            .add("sweeper".to_owned(), move || actors::sweeper(&sweeping, clock.clone(), backend.clone()));
        if let Some(queue) = dead_letters {
            let (stage, witness, clock) = (stage.clone(), witness.clone(), clocks[workers + 1].clone());
            let backend = Faulty::backend(&stage, "dead letters", &watched);
            executor.add("dead letters".to_owned(), move || {
                let engine = DeadLetters {
                    backend: backend.clone(),
                    clock: clock.clone(),
                    random: stage.dice.clone(),
                };
                let (stage, witness, queue) = (stage.clone(), witness.clone(), queue.clone());
                Box::pin(Undertaker { stage, witness, queue, engine, sabotage }.work())
            });
        }
        let others = clocks.len() - clients;
        for place in 0..clients {
            let (stage, name, clock) =
                (stage.clone(), format!("client {place}"), clocks[others + place].clone());
            let backend = Faulty::backend(&stage, &name, &watched);
            let left = Arc::new(AtomicU32::new(stage.plan.requests));
            executor.add(name.clone(), move || {
                client::client(stage.clone(), name.clone(), clock.clone(), backend.clone(), left.clone())
            });
        }
        let run = Self { stage, witness, clocks, executor, steps: 0, crashes: 0, ended_at: Timestamp::EPOCH };
        (0..run.clocks.len()).for_each(|clock| run.set_clock(clock));
        run
    }

    /// Runs with faults until the clients are done, then without faults until everything is at rest.
    pub(super) fn play(&mut self) -> Result<(), String> {
        while !self.clients_are_done() && self.steps < STORM_STEPS {
            self.step()?;
            self.inject_fault();
            self.look_for_neglected();
        }
        self.stage.end_trouble();
        self.stage.trace("", format_args!("all faults end"));
        let last = self.steps + CALM_STEPS;
        while self.witness.unended() > 0 || !self.clients_are_done() {
            self.step()?;
            if self.steps.is_multiple_of(LOOK_EVERY) {
                self.witness.open_tasks();
            }
            self.look_for_neglected();
            if self.steps > last {
                let open = self.witness.open_tasks();
                return Err(format!("{} tasks do not end, such as {:?}", open.len(), open.first()));
            }
        }
        self.ended_at = self.stage.time.now();
        // Writes that follow an end, such as releases of reservations, come after it.
        (0..LAST_STEPS).try_for_each(|_| self.step())
    }

    /// Returns the time when the last task ended.
    pub(super) fn ended_at(&self) -> Timestamp {
        self.ended_at
    }

    /// Checks for neglected tasks, in the cloud only. Where the queue is an index, a due task needs no hint,
    /// and reading it can change it.
    fn look_for_neglected(&self) {
        if self.steps.is_multiple_of(LOOK_EVERY) && self.stage.plan.cloud.function_timeout.is_some() {
            self.witness.find_neglected();
        }
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
            Step::Stuck => return Err("no actor has anything to do, now or later".to_owned()),
            Step::Panicked(actor) => return Err(format!("{} panicked", self.executor.actors()[actor].name)),
        }
        self.stage.violation().map_or(Ok(()), Err)
    }

    /// Draws a fault of the processes or of the services.
    fn inject_fault(&mut self) {
        let (stage, plan) = (self.stage.clone(), &self.stage.plan);
        let actor = || usize::try_from(stage.dice.below(self.executor.actors().len() as u64)).unwrap_or(0);
        if stage.happens(plan.crashes) {
            let actor = actor();
            self.crash(actor);
        } else if stage.happens(plan.freezes) {
            let actor = actor();
            stage.trace(&self.executor.actors()[actor].name, format_args!("freezes"));
            self.executor.freeze(actor, LEASE * 3 / 2 + Duration::from_secs(stage.dice.below(120)));
        } else if stage.happens(plan.outages) {
            let service = if stage.dice.per_mille(600) { Service::Store } else { Service::Queue };
            stage.trace("", format_args!("{service:?} becomes unavailable"));
            stage.take_away(service, Duration::from_secs(stage.dice.between(10, 600)));
        } else if stage.happens(plan.cloud.throttles) {
            stage.trace("", format_args!("the store throttles calls"));
            stage.throttle(Duration::from_secs(stage.dice.between(1, 120)));
        } else if stage.happens(plan.clock_sets) {
            self.set_clock(actor());
        }
    }

    /// Sets a clock to a random error within the plan's limit.
    fn set_clock(&self, clock: usize) {
        let most = self.stage.plan.skew * 1_000;
        let skew = self.stage.dice.below(2 * most + 1).cast_signed() - most.cast_signed();
        self.clocks[clock].set_wrong_by(skew);
        self.stage.trace(
            &self.executor.actors()[clock].name,
            format_args!("has a clock that is wrong by {skew} ms"),
        );
    }

    fn crash(&mut self, actor: usize) {
        self.crashes += 1;
        let name = &self.executor.actors()[actor].name;
        self.stage.trace(name, format_args!("crashes"));
        let messages = self.stage.ledger().batches.remove(name);
        if let Some(messages) = messages {
            actors::note_killed(&self.stage, name, messages);
        }
        self.executor.crash(actor, Duration::from_secs(self.stage.dice.below(60)));
    }

    fn clients_are_done(&self) -> bool {
        let all = self.executor.actors().len();
        (all - self.stage.plan.clients..all).all(|client| self.executor.is_over(client))
    }

    /// Returns the summary.
    pub(super) fn summary(&self) -> Summary {
        let ledger = self.stage.ledger();
        Summary {
            steps: self.steps,
            accepted: ledger.accepted.len() as u64,
            executions: ledger.executions.len() as u64,
            crashes: self.crashes,
            passed: self.stage.time.now().since(crate::sample::start()),
            shown: Shown::default(),
        }
    }
}
