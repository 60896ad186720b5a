//! Slow access to a backend: every call takes time.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nobat_core::auth::audit::Entry;
use nobat_core::config::record::{Record, RecordKind, RecordName};
use nobat_core::json::Json;
use nobat_core::limits::token_bucket::{TakeResult, TokenRate};
use nobat_core::limits::{LimiterKey, LimiterState};
use nobat_core::ports::config_store::{AuditPage, AuditQuery, ConfigStore, RecordResult};
use nobat_core::ports::limiter_store::{LimiterStore, VersionedState, WriteResult};
use nobat_core::ports::{
    ClaimResult, CommitResult, Heartbeat, InsertResult, ListQuery, Page, StoreError, TaskStore,
};
use nobat_core::service::backend::Backend;
use nobat_core::task::lifecycle::Change;
use nobat_core::task::{Task, TaskKey};
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use tokio::runtime::Handle;

use crate::time::Time;

/// Store, registry and limiter store whose calls each take `latency` of virtual time.
pub struct Slow {
    inner: Backend,
    time: Arc<Time>,
    latency: Duration,
    /// Runtime for calls that wait for real I/O. They take no virtual time.
    runtime: Option<Handle>,
}

impl Slow {
    /// Returns the backend with slow calls. Its queue is unchanged.
    pub fn backend(inner: &Backend, time: &Arc<Time>, latency: Duration, runtime: Option<Handle>) -> Backend {
        let slow = Arc::new(Self { inner: inner.clone(), time: Arc::clone(time), latency, runtime });
        Backend { store: slow.clone(), queue: inner.queue.clone(), config: slow.clone(), limiters: slow }
    }

    async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        self.time.sleep_until(self.time.now() + self.latency).await;
        match &self.runtime {
            Some(runtime) => runtime.block_on(call),
            None => call.await,
        }
    }
}

#[async_trait]
impl TaskStore for Slow {
    async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<InsertResult, StoreError> {
        self.call(self.inner.store.insert(tasks, now)).await
    }

    async fn get(&self, name: &TaskKey, now: Timestamp) -> Result<Option<Task>, StoreError> {
        self.call(self.inner.store.get(name, now)).await
    }

    async fn claim(
        &self,
        name: &TaskKey,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<ClaimResult, StoreError> {
        self.call(self.inner.store.claim(name, until, now)).await
    }

    async fn commit(&self, change: Change, now: Timestamp) -> Result<CommitResult, StoreError> {
        self.call(self.inner.store.commit(change, now)).await
    }

    async fn heartbeat(
        &self,
        name: &TaskKey,
        token: u64,
        until: Timestamp,
        progress: Option<Json>,
    ) -> Result<Heartbeat, StoreError> {
        self.call(self.inner.store.heartbeat(name, token, until, progress)).await
    }

    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError> {
        self.call(self.inner.store.list(query, now)).await
    }

    async fn waiting(&self, tenant: &Tenant, at_most: usize) -> Result<usize, StoreError> {
        self.call(self.inner.store.waiting(tenant, at_most)).await
    }

    async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError> {
        self.call(self.inner.store.due(limit, now)).await
    }

    async fn postpone(&self, task: &Task, until: Timestamp) -> Result<(), StoreError> {
        self.call(self.inner.store.postpone(task, until)).await
    }

    async fn prune(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        self.call(self.inner.store.prune(limit, now)).await
    }

    async fn changed(&self, name: &TaskKey) {
        self.inner.store.changed(name).await;
    }

    async fn ready(&self, now: Timestamp) -> Result<(), StoreError> {
        self.call(self.inner.store.ready(now)).await
    }
}

#[async_trait]
impl LimiterStore for Slow {
    async fn read(&self, name: &LimiterKey) -> Result<VersionedState, StoreError> {
        self.call(self.inner.limiters.read(name)).await
    }

    async fn write(
        &self,
        name: &LimiterKey,
        limiter: &LimiterState,
        over: u64,
        now: Timestamp,
    ) -> Result<WriteResult, StoreError> {
        self.call(self.inner.limiters.write(name, limiter, over, now)).await
    }
}

#[async_trait]
impl ConfigStore for Slow {
    async fn find(&self, name: &RecordName) -> Result<Option<Record>, StoreError> {
        self.call(self.inner.config.find(name)).await
    }

    async fn page(
        &self,
        tenant: Option<&Tenant>,
        sort: RecordKind,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.call(self.inner.config.page(tenant, sort, after, limit)).await
    }

    async fn write_with_tasks(
        &self,
        records: Vec<Record>,
        tasks: Vec<Task>,
        entry: Option<Entry>,
        now: Timestamp,
    ) -> Result<RecordResult, StoreError> {
        self.call(self.inner.config.write_with_tasks(records, tasks, entry, now)).await
    }

    async fn remove(
        &self,
        name: &RecordName,
        version: u64,
        entry: Entry,
    ) -> Result<RecordResult, StoreError> {
        self.call(self.inner.config.remove(name, version, entry)).await
    }

    async fn audit(&self, query: &AuditQuery, now: Timestamp) -> Result<AuditPage, StoreError> {
        self.call(self.inner.config.audit(query, now)).await
    }

    async fn take(
        &self,
        tenant: &Tenant,
        rate: TokenRate,
        wanted: NonZeroU32,
        now: Timestamp,
    ) -> Result<TakeResult, StoreError> {
        self.call(self.inner.config.take(tenant, rate, wanted, now)).await
    }
}
