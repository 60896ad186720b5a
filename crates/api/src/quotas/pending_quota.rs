//! Limit on the pending tasks of a tenant. The store counts the pending tasks at intervals. Between two
//! counts, the process adds the tasks that it accepts.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nobat_core::ports::StoreError;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use parking_lot::Mutex;

/// Latest count of each tenant's pending tasks.
#[derive(Default)]
pub(crate) struct PendingQuota(Mutex<HashMap<Tenant, Arc<TenantCount>>>);

/// Latest count of one tenant's pending tasks. `count` stays locked while the store counts, so that
/// concurrent requests share one count.
#[derive(Default)]
struct TenantCount {
    count: tokio::sync::Mutex<Option<Count>>,
    /// Number of counts that failed. A request that waited for a failed count fails too. Otherwise the
    /// waiting requests would all count again, one after the other.
    failures: AtomicU64,
}

#[derive(Clone, Copy)]
struct Count {
    waiting: usize,
    counted_at: Timestamp,
}

/// Tasks that a tenant submits.
pub(crate) struct SubmittedTasks<'a> {
    /// Tenant.
    pub(crate) tenant: &'a Tenant,
    /// Maximum number of pending tasks of the tenant.
    pub(crate) limit: NonZeroU32,
    /// Number of submitted tasks.
    pub(crate) count: usize,
    /// Time for which a count is valid.
    pub(crate) recount: Duration,
    /// Current time.
    pub(crate) now: Timestamp,
}

impl PendingQuota {
    /// Returns true if the tenant may submit the tasks in `more`, and adds these tasks to the count. The
    /// function `waiting` counts the pending tasks in the store, up to the maximum in its argument.
    ///
    /// Tasks that other processes accept, and tasks that start, do not change the count until the store
    /// counts again.
    pub(crate) async fn admits(
        &self,
        more: &SubmittedTasks<'_>,
        waiting: impl AsyncFnOnce(usize) -> Result<usize, StoreError>,
    ) -> Result<bool, StoreError> {
        let limit = more.limit.get() as usize;
        let place = self.place(more.tenant);
        let failures = place.failures.load(Ordering::Relaxed);
        let mut counted = place.count.lock().await;
        let fresh = counted
            .filter(|count| count.counted_at <= more.now && more.now < count.counted_at + more.recount);
        if fresh.is_none() && place.failures.load(Ordering::Relaxed) != failures {
            return Err(StoreError::Overloaded);
        }
        let mut count = if let Some(count) = fresh {
            count
        } else {
            let waiting = waiting(limit).await.inspect_err(|_| {
                place.failures.fetch_add(1, Ordering::Relaxed);
            })?;
            Count { waiting, counted_at: more.now }
        };
        let is_admitted = count.waiting + more.count <= limit;
        if is_admitted {
            count.waiting += more.count;
        }
        *counted = Some(count);
        Ok(is_admitted)
    }

    fn place(&self, tenant: &Tenant) -> Arc<TenantCount> {
        let mut places = self.0.lock();
        Arc::clone(places.entry(tenant.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    fn more(tenant: &Tenant, count: usize, after: i64) -> SubmittedTasks<'_> {
        let limit = NonZeroU32::new(3).unwrap();
        SubmittedTasks {
            tenant,
            limit,
            count,
            recount: Duration::from_secs(1),
            now: Timestamp::from_millis(1_800_000_000_000 + after),
        }
    }

    #[tokio::test]
    async fn count_is_reused_and_accepted_tasks_are_added() {
        let (pending_quota, acme, other) =
            (PendingQuota::default(), Tenant::new("acme").unwrap(), Tenant::default());
        let asks = [
            (&acme, 2, 0, 1),
            (&acme, 1, 0, 9),
            (&other, 3, 0, 0),
            (&acme, 1, 999, 0),
            (&acme, 3, 1_000, 0),
            (&acme, 1, 0, 2),
            (&acme, 1, 0, 0),
        ];
        let mut admitted = Vec::new();
        for (tenant, count, after, waiting) in asks {
            admitted.push(
                pending_quota.admits(&more(tenant, count, after), async |_| Ok(waiting)).await.unwrap(),
            );
        }
        // Before the last two requests, the clock is set back. The old count is then invalid, and the new
        // count includes the task that is accepted after it.
        assert_eq!(admitted, [true, false, true, false, true, true, false]);
    }

    #[tokio::test]
    async fn concurrent_requests_do_not_exceed_the_limit() {
        let (pending_quota, acme) = (PendingQuota::default(), Tenant::new("acme").unwrap());
        let counts = AtomicU64::new(0);
        let ask = |place: usize| {
            let (pending_quota, acme, counts) = (&pending_quota, &acme, &counts);
            async move {
                let slowly = async |limit| {
                    assert_eq!(limit, 3, "the store counts up to the limit");
                    counts.fetch_add(1, Ordering::Relaxed);
                    for _ in 0..=place {
                        tokio::task::yield_now().await;
                    }
                    Ok(0)
                };
                pending_quota.admits(&more(acme, 1, 0), slowly).await.unwrap()
            }
        };
        let admitted = join_all((0..10).map(ask)).await;
        assert_eq!(admitted.into_iter().filter(|admitted| *admitted).count(), 3);
        assert_eq!(counts.into_inner(), 1, "concurrent requests share one count");
    }

    #[tokio::test]
    async fn requests_that_wait_for_a_count_fail_with_it() {
        let (pending_quota, acme, counts) =
            (PendingQuota::default(), Tenant::new("acme").unwrap(), AtomicU64::new(0));
        let ask = || async {
            let failing = async |_| {
                counts.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Err(StoreError::Overloaded)
            };
            pending_quota.admits(&more(&acme, 1, 0), failing).await
        };
        assert!(join_all((0..10).map(|_| ask())).await.iter().all(Result::is_err));
        assert_eq!(counts.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn failed_count_is_not_cached() {
        let (pending_quota, acme) = (PendingQuota::default(), Tenant::new("acme").unwrap());
        assert!(
            pending_quota.admits(&more(&acme, 1, 0), async |_| Err(StoreError::Overloaded)).await.is_err()
        );
        assert!(!pending_quota.admits(&more(&acme, 1, 0), async |_| Ok(3)).await.unwrap());
    }
}
