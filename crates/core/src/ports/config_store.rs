//! Port to the store of the configuration and the audit trail.
//!
//! To the store, a record is a text with a name and a version. Only these modules interpret the text:
//! [`crate::auth::api_key`], [`crate::config::tenant`], [`crate::config::callback_secret`],
//! [`crate::config::endpoint`], [`crate::config::queue`], [`crate::config::subscription`],
//! [`crate::config::schedule`], [`crate::config::source`] and [`crate::config::source_counts`].

use std::num::NonZeroU32;

use async_trait::async_trait;

use crate::auth::api_key::{Key, KeyId};
use crate::auth::audit::Entry;
use crate::config::callback_secret::CallbackSecrets;
use crate::config::endpoint::Endpoint;
use crate::config::queue::QueueConfig;
use crate::config::record::{Record, RecordKind, RecordName};
use crate::config::schedule::Schedule;
use crate::config::source::Source;
use crate::config::subscription::Subscription;
use crate::config::tenant::TenantSettings;
use crate::limits::token_bucket::{TakeResult, TokenRate};
use crate::ports::error::StoreError;
use crate::ports::task_store::Position;
use crate::task::Task;
use crate::types::name::{Name, Tenant};
use crate::types::time::Timestamp;

/// Store of configuration records and of the audit trail.
#[async_trait]
pub trait ConfigStore: Send + Sync {
    /// Returns the record with that name.
    async fn find(&self, name: &RecordName) -> Result<Option<Record>, StoreError>;

    /// Returns up to `limit` records of one kind, sorted by name, starting after the name `after`. `tenant`
    /// is `None` for records of the installation.
    async fn page(
        &self,
        tenant: Option<&Tenant>,
        kind: RecordKind,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError>;

    /// Writes all of these records and the entry. Writes nothing if a stored record does not have the version
    /// before the new one.
    async fn write(&self, records: Vec<Record>, entry: Entry) -> Result<RecordResult, StoreError> {
        let now = entry.at;
        self.write_with_tasks(records, Vec::new(), Some(entry), now).await
    }

    /// Writes all of these records, new tasks and the entry. Writes nothing if a stored record does not have
    /// the version before the new one, or if a task exists already. The caller sends the hints of the tasks.
    /// Only a write that no client asked for has no entry.
    async fn write_with_tasks(
        &self,
        records: Vec<Record>,
        tasks: Vec<Task>,
        entry: Option<Entry>,
        now: Timestamp,
    ) -> Result<RecordResult, StoreError>;

    /// Removes the record and writes the audit entry. Does nothing if the stored version is not `version`.
    async fn remove(&self, name: &RecordName, version: u64, entry: Entry)
    -> Result<RecordResult, StoreError>;

    /// Returns one page of a tenant's audit trail, newest first.
    async fn audit(&self, query: &AuditQuery, now: Timestamp) -> Result<AuditPage, StoreError>;

    /// Takes tokens for requests from a tenant's token bucket. All processes share this bucket. A store in
    /// which each call is a costly write takes up to `wanted` tokens. Any other store takes one token.
    async fn take(
        &self,
        tenant: &Tenant,
        rate: TokenRate,
        wanted: NonZeroU32,
        now: Timestamp,
    ) -> Result<TakeResult, StoreError>;
}

/// Outcome of [`ConfigStore::write`] and [`ConfigStore::remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordResult {
    /// Everything was written.
    Done,
    /// Another writer changed a record in the meantime. Nothing was written.
    Conflict,
}

/// Query for one page of an audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditQuery {
    /// Tenant whose audit trail is read.
    pub tenant: Tenant,
    /// Maximum number of entries.
    pub limit: usize,
    /// Position at which the previous page ended.
    pub after: Option<Position>,
}

/// One page of an audit trail.
#[derive(Debug)]
pub struct AuditPage {
    /// Entries, newest first.
    pub entries: Vec<Entry>,
    /// Position at which the next page starts. `None` if there is no next page.
    pub next: Option<Position>,
}

/// Page size for reading all records of a kind.
const PAGE: usize = 100;

