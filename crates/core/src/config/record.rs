//! Configuration records, as a store keeps them.

use crate::auth::api_key::{Key, KeyId};
use crate::types::name::{Name, Tenant};

/// Kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// API key, by its id.
    Key,
    /// Tenant, by its name.
    Tenant,
    /// Secrets that sign a tenant's callbacks, by the tenant's name.
    CallbackSecret,
    /// Endpoint of a tenant, by its name.
    Endpoint,
    /// Configuration of a tenant's queue, by the queue's name.
    Queue,
    /// Configuration of a kind for one tenant, by the kind's name.
    Kind,
    /// Configuration of a tenant's limit key, by the key.
    LimitKey,
}

impl RecordKind {
    /// Returns the word for the kind of record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Tenant => "tenant",
            Self::CallbackSecret => "callback_secret",
            Self::Endpoint => "endpoint",
            Self::Queue => "queue",
            Self::Kind => "kind",
            Self::LimitKey => "limit_key",
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
    /// Number of writes to the record, from 1. A write must replace the version before. A record that was
    /// removed starts again at 1.
    pub version: u64,
    /// Configuration as text, at most 64 KiB.
    pub body: String,
}

impl From<&Key> for Record {
    fn from(key: &Key) -> Self {
        Self { name: key.id().into(), version: key.version, body: key.to_text() }
    }
}
