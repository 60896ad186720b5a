//! Limits on the list requests that run in parallel for each tenant. Without these limits, one tenant could
//! use up the table's capacity and the connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use nobat_core::collections::recent::Recent;
use nobat_core::ports::{QueueLoad, StoreError};
use nobat_core::types::name::Tenant;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Maximum number of list requests that one process runs for one tenant in parallel. Each list request makes
/// up to 16 parallel queries.
const AT_ONCE: usize = 4;
/// Maximum number of waiting list requests of all tenants.
const MAX_WAITING: usize = 4_096;
/// Maximum number of waiting list requests of one tenant.
const MAX_OF_TENANT: usize = 1_024;
/// Maximum time for which a list request waits. A longer wait ends with [`StoreError::Overloaded`].
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Maximum number of tenants in memory. A tenant that is dropped from memory while its list requests wait can
/// exceed [`AT_ONCE`].
const MAX_TENANTS: usize = 10_000;

/// List requests of each tenant that run or wait.
pub(crate) struct ListTurns {
    tenants: Mutex<Recent<Tenant, Arc<OfTenant>>>,
    waiting: AtomicUsize,
    refused: AtomicU64,
}

struct OfTenant {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for ListTurns {
    fn default() -> Self {
        Self {
            tenants: Mutex::new(Recent::new(MAX_TENANTS)),
            waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

impl ListTurns {
    /// Waits until the tenant may run another list request. The request counts as running until the permit is
    /// dropped.
    pub(crate) async fn turn(&self, tenant: &Tenant) -> Result<OwnedSemaphorePermit, StoreError> {
        let of_tenant = self.of_tenant(tenant);
        let turns = Arc::clone(&of_tenant.turns);
        if let Ok(permit) = Arc::clone(&turns).try_acquire_owned() {
            return Ok(permit);
        }
        let _of_tenant =
            WaitingCount::take(&of_tenant.waiting, MAX_OF_TENANT).ok_or_else(|| self.refuse())?;
        let _of_all = WaitingCount::take(&self.waiting, MAX_WAITING).ok_or_else(|| self.refuse())?;
        match timeout(MAX_WAIT, turns.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(self.refuse()),
        }
    }

    /// Returns how many requests for lists wait, and the limits on this number.
    pub(crate) fn load(&self) -> QueueLoad {
        let (length, refused) = (self.waiting.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed));
        QueueLoad { name: "list", length, limit: MAX_WAITING, tenant_limit: MAX_OF_TENANT, refused }
    }

    fn of_tenant(&self, tenant: &Tenant) -> Arc<OfTenant> {
        let mut tenants = self.tenants.lock();
        if let Some(known) = tenants.get(tenant) {
            return Arc::clone(known);
        }
        let new =
            Arc::new(OfTenant { turns: Arc::new(Semaphore::new(AT_ONCE)), waiting: AtomicUsize::new(0) });
        tenants.insert(tenant.clone(), Arc::clone(&new));
        new
    }

    fn refuse(&self) -> StoreError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        StoreError::Overloaded
    }
}

/// One list request in the count of waiting requests. Dropping this value lowers the count.
struct WaitingCount<'a>(&'a AtomicUsize);

impl<'a> WaitingCount<'a> {
    fn take(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let place = Self(waiting);
        // If the limit is reached, dropping `place` lowers the count again.
        (waiting.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for WaitingCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use futures_util::poll;
    use tokio::time::Instant;

    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    async fn fill(turns: &ListTurns, tenant: &Tenant) -> Vec<OwnedSemaphorePermit> {
        join_all((0..AT_ONCE).map(|_| turns.turn(tenant))).await.into_iter().map(Result::unwrap).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn list_waits_only_for_lists_of_its_own_tenant() {
        let (turns, loud) = (ListTurns::default(), tenant("loud"));
        let (mut taken, begun) = (fill(&turns, &loud).await, Instant::now());
        let mut waiting = std::pin::pin!(turns.turn(&loud));
        assert!(poll!(&mut waiting).is_pending());
        assert_eq!(turns.load().length, 1);
        drop(turns.turn(&tenant("quiet")).await.unwrap());
        taken.pop();
        drop(waiting.await.unwrap());
        assert_eq!((begun.elapsed(), turns.load().length), (Duration::ZERO, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn list_that_waits_too_long_is_refused() {
        let (turns, loud) = (ListTurns::default(), tenant("loud"));
        let (_taken, begun) = (fill(&turns, &loud).await, Instant::now());
        assert!(matches!(turns.turn(&loud).await, Err(StoreError::Overloaded)));
        let QueueLoad { length, refused, .. } = turns.load();
        assert_eq!((begun.elapsed(), length, refused), (MAX_WAIT, 0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn full_queues_refuse_at_once() {
        let (turns, loud) = (ListTurns::default(), tenant("loud"));
        let _taken = fill(&turns, &loud).await;
        for (waiting, of_tenant) in [(0, MAX_OF_TENANT), (MAX_WAITING, 0)] {
            turns.waiting.store(waiting, Ordering::Relaxed);
            turns.of_tenant(&loud).waiting.store(of_tenant, Ordering::Relaxed);
            let begun = Instant::now();
            assert!(matches!(turns.turn(&loud).await, Err(StoreError::Overloaded)));
            assert_eq!((begun.elapsed(), turns.load().length), (Duration::ZERO, waiting));
        }
    }
}
