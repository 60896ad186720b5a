//! Request rate limit of tenants. All processes share one token bucket for each tenant.
//!
//! Taking tokens can be a costly write to the store, so a process takes several tokens at a time (a block).

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use nobat_core::limits::token_bucket::{TakeResult, TokenRate};
use nobat_core::service::backend::Backend;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use parking_lot::Mutex;

use crate::http::error_code::Code;
use crate::http::problem::{Problem, whole_seconds};

/// Time for which the tokens of a block are valid. A block consists of the tokens that a process takes from
/// the store in one write. A tenant can therefore exceed its rate in any second by at most one block.
const GOOD_FOR: Duration = Duration::from_secs(1);

const TWICE: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

/// Tokens that this process has taken from the store and that tenants have not used yet.
#[derive(Default)]
pub(crate) struct RequestRates(Mutex<HashMap<Tenant, GrantedRequests>>);

struct GrantedRequests {
    left: u32,
    until: Timestamp,
    /// Number of tokens to take from the store next: twice the last number if the tenant used up the last
    /// tokens while they were valid, otherwise 1. So a process with few requests does not take tokens that
    /// other processes need.
    next: NonZeroU32,
}

impl RequestRates {
    /// Takes the token for one request. If no token is left, returns a 429 with the time until the next
    /// token.
    pub(crate) async fn take(
        &self,
        backend: &Backend,
        tenant: &Tenant,
        rate: TokenRate,
        now: Timestamp,
    ) -> Result<(), Problem> {
        if self.take_left(tenant, now) {
            return Ok(());
        }
        let wanted = self.wanted(tenant, now);
        match backend.config.take(tenant, rate, wanted, now).await? {
            TakeResult::Granted(count) => {
                self.put_by(tenant, count, wanted, now);
                Ok(())
            }
            // A concurrent request of this process may have taken a block in the meantime.
            TakeResult::Wait(_) if self.take_left(tenant, now) => Ok(()),
            TakeResult::Wait(pause) => Err(refused(rate, pause)),
        }
    }

    fn take_left(&self, tenant: &Tenant, now: Timestamp) -> bool {
        let mut granted = self.0.lock();
        match granted.get_mut(tenant) {
            Some(grant) if grant.left > 0 && now < grant.until => {
                grant.left -= 1;
                true
            }
            _ => false,
        }
    }

    fn wanted(&self, tenant: &Tenant, now: Timestamp) -> NonZeroU32 {
        let granted = self.0.lock();
        granted.get(tenant).filter(|grant| now < grant.until).map_or(NonZeroU32::MIN, |grant| grant.next)
    }

    /// Keeps the tokens that the store granted, except the one token that the request uses at once.
    fn put_by(&self, tenant: &Tenant, count: NonZeroU32, wanted: NonZeroU32, now: Timestamp) {
        let mut granted = self.0.lock();
        let grant = granted.entry(tenant.clone()).or_insert(GrantedRequests {
            left: 0,
            until: now,
            next: NonZeroU32::MIN,
        });
        let left = if now < grant.until { grant.left } else { 0 };
        *grant = GrantedRequests {
            left: left.saturating_add(count.get() - 1),
            until: now + GOOD_FOR,
            next: wanted.saturating_mul(TWICE),
        };
    }
}

