//! Processes of an installation: workers and the sweeper.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, join, select};
use nobat_core::ports::{Clock, Delivery, Receipt, Settlement};
use nobat_core::service::backend::Backend;
use nobat_core::service::config_cache::ConfigEpoch;
use nobat_worker::execution::runner::Runner;
use nobat_worker::maintenance::pruner::Pruner;
use nobat_worker::maintenance::sweeper::Sweeper;
use nobat_worker::worker::every;
use tokio_util::sync::CancellationToken;

use super::handlers::handlers;
use crate::model::backend_quirks::{Habit, Habits};
use crate::serve::process_deliveries;
use crate::simulation::context::Stage;

/// Number of tasks that a worker runs at a time.
const CONCURRENCY: usize = 4;
/// Timeout of a function for a batch, unless the plan sets one.
const FUNCTION_TIMEOUT: Duration = Duration::from_mins(15);
/// Maximum number of messages in a batch of a function in the cloud.
pub const BATCH: usize = 10;
/// Maximum duration of a sweep by a function in the cloud, without its reserve.
const SWEEP_TIME: Duration = Duration::from_secs(45);

/// Returns a process that runs tasks as a server or as a function. A server takes the next task as soon as it
/// has room. A function gets a batch and answers when all of it is done.
pub fn worker(
    stage: &Arc<Stage>,
    actor: String,
    place: usize,
    clock: Arc<dyn Clock>,
    backend: Backend,
) -> BoxFuture<'static, ()> {
    let handlers = handlers(stage, &actor, place);
    let runner = Runner::new(backend, handlers, clock, stage.dice.clone(), ConfigEpoch::default());
    let worker = Worker { stage: stage.clone(), actor, runner };
    if stage.dice.per_mille(500) { Box::pin(worker.serve()) } else { Box::pin(worker.take_batches()) }
}

struct Worker {
    stage: Arc<Stage>,
    actor: String,
    runner: Runner,
}

impl Worker {
    async fn serve(self) {
        process_deliveries(CONCURRENCY, |room| self.receive(room), |delivery| self.run(delivery)).await;
    }

    async fn take_batches(self) {
        let timeout = self.stage.plan.cloud.function_timeout;
        let room = timeout.map_or(CONCURRENCY, |_| BATCH);
        loop {
            let deliveries = self.receive(room).await;
            for delivery in &deliveries {
                self.note(delivery);
            }
            let deadline = self.runner.clock.now() + timeout.unwrap_or(FUNCTION_TIMEOUT);
            self.stage.ledger().batches.insert(self.actor.clone(), deliveries.len());
            let work = self.runner.run_batch(deliveries, deadline);
            let settlements = match timeout {
                Some(timeout) => in_time(&self.stage, timeout, work).await,
                None => Some(work.await),
            };
            let count = self.stage.ledger().batches.remove(&self.actor).unwrap_or(0);
            match settlements {
                Some(settlements) => {
                    note_split(&self.stage, &settlements);
                    self.settle(settlements).await;
                }
                None => note_killed(&self.stage, &self.actor, count),
            }
        }
    }

    async fn receive(&self, room: usize) -> Vec<Delivery> {
        loop {
            match self.runner.backend.queue.receive(room).await {
                Ok(deliveries) => return deliveries,
                Err(_) => self.runner.clock.sleep(Duration::from_secs(1)).await,
            }
        }
    }

    async fn run(&self, delivery: Delivery) {
        self.note(&delivery);
        let receipt = match &delivery {
            Delivery::Hint { receipt, .. } => Some(receipt.clone()),
            Delivery::Claimed(_) => None,
        };
        // A server that is stopped releases its running tasks.
        let stop = CancellationToken::new();
        if self.stage.happens(self.stage.plan.crashes) {
            stop.cancel();
        }
        let settlement = self.runner.run(delivery, &stop).await;
        self.settle(receipt.map(|receipt| (receipt, settlement)).into_iter().collect()).await;
    }

    async fn settle(&self, settlements: Vec<(Receipt, Settlement)>) {
        if !settlements.is_empty() {
            // An unsettled hint reappears.
            let _ = self.runner.backend.queue.settle(settlements).await;
        }
    }

    fn note(&self, delivery: &Delivery) {
        if let Delivery::Claimed(task) = delivery {
            self.stage.ledger().given(&self.actor, &task.key(), task.token, self.stage.time.now());
        }
    }
}

/// Returns the output of a function, or `None` if it is killed at its timeout. After a kill, its whole batch
/// reappears.
pub async fn in_time<T>(stage: &Stage, timeout: Duration, work: impl Future<Output = T>) -> Option<T> {
    match select(pin!(work), stage.time.sleep_until(stage.time.now() + timeout)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// Records that a function was killed while it worked on this many messages.
pub fn note_killed(stage: &Stage, actor: &str, messages: usize) {
    stage.trace(actor, format_args!("is killed while it works on {messages} messages"));
    if messages > 1 {
        stage.note(Habit::KillsBatch);
    }
}

fn note_split(stage: &Stage, settlements: &[(Receipt, Settlement)]) {
    let returned = settlements.iter().filter(|(_, settlement)| *settlement == Settlement::Return).count();
    if (1..settlements.len()).contains(&returned) {
        stage.note(Habit::SplitsBatch);
    }
}

/// Returns the process that sweeps every minute and prunes every hour.
pub fn sweeper(stage: &Arc<Stage>, clock: Arc<dyn Clock>, backend: Backend) -> BoxFuture<'static, ()> {
    let sweeper = Sweeper { backend: backend.clone(), random: stage.dice.clone() };
    let pruner = Pruner { backend };
    let is_function = stage.plan.cloud.function_timeout.is_some();
    Box::pin(async move {
        let never = CancellationToken::new();
        let pass = async |now| {
            if is_function {
                sweeper.run_until(clock.as_ref(), now + SWEEP_TIME).await
            } else {
                sweeper.run_once(now).await
            }
        };
        let sweep = every(Duration::from_mins(1), clock.clone(), never.clone(), "sweep", pass);
        let prune =
            every(Duration::from_hours(1), clock.clone(), never.clone(), "prune", |now| pruner.run_once(now));
        join(sweep, prune).await;
    })
}
