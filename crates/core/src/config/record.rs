//! Configuration records, as a store keeps them.

use crate::auth::api_key::{Key, KeyId};
use crate::types::name::{Name, Tenant};

/// Kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// API key. The record's name is the id of the key.
    Key,
    /// Settings of a tenant. The record's name is the tenant's name.
    Tenant,
    /// Secrets that sign a tenant's callbacks. The record's name is the tenant's name.
    CallbackSecret,
    /// Endpoint of a tenant.
    Endpoint,
    /// Configuration of a tenant's queue.
    Queue,
    /// Configuration of a kind for one tenant.
    Kind,
    /// Configuration of a tenant's limit key.
    LimitKey,
    /// Subscription of a tenant.
    Subscription,
    /// Schedule of a tenant, by its name.
    Schedule,
    /// Source of a tenant.
    Source,
    /// Counts of the requests of a source. The record's name is the name of the source.
    SourceCounts,
}

impl RecordKind {
    /// Returns the kind as the store writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Tenant => "tenant",
            Self::CallbackSecret => "callback_secret",
            Self::Endpoint => "endpoint",
            Self::Queue => "queue",
            Self::Kind => "kind",
            Self::LimitKey => "limit_key",
            Self::Subscription => "subscription",
            Self::Schedule => "schedule",
            Self::Source => "source",
            Self::SourceCounts => "source_counts",
        }
    }
}

/// Key of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName {
    /// Tenant that owns the record. `None` for a record of the installation.
    pub tenant: Option<Tenant>,
    /// Kind of the record.
    pub kind: RecordKind,
    /// Name, unique within the tenant and the kind of record.
    pub name: Name,
}

impl RecordName {
    /// Returns the name of the record with the secrets that sign a tenant's callbacks.
    pub fn of_callback_secret(tenant: &Tenant) -> Self {
        Self { tenant: None, kind: RecordKind::CallbackSecret, name: tenant.name().clone() }
    }
}

impl From<KeyId> for RecordName {
    fn from(id: KeyId) -> Self {
        Self { tenant: None, kind: RecordKind::Key, name: id.name() }
    }
}

impl From<&Tenant> for RecordName {
    fn from(tenant: &Tenant) -> Self {
        Self { tenant: None, kind: RecordKind::Tenant, name: tenant.name().clone() }
    }
}

/// Stored configuration of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Name of the record.
    pub name: RecordName,
    /// Number of writes to the record. Starts at 1, also if a removed record is created again. A write
    /// succeeds only if the stored version is one lower.
    pub version: u64,
    /// Configuration as text, at most 64 KiB.
    pub body: String,
}

impl From<&Key> for Record {
    fn from(key: &Key) -> Self {
        Self { name: key.id().into(), version: key.version, body: key.to_text() }
    }
}
