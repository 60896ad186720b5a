//! Task store over the model table. Each method is one conditional write, which is recognized when it is
//! repeated.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nobat_core::json::Json;
use nobat_core::ports::{
    ClaimResult, CommitResult, Heartbeat, InsertResult, ListQuery, Page, Position, StoreError, TaskStore,
};
use nobat_core::task::lifecycle::{Change, Event, transition};
use nobat_core::task::{State, Task, TaskKey};
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;

use super::calls::{Call, Calls};
use super::registry::ModelRegistry;
use super::table::{Item, SweepIndex, Table};
use crate::conformance::Removal;
use crate::model::backend_quirks::{Habit, Habits};
use crate::time::Time;

/// Task store over a table in memory.
pub struct ModelStore {
    retention: Duration,
    removal: Removal,
    calls: Arc<Calls>,
    habits: Arc<dyn Habits>,
    table: Arc<Mutex<Table>>,
    registry: Arc<ModelRegistry>,
}

impl ModelStore {
    /// Creates an empty store that keeps ended tasks for `retention`.
    pub fn new(
        time: Arc<Time>,
        retention: Duration,
        removal: Removal,
        calls: Arc<Calls>,
        habits: Arc<dyn Habits>,
    ) -> Self {
        let table = Arc::new(Mutex::new(Table::new(time)));
        let registry = Arc::new(ModelRegistry::new(retention, calls.clone(), table.clone()));
        Self { retention, removal, calls, habits, table, registry }
    }

    /// Returns the configuration store beside the tasks.
    pub fn registry(&self) -> Arc<ModelRegistry> {
        self.registry.clone()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_kept(&self, task: &Task, now: Timestamp) -> bool {
        task.finished_at().is_none_or(|ended| ended + self.retention > now)
    }

    fn kept<'a>(&self, table: &'a Table, name: &TaskKey, now: Timestamp) -> Option<&'a Item> {
        table.get(name).filter(|item| self.is_kept(&item.task, now))
    }

    /// Returns true if an earlier try of this call made the write, so that the refusal only means that its
    /// answer was lost.
    fn is_own(&self, found: Option<&Item>, own: Call) -> bool {
        let is_own = found.is_some_and(|item| item.op == own);
        if is_own {
            self.habits.note(Habit::KnowsWriteAgain);
        }
        is_own
    }

    /// Acts as TTL: removes some expired tasks, and leaves the others for later or for ever.
    fn expire(&self, table: &mut Table, now: Timestamp) {
        let expired = table.keys_of(|task| !self.is_kept(task, now));
        for key in expired {
            let habit = if self.habits.shows(Habit::RemovesExpired) {
                Habit::RemovesExpired
            } else {
                Habit::KeepsExpired
            };
            self.habits.note(habit);
            if habit == Habit::RemovesExpired {
                table.remove(&key);
            }
        }
    }
}

#[async_trait]
impl TaskStore for ModelStore {
    async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<InsertResult, StoreError> {
        let (mut table, own) = (self.table(), self.calls.current());
        // One task is a conditional put. Several tasks are a transaction, which is also recognized by its
        // token.
        if tasks.len() > 1 && table.has_made(own) {
            self.habits.note(Habit::KnowsWriteAgain);
            return Ok(InsertResult::Created(tasks));
        }
        let existing: Vec<&Item> =
            tasks.iter().filter_map(|task| self.kept(&table, &task.key(), now)).collect();
        if existing.iter().any(|item| self.is_own(Some(item), own)) {
            return Ok(InsertResult::Created(tasks));
        }
        if !existing.is_empty() {
            return Ok(InsertResult::Existing(existing.into_iter().map(|item| item.task.clone()).collect()));
        }
        for task in &tasks {
            table.put(task.clone(), own, now);
        }
        if tasks.len() > 1 {
            table.note_transaction(own);
        }
        Ok(InsertResult::Created(tasks))
    }

    async fn get(&self, name: &TaskKey, now: Timestamp) -> Result<Option<Task>, StoreError> {
        Ok(self.kept(&self.table(), name, now).map(|item| item.task.clone()))
    }

