//! Handling of hints in the dead-letter queue. The message queue moves a hint there after it has delivered
//! the hint several times and no worker has settled it.

use std::sync::Arc;
use std::time::Duration;

use nobat_core::ports::{Clock, Hint, Random, Settlement, StoreError};
use nobat_core::service::backend::{ApplyError, Backend};
use nobat_core::task::event::SCHEDULE_KIND;
use nobat_core::task::lifecycle::{Event, overdue};
use nobat_core::task::{State, Task, TaskKey};
use nobat_core::types::jitter_sample::JitterSample;

/// Decides about tasks whose hints ended in the dead-letter queue.
///
/// A hint gets there if the store is unavailable, or if workers die before they claim the task. A failing
/// handler is not a cause: the worker counts an attempt and settles the hint.
#[derive(Clone)]
pub struct DeadLetters {
    /// The store and the message queue.
    pub backend: Backend,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Source of randomness, for the jitter of retries.
    pub random: Arc<dyn Random>,
}

/// Delays of a task's new hint: the first after one hint, the second after two hints in a row ended in the
/// dead-letter queue. After a third hint in a row, the task fails.
const PAUSES: [Duration; 2] = [Duration::from_mins(5), LAST_PAUSE];
const LAST_PAUSE: Duration = Duration::from_mins(15);

impl DeadLetters {
    /// Handles one hint from the dead-letter queue. `redrives` is the number of the task's previous hints
    /// that ended there in a row. The settlement says if the dead-letter queue may delete the hint.
    pub async fn run(&self, name: &TaskKey, redrives: u32) -> Settlement {
        match self.look(name, redrives).await {
            Ok(()) => Settlement::Acknowledge,
            Err(error) => {
                tracing::warn!(task = %name.id, %error, "a hint in the dead-letter queue could not be processed; it will be received again");
                Settlement::Return
            }
        }
    }

    async fn look(&self, name: &TaskKey, redrives: u32) -> Result<(), StoreError> {
        let now = self.clock.now();
        let Some(task) = self.backend.store.get(name, now).await? else {
            tracing::warn!(task = %name.id, "a hint in the dead-letter queue names a task that does not exist; the hint is deleted");
            return Ok(());
        };
        if let Some(event) = overdue(&task, JitterSample::from_bits(self.random.next_u64()), now) {
            return self.apply(task, event).await;
        }
        match &task.state {
            // The hint is not needed: the task runs, has ended, or is not due yet and has a later hint.
            State::Running(_) | State::Ended(_) => Ok(()),
            State::Waiting(_) if task.due_at > now => Ok(()),
            // Nothing replays the task of a schedule, so it must not fail.
            State::Waiting(_) if task.kind == *SCHEDULE_KIND => {
                let hint = Hint { name: name.clone(), delay: LAST_PAUSE, redrives };
                self.backend.queue.send(vec![hint]).await
            }
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
