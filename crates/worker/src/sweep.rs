//! The pass that finds what is overdue: leases that ran out, deadlines that passed, hints that were lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use nobat_core::backend::{ApplyError, Backend};
use nobat_core::lifecycle::overdue;
use nobat_core::ports::{Chance, Clock, Hint, StoreError};
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
    /// Tasks that run, and that are to be looked at later.
    pub put_off: usize,
    /// Tasks that could not be judged. They are looked at again some minutes later.
    pub failed: usize,
}

/// How many tasks one pass looks at.
const MAX_TASKS: usize = 500;
/// How many writes are under way at a time: enough for a store that writes in groups, and for one that is far away.
const SIDE_BY_SIDE: usize = 64;
/// How long after a task was due its hint is taken for lost.
const PATIENCE: Duration = Duration::from_mins(2);
/// The first pause between two hints of the same task; it grows with the task's delay.
const MIN_PAUSE: Duration = Duration::from_mins(5);
/// The longest pause between two hints of the same task.
const MAX_PAUSE: Duration = Duration::from_hours(1);

impl Sweeper {
    /// Passes until nothing is found any more, or until `deadline`: what was put off to the same moment by many must not take
    /// as many minutes.
    pub async fn run_until(&self, clock: &dyn Clock, deadline: Timestamp) -> Result<Swept, StoreError> {
        let mut total = Swept::default();
        loop {
            let swept = self.run_once(clock.now()).await?;
            total = total.and(swept);
            if swept.is_idle() || clock.now() >= deadline {
                return Ok(total);
            }
        }
    }

    /// One pass. It can be repeated, doubled and broken off at any point.
    pub async fn run_once(&self, now: Timestamp) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        let mut hints: Vec<Hint> = Vec::new();
        let mut seen: Vec<(Task, Timestamp)> = Vec::new();
        let mut overdue_tasks: Vec<Task> = Vec::new();
        for task in self.backend.store.due(MAX_TASKS, now).await? {
            match &task.state {
                _ if overdue(&task, Spread::from_bits(0), now).is_some() => overdue_tasks.push(task),
                State::Waiting(_) => {
                    hints.push(Hint::new(task.name(), task.due_at.since(now)));
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
        let mut judged = stream::iter(overdue_tasks).map(|task| self.judge(task, now)).buffer_unordered(SIDE_BY_SIDE);
        while let Some(judged) = judged.next().await {
            match judged {
                Ok(count) => swept.judged += count,
                // One task that cannot be judged keeps no other from being looked after, now or in the next pass.
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
        stream::iter(seen).map(postpone).buffer_unordered(SIDE_BY_SIDE).try_collect::<()>().await?;
        Ok(swept)
    }

    /// How many tasks were judged; the task itself, if its outcome could not be stored.
    async fn judge(&self, task: Task, now: Timestamp) -> Result<usize, Task> {
        let Some(event) = overdue(&task, Spread::from_bits(self.chance.bits()), now) else { return Ok(0) };
        // Read anew, since what the sweep was shown may be without its payload.
        match self.backend.apply(&task.name(), None, event, now).await {
            Ok(_) => Ok(1),
            Err(ApplyError::Missing | ApplyError::Refused(_)) => Ok(0),
            Err(ApplyError::Store(error)) => {
                tracing::warn!(task = %task.id, %error, "an overdue task could not be judged yet");
                Err(task)
            }
        }
    }
}

impl Swept {
    /// Whether another pass would find no more than this one.
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

/// When to look at a waiting task again: some time after it is due, and each time twice as late as before; but at its deadline.
fn next_look(task: &Task, now: Timestamp) -> Timestamp {
    let next = if task.due_at > now { task.due_at + PATIENCE } else { now + now.since(task.due_at).clamp(MIN_PAUSE, MAX_PAUSE) };
    task.settings.expires_at.map_or(next, |deadline| deadline.min(next))
}
