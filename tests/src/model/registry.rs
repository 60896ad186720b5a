//! Configuration and limiter store over maps in memory. It has no habits: all reads are consistent, and a
//! repeated write is recognized.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nobat_core::auth::audit::Entry;
use nobat_core::config::record::{Record, RecordKind, RecordName};
use nobat_core::limits::token_bucket::{TakeResult, TokenBucket, TokenRate};
use nobat_core::limits::{LimiterKey, LimiterState};
use nobat_core::ports::config_store::{AuditPage, AuditQuery, ConfigStore, RecordResult};
use nobat_core::ports::limiter_store::{IDLE, LimiterStore, WriteResult};
use nobat_core::ports::{Position, StoreError, limiter_store};
use nobat_core::task::Task;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;

use super::calls::{Call, Calls};
use super::table::Table;

/// Configuration records, audit trail, rate buckets and limiter states.
pub struct ModelRegistry {
    retention: Duration,
    calls: Arc<Calls>,
    kept: Mutex<Kept>,
    /// Table of the tasks, for writes that also create tasks.
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Kept {
    records: BTreeMap<RecordName, Record>,
    audit: Vec<Entry>,
    buckets: BTreeMap<Tenant, TokenBucket>,
    limiters: BTreeMap<LimiterKey, KeptLimiter>,
}

struct KeptLimiter {
    kept: limiter_store::VersionedState,
    written_at: Timestamp,
    /// Call that wrote the state last.
    by: Call,
}

impl ModelRegistry {
    /// Creates an empty store.
    pub fn new(retention: Duration, calls: Arc<Calls>, table: Arc<Mutex<Table>>) -> Self {
        Self { retention, calls, kept: Mutex::default(), table }
    }

    /// Adds an entry to the audit trail.
    pub fn record(&self, entry: Entry) {
        self.kept().audit.push(entry);
    }

    /// Removes up to `limit` limiter states that were not written for longer than [`IDLE`]. Returns how many
    /// were removed.
    pub fn forget_limiters(&self, limit: usize, now: Timestamp) -> usize {
        let mut kept = self.kept();
        let idle = kept
            .limiters
            .iter()
            .filter(|(_, limiter)| limiter.written_at < now - IDLE)
            .map(|(name, _)| name.clone());
        let idle: Vec<LimiterKey> = idle.take(limit).collect();
        for name in &idle {
            kept.limiters.remove(name);
        }
        idle.len()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ConfigStore for ModelRegistry {
    async fn find(&self, name: &RecordName) -> Result<Option<Record>, StoreError> {
        Ok(self.kept().records.get(name).cloned())
    }

    async fn page(
        &self,
        tenant: Option<&Tenant>,
        sort: RecordKind,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let kept = self.kept();
        let found = kept
            .records
            .values()
            .filter(|record| record.name.tenant.as_ref() == tenant && record.name.kind == sort);
        Ok(found
            .filter(|record| after.is_none_or(|after| record.name.name > *after))
            .take(limit)
            .cloned()
            .collect())
    }

    async fn write_with_tasks(
        &self,
        records: Vec<Record>,
        tasks: Vec<Task>,
        entry: Option<Entry>,
        now: Timestamp,
    ) -> Result<RecordResult, StoreError> {
        let mut kept = self.kept();
        let version = |name: &RecordName| kept.records.get(name).map_or(0, |record| record.version);
        if records.iter().any(|record| record.version != version(&record.name) + 1) {
            return Ok(RecordResult::Conflict);
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.iter().any(|task| table.get(&task.key()).is_some()) {
            return Ok(RecordResult::Conflict);
        }
        for task in tasks {
            table.put(task, self.calls.current(), now);
        }
        kept.records.extend(records.into_iter().map(|record| (record.name.clone(), record)));
        kept.audit.extend(entry);
        Ok(RecordResult::Done)
    }

    async fn remove(
        &self,
        name: &RecordName,
        version: u64,
        entry: Entry,
    ) -> Result<RecordResult, StoreError> {
        let mut kept = self.kept();
        if kept.records.get(name).is_none_or(|record| record.version != version) {
            return Ok(RecordResult::Conflict);
        }
        kept.records.remove(name);
        kept.audit.push(entry);
        Ok(RecordResult::Done)
    }

    async fn audit(&self, query: &AuditQuery, now: Timestamp) -> Result<AuditPage, StoreError> {
        let kept = self.kept();
        let before = query.after.as_ref().map_or(usize::MAX, |after| after.0.parse().unwrap_or(0));
        let own = kept
            .audit
            .iter()
            .enumerate()
            .take_while(|(place, _)| *place < before)
            .filter(|(_, entry)| entry.tenant == query.tenant && entry.at + self.retention > now);
        let found: Vec<(usize, &Entry)> =
            own.collect::<Vec<_>>().into_iter().rev().take(query.limit).collect();
        let next =
            found.last().filter(|_| found.len() == query.limit).map(|(place, _)| Position(place.to_string()));
        Ok(AuditPage { entries: found.into_iter().map(|(_, entry)| entry.clone()).collect(), next })
    }

    async fn take(
        &self,
        tenant: &Tenant,
        rate: TokenRate,
        _wanted: NonZeroU32,
        now: Timestamp,
    ) -> Result<TakeResult, StoreError> {
        let mut kept = self.kept();
        let bucket = kept.buckets.entry(tenant.clone()).or_default();
        let (taken, left) = rate.take(*bucket, NonZeroU32::MIN, now);
        *bucket = left;
        Ok(taken)
    }
}

#[async_trait]
impl LimiterStore for ModelRegistry {
    async fn read(&self, name: &LimiterKey) -> Result<limiter_store::VersionedState, StoreError> {
        Ok(self.kept().limiters.get(name).map(|limiter| limiter.kept.clone()).unwrap_or_default())
    }

    async fn write(
        &self,
        name: &LimiterKey,
        limiter: &LimiterState,
        over: u64,
        now: Timestamp,
    ) -> Result<WriteResult, StoreError> {
        let mut kept = self.kept();
        let by = self.calls.current();
        let stands = kept.limiters.get(name);
        if stands.is_some_and(|stands| stands.by == by) {
            return Ok(WriteResult::Done);
        }
        let stands = stands.map(|stands| stands.kept.clone()).unwrap_or_default();
        if stands.version != over {
            return Ok(WriteResult::Conflict(stands));
        }
        let written = KeptLimiter {
            kept: limiter_store::VersionedState { version: over + 1, limiter: limiter.clone() },
            written_at: now,
            by,
        };
        kept.limiters.insert(name.clone(), written);
        Ok(WriteResult::Done)
    }
}
