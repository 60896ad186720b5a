//! Keys of limiters. A key names the property that the tasks of a limiter share.

use std::fmt;
use std::str::FromStr;

use crate::types::name::{Name, Tenant};

/// Key of a limiter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimiterKey {
    /// Tenant that owns the limiter.
    pub tenant: Tenant,
    /// Property that the limiter's tasks share.
    pub scope: LimitScope,
}

/// Property that the tasks of a limiter share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitScope {
    /// The endpoint that the tasks call.
    Endpoint(Name),
    /// The endpoint that the tasks call, and a hash of everything else that must be equal for tasks to go in
    /// one request.
    Batch(Name, u64),
    /// The limit key that the tasks name.
    Key(Name),
    /// The kind of the tasks.
    Kind(Name),
    /// The queue of the tasks.
    Queue(Name),
    /// The subscription that created the tasks. A subscription has no limits, but it can be paused.
    Subscription(Name),
    /// The tenant of the tasks.
    Tenant,
}

/// The text is not the key of a limiter.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `tenant`, or a type and a name such as `queue/default`")]
pub struct InvalidLimitScope;

impl FromStr for LimitScope {
    type Err = InvalidLimitScope;

    fn from_str(text: &str) -> Result<Self, InvalidLimitScope> {
        if text == "tenant" {
            return Ok(Self::Tenant);
        }
        let (type_name, name) = text.split_once('/').ok_or(InvalidLimitScope)?;
        let (name, batch_key) = match (type_name, name.split_once('/')) {
            ("batch", Some((name, batch_key))) => {
                (name, u64::from_str_radix(batch_key, 16).map_err(|_| InvalidLimitScope)?)
            }
            _ => (name, 0),
        };
        let name = Name::new(name).map_err(|_| InvalidLimitScope)?;
        match type_name {
            "endpoint" => Ok(Self::Endpoint(name)),
            "batch" => Ok(Self::Batch(name, batch_key)),
            "key" => Ok(Self::Key(name)),
            "kind" => Ok(Self::Kind(name)),
            "queue" => Ok(Self::Queue(name)),
            "subscription" => Ok(Self::Subscription(name)),
            _ => Err(InvalidLimitScope),
        }
    }
}

impl fmt::Display for LimitScope {
    /// Writes the stored form. The parts are separated by `/`, which no name contains.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(name) => write!(f, "endpoint/{name}"),
            Self::Batch(name, batch_key) => write!(f, "batch/{name}/{batch_key:016x}"),
            Self::Key(name) => write!(f, "key/{name}"),
            Self::Kind(name) => write!(f, "kind/{name}"),
            Self::Queue(name) => write!(f, "queue/{name}"),
            Self::Subscription(name) => write!(f, "subscription/{name}"),
            Self::Tenant => f.write_str("tenant"),
        }
    }
}

impl LimitScope {
    /// Returns the word for the property, such as `endpoint` or `limit_key`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "endpoint",
            Self::Batch(..) => "batch",
            Self::Key(_) => "limit_key",
            Self::Kind(_) => "kind",
            Self::Queue(_) => "queue",
            Self::Subscription(_) => "subscription",
            Self::Tenant => "tenant",
        }
    }

    /// Returns the name of the endpoint, limit key, kind, queue or subscription. Returns `None` for the
    /// limiter of a tenant.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Endpoint(name)
            | Self::Batch(name, _)
            | Self::Key(name)
            | Self::Kind(name)
            | Self::Queue(name)
            | Self::Subscription(name) => Some(name),
            Self::Tenant => None,
        }
    }
}