impl dyn ConfigStore + '_ {
    /// Returns a tenant's endpoint.
    pub async fn endpoint(&self, tenant: &Tenant, name: &Name) -> Result<Option<Endpoint>, StoreError> {
        let found = self.find(&Endpoint::record_name(tenant, name)).await?;
        let read = found.map(|record| Endpoint::from_text(&record.body, record.version));
        read.transpose().map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// Returns the configuration of a tenant's queue, kind or limit key, or the default if there is none.
    pub async fn queue_config(&self, name: &RecordName) -> Result<QueueConfig, StoreError> {
        let Some(record) = self.find(name).await? else { return Ok(QueueConfig::default()) };
        QueueConfig::from_text(&record.body, record.version)
            .map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// Returns a tenant's subscription.
    pub async fn subscription(
        &self,
        tenant: &Tenant,
        name: &Name,
    ) -> Result<Option<Subscription>, StoreError> {
        let found = self.find(&Subscription::record_name(tenant, name)).await?;
        found.map(|record| read_subscription(&record)).transpose()
    }

    /// Returns a tenant's schedule.
    pub async fn schedule(&self, tenant: &Tenant, name: &Name) -> Result<Option<Schedule>, StoreError> {
        let Some(record) = self.find(&Schedule::record_name(tenant, name)).await? else { return Ok(None) };
        Schedule::from_text(&record.body, record.version)
            .map(Some)
            .map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// Returns a tenant's source.
    pub async fn source(&self, tenant: &Tenant, name: &Name) -> Result<Option<Source>, StoreError> {
        let Some(record) = self.find(&Source::record_name(tenant, name)).await? else { return Ok(None) };
        Source::from_text(&record.body, record.version)
            .map(Some)
            .map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// Returns all subscriptions of a tenant, sorted by name.
    pub async fn subscriptions(&self, tenant: &Tenant) -> Result<Vec<(Name, Subscription)>, StoreError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(Some(tenant), RecordKind::Subscription, after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            for record in page {
                let subscription = read_subscription(&record)?;
                after = Some(record.name.name.clone());
                all.push((record.name.name, subscription));
            }
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Returns the API key with that id.
    pub async fn key(&self, id: KeyId) -> Result<Option<Key>, StoreError> {
        let found = self.find(&id.into()).await?;
        found.map(|record| read_key(&record)).transpose()
    }

    /// Returns up to `limit` API keys, sorted by id, starting after `after`.
    pub async fn keys(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let after = after.map(KeyId::name);
        self.page(None, RecordKind::Key, after.as_ref(), limit).await?.iter().map(read_key).collect()
    }

    /// Returns the configuration of a tenant, or the default if there is none.
    pub async fn tenant(&self, tenant: &Tenant) -> Result<TenantSettings, StoreError> {
        let Some(record) = self.find(&tenant.into()).await? else { return Ok(TenantSettings::default()) };
        TenantSettings::from_text(&record.body, record.version)
            .map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// Returns the secrets that sign a tenant's callbacks.
    pub async fn callback_secrets(&self, tenant: &Tenant) -> Result<CallbackSecrets, StoreError> {
        let Some(record) = self.find(&RecordName::of_callback_secret(tenant)).await? else {
            return Ok(CallbackSecrets::default());
        };
        CallbackSecrets::from_text(&record.body, record.version)
            .map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// Returns every tenant with a callback secret that signs at `now`, and the tenant's secrets.
    pub async fn signing(&self, now: Timestamp) -> Result<Vec<(Tenant, CallbackSecrets)>, StoreError> {
        let (mut signing, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(None, RecordKind::CallbackSecret, after.as_ref(), PAGE).await?;
            for record in &page {
                let secrets = CallbackSecrets::from_text(&record.body, record.version);
                let secrets = secrets.map_err(|error| StoreError::Corrupt(error.to_string()))?;
                if secrets.secrets.live(now).next().is_some() {
                    signing.push((record.name.name.clone().into(), secrets));
                }
            }
            match page.into_iter().last() {
                Some(last) => after = Some(last.name.name),
                None => return Ok(signing),
            }
        }
    }

    /// Returns true if any API key exists, valid or not. Every request then needs a key.
    pub async fn has_keys(&self) -> Result<bool, StoreError> {
        Ok(!self.page(None, RecordKind::Key, None, 1).await?.is_empty())
    }
}

fn read_subscription(record: &Record) -> Result<Subscription, StoreError> {
    Subscription::from_text(&record.body, record.version)
        .map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn read_key(record: &Record) -> Result<Key, StoreError> {
    Key::from_text(&record.body, record.version).map_err(|error| StoreError::Corrupt(error.to_string()))
}
