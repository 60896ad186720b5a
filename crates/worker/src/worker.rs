//! Loops of a process: [`Worker`] receives from the message queue, and [`every`] runs passes periodically.

use std::sync::Arc;
use std::time::Duration;

use nobat_core::ports::{Clock, Delivery, StoreError};
use nobat_core::types::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::execution::runner::Runner;

/// Receives tasks from the message queue and runs up to `concurrency` of them at a time.
pub struct Worker {
    /// Runs the tasks.
    pub runner: Arc<Runner>,
    /// Maximum number of tasks that run at a time.
    pub concurrency: usize,
    /// Time for running tasks to finish after the worker is told to stop.
    pub drain: Duration,
}

/// Pause after the message queue failed to answer.
const RECOVERY: Duration = Duration::from_secs(1);
/// Maximum duration of giving tasks back after `drain` has passed.
const GIVE_BACK: Duration = Duration::from_secs(5);

impl Worker {
    /// Runs until `stop` fires. Then receives no more tasks, lets running tasks finish, and gives back tasks
    /// that still run after `drain`.
    pub async fn run(self, stop: CancellationToken) {
        let (room, tasks, halt) =
            (Arc::new(Semaphore::new(self.concurrency)), TaskTracker::new(), CancellationToken::new());
        while let Some(permit) = free(&room, &stop).await {
            let received = tokio::select! {
                () = stop.cancelled() => break,
                received = self.runner.backend.queue.receive(1 + room.available_permits()) => received,
            };
            match received {
                Ok(deliveries) => self.start(deliveries, permit, &room, &tasks, &halt),
                Err(error) => {
                    tracing::warn!(%error, "the message queue does not respond; the worker tries again");
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = self.runner.clock.sleep(RECOVERY) => {}
                    }
                }
            }
        }
        tasks.close();
        tokio::select! {
            () = tasks.wait() => {}
            () = self.runner.clock.sleep(self.drain) => {
                tracing::warn!(tasks = tasks.len(), "the drain timeout has passed; running tasks are given back");
                halt.cancel();
                tokio::select! {
                    () = tasks.wait() => {}
                    () = self.runner.clock.sleep(GIVE_BACK) => {
                        tracing::error!(tasks = tasks.len(), "running tasks could not be given back in time; they run again after their leases expire");
                    }
                }
            }
        }
    }

    fn start(
        &self,
        deliveries: Vec<Delivery>,
        first: OwnedSemaphorePermit,
        room: &Arc<Semaphore>,
        tasks: &TaskTracker,
        halt: &CancellationToken,
    ) {
        let mut first = Some(first);
        for delivery in deliveries {
            // Only this loop takes permits, so the permits for the requested tasks are free. If the message
            // queue returns more tasks than requested, the extra tasks run beyond the limit.
            let permit = first.take().or_else(|| Arc::clone(room).try_acquire_owned().ok());
            let (runner, halt) = (Arc::clone(&self.runner), halt.clone());
            tasks.spawn(async move {
                run_and_settle(&runner, delivery, &halt).await;
                drop(permit);
            });
        }
    }
}

async fn free(room: &Arc<Semaphore>, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        () = stop.cancelled() => None,
        permit = Arc::clone(room).acquire_owned() => permit.ok(),
    }
}

async fn run_and_settle(runner: &Runner, delivery: Delivery, halt: &CancellationToken) {
    let receipt = match &delivery {
        Delivery::Hint { receipt, .. } => Some(receipt.clone()),
        Delivery::Claimed(_) => None,
    };
    let settlement = runner.run(delivery, halt).await;
    if let Some(receipt) = receipt
        && let Err(error) = runner.backend.queue.settle(vec![(receipt, settlement)]).await
    {
        tracing::warn!(%error, "a hint could not be settled; it will be received again");
    }
}

/// Calls `run_once` of the sweeper or pruner at once, and again after each `interval`, until `stop` fires.
pub async fn every<T, F: Future<Output = Result<T, StoreError>>>(
    interval: Duration,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    name: &'static str,
    run_once: impl Fn(Timestamp) -> F,
) {
    let rounds = async {
        loop {
            if let Err(error) = run_once(clock.now()).await {
                tracing::warn!(engine = name, %error, "a periodic pass failed; the next pass tries again");
            }
            clock.sleep(interval).await;
        }
    };
    // A pass may be interrupted at any point, so a long pass does not delay the shutdown.
    tokio::select! {
        () = stop.cancelled() => {}
        () = rounds => {}
    }
}
