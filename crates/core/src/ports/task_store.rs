//! Port to the store of tasks.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::json::Json;
use crate::ports::error::StoreError;
use crate::ports::queue::QueueLoad;
use crate::task::lifecycle::{Change, TransitionError};
use crate::task::{CancelRequest, Status, Task, TaskKey};
use crate::types::name::{Name, Tenant};
use crate::types::time::Timestamp;

/// Store of tasks.
///
/// A method that fails with [`StoreError`] may still have taken effect. The caller can safely repeat the
/// call: the second call finds the effect of the first call. Stores have no clock: the caller passes `now`.
#[async_trait]
pub trait TaskStore: Send + Sync {
    /// Writes all of these tasks, or no task if any of the tasks exists already. All tasks must belong to the
    /// same tenant.
    ///
    /// Created tasks are returned in the given order, existing tasks in any order.
    async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<InsertResult, StoreError>;

    /// Returns the task. Returns `None` if the task does not exist, or ended longer ago than the retention
    /// period.
    async fn get(&self, name: &TaskKey, now: Timestamp) -> Result<Option<Task>, StoreError>;

    /// Grants a lease until `until` in one conditional write, if [`crate::task::lifecycle`] allows the claim.
    async fn claim(
        &self,
        name: &TaskKey,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<ClaimResult, StoreError>;

    /// Writes the change, its callback and its audit entry in one write. Writes nothing if the task no longer
    /// has the version that was read.
    ///
    /// The change must hold the complete task, as [`TaskStore::get`] and [`TaskStore::claim`] return it.
    async fn commit(&self, change: Change, now: Timestamp) -> Result<CommitResult, StoreError>;

    /// Renews the lease of claim number `token` until `until`. Stores the progress, if there is any.
    async fn heartbeat(
        &self,
        name: &TaskKey,
        token: u64,
        until: Timestamp,
        progress: Option<Json>,
    ) -> Result<Heartbeat, StoreError>;

    /// Returns one page of a tenant's tasks, newest first.
    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError>;

    /// Returns the number of a tenant's waiting tasks, at most `at_most`. A store may count running tasks
    /// too.
    async fn waiting(&self, tenant: &Tenant, at_most: usize) -> Result<usize, StoreError>;

    /// Returns up to `limit` tasks that the sweeper must check. Payloads may be missing (`null`).
    async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError>;

    /// Records that the sweeper has handled a task. Until `until`, [`TaskStore::due`] need not return the
    /// task again.
    async fn postpone(&self, task: &Task, until: Timestamp) -> Result<(), StoreError>;

    /// Removes up to `limit` tasks that ended longer ago than the retention period. Returns the number of
    /// removed tasks.
    ///
    /// Does nothing if the database removes such tasks by itself.
    async fn prune(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError>;

    /// Resolves when the task may have been written since the first poll. Never resolves if the store cannot
    /// detect writes.
    async fn changed(&self, name: &TaskKey);

    /// Checks that writes succeed by writing one small row or item.
    async fn ready(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Returns the load of the store's queues inside this process. A store without such queues returns an
    /// empty list.
    fn load(&self) -> Vec<QueueLoad> {
        Vec::new()
    }
}

/// Outcome of [`TaskStore::insert`].
#[derive(Debug)]
pub enum InsertResult {
    /// All tasks were written. Holds the tasks as stored.
    Created(Vec<Task>),
    /// These tasks existed already. Nothing was written.
    Existing(Vec<Task>),
}

/// Outcome of [`TaskStore::claim`].
#[derive(Debug)]
pub enum ClaimResult {
    /// The caller holds the lease.
    Granted(Task),
    /// The task cannot be claimed, for this reason. Holds the task as found; payload and result may be
    /// missing.
    Refused(TransitionError, Task),
    /// No such task exists.
    Missing,
}

/// Outcome of [`TaskStore::commit`].
#[derive(Debug)]
pub enum CommitResult {
    /// The change was written. Holds the task as stored.
    Done(Box<Task>),
    /// The task was changed or removed after it was read. Nothing was written.
    Conflict,
}

/// Outcome of [`TaskStore::heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// The lease was renewed.
    Renewed {
        /// Cancellation request for the handler, if there is one.
        cancel: CancelRequest,
    },
    /// The caller no longer holds the lease.
    Lost,
}

/// Filter and page of a task list.
#[derive(Clone, Debug, PartialEq)]
pub struct ListQuery {
    /// Tenant whose tasks are listed.
    pub tenant: Tenant,
    /// Lists only tasks with this status.
    pub status: Option<Status>,
    /// Lists only tasks of this queue.
    pub queue: Option<Name>,
    /// Lists only tasks of this kind.
    pub kind: Option<Name>,
    /// Lists only tasks with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Lists only tasks accepted at or after this time.
    pub created_after: Option<Timestamp>,
    /// Lists only tasks accepted before this time.
    pub created_before: Option<Timestamp>,
    /// Maximum number of tasks.
    pub limit: usize,
    /// Position at which the previous page ended.
    pub after: Option<Position>,
}

impl ListQuery {
    /// Maximum number of tasks that the store examines for one page. If few of these tasks pass the filter,
    /// the page is short or empty, but a next page can follow.
    pub const MAX_SCANNED: usize = 1_000;

    /// Query for the first page of all tasks of a tenant.
    pub fn all(tenant: Tenant, limit: usize) -> Self {
        Self {
            tenant,
            status: None,
            queue: None,
            kind: None,
            labels: BTreeMap::new(),
            created_after: None,
            created_before: None,
            limit,
            after: None,
        }
    }

    /// Returns true if the task passes all filters.
    pub fn matches(&self, task: &Task, now: Timestamp) -> bool {
        task.tenant == self.tenant
            && self.status.is_none_or(|status| task.status(now) == status)
            && self.queue.as_ref().is_none_or(|queue| task.queue == *queue)
            && self.kind.as_ref().is_none_or(|kind| task.kind == *kind)
            && self.labels.iter().all(|(name, text)| task.options.labels.get(name) == Some(text))
            && self.created_after.is_none_or(|moment| task.created_at >= moment)
            && self.created_before.is_none_or(|moment| task.created_at < moment)
    }
}

/// Position in a list, in the store's own format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(pub String);

/// One page of a list. Payloads of its tasks may be replaced by `null`, and results may be missing.
#[derive(Debug)]
pub struct Page {
    /// Tasks, newest first.
    pub tasks: Vec<Task>,
    /// Position at which the next page starts. The next page may be empty. `None` if there is no next page.
    pub next: Option<Position>,
}
