//! Counts of the requests of a source.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::record::{Record, RecordKind, RecordName};
use crate::types::name::{Name, Tenant};
use crate::types::time::Timestamp;
use crate::types::unreadable::Unreadable;

/// Counts of the requests of a source since its creation, and its last rejections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceCounts {
    /// Requests that became a task or an event.
    pub accepted: u64,
    /// Requests that repeated a stored one.
    pub repeated: u64,
    /// Rejected requests by cause.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<RejectionCause, u64>,
    /// Last rejections, oldest first: at most [`SourceCounts::KEPT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<Rejection>,
    /// Time of creation of the source. The counts of a removed source do not count for a new one.
    pub created_at: Timestamp,
}

/// Rejected request, without its content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rejection {
    /// Time of the request.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Cause.
    pub cause: RejectionCause,
    /// Client's address. `null` if it is unknown.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, required))]
    pub address: Option<IpAddr>,
}

/// Cause of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RejectionCause {
    /// The client's address is in none of the source's networks.
    Network,
    /// The request has no signature, token or password, or has it twice.
    SignatureMissing,
    /// The signature cannot be read, or does not cover the body.
    SignatureMalformed,
    /// The signature, token or password is wrong.
    SignatureWrong,
    /// The signature is valid, but its time is too far from the current time, or missing.
    Timestamp,
    /// The provider's check of the URL had a wrong token.
    Challenge,
    /// The body was too large, compressed or incomplete.
    Body,
    /// The id belongs to a stored request with another body.
    BodyChanged,
    /// The task of the source is not valid for this request.
    TaskInvalid,
    /// The tenant had reached its request rate or its maximum number of pending tasks.
    Quota,
    /// The request passed through too many tasks.
    Loop,
    /// The store did not accept the task or event.
    Store,
}

impl SourceCounts {
    /// Maximum number of rejections that are kept.
    pub const KEPT: usize = 20;

    /// Returns the name of the record.
    pub fn record_name(tenant: &Tenant, name: &Name) -> RecordName {
        RecordName { tenant: Some(tenant.clone()), kind: RecordKind::SourceCounts, name: name.clone() }
    }

    /// Returns the record.
    pub fn record(&self, tenant: &Tenant, name: &Name, version: u64) -> Record {
        let body = serde_json::to_string(self).unwrap_or_else(|_| unreachable!("numbers and texts"));
        Record { name: Self::record_name(tenant, name), version, body }
    }

    /// Reads the body of a record.
    pub fn from_text(text: &str) -> Result<Self, Unreadable> {
        serde_json::from_str(text).map_err(|_| Unreadable("the counts of a source"))
    }

    /// Counts a rejected request.
    pub fn reject(&mut self, rejection: Rejection) {
        *self.rejected.entry(rejection.cause).or_default() += 1;
        self.last.push(rejection);
        self.keep_last();
    }

    /// Adds newer counts. Counts of a source that was removed are dropped.
    #[must_use]
    pub fn plus(mut self, newer: &Self) -> Self {
        if newer.created_at < self.created_at {
            return self;
        }
        if newer.created_at > self.created_at {
            self = Self { created_at: newer.created_at, ..Self::default() };
        }
        self.accepted += newer.accepted;
        self.repeated += newer.repeated;
        for (cause, count) in &newer.rejected {
            *self.rejected.entry(*cause).or_default() += count;
        }
        self.last.extend(newer.last.iter().cloned());
        self.keep_last();
        self
    }

    fn keep_last(&mut self) {
        let surplus = self.last.len().saturating_sub(Self::KEPT);
        self.last.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(second: i64) -> Rejection {
        let at = Timestamp::from_millis(second * 1_000);
        Rejection { at, cause: RejectionCause::SignatureWrong, address: None }
    }

    #[test]
    fn counts_are_added_and_the_last_rejections_kept() {
        let (mut old, mut new) =
            (SourceCounts { accepted: 3, ..SourceCounts::default() }, SourceCounts::default());
        (0..15).for_each(|second| old.reject(rejection(second)));
        (15..25).for_each(|second| new.reject(rejection(second)));
        let sum = old.plus(&new);
        assert_eq!((sum.accepted, sum.rejected[&RejectionCause::SignatureWrong]), (3, 25));
        assert_eq!(sum.last, (5..25).map(rejection).collect::<Vec<_>>());
        let record = sum.record(&Tenant::default(), &Name::new("x").unwrap(), 1);
        assert_eq!(SourceCounts::from_text(&record.body).unwrap(), sum);
    }

    #[test]
    fn counts_of_a_removed_source_are_dropped() {
        let old = SourceCounts { accepted: 3, ..SourceCounts::default() };
        let new =
            SourceCounts { accepted: 1, created_at: Timestamp::from_millis(1), ..SourceCounts::default() };
        assert_eq!((old.clone().plus(&new), new.clone().plus(&old)), (new.clone(), new));
    }
}
