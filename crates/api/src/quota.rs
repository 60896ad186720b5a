//! How many tasks of a tenant may wait: counted now and then, and what is accepted in between added to the count.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nobat_core::name::Tenant;
use nobat_core::ports::StoreError;
use nobat_core::time::Timestamp;

/// What was counted last.
#[derive(Default)]
pub(crate) struct Quota(Mutex<HashMap<Tenant, Count>>);

#[derive(Clone, Copy)]
struct Count {
    waiting: usize,
    counted_at: Timestamp,
}

/// So many more are to wait.
pub(crate) struct More<'a> {
    /// Whose.
    pub(crate) tenant: &'a Tenant,
    /// How many may wait.
    pub(crate) limit: NonZeroU32,
    /// How many more there are to be.
    pub(crate) count: usize,
    /// For how long a count is good.
    pub(crate) recount: Duration,
    /// The time.
    pub(crate) now: Timestamp,
}

impl Quota {
    /// Whether so many more may wait. They are taken for accepted. `waiting` counts those that do, up to a number that is enough.
    ///
    /// What other processes accept, and what was begun, shows at the next count only.
    pub(crate) async fn admits(
        &self,
        more: &More<'_>,
        waiting: impl AsyncFnOnce(usize) -> Result<usize, StoreError>,
    ) -> Result<bool, StoreError> {
        let limit = more.limit.get() as usize;
        if !self.is_fresh(more) {
            let waiting = waiting(limit).await?;
            // Others may have counted meanwhile, and added what they accepted.
            if !self.is_fresh(more) {
                self.counts().insert(more.tenant.clone(), Count { waiting, counted_at: more.now });
            }
        }
        let mut counts = self.counts();
        let Some(count) = counts.get_mut(more.tenant) else { return Ok(true) };
        let is_admitted = count.waiting + more.count <= limit;
        if is_admitted {
            count.waiting += more.count;
        }
        Ok(is_admitted)
    }

    fn is_fresh(&self, more: &More<'_>) -> bool {
        let counts = self.counts();
        counts.get(more.tenant).is_some_and(|count| count.counted_at <= more.now && more.now < count.counted_at + more.recount)
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<Tenant, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    fn more(tenant: &Tenant, count: usize, after: i64) -> More<'_> {
        let limit = NonZeroU32::new(3).unwrap();
        More { tenant, limit, count, recount: Duration::from_secs(1), now: Timestamp::from_millis(1_800_000_000_000 + after) }
    }

    #[tokio::test]
    async fn what_was_counted_is_good_for_a_while_and_what_was_accepted_is_added() {
        let (quota, acme, other) = (Quota::default(), Tenant::new("acme").unwrap(), Tenant::default());
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
            admitted.push(quota.admits(&more(tenant, count, after), async |_| Ok(waiting)).await.unwrap());
        }
        // The last two: a clock that was set back makes nothing good for longer, and what it counts is counted.
        assert_eq!(admitted, [true, false, true, false, true, true, false]);
    }

    #[tokio::test]
    async fn of_many_who_count_at_once_no_more_are_admitted_than_may_wait() {
        let (quota, acme) = (Quota::default(), Tenant::new("acme").unwrap());
        let ask = |place: usize| {
            let (quota, acme) = (&quota, &acme);
            async move {
                let slowly = async |limit| {
                    assert_eq!(limit, 3, "more than that need not be counted");
                    for _ in 0..place {
                        tokio::task::yield_now().await;
                    }
                    Ok(0)
                };
                quota.admits(&more(acme, 1, 0), slowly).await.unwrap()
            }
        };
        let admitted = join_all((0..10).map(ask)).await;
        assert_eq!(admitted.into_iter().filter(|admitted| *admitted).count(), 3);
    }

    #[tokio::test]
    async fn a_count_that_failed_is_no_count() {
        let (quota, acme) = (Quota::default(), Tenant::new("acme").unwrap());
        assert!(quota.admits(&more(&acme, 1, 0), async |_| Err(StoreError::Overloaded)).await.is_err());
        assert!(!quota.admits(&more(&acme, 1, 0), async |_| Ok(3)).await.unwrap());
    }
}
