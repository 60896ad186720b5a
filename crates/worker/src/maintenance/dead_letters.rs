//! Handling of dead letters: messages that a queue delivered repeatedly and that were never settled.

use std::sync::Arc;
use std::time::Duration;

use nobat_core::ports::{Clock, Hint, Random, Settlement, StoreError};
use nobat_core::service::backend::{ApplyError, Backend};
use nobat_core::task::lifecycle::{Event, overdue};
use nobat_core::task::{State, Task, TaskKey};
use nobat_core::types::jitter_sample::JitterSample;

/// Decides about tasks whose hints ended in the dead-letter queue.
///
/// Only failures around the handler put hints there: an unavailable store, or a worker that died before its
/// claim. A handler's failures count as attempts of the task, and its hints are acknowledged.
#[derive(Clone)]
pub struct DeadLetters {
    /// The store and the queue.
    pub backend: Backend,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Source of randomness, for the jitter of retries.
    pub random: Arc<dyn Random>,
}

/// Delay of a new hint after the first and the second dead letter of a task. After the third the task fails.
const PAUSES: [Duration; 2] = [Duration::from_mins(5), Duration::from_mins(15)];

impl DeadLetters {
    /// Handles one dead letter, after `redrives` others of the same task in a row. Returns whether the queue
    /// may forget it.
    pub async fn run(&self, name: &TaskKey, redrives: u32) -> Settlement {
        match self.look(name, redrives).await {
            Ok(()) => Settlement::Acknowledge,
            Err(error) => {
                tracing::warn!(task = %name.id, %error, "a dead letter could not be processed; it will be received again");
                Settlement::Return
            }
        }
    }

    async fn look(&self, name: &TaskKey, redrives: u32) -> Result<(), StoreError> {
        let now = self.clock.now();
        let Some(task) = self.backend.store.get(name, now).await? else {
            tracing::warn!(task = %name.id, "a dead letter names a task that does not exist; it is dropped");
            return Ok(());
        };
        if let Some(event) = overdue(&task, JitterSample::from_bits(self.random.next_u64()), now) {
            return self.apply(task, event).await;
        }
        match &task.state {
            // A worker runs it, it has ended, or another hint is on its way: this hint is not needed.
            State::Running(_) | State::Ended(_) => Ok(()),
            State::Waiting(_) if task.due_at > now => Ok(()),
            State::Waiting(_) => match PAUSES.get(redrives as usize) {
                Some(pause) => {
                    let hint = Hint { name: name.clone(), delay: *pause, redrives: redrives + 1 };
                    self.backend.queue.send(vec![hint]).await
                }
                None => self.apply(task, Event::DispatchFailed).await,
            },
        }
    }

    async fn apply(&self, task: Task, event: Event) -> Result<(), StoreError> {
        match self.backend.apply(&task.key(), Some(task), event, self.clock.now()).await {
            Ok(_) | Err(ApplyError::Missing | ApplyError::Refused(_)) => Ok(()),
            Err(ApplyError::Store(error)) => Err(error),
        }
    }
}
