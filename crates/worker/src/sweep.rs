//! The pass that finds what is overdue: leases that ran out, deadlines that passed, hints that were lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use nobat_core::backend::{ApplyError, Backend};
use nobat_core::lifecycle::overdue;
use nobat_core::ports::{Chance, StoreError, TaskName};
use nobat_core::retry::Spread;
use nobat_core::task::{State, Task};
use nobat_core::time::Timestamp;

/// Looks after what nobody else does.
#[derive(Clone)]
pub struct Sweeper {
    /// Where the tasks are.
    pub backend: Backend,
    /// Chance, to spread retries with.
    pub chance: Arc<dyn Chance>,
}

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Tasks whose lease ran out or whose deadline passed.
    pub judged: usize,
    /// Tasks that were hinted again.
    pub hinted: usize,
}

/// How many tasks one pass looks at, so that a backlog is not hinted all at once.
const MAX_TASKS: usize = 500;
/// How long after a task was due its hint is taken for lost.
const PATIENCE: Duration = Duration::from_mins(2);
/// The first pause between two hints of the same task; it grows with the task's delay.
const MIN_PAUSE: Duration = Duration::from_mins(5);
/// The longest pause between two hints of the same task.
const MAX_PAUSE: Duration = Duration::from_hours(1);

impl Sweeper {
    /// One pass. It can be repeated, doubled and broken off at any point.
    pub async fn run_once(&self, now: Timestamp) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        let mut hints: Vec<(TaskName, Duration)> = Vec::new();
        let mut seen: Vec<(Task, Timestamp)> = Vec::new();
        let mut overdue_tasks: Vec<Task> = Vec::new();
        for task in self.backend.store.due(MAX_TASKS, now).await? {
            match &task.state {
                _ if overdue(&task, Spread::from_bits(0), now).is_some() => overdue_tasks.push(task),
                State::Waiting(_) => {
                    hints.push((task.name(), task.due_at.since(now)));
                    let next = next_look(&task, now);
                    seen.push((task, next));
                }
                State::Running(lease) => {
                    let next = lease.until + PATIENCE;
                    seen.push((task, next));
                }
                State::Ended(_) => {}
            }
        }
        // Side by side, so that a store that writes in groups does.
        for judged in join_all(overdue_tasks.into_iter().map(|task| self.judge(task, now))).await {
            swept.judged += judged?;
        }
        swept.hinted = hints.len();
        if !hints.is_empty() {
            self.backend.queue.send(hints).await?;
        }
        for (task, next) in seen {
            self.backend.store.postpone(&task, next).await?;
        }
        Ok(swept)
    }

    async fn judge(&self, task: Task, now: Timestamp) -> Result<usize, StoreError> {
        let Some(event) = overdue(&task, Spread::from_bits(self.chance.bits()), now) else { return Ok(0) };
        match self.backend.apply(&task.name(), Some(task), event, now).await {
            Ok(_) => Ok(1),
            Err(ApplyError::Missing | ApplyError::Refused(_)) => Ok(0),
            Err(ApplyError::Store(error)) => Err(error),
        }
    }
}

/// When to look at a waiting task again: some time after it is due, and each time twice as late as before.
fn next_look(task: &Task, now: Timestamp) -> Timestamp {
    if task.due_at > now {
        return task.due_at + PATIENCE;
    }
    now + now.since(task.due_at).clamp(MIN_PAUSE, MAX_PAUSE)
}
