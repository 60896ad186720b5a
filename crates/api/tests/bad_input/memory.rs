//! Minimal store in memory for the API. The backends have their own test suite.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use nobat_core::json::Json;
use nobat_core::ports::{
    ClaimResult, CommitResult, Delivery, Heartbeat, Hint, InsertResult, ListQuery, Page, Position, Queue,
    Receipt, Settlement, StoreError, TaskStore,
};
use nobat_core::task::lifecycle::Change;
use nobat_core::task::{State, Task, TaskKey};
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use tokio::sync::watch;

/// Tasks of one tenant, by id.
pub(crate) struct Memory {
    tasks: Mutex<BTreeMap<TaskId, Task>>,
    writes: watch::Sender<()>,
    change_after_read: Mutex<Option<Change>>,
    is_overloaded: AtomicBool,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            tasks: Mutex::default(),
            writes: watch::Sender::new(()),
            change_after_read: Mutex::default(),
            is_overloaded: AtomicBool::new(false),
        }
    }

    pub(crate) fn all(&self) -> Vec<Task> {
        self.tasks.lock().unwrap().values().cloned().collect()
    }

    pub(crate) fn forget(&self, id: &str) {
        self.tasks.lock().unwrap().remove(&id.parse().unwrap());
    }

    /// Refuses all further tasks as overloaded.
    pub(crate) fn overload(&self) {
        self.is_overloaded.store(true, Ordering::Relaxed);
    }

    /// Writes this change right after the next read of a task, so that the reader sees the old version.
    pub(crate) fn write_after_next_read(&self, change: Change) {
        *self.change_after_read.lock().unwrap() = Some(change);
    }

    fn write(&self, change: Change) -> CommitResult {
        let mut tasks = self.tasks.lock().unwrap();
        if tasks.get(&change.task.id).is_none_or(|task| task.version != change.read_version) {
            return CommitResult::Conflict;
        }
        tasks.extend(change.callback.map(|task| (task.id, task)));
        tasks.insert(change.task.id, change.task.clone());
        self.writes.send_replace(());
        CommitResult::Done(Box::new(change.task))
    }

    /// Returns the number of requests that wait for a write.
    pub(crate) fn watchers(&self) -> usize {
        self.writes.receiver_count()
    }
}

fn not_called<T>() -> Result<T, StoreError> {
    Err(StoreError::Corrupt("the API must not call this method".into()))
}

#[async_trait]
impl TaskStore for Memory {
    async fn insert(&self, new: Vec<Task>, _now: Timestamp) -> Result<InsertResult, StoreError> {
        if self.is_overloaded.load(Ordering::Relaxed) {
            return Err(StoreError::Overloaded);
        }
        let mut tasks = self.tasks.lock().unwrap();
        let existing: Vec<_> = new.iter().filter_map(|task| tasks.get(&task.id).cloned()).collect();
        if !existing.is_empty() {
            // The order is reversed, since the store promises none.
            return Ok(InsertResult::Existing(existing.into_iter().rev().collect()));
        }
        tasks.extend(new.iter().map(|task| (task.id, task.clone())));
        Ok(InsertResult::Created(new))
    }

    async fn get(&self, name: &TaskKey, _now: Timestamp) -> Result<Option<Task>, StoreError> {
        let task = self.tasks.lock().unwrap().get(&name.id).cloned();
        let change_after_read = self.change_after_read.lock().unwrap().take();
        change_after_read.map(|change| self.write(change));
        Ok(task)
    }

    async fn commit(&self, change: Change, _now: Timestamp) -> Result<CommitResult, StoreError> {
        Ok(self.write(change))
    }

    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError> {
        let tasks = self.tasks.lock().unwrap();
        let after = query.after.as_ref().map(|Position(id)| id.parse::<TaskId>().unwrap());
        let mut found = tasks
            .values()
            .rev()
            .filter(|task| after.is_none_or(|after| task.id < after) && query.matches(task, now));
        let page: Vec<_> = found.by_ref().take(query.limit).cloned().collect();
        let next = found.next().and(page.last()).map(|task| Position(task.id.to_string()));
        Ok(Page { tasks: page, next })
    }

    async fn changed(&self, _name: &TaskKey) {
        let _ = self.writes.subscribe().changed().await;
    }

    async fn ready(&self, _: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }

    async fn claim(&self, _: &TaskKey, _: Timestamp, _: Timestamp) -> Result<ClaimResult, StoreError> {
        not_called()
    }

    async fn heartbeat(
        &self,
        _: &TaskKey,
        _: u64,
        _: Timestamp,
        _: Option<Json>,
    ) -> Result<Heartbeat, StoreError> {
        not_called()
    }

    async fn waiting(&self, _: &Tenant, at_most: usize) -> Result<usize, StoreError> {
        let tasks = self.tasks.lock().unwrap();
        Ok(tasks.values().filter(|task| matches!(task.state, State::Waiting(_))).take(at_most).count())
    }

    async fn due(&self, _: usize, _: Timestamp) -> Result<Vec<Task>, StoreError> {
        not_called()
    }

    async fn postpone(&self, _: &Task, _: Timestamp) -> Result<(), StoreError> {
        not_called()
    }

    async fn prune(&self, _: usize, _: Timestamp) -> Result<usize, StoreError> {
        not_called()
    }
}

/// Queue without a worker: it drops all hints.
#[async_trait]
impl Queue for Memory {
    async fn send(&self, _: Vec<Hint>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn receive(&self, _: usize) -> Result<Vec<Delivery>, StoreError> {
        not_called()
    }

    async fn settle(&self, _: Vec<(Receipt, Settlement)>) -> Result<(), StoreError> {
        not_called()
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