    async fn claim(
        &self,
        name: &TaskKey,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<ClaimResult, StoreError> {
        let (mut table, own) = (self.table(), self.calls.current());
        let Some(item) = self.kept(&table, name, now) else { return Ok(ClaimResult::Missing) };
        match transition(item.task.clone(), Event::Claim { until }, now) {
            Err(_) if self.is_own(Some(item), own) => Ok(ClaimResult::Granted(item.task.clone())),
            Err(refused) => Ok(ClaimResult::Refused(refused, item.task.clone())),
            Ok(change) => {
                table.put(change.task.clone(), own, now);
                Ok(ClaimResult::Granted(change.task))
            }
        }
    }

    async fn commit(&self, change: Change, now: Timestamp) -> Result<CommitResult, StoreError> {
        let (mut table, own) = (self.table(), self.calls.current());
        if (change.callback.is_some() || change.entry.is_some()) && table.has_made(own) {
            self.habits.note(Habit::KnowsWriteAgain);
            return Ok(CommitResult::Done(Box::new(change.task)));
        }
        let found = table.get(&change.task.key());
        let in_the_way = change.callback.as_ref().and_then(|follow_up| table.get(&follow_up.key()));
        if found.is_none_or(|item| item.task.version != change.read_version) || in_the_way.is_some() {
            let is_own = self.is_own(found, own) || self.is_own(in_the_way, own);
            return Ok(if is_own {
                CommitResult::Done(Box::new(change.task))
            } else {
                CommitResult::Conflict
            });
        }
        table.put(change.task.clone(), own, now);
        if change.callback.is_some() || change.entry.is_some() {
            table.note_transaction(own);
        }
        if let Some(follow_up) = change.callback {
            table.put(follow_up, own, now);
        }
        if let Some(entry) = change.entry {
            self.registry.record(entry);
        }
        Ok(CommitResult::Done(Box::new(change.task)))
    }

    async fn heartbeat(
        &self,
        name: &TaskKey,
        token: u64,
        until: Timestamp,
        progress: Option<Json>,
    ) -> Result<Heartbeat, StoreError> {
        let (mut table, mut beat) = (self.table(), Heartbeat::Lost);
        table.update(name, |Item { task, .. }| match &mut task.state {
            State::Running(lease) if task.token == token => {
                lease.until = until;
                task.version += 1;
                task.progress = progress.or(task.progress.take());
                beat = Heartbeat::Renewed { cancel: lease.cancel };
            }
            _ => {}
        });
        Ok(beat)
    }

    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError> {
        let mut table = self.table();
        if self.removal == Removal::ByItself {
            self.expire(&mut table, now);
        }
        let mut places = table.places(query.tenant.as_str(), self.habits.as_ref());
        places.retain(|(place, _)| query.after.as_ref().is_none_or(|after| *place < after.0));
        let (mut found, mut last, mut left) = (Vec::new(), None, places.len());
        for (place, key) in places.into_iter().take(ListQuery::MAX_SCANNED) {
            last = Some(Position(place));
            left -= 1;
            // The index may be stale, so the item in the table decides.
            let task = table.by_key(&key).map(|item| &item.task);
            found.extend(task.filter(|task| query.matches(task, now) && self.is_kept(task, now)).cloned());
            if found.len() == query.limit {
                break;
            }
        }
        Ok(Page { tasks: found, next: last.filter(|_| left > 0) })
    }

    async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError> {
        let table = self.table();
        let marked = table.marked(now, self.habits.as_ref()).into_iter().take(limit);
        let found = marked.filter_map(|key| table.by_key(&key).cloned());
        let is_due = |item: &Item| matches!(item.sweep, Some(SweepIndex::Due(mark)) if mark <= now);
        Ok(found.filter(is_due).map(|item| item.task).collect())
    }

    async fn postpone(&self, task: &Task, until: Timestamp) -> Result<(), StoreError> {
        self.table().update(&task.key(), |item| match item.sweep {
            Some(SweepIndex::Due(_)) if item.task.version == task.version => {
                item.sweep = Some(SweepIndex::Due(until));
            }
            _ => {}
        });
        Ok(())
    }

    async fn waiting(&self, tenant: &Tenant, at_most: usize) -> Result<usize, StoreError> {
        let waiting =
            self.table().keys_of(|task| task.tenant == *tenant && !matches!(task.state, State::Ended(_)));
        Ok(waiting.len().min(at_most))
    }

    async fn prune(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        if self.removal == Removal::ByItself {
            return Ok(0);
        }
        let mut table = self.table();
        let mut gone = table.keys_of(|task| !self.is_kept(task, now));
        gone.truncate(limit);
        for key in &gone {
            table.remove(key);
        }
        let limiters = self.registry.forget_limiters(limit, now);
        Ok(gone.len().max(limiters))
    }

    /// Never resolves: the cloud does not report writes of other processes.
    async fn changed(&self, _name: &TaskKey) {
        std::future::pending::<()>().await;
    }

    async fn ready(&self, _now: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }
}
