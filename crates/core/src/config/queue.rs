//! Configuration of a queue, a kind or a limit key.

use serde::{Deserialize, Serialize};

use crate::config::record::{Record, RecordKind, RecordName};
use crate::json::decode::Patch;
use crate::limits::codec::StoredLimits;
use crate::limits::{Limits, LimitsSubmission};
use crate::task::codec::StoredRetry;
use crate::task::retry::RetryPolicy;
use crate::task::retry_submission::RetrySubmission;
use crate::types::field_error::{FieldError, ValidationErrors};
use crate::types::name::{Name, Tenant};
use crate::types::unreadable::Unreadable;

/// Configuration of a queue, a kind or a limit key. Most queues, kinds and limit keys have no record and use
/// the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueConfig {
    /// True if the queue or kind is paused: none of its tasks start. A limit key is never paused.
    pub paused: bool,
    /// Rate and concurrency limits of the tasks.
    pub limits: Limits,
    /// Retry policy of a queue, for tasks whose submission and endpoint set no policy.
    pub retry: Option<RetryPolicy>,
    /// Number of writes to the record. 0 if there is no record.
    pub version: u64,
}

/// Update of a queue's configuration. Omitted fields keep their values. `null` resets `limits` and `retry` to
/// their defaults, and does not change `paused`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = QueueUpdate))]
pub struct QueueSubmission {
    /// True to pause the queue: none of the queue's tasks start. False to resume the queue.
    pub paused: Option<bool>,
    /// Rate and concurrency limits of the queue's tasks. `null` removes all limits.
    #[serde(default, deserialize_with = "crate::json::decode::patch_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<LimitsSubmission>, required = false))]
    pub limits: Patch<LimitsSubmission>,
    /// Retry policy for new tasks whose submission and endpoint set no policy. `null` resets the policy to
    /// its defaults.
    #[serde(default, deserialize_with = "crate::json::decode::patch_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<RetrySubmission>, required = false))]
    pub retry: Patch<RetrySubmission>,
}

impl QueueSubmission {
    /// Returns the configuration that replaces `current`, or all errors in the update. The errors use
    /// `pointer` as the JSON pointer of the limits.
    pub fn queue_config(&self, pointer: &str, current: &QueueConfig) -> Result<QueueConfig, Vec<FieldError>> {
        let mut wrong = ValidationErrors::default();
        let queue_config = QueueConfig {
            paused: self.paused.unwrap_or(current.paused),
            limits: match &self.limits {
                Patch::This(limits) => limits.limits(pointer, &mut wrong),
                Patch::Usual => Limits::default(),
                Patch::Nothing => current.limits,
            },
            retry: match &self.retry {
                Patch::This(retry) => Some(wrong.retry("/retry", retry)),
                Patch::Usual => None,
                Patch::Nothing => current.retry.clone(),
            },
            version: current.version + 1,
        };
        if wrong.0.is_empty() { Ok(queue_config) } else { Err(wrong.0) }
    }
}

/// Stored form of a [`QueueConfig`]. The record stores the version separately.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    #[serde(flatten)]
    limits: StoredLimits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<StoredRetry>,
}

impl QueueConfig {
    /// Returns the name of the record.
    pub fn record_name(tenant: &Tenant, kind: RecordKind, name: &Name) -> RecordName {
        RecordName { tenant: Some(tenant.clone()), kind, name: name.clone() }
    }

    /// Returns the record.
    pub fn record(&self, name: RecordName) -> Record {
        Record { name, version: self.version, body: self.to_text() }
    }

    /// Returns the stored form: compact JSON, the same in every backend.
    pub fn to_text(&self) -> String {
        let stored = Stored {
            paused: self.paused,
            limits: self.limits.into(),
            retry: self.retry.as_ref().map(StoredRetry::from),
        };
        serde_json::to_string(&stored).unwrap_or_else(|_| unreachable!("numbers always serialize"))
    }

    /// Inverse of [`QueueConfig::to_text`].
    pub fn from_text(text: &str, version: u64) -> Result<Self, Unreadable> {
        let stored: Stored = serde_json::from_str(text)
            .map_err(|_| Unreadable("the configuration of a queue, kind or limit key"))?;
        Ok(Self {
            paused: stored.paused,
            limits: stored.limits.into(),
            retry: stored.retry.map(RetryPolicy::from),
            version,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::limits::RateLimit;

    #[test]
    fn omitted_fields_keep_their_values_and_null_resets() {
        let limits = Limits { concurrency: NonZeroU32::new(4), ..Limits::default() };
        let current = QueueConfig { paused: true, limits, retry: Some(RetryPolicy::default()), version: 3 };
        let said = |body: &str| {
            crate::json::decode::read_object::<QueueSubmission>(body.as_bytes())
                .unwrap()
                .queue_config("/limits", &current)
                .unwrap()
        };
        assert_eq!(said("{}"), QueueConfig { version: 4, ..current.clone() });
        assert_eq!(
            said(r#"{"paused": false}"#),
            QueueConfig { paused: false, version: 4, ..current.clone() }
        );
        assert_eq!(
            said(r#"{"paused": null, "limits": null}"#),
            QueueConfig { limits: Limits::default(), version: 4, ..current.clone() }
        );
        assert_eq!(said(r#"{"retry": null}"#), QueueConfig { retry: None, version: 4, ..current.clone() });
        let limiter = Patch::This(LimitsSubmission { burst: Some(2.0), ..LimitsSubmission::default() });
        let wrong = QueueSubmission { limits: limiter, ..QueueSubmission::default() }
            .queue_config("", &current)
            .unwrap_err();
        assert_eq!(wrong.into_iter().map(|invalid| invalid.pointer).collect::<Vec<_>>(), ["/rate"]);
    }

    #[test]
    fn configuration_is_read_back_as_stored() {
        let count = |count| NonZeroU32::new(count).unwrap();
        let rate_limit = RateLimit { rate: count(10), period: Duration::from_millis(1_500), burst: count(3) };
        let limits = Limits { rate: Some(rate_limit), concurrency: Some(count(4)), breaker: None };
        let elaborate = QueueConfig { paused: true, limits, retry: Some(RetryPolicy::default()), version: 7 };
        for queue_config in [QueueConfig { version: 1, ..QueueConfig::default() }, elaborate] {
            assert_eq!(
                QueueConfig::from_text(&queue_config.to_text(), queue_config.version).unwrap(),
                queue_config
            );
        }
        assert_eq!(QueueConfig::default().to_text(), "{}", "default values are not stored");
        assert!(QueueConfig::from_text("[]", 1).is_err());
    }
}
