//! Turns of tenants at reads of many items, so that the lists of one tenant leave room in the table and the connections to it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nobat_core::name::Tenant;
use nobat_core::ports::{QueueLoad, StoreError};
use nobat_core::recent::Recent;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Maximum number of lists that one process reads for one tenant at the same time. Each makes up to sixteen queries at once.
const AT_ONCE: usize = 4;
/// Maximum number of lists of all tenants that wait for their turn.
const MAX_WAITING: usize = 4_096;
/// Longest wait for a turn. Longer waits end with [`StoreError::Overloaded`].
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Maximum number of tenants whose turns are known. A tenant that is forgotten while its lists wait can read more of them at once.
const MAX_TENANTS: usize = 10_000;

/// Lists of each tenant that are read or wait.
pub(crate) struct ListTurns {
    tenants: Mutex<Recent<Tenant, Arc<Semaphore>>>,
    waiting: AtomicUsize,
    refused: AtomicU64,
}

impl Default for ListTurns {
    fn default() -> Self {
        Self { tenants: Mutex::new(Recent::new(MAX_TENANTS)), waiting: AtomicUsize::new(0), refused: AtomicU64::new(0) }
    }
}

impl ListTurns {
    /// Waits for a turn of that tenant. It lasts until the permit is dropped.
    pub(crate) async fn turn(&self, tenant: &Tenant) -> Result<OwnedSemaphorePermit, StoreError> {
        let of_tenant = self.of_tenant(tenant);
        if let Ok(permit) = Arc::clone(&of_tenant).try_acquire_owned() {
            return Ok(permit);
        }
        let place = Place::take(&self.waiting).ok_or_else(|| self.refuse())?;
        let permit = timeout(MAX_WAIT, of_tenant.acquire_owned()).await;
        drop(place);
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(self.refuse()),
        }
    }

    /// Load of the queue.
    pub(crate) fn load(&self) -> QueueLoad {
        let (length, refused) = (self.waiting.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed));
        QueueLoad { name: "list", length, limit: MAX_WAITING, tenant_limit: MAX_WAITING, refused }
    }

    fn of_tenant(&self, tenant: &Tenant) -> Arc<Semaphore> {
        // Nothing is left half done under the lock, so a panic elsewhere does not spoil what it guards.
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tenants.get(tenant) {
            return Arc::clone(known);
        }
        let new = Arc::new(Semaphore::new(AT_ONCE));
        tenants.insert(tenant.clone(), Arc::clone(&new));
        new
    }

    fn refuse(&self) -> StoreError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        StoreError::Overloaded
    }
}

/// Place among those that wait. Dropping it leaves the place.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        // If there is no room, dropping the place takes it back.
        (waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lists_of_one_tenant_wait_and_those_of_another_do_not() {
        let (turns, loud, quiet) = (ListTurns::default(), Tenant::new("loud").unwrap(), Tenant::new("quiet").unwrap());
        let mut taken = Vec::new();
        for _ in 0..AT_ONCE {
            taken.push(turns.turn(&loud).await.unwrap());
        }
        let begun = tokio::time::Instant::now();
        assert!(matches!(turns.turn(&loud).await, Err(StoreError::Overloaded)));
        assert_eq!(begun.elapsed(), MAX_WAIT);
        drop(turns.turn(&quiet).await.unwrap());
        let waiting = turns.turn(&loud);
        taken.pop();
        drop(waiting.await.unwrap());
        let QueueLoad { name, length, refused, .. } = turns.load();
        assert_eq!((name, length, refused), ("list", 0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn full_queue_refuses_at_once() {
        let (turns, loud) = (ListTurns::default(), Tenant::new("loud").unwrap());
        let _taken: Vec<_> = futures_util::future::join_all((0..AT_ONCE).map(|_| turns.turn(&loud))).await;
        turns.waiting.store(MAX_WAITING, Ordering::Relaxed);
        let begun = tokio::time::Instant::now();
        assert!(matches!(turns.turn(&loud).await, Err(StoreError::Overloaded)));
        assert_eq!((begun.elapsed(), turns.load().length), (Duration::ZERO, MAX_WAITING));
    }
}
