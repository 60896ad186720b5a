//! A configuration store whose next write is made, but whose reply is lost.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use nobat_core::auth::audit::Entry;
use nobat_core::config::record::{Record, RecordKind, RecordName};
use nobat_core::limits::token_bucket::{TakeResult, TokenRate};
use nobat_core::ports::StoreError;
use nobat_core::ports::config_store::{AuditPage, AuditQuery, ConfigStore, RecordResult};
use nobat_core::task::Task;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use serde_json::json;

use crate::world::World;

pub(crate) struct LostReply {
    pub(crate) inner: Arc<dyn ConfigStore>,
    pub(crate) is_next_lost: Arc<AtomicBool>,
}

impl LostReply {
    fn reply(&self, result: RecordResult) -> Result<RecordResult, StoreError> {
        let is_lost = self.is_next_lost.swap(false, Ordering::Relaxed);
        if is_lost { Err(StoreError::Unavailable("the reply was lost".to_owned())) } else { Ok(result) }
    }
}

#[async_trait]
impl ConfigStore for LostReply {
    async fn find(&self, name: &RecordName) -> Result<Option<Record>, StoreError> {
        self.inner.find(name).await
    }

    async fn page(
        &self,
        tenant: Option<&Tenant>,
        kind: RecordKind,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.inner.page(tenant, kind, after, limit).await
    }

    async fn write_with_tasks(
        &self,
        records: Vec<Record>,
        tasks: Vec<Task>,
        entry: Option<Entry>,
        now: Timestamp,
    ) -> Result<RecordResult, StoreError> {
        self.reply(self.inner.write_with_tasks(records, tasks, entry, now).await?)
    }

    async fn remove(
        &self,
        name: &RecordName,
        version: u64,
        entry: Entry,
    ) -> Result<RecordResult, StoreError> {
        self.reply(self.inner.remove(name, version, entry).await?)
    }

    async fn audit(&self, query: &AuditQuery, now: Timestamp) -> Result<AuditPage, StoreError> {
        self.inner.audit(query, now).await
    }

    async fn take(
        &self,
        tenant: &Tenant,
        rate: TokenRate,
        wanted: NonZeroU32,
        now: Timestamp,
    ) -> Result<TakeResult, StoreError> {
        self.inner.take(tenant, rate, wanted, now).await
    }
}

#[tokio::test]
async fn change_applies_at_once_although_its_reply_was_lost() {
    let is_next_lost = Arc::new(AtomicBool::new(false));
    let world =
        World::with_config(|inner| Arc::new(LostReply { inner, is_next_lost: is_next_lost.clone() })).await;
    let key = world.key("acme", "tasks:write,config:write").await;
    let task = json!({"kind": "noop", "endpoint": "billing"}).to_string();
    // From here on, the cache knows that the endpoint is missing.
    world.ask_with(&key, "POST", "/v1/tasks", &task).await.problem(422, "unknown_endpoint");
    is_next_lost.store(true, Ordering::Relaxed);
    let endpoint = json!({"url": "https://example.com"}).to_string();
    let answer = world.ask_with(&key, "PUT", "/v1/endpoints/billing", &endpoint).await;
    answer.problem(503, "store_unavailable");
    assert_eq!(world.ask_with(&key, "POST", "/v1/tasks", &task).await.status, 202, "the endpoint exists");
}
