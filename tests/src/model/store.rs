//! A table of tasks, with the marks of the sweep.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nobat_core::json::Json;
use nobat_core::lifecycle::{Change, Event, transition};
use nobat_core::ports::{Beat, Claim, Committed, Inserted, ListQuery, Page, Position, Store, StoreError, TaskName};
use nobat_core::task::{State, Task};
use nobat_core::time::Timestamp;

/// The longest delay that a hint can be sent with; what is due later is left to the sweep.
const LONGEST_DELAY: Duration = Duration::from_mins(15);

/// How long before a task is due the sweep sees to its hint, and how long after that it looks whether a hint was enough.
const MARGIN: Duration = Duration::from_mins(2);

/// A table in memory.
pub struct ModelStore {
    retention: Duration,
    rows: Mutex<BTreeMap<Key, Row>>,
}

/// Tenant and id, in an order that can be kept in a map.
type Key = (String, [u8; 16]);

struct Row {
    task: Task,
    /// When the sweep must look at it; `None` once it has ended.
    mark: Option<Timestamp>,
}

fn key(name: &TaskName) -> Key {
    (name.tenant.to_string(), name.id.to_bytes())
}

/// The mark that a task has when it is written.
fn mark(task: &Task, before: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    match &task.state {
        State::Ended(_) => None,
        // A claim leaves the mark where it was: most tasks have ended before it is reached.
        State::Running(lease) => before.or(Some(lease.until)),
        State::Waiting(_) => {
            let hinted = task.due_at.since(now) <= LONGEST_DELAY;
            let mark = if hinted { task.due_at + MARGIN } else { task.due_at - MARGIN };
            Some(task.settings.expires_at.map_or(mark, |deadline| deadline.min(mark)))
        }
    }
}

impl ModelStore {
    /// An empty table that keeps ended tasks for so long.
    pub fn new(retention: Duration) -> Self {
        Self { retention, rows: Mutex::default() }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Key, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_kept(&self, task: &Task, now: Timestamp) -> bool {
        task.finished_at().is_none_or(|ended| ended + self.retention > now)
    }

    fn write(rows: &mut BTreeMap<Key, Row>, task: Task, now: Timestamp) {
        let key = key(&task.name());
        let before = rows.get(&key).and_then(|row| row.mark);
        let mark = mark(&task, before, now);
        rows.insert(key, Row { task, mark });
    }
}

#[async_trait]
impl Store for ModelStore {
    async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<Inserted, StoreError> {
        let mut rows = self.rows();
        let stored = |task: &Task| rows.get(&key(&task.name())).map(|row| row.task.clone()).filter(|task| self.is_kept(task, now));
        let existing: Vec<Task> = tasks.iter().filter_map(stored).collect();
        if !existing.is_empty() {
            return Ok(Inserted::Existing(existing));
        }
        for task in &tasks {
            Self::write(&mut rows, task.clone(), now);
        }
        Ok(Inserted::Created(tasks))
    }

    async fn get(&self, name: &TaskName, now: Timestamp) -> Result<Option<Task>, StoreError> {
        Ok(self.rows().get(&key(name)).map(|row| row.task.clone()).filter(|task| self.is_kept(task, now)))
    }

    async fn claim(&self, name: &TaskName, until: Timestamp, now: Timestamp) -> Result<Claim, StoreError> {
        let mut rows = self.rows();
        let Some(row) = rows.get(&key(name)).filter(|row| self.is_kept(&row.task, now)) else { return Ok(Claim::Missing) };
        match transition(row.task.clone(), Event::Claim { until }, now) {
            Err(refused) => Ok(Claim::Refused(refused, row.task.clone())),
            Ok(change) => {
                Self::write(&mut rows, change.task.clone(), now);
                Ok(Claim::Granted(change.task))
            }
        }
    }

    async fn commit(&self, change: Change, now: Timestamp) -> Result<Committed, StoreError> {
        let mut rows = self.rows();
        if rows.get(&key(&change.task.name())).is_none_or(|row| row.task.version != change.read_version) {
            return Ok(Committed::Conflict);
        }
        Self::write(&mut rows, change.task.clone(), now);
        if let Some(follow_up) = change.follow_up {
            Self::write(&mut rows, follow_up, now);
        }
        Ok(Committed::Done(Box::new(change.task)))
    }

    async fn beat(&self, name: &TaskName, token: u64, until: Timestamp, progress: Option<Json>) -> Result<Beat, StoreError> {
        let mut rows = self.rows();
        let Some(Row { task, .. }) = rows.get_mut(&key(name)) else { return Ok(Beat::Lost) };
        match &mut task.state {
            State::Running(lease) if task.token == token => {
                lease.until = until;
                task.version += 1;
                task.progress = progress.or(task.progress.take());
                Ok(Beat::Renewed { cancel: lease.cancel })
            }
            _ => Ok(Beat::Lost),
        }
    }

    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError> {
        let rows = self.rows();
        let place = |task: &Task| format!("{:015}{:032x}", task.created_at.millis(), u128::from_be_bytes(task.id.to_bytes()));
        let mut tasks: Vec<&Task> = rows.values().map(|row| &row.task).filter(|task| task.tenant == query.tenant).collect();
        tasks.sort_by_cached_key(|task| std::cmp::Reverse(place(task)));
        tasks.retain(|task| query.after.as_ref().is_none_or(|after| place(task) < after.0));
        let (mut found, mut last, mut left) = (Vec::new(), None, tasks.len());
        for task in tasks.into_iter().take(ListQuery::MAX_SCANNED) {
            last = Some(Position(place(task)));
            left -= 1;
            if query.matches(task, now) && self.is_kept(task, now) {
                found.push(task.clone());
            }
            if found.len() == query.limit {
                break;
            }
        }
        Ok(Page { tasks: found, next: last.filter(|_| left > 0) })
    }

    async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError> {
        let rows = self.rows();
        let mut due: Vec<(Timestamp, &Task)> = rows.values().filter_map(|row| Some((row.mark?, &row.task))).collect();
        due.retain(|(mark, _)| *mark <= now);
        due.sort_by_key(|(mark, _)| *mark);
        Ok(due.into_iter().take(limit).map(|(_, task)| task.clone()).collect())
    }

    async fn postpone(&self, task: &Task, until: Timestamp) -> Result<(), StoreError> {
        let mut rows = self.rows();
        if let Some(row) = rows.get_mut(&key(&task.name()))
            && row.task.version == task.version
            && row.mark.is_some()
        {
            row.mark = Some(until);
        }
        Ok(())
    }

    async fn prune(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        let mut rows = self.rows();
        let gone: Vec<Key> = rows.iter().filter(|(_, row)| !self.is_kept(&row.task, now)).take(limit).map(|(key, _)| key.clone()).collect();
        for key in &gone {
            rows.remove(key);
        }
        Ok(gone.len())
    }

    /// Nobody tells of what is written elsewhere.
    async fn changed(&self, _name: &TaskName) {
        std::future::pending::<()>().await;
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
