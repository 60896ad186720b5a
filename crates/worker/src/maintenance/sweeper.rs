//! The pass that finds overdue tasks: expired leases, passed deadlines, lost hints.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use nobat_core::ports::{Clock, Hint, Random, StoreError};
use nobat_core::service::backend::{ApplyError, Backend};
use nobat_core::task::lifecycle::overdue;
use nobat_core::task::{State, Task};
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::time::Timestamp;

/// Finds and repairs overdue tasks.
#[derive(Clone)]
pub struct Sweeper {
    /// The store and the message queue.
    pub backend: Backend,
    /// Source of randomness, for the jitter of retries.
    pub random: Arc<dyn Random>,
}

/// Numbers of tasks that one or several passes of the sweeper handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Tasks whose lease expired or whose deadline passed.
    pub judged: usize,
    /// Tasks that got a new hint.
    pub hinted: usize,
    /// Running tasks whose next check was postponed.
    pub put_off: usize,
    /// Tasks whose outcome could not be stored. The sweeper checks these tasks again after 5 minutes.
    pub failed: usize,
}

/// Maximum number of tasks that one pass of the sweeper handles.
const MAX_TASKS: usize = 500;
/// Number of parallel writes of a pass: enough for a store that groups writes, and for a remote store.
const MAX_IN_FLIGHT: usize = 64;
/// Delay after a task's due time until its hint counts as lost.
const PATIENCE: Duration = Duration::from_mins(2);
/// Minimum pause between two hints of the same task. Above this minimum, the pause is the time for which the
/// task is overdue.
const MIN_PAUSE: Duration = Duration::from_mins(5);
/// Maximum pause between two hints of the same task.
const MAX_PAUSE: Duration = Duration::from_hours(1);

impl Sweeper {
    /// Runs passes until a pass finds nothing or `deadline` has passed. One pass per interval would be too
    /// slow if more than 500 tasks are due at the same moment.
    pub async fn run_until(&self, clock: &dyn Clock, deadline: Timestamp) -> Result<SweepReport, StoreError> {
        let mut total = SweepReport::default();
        loop {
            let swept = self.run_once(clock.now()).await?;
            total = total.and(swept);
            if swept.is_idle() || clock.now() >= deadline {
                return Ok(total);
            }
        }
    }

    /// Runs one pass. A pass may be repeated, run in parallel to other passes, and stop at any point.
    pub async fn run_once(&self, now: Timestamp) -> Result<SweepReport, StoreError> {
        let mut swept = SweepReport::default();
        let mut hints: Vec<Hint> = Vec::new();
        let mut seen: Vec<(Task, Timestamp)> = Vec::new();
        let mut overdue_tasks: Vec<Task> = Vec::new();
        for task in self.backend.store.due(MAX_TASKS, now).await? {
            match &task.state {
                _ if overdue(&task, JitterSample::from_bits(0), now).is_some() => overdue_tasks.push(task),
                State::Waiting(_) => {
                    hints.push(Hint::new(task.key(), task.due_at.since(now)));
                    let next = next_look(&task, now);
                    seen.push((task, next));
                }
                State::Running(lease) => {
                    swept.put_off += 1;
                    let next = lease.until + PATIENCE;
                    seen.push((task, next));
                }
                State::Ended(_) => {}
            }
        }
        let mut judged =
            stream::iter(overdue_tasks).map(|task| self.judge(task, now)).buffer_unordered(MAX_IN_FLIGHT);
        while let Some(judged) = judged.next().await {
            match judged {
                Ok(count) => swept.judged += count,
                // A task whose outcome cannot be stored must not block others, now or in the next pass.
                Err(task) => {
                    swept.failed += 1;
                    seen.push((task, now + MIN_PAUSE));
                }
            }
        }
        swept.hinted = hints.len();
        if !hints.is_empty() {
            self.backend.queue.send(hints).await?;
        }
        let postpone = async |(task, next): (Task, Timestamp)| self.backend.store.postpone(&task, next).await;
        stream::iter(seen).map(postpone).buffer_unordered(MAX_IN_FLIGHT).try_collect::<()>().await?;
        Ok(swept)
    }

    /// Returns the number of tasks changed, or the task if its outcome could not be stored.
    async fn judge(&self, task: Task, now: Timestamp) -> Result<usize, Task> {
        let Some(event) = overdue(&task, JitterSample::from_bits(self.random.next_u64()), now) else {
            return Ok(0);
        };
        // Reads the task again, since the store may have listed it without its payload.
        match self.backend.apply(&task.key(), None, event, now).await {
            Ok(_) => Ok(1),
            Err(ApplyError::Missing | ApplyError::Refused(_)) => Ok(0),
            Err(ApplyError::Store(error)) => {
                tracing::warn!(task = %task.id, %error, "an overdue task could not be updated; a later sweep tries again");
                Err(task)
            }
        }
    }
}

impl SweepReport {
    /// Returns true if the pass changed nothing, so another pass would find nothing either.
    fn is_idle(self) -> bool {
        self.judged + self.hinted + self.put_off == 0
    }

    fn and(self, other: Self) -> Self {
        Self {
            judged: self.judged + other.judged,
            hinted: self.hinted + other.hinted,
            put_off: self.put_off + other.put_off,
            failed: self.failed + other.failed,
        }
    }
}

/// Returns the time of the next check of a waiting task: 2 minutes after the task is due, then at doubling
/// intervals. Returns the task's deadline if the deadline is earlier.
fn next_look(task: &Task, now: Timestamp) -> Timestamp {
    let next = if task.due_at > now {
        task.due_at + PATIENCE
    } else {
        now + now.since(task.due_at).clamp(MIN_PAUSE, MAX_PAUSE)
    };
    task.options.expires_at.map_or(next, |deadline| deadline.min(next))
}
