//! Configuration of a tenant, without its API keys.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::limits::codec::StoredLimits;
use crate::limits::token_bucket::TokenRate;
use crate::types::unreadable::Unreadable;

/// Limits of a tenant. If a limit is not set, only the limit of the installation applies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TenantSettings {
    /// Maximum rate of API requests.
    pub request_rate: Option<TokenRate>,
    /// Maximum number of waiting tasks.
    pub max_pending_tasks: Option<NonZeroU32>,
    /// Maximum length of a payload, in bytes.
    pub max_payload_bytes: Option<NonZeroU32>,
    /// Rate and concurrency limits of the tenant's tasks.
    pub limits: Limits,
    /// Number of writes to the record. 0 if there is no record.
    pub version: u64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_rate: Option<StoredRate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_pending_tasks: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_payload_bytes: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "is_unlimited")]
    limits: StoredLimits,
}

fn is_unlimited(limiter: &StoredLimits) -> bool {
    *limiter == StoredLimits::default()
}

/// Stored form of a rate: tokens per second, and burst.
#[derive(Serialize, Deserialize)]
struct StoredRate(NonZeroU32, NonZeroU32);

impl TenantSettings {
    /// Returns the stored form: compact JSON, the same in every backend.
    pub fn to_text(self) -> String {
        let stored = Stored {
            request_rate: self.request_rate.map(|rate| StoredRate(rate.per_second, rate.burst)),
            max_pending_tasks: self.max_pending_tasks,
            max_payload_bytes: self.max_payload_bytes,
            limits: self.limits.into(),
        };
        serde_json::to_string(&stored).unwrap_or_else(|_| unreachable!("numbers always serialize"))
    }

    /// Inverse of [`TenantSettings::to_text`].
    pub fn from_text(text: &str, version: u64) -> Result<Self, Unreadable> {
        let stored: Stored = serde_json::from_str(text).map_err(|_| Unreadable("a tenant's settings"))?;
        Ok(Self {
            request_rate: stored.request_rate.map(|rate| TokenRate { per_second: rate.0, burst: rate.1 }),
            max_pending_tasks: stored.max_pending_tasks,
            max_payload_bytes: stored.max_payload_bytes,
            limits: stored.limits.into(),
            version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_back_as_stored() {
        let count = NonZeroU32::new;
        let request_rate =
            count(10).zip(count(20)).map(|(per_second, burst)| TokenRate { per_second, burst });
        let limits = Limits { concurrency: count(7), ..Limits::default() };
        for settings in [
            TenantSettings { version: 1, ..TenantSettings::default() },
            TenantSettings {
                request_rate,
                max_pending_tasks: count(100),
                max_payload_bytes: count(1_000),
                limits,
                version: 2,
            },
        ] {
            assert_eq!(TenantSettings::from_text(&settings.to_text(), settings.version).unwrap(), settings);
        }
    }
}