/// Returns a 429 with the headers of draft-ietf-httpapi-ratelimit-headers-10. `RateLimit-Policy` holds the
/// quota and its window in seconds. `RateLimit` holds the remaining tokens and the seconds until the next
/// token.
fn refused(rate: TokenRate, pause: Duration) -> Problem {
    let window = rate.burst.get().div_ceil(rate.per_second.get());
    let seconds = whole_seconds(pause);
    Problem::new(
        Code::RateLimited,
        format!(
            "the tenant exceeds its rate of {} requests a second; try again after the time in Retry-After",
            rate.per_second
        ),
    )
    .retry_after(seconds)
    .with_header("ratelimit-policy", format!("\"requests\";q={};w={window}", rate.burst))
    .with_header("ratelimit", format!("\"requests\";r=0;t={seconds}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use nobat_core::auth::audit::Entry;
    use nobat_core::config::record::{Record, RecordKind, RecordName};
    use nobat_core::ports::config_store::{AuditPage, AuditQuery, ConfigStore, RecordResult};
    use nobat_core::ports::{Clock, StoreError};
    use nobat_core::types::name::Name;
    use nobat_sqlite::Sqlite;

    use super::*;

    /// Configuration store that grants requests in blocks, as a store with costly writes does.
    struct Blocks {
        /// Number of tokens that the first request gets. Later requests get no tokens. `None`: every request
        /// gets as many tokens as it wants.
        size: Option<u32>,
        asked: Mutex<Vec<u32>>,
    }

    #[async_trait]
    impl ConfigStore for Blocks {
        async fn take(
            &self,
            _: &Tenant,
            _: TokenRate,
            wanted: NonZeroU32,
            _: Timestamp,
        ) -> Result<TakeResult, StoreError> {
            let place = {
                let mut asked = self.asked.lock();
                asked.push(wanted.get());
                asked.len()
            };
            let Some(size) = self.size else { return Ok(TakeResult::Granted(wanted)) };
            // The first request gets its result first. The order in which the runtime wakes the two does not
            // matter.
            for _ in 0..if place == 1 { 1 } else { 5 } {
                tokio::task::yield_now().await;
            }
            let block = NonZeroU32::new(size).filter(|_| place == 1);
            Ok(block.map_or(TakeResult::Wait(Duration::from_millis(10)), TakeResult::Granted))
        }

        async fn find(&self, _: &RecordName) -> Result<Option<Record>, StoreError> {
            Ok(None)
        }

        async fn page(
            &self,
            _: Option<&Tenant>,
            _: RecordKind,
            _: Option<&Name>,
            _: usize,
        ) -> Result<Vec<Record>, StoreError> {
            Ok(Vec::new())
        }

        async fn write_with_tasks(
            &self,
            _: Vec<Record>,
            _: Vec<nobat_core::task::Task>,
            _: Option<Entry>,
            _: Timestamp,
        ) -> Result<RecordResult, StoreError> {
            Ok(RecordResult::Conflict)
        }

        async fn remove(&self, _: &RecordName, _: u64, _: Entry) -> Result<RecordResult, StoreError> {
            Ok(RecordResult::Conflict)
        }

        async fn audit(&self, _: &AuditQuery, _: Timestamp) -> Result<AuditPage, StoreError> {
            Ok(AuditPage { entries: Vec::new(), next: None })
        }
    }

    struct Still;

    #[async_trait]
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }

        async fn sleep(&self, _duration: Duration) {}
    }

    fn backend(blocks: &Arc<Blocks>) -> Backend {
        let rest = Sqlite::in_memory(Duration::from_hours(1), Arc::new(Still)).unwrap().backend();
        Backend { config: blocks.clone(), ..rest }
    }

    fn blocks(size: Option<u32>) -> Arc<Blocks> {
        Arc::new(Blocks { size, asked: Mutex::default() })
    }

    const RATE: TokenRate = TokenRate { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN };

    #[tokio::test]
    async fn unused_rest_of_a_block_expires() {
        let (permits, tenant, now) =
            (RequestRates::default(), Tenant::default(), Timestamp::from_millis(5_000));
        let blocks = backend(&blocks(Some(3)));
        for _ in 0..2 {
            permits.take(&blocks, &tenant, RATE, now).await.unwrap();
        }
        assert!(
            permits.take(&blocks, &tenant, RATE, now + GOOD_FOR).await.is_err(),
            "a token expires after a second"
        );
        assert!(permits.take(&blocks, &tenant, RATE, now).await.is_ok(), "a token is valid for a second");
        assert!(permits.take(&blocks, &tenant, RATE, now).await.is_err());
    }

    #[tokio::test]
    async fn block_size_doubles_while_blocks_are_used_up() {
        let (permits, tenant, now) =
            (RequestRates::default(), Tenant::default(), Timestamp::from_millis(5_000));
        let blocks = blocks(None);
        let backend = backend(&blocks);
        for _ in 0..1 + 2 + 4 {
            permits.take(&backend, &tenant, RATE, now).await.unwrap();
        }
        assert_eq!(*blocks.asked.lock(), [1, 2, 4]);
        permits.take(&backend, &tenant, RATE, now + GOOD_FOR).await.unwrap();
        assert_eq!(*blocks.asked.lock(), [1, 2, 4, 1], "after a pause, the block size is 1 again");
    }

    #[test]
    fn concurrent_blocks_are_added_and_an_expired_one_is_not() {
        let (tenant, now, three) =
            (Tenant::default(), Timestamp::from_millis(5_000), NonZeroU32::new(3).unwrap());
        for (second, left) in [(now, 4), (now + GOOD_FOR, 2)] {
            let permits = RequestRates::default();
            for at in [now, second] {
                permits.put_by(&tenant, three, NonZeroU32::MIN, at);
            }
            assert_eq!((0..9).filter(|_| permits.take_left(&tenant, second)).count(), left);
        }
    }

    #[tokio::test]
    async fn concurrent_requests_share_one_block() {
        let (permits, tenant, now, blocks) =
            (RequestRates::default(), Tenant::default(), Timestamp::EPOCH, backend(&blocks(Some(2))));
        let take = || permits.take(&blocks, &tenant, RATE, now);
        let (first, second) = tokio::join!(take(), take());
        assert!(first.is_ok() && second.is_ok());
    }
}
