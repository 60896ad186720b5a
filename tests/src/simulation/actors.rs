//! The processes of an installation: those that run tasks, and the one that looks after them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, Either, join, select};
use futures_util::stream::FuturesUnordered;
use nobat_core::backend::Backend;
use nobat_core::ports::{Clock, Delivery, Receipt, Settlement};
use nobat_worker::prune::Pruner;
use nobat_worker::run::Runner;
use nobat_worker::sweep::Sweeper;
use nobat_worker::worker::every;
use tokio_util::sync::CancellationToken;

use super::handlers::handlers;
use super::stage::Stage;

/// How many tasks a worker runs at a time.
const CONCURRENCY: usize = 4;
/// How long a function may take over a batch.
const FUNCTION_TIMEOUT: Duration = Duration::from_mins(15);

/// A process that runs tasks: like a server, which takes the next one as soon as it has room, or like a function,
/// which is handed a batch and answers when it is through with all of it.
pub fn worker(stage: &Arc<Stage>, actor: String, place: usize, clock: Arc<dyn Clock>, backend: Backend) -> BoxFuture<'static, ()> {
    let handlers = handlers(stage, &actor, place);
    let runner = Runner { backend, handlers, clock, chance: stage.dice.clone() };
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
        let mut running = FuturesUnordered::new();
        loop {
            let room = CONCURRENCY - running.len();
            if room == 0 {
                running.next().await;
                continue;
            }
            let mut receiving = pin!(self.receive(room));
            let deliveries = loop {
                if running.is_empty() {
                    break receiving.await;
                }
                match select(receiving.as_mut(), running.next()).await {
                    Either::Left((deliveries, _)) => break deliveries,
                    Either::Right(_) => {}
                }
            };
            running.extend(deliveries.into_iter().map(|delivery| self.run(delivery)));
        }
    }

    async fn take_batches(self) {
        loop {
            let deliveries = self.receive(CONCURRENCY).await;
            for delivery in &deliveries {
                self.note(delivery);
            }
            let deadline = self.runner.clock.now() + FUNCTION_TIMEOUT;
            let settlements = self.runner.run_batch(deliveries, deadline).await;
            self.settle(settlements).await;
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
        // A server that is stopped gives back what it runs.
        let stop = CancellationToken::new();
        if self.stage.happens(self.stage.plan.crashes) {
            stop.cancel();
        }
        let settlement = self.runner.run(delivery, &stop).await;
        self.settle(receipt.map(|receipt| (receipt, settlement)).into_iter().collect()).await;
    }

    async fn settle(&self, settlements: Vec<(Receipt, Settlement)>) {
        if !settlements.is_empty() {
            // A hint that is not settled comes again.
            let _ = self.runner.backend.queue.settle(settlements).await;
        }
    }

    fn note(&self, delivery: &Delivery) {
        if let Delivery::Claimed(task) = delivery {
            self.stage.ledger().given(&self.actor, &task.name(), task.token);
        }
    }
}

/// The process that sweeps every minute, and prunes every hour.
pub fn sweeper(stage: &Arc<Stage>, clock: Arc<dyn Clock>, backend: Backend) -> BoxFuture<'static, ()> {
    let sweeper = Sweeper { backend: backend.clone(), chance: stage.dice.clone() };
    let pruner = Pruner { backend };
    Box::pin(async move {
        let never = CancellationToken::new();
        let sweep = every(Duration::from_mins(1), clock.clone(), never.clone(), "sweep", |now| sweeper.run_once(now));
        let prune = every(Duration::from_hours(1), clock.clone(), never.clone(), "prune", |now| pruner.run_once(now));
        join(sweep, prune).await;
    })
}
