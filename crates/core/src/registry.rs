//! What is configured rather than submitted, and who changed it: the third port, beside the store and the queue.
//!
//! To a store a record is text with a name and a version. What it says is the core's to read ([`crate::key`], [`crate::tenant`],
//! [`crate::callback_secret`], [`crate::endpoint`], [`crate::lane`]).

use std::num::NonZeroU32;

use async_trait::async_trait;

use crate::audit::Entry;
use crate::callback_secret::CallbackSecrets;
use crate::endpoint::Endpoint;
use crate::key::{Key, KeyId};
use crate::lane::Lane;
use crate::name::{Name, Tenant};
use crate::ports::{Position, StoreError};
use crate::rate::{Rate, Taken};
use crate::tenant::TenantSettings;
use crate::time::Timestamp;

/// Keeps records, and the audit trail.
#[async_trait]
pub trait Registry: Send + Sync {
    /// The record of that name.
    async fn find(&self, name: &RecordName) -> Result<Option<Record>, StoreError>;

    /// Up to `limit` records of one sort, by name, from the one after `after`: those of a tenant, or those of the installation.
    async fn page(&self, tenant: Option<&Tenant>, sort: Sort, after: Option<&Name>, limit: usize) -> Result<Vec<Record>, StoreError>;

    /// Writes all of these records and the entry, or nothing if what is there is not the version before.
    async fn write(&self, records: Vec<Record>, entry: Entry) -> Result<Recorded, StoreError>;

    /// Removes that record and writes the entry, or does nothing if what is there is another version.
    async fn remove(&self, name: &RecordName, version: u64, entry: Entry) -> Result<Recorded, StoreError>;

    /// One page of a tenant's trail, the newest first.
    async fn trail(&self, query: &TrailQuery, now: Timestamp) -> Result<TrailPage, StoreError>;

    /// Takes requests out of a tenant's bucket, which all processes share: one, or up to `wanted` where to take is a costly write.
    async fn take(&self, tenant: &Tenant, rate: Rate, wanted: NonZeroU32, now: Timestamp) -> Result<Taken, StoreError>;
}

/// What sort of thing a record says something of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sort {
    /// A key, by its id.
    Key,
    /// A tenant, by its name.
    Tenant,
    /// The secrets of a tenant's callbacks, by its name.
    CallbackSecret,
    /// An endpoint of a tenant's, by its name.
    Endpoint,
    /// What is laid down for a queue of a tenant's, by its name.
    Queue,
    /// What is laid down for a kind, inside a tenant, by its name.
    Kind,
    /// What is laid down for a flow key of a tenant's, by the key.
    FlowKey,
}

impl Sort {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Tenant => "tenant",
            Self::CallbackSecret => "callback_secret",
            Self::Endpoint => "endpoint",
            Self::Queue => "queue",
            Self::Kind => "kind",
            Self::FlowKey => "flow_key",
        }
    }
}

/// What a record is found by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName {
    /// Whose it is; `None` is the installation's.
    pub tenant: Option<Tenant>,
    /// What sort of thing it is about.
    pub sort: Sort,
    /// Which one.
    pub name: Name,
}

impl RecordName {
    /// Of the record with what a tenant's callbacks are signed with.
    pub fn of_callback_secret(tenant: &Tenant) -> Self {
        Self { tenant: None, sort: Sort::CallbackSecret, name: tenant.name().clone() }
    }
}

impl From<KeyId> for RecordName {
    fn from(id: KeyId) -> Self {
        Self { tenant: None, sort: Sort::Key, name: id.name() }
    }
}

impl From<&Tenant> for RecordName {
    fn from(tenant: &Tenant) -> Self {
        Self { tenant: None, sort: Sort::Tenant, name: tenant.name().clone() }
    }
}

/// A thing that is configured, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is found by.
    pub name: RecordName,
    /// Counts the writes to it, from 1. A record is written only over the version before; one that was removed begins anew.
    pub version: u64,
    /// What it says: up to 64 KiB.
    pub body: String,
}

/// What became of a [`Registry::write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Everything was written.
    Done,
    /// Some record was written by somebody else in between, and nothing was written.
    Conflict,
}

/// Which part of a trail to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailQuery {
    /// Whose.
    pub tenant: Tenant,
    /// At most so many.
    pub limit: usize,
    /// Where the page before this one ended.
    pub after: Option<Position>,
}

/// One page of a trail.
#[derive(Debug)]
pub struct TrailPage {
    /// The newest first.
    pub entries: Vec<Entry>,
    /// Where the next page begins, if there may be one.
    pub next: Option<Position>,
}

/// How many records are read at a time where all are.
const PAGE: usize = 100;

impl dyn Registry + '_ {
    /// A tenant's endpoint of that name.
    pub async fn endpoint(&self, tenant: &Tenant, name: &Name) -> Result<Option<Endpoint>, StoreError> {
        let found = self.find(&Endpoint::record_name(tenant, name)).await?;
        let read = found.map(|record| Endpoint::from_text(&record.body, record.version));
        read.transpose().map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// What is laid down for a queue, a kind or a flow key of a tenant's.
    pub async fn lane(&self, name: &RecordName) -> Result<Lane, StoreError> {
        let Some(record) = self.find(name).await? else { return Ok(Lane::default()) };
        Lane::from_text(&record.body, record.version).map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// The key of that id.
    pub async fn key(&self, id: KeyId) -> Result<Option<Key>, StoreError> {
        let found = self.find(&id.into()).await?;
        found.map(|record| read_key(&record)).transpose()
    }

    /// Up to `limit` keys by id, from the one after `after`.
    pub async fn keys(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let after = after.map(KeyId::name);
        self.page(None, Sort::Key, after.as_ref(), limit).await?.iter().map(read_key).collect()
    }

    /// What is laid down for a tenant.
    pub async fn tenant(&self, tenant: &Tenant) -> Result<TenantSettings, StoreError> {
        let Some(record) = self.find(&tenant.into()).await? else { return Ok(TenantSettings::default()) };
        TenantSettings::from_text(&record.body, record.version).map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// What a tenant's callbacks are signed with.
    pub async fn callback_secrets(&self, tenant: &Tenant) -> Result<CallbackSecrets, StoreError> {
        let Some(record) = self.find(&RecordName::of_callback_secret(tenant)).await? else { return Ok(CallbackSecrets::default()) };
        CallbackSecrets::from_text(&record.body, record.version).map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// Every tenant that signs its callbacks at that moment, and with what.
    pub async fn signing(&self, now: Timestamp) -> Result<Vec<(Tenant, CallbackSecrets)>, StoreError> {
        let (mut signing, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(None, Sort::CallbackSecret, after.as_ref(), PAGE).await?;
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

    /// Whether there is any key, good or not: then everybody needs one.
    pub async fn has_keys(&self) -> Result<bool, StoreError> {
        Ok(!self.page(None, Sort::Key, None, 1).await?.is_empty())
    }
}

fn read_key(record: &Record) -> Result<Key, StoreError> {
    Key::from_text(&record.body, record.version).map_err(|error| StoreError::Corrupt(error.to_string()))
}

impl From<&Key> for Record {
    fn from(key: &Key) -> Self {
        Self { name: key.id().into(), version: key.version, body: key.to_text() }
    }
}
