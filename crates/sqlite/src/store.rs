//! The task store.

use async_trait::async_trait;
use nobat_core::json::Json;
use nobat_core::ports::{
    ClaimResult, CommitResult, Heartbeat, InsertResult, ListQuery, Page, QueueLoad, StoreError, TaskStore,
};
use nobat_core::task::lifecycle::Change;
use nobat_core::task::{Task, TaskKey};
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use rusqlite::Connection;

use crate::read_pool::{Cost, Readers};
use crate::turn_queue::Owner;
use crate::writer::Load;
use crate::{Error, Sqlite, task_queries};

#[async_trait]
impl TaskStore for Sqlite {
    async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<InsertResult, StoreError> {
        self.0.writer.call(Load::tasks(&tasks), move |database| database.insert(tasks, now)).await
    }

    async fn get(&self, name: &TaskKey, now: Timestamp) -> Result<Option<Task>, StoreError> {
        let (name, retention) = (name.clone(), self.0.retention);
        self.read(Cost::Task, Some(name.tenant.clone()), move |connection| {
            task_queries::get(connection, &name, retention, now)
        })
        .await
    }

    async fn claim(
        &self,
        name: &TaskKey,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<ClaimResult, StoreError> {
        let name = name.clone();
        self.0
            .writer
            .call(Load::of(Some(name.tenant.clone())), move |database| database.claim(&name, until, now))
            .await
    }

    async fn commit(&self, change: Change, _now: Timestamp) -> Result<CommitResult, StoreError> {
        let load = Load::tasks([&change.task].into_iter().chain(&change.callback));
        self.0.writer.call(load, move |database| database.commit(change)).await
    }

    async fn heartbeat(
        &self,
        name: &TaskKey,
        token: u64,
        until: Timestamp,
        progress: Option<Json>,
    ) -> Result<Heartbeat, StoreError> {
        let name = name.clone();
        self.0
            .writer
            .call(Load::of(Some(name.tenant.clone())), move |database| {
                database.beat(&name, token, until, progress.as_ref())
            })
            .await
    }

    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError> {
        let (query, retention) = (query.clone(), self.0.retention);
        self.read(Cost::Scan, Some(query.tenant.clone()), move |connection| {
            task_queries::list(connection, &query, retention, now)
        })
        .await
    }

    async fn waiting(&self, tenant: &Tenant, at_most: usize) -> Result<usize, StoreError> {
        let tenant = tenant.clone();
        self.read(Cost::Scan, Some(tenant.clone()), move |connection| {
            task_queries::waiting(connection, &tenant, at_most)
        })
        .await
    }

    async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError> {
        self.read(Cost::Scan, None, move |connection| task_queries::due(connection, limit, now)).await
    }

    /// Does nothing: tasks that were handled are no longer due.
    async fn postpone(&self, _task: &Task, _until: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }

    async fn prune(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        self.0.writer.call(Load::of(None), move |database| database.prune(limit, now)).await
    }

    async fn changed(&self, name: &TaskKey) {
        self.0.dispatch.watch(name).await;
    }

    async fn ready(&self, now: Timestamp) -> Result<(), StoreError> {
        self.0.writer.call(Load::of(None), move |database| database.probe(now)).await
    }

    fn load(&self) -> Vec<QueueLoad> {
        let readers = self.0.readers.as_ref().map(Readers::load).unwrap_or_default();
        self.0.writer.load().into_iter().chain(readers).collect()
    }
}

impl Sqlite {
    /// Runs a read of that cost class for that owner.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        cost: Cost,
        owner: Owner,
        operation: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        match &self.0.readers {
            Some(readers) => readers.call(cost, owner, operation).await,
            None => {
                self.0.writer.call(Load::of(owner), move |database| operation(database.connection())).await
            }
        }
    }
}
