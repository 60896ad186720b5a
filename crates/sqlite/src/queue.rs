//! The message queue: an index over the due tasks, and the workers that wait for due tasks.

use async_trait::async_trait;
use nobat_core::ports::{Delivery, Hint, Queue, Receipt, Settlement, StoreError};
use std::time::Duration;

use nobat_core::task::Task;
use tokio::sync::oneshot;

use crate::Sqlite;
use crate::writer::Load;

/// Maximum time that a worker waits for tasks, the same as the limit of SQS.
const MAX_LINE: Duration = Duration::from_secs(20);

#[async_trait]
impl Queue for Sqlite {
    /// Does nothing: a stored task is in the index at once.
    async fn send(&self, _hints: Vec<Hint>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, StoreError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let mut place = WaitingWorker { sqlite: self, tasks: self.0.dispatch.line_up(max) };
        let mut next_due = self.0.dispatch.next_due();
        let give_up = self.0.clock.now() + MAX_LINE;
        loop {
            // Every transaction of the writer hands due tasks to waiting workers, so an empty operation
            // suffices.
            self.0.writer.call(Load::of(None), |_| Ok(())).await?;
            let now = self.0.clock.now();
            let due = next_due.borrow_and_update().unwrap_or(give_up);
            tokio::select! {
                biased;
                handed = &mut place.tasks => return Ok(handed.unwrap_or_default().into_iter().map(|task| Delivery::Claimed(Box::new(task))).collect()),
                _ = next_due.changed() => {}
                () = self.0.clock.sleep(due.min(give_up).since(now)) => {}
            }
            if self.0.clock.now() >= give_up {
                return Ok(Vec::new());
            }
        }
    }

    async fn settle(&self, _settlements: Vec<(Receipt, Settlement)>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A waiting worker. Dropping this value releases the tasks that were handed to the worker but not taken.
struct WaitingWorker<'a> {
    sqlite: &'a Sqlite,
    tasks: oneshot::Receiver<Vec<Task>>,
}

impl Drop for WaitingWorker<'_> {
    fn drop(&mut self) {
        self.tasks.close();
        if let Ok(tasks) = self.tasks.try_recv() {
            self.sqlite.0.writer.give_back(tasks, self.sqlite.0.clock.now());
        }
    }
}
