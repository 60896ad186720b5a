//! Counters of the requests to sources.
//!
//! Clients without credentials can send any number of requests, so a process writes the counts of a source at most once a second.
//! In between, it keeps them in memory.

use std::sync::Arc;
use std::time::Duration;

use nobat_core::collections::recent::Recent;
use nobat_core::config::record::Record;
use nobat_core::config::source_counts::SourceCounts;
use nobat_core::ports::StoreError;
use nobat_core::ports::config_store::RecordResult;
use nobat_core::service::backend::Backend;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use parking_lot::Mutex;

/// Minimum time between two writes of the counts of a source by one process.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of tries to write counts that other processes write too.
const MAX_TRIES: usize = 3;
/// Maximum number of sources with counts in memory. The least recently used counts are dropped.
const MAX_KNOWN: usize = 10_000;

/// Counts that are not stored yet, by source.
pub(crate) struct SourceCounters(Mutex<Recent<(Tenant, Name), SharedPending>>);

type SharedPending = Arc<Mutex<Pending>>;

#[derive(Default)]
struct Pending {
    counts: SourceCounts,
    written_at: Option<Timestamp>,
}

impl Default for SourceCounters {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(MAX_KNOWN)))
    }
}

impl SourceCounters {
    /// Adds the counts of a request. Stores all pending counts of the source if a second has passed since the
    /// last write. A failed write only delays the counts, so it is not an error of the request.
    pub(crate) async fn add(
        &self,
        backend: &Backend,
        tenant: &Tenant,
        name: &Name,
        counts: &SourceCounts,
        now: Timestamp,
    ) {
        let pending = self.pending(tenant, name);
        let unwritten = {
            let mut pending = pending.lock();
            pending.counts = std::mem::take(&mut pending.counts).plus(counts);
            // A clock that was set back must not stop the writes.
            let is_early = pending.written_at.is_some_and(|at| at <= now && now < at + INTERVAL);
            if is_early {
                return;
            }
            pending.written_at = Some(now);
            std::mem::take(&mut pending.counts)
        };
        if let Err(error) = write(backend, tenant, name, &unwritten, now).await {
            tracing::warn!(%tenant, source = %name, %error, "the counts of a source were not stored; the next request stores them");
            let mut pending = pending.lock();
            let newer = std::mem::replace(&mut pending.counts, unwritten);
            pending.counts = std::mem::take(&mut pending.counts).plus(&newer);
        }
    }

    /// Replaces the stored counts of a removed source by empty ones, because the rejections have addresses of
    /// clients. Later counts of the removed source are dropped. After a failed write, the counts stay stored.
    pub(crate) async fn clear(&self, backend: &Backend, tenant: &Tenant, name: &Name, now: Timestamp) {
        let none = SourceCounts { created_at: now, ..SourceCounts::default() };
        if let Err(error) = write(backend, tenant, name, &none, now).await {
            tracing::warn!(%tenant, source = %name, %error, "the counts of a removed source were not cleared; they stay until a source of this name gets a request");
        }
    }

    /// Returns the stored counts of the source that was created at this time, and the pending counts of this
    /// process.
    pub(crate) async fn read(
        &self,
        backend: &Backend,
        tenant: &Tenant,
        name: &Name,
        created_at: Timestamp,
    ) -> Result<SourceCounts, StoreError> {
        let (_, stored) = read(backend, tenant, name).await?;
        let none = SourceCounts { created_at, ..SourceCounts::default() };
        let pending = self.pending(tenant, name).lock().counts.clone();
        let counts = if pending.created_at == created_at { stored.plus(&pending) } else { stored };
        Ok(counts.plus(&none))
    }

    fn pending(&self, tenant: &Tenant, name: &Name) -> SharedPending {
        let (mut known, key) = (self.0.lock(), (tenant.clone(), name.clone()));
        if let Some(pending) = known.get(&key) {
            return Arc::clone(pending);
        }
        let pending = SharedPending::default();
        known.insert(key, Arc::clone(&pending));
        pending
    }
}

async fn write(
    backend: &Backend,
    tenant: &Tenant,
    name: &Name,
    newer: &SourceCounts,
    now: Timestamp,
) -> Result<(), StoreError> {
    for _ in 0..MAX_TRIES {
        let (version, stored) = read(backend, tenant, name).await?;
        let record = stored.plus(newer).record(tenant, name, version + 1);
        if backend.config.write_with_tasks(vec![record], Vec::new(), None, now).await? == RecordResult::Done {
            return Ok(());
        }
    }
    Err(StoreError::Overloaded)
}

async fn read(backend: &Backend, tenant: &Tenant, name: &Name) -> Result<(u64, SourceCounts), StoreError> {
    match backend.config.find(&SourceCounts::record_name(tenant, name)).await? {
        // Counts that cannot be read start again.
        Some(Record { version, body, .. }) => {
            Ok((version, SourceCounts::from_text(&body).unwrap_or_default()))
        }
        None => Ok((0, SourceCounts::default())),
    }
}
