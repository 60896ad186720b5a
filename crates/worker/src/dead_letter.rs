//! The look at what a queue gave up on: messages that were received again and again, and never settled.

use std::sync::Arc;
use std::time::Duration;

use nobat_core::backend::{ApplyError, Backend};
use nobat_core::lifecycle::{Event, overdue};
use nobat_core::ports::{Chance, Clock, Hint, Settlement, StoreError, TaskName};
use nobat_core::retry::Spread;
use nobat_core::task::{State, Task};

/// Decides what becomes of tasks whose hints ended in the queue for dead letters.
///
/// Only the pipeline puts hints there: a store that was away, a worker that died before it could claim. What a handler fails
/// at is counted with its task, and its hints are acknowledged.
#[derive(Clone)]
pub struct DeadLetters {
    /// Where the tasks are.
    pub backend: Backend,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance, to spread retries with.
    pub chance: Arc<dyn Chance>,
}

/// After how long a task is hinted again whose hints came to nothing once, and twice; after that it is given up on.
const PAUSES: [Duration; 2] = [Duration::from_mins(5), Duration::from_mins(15)];

impl DeadLetters {
    /// Sees to the task of one dead letter, which came after so many others in a row; says whether the letter may be forgotten.
    pub async fn run(&self, name: &TaskName, redrives: u32) -> Settlement {
        match self.look(name, redrives).await {
            Ok(()) => Settlement::Acknowledge,
            Err(error) => {
                tracing::warn!(task = %name.id, %error, "a dead letter could not be seen to; it will come again");
                Settlement::Return
            }
        }
    }

    async fn look(&self, name: &TaskName, redrives: u32) -> Result<(), StoreError> {
        let now = self.clock.now();
        let Some(task) = self.backend.store.get(name, now).await? else {
            tracing::warn!(task = %name.id, "a dead letter names a task that is not there");
            return Ok(());
        };
        if let Some(event) = overdue(&task, Spread::from_bits(self.chance.bits()), now) {
            return self.apply(task, event).await;
        }
        match &task.state {
            // A worker has it, it is over, or another hint is on its way: none of them needs this one.
            State::Running(_) | State::Ended(_) => Ok(()),
            State::Waiting(_) if task.due_at > now => Ok(()),
            State::Waiting(_) => match PAUSES.get(redrives as usize) {
                Some(pause) => {
                    let hint = Hint { name: name.clone(), delay: *pause, redrives: redrives + 1 };
                    self.backend.queue.send(vec![hint]).await
                }
                None => self.apply(task, Event::PipelineFailed).await,
            },
        }
    }

    async fn apply(&self, task: Task, event: Event) -> Result<(), StoreError> {
        match self.backend.apply(&task.name(), Some(task), event, self.clock.now()).await {
            Ok(_) | Err(ApplyError::Missing | ApplyError::Refused(_)) => Ok(()),
            Err(ApplyError::Store(error)) => Err(error),
        }
    }
}
