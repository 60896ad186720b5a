//! Configuration cache: not every task needs a read of the registry.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::collections::recent::Recent;
use crate::config::callback_secret::CallbackSecrets;
use crate::config::endpoint::Endpoint;
use crate::config::queue::QueueConfig;
use crate::config::record::{RecordKind, RecordName};
use crate::config::task_config::TaskConfig;
use crate::ports::config_store::ConfigStore;
use crate::ports::{Clock, StoreError};
use crate::types::intervals::CONFIG_TTL;
use crate::types::name::{Name, Tenant};
use crate::types::time::Timestamp;

/// Cache of endpoints, callback secrets, and the configuration of queues, kinds and limit keys.
pub struct ConfigCache {
    registry: Arc<dyn ConfigStore>,
    clock: Arc<dyn Clock>,
    epoch: ConfigEpoch,
    task_config: Known<(Tenant, Name, Name), Arc<TaskConfig>>,
    limit_keys: Known<(Tenant, Name), Arc<QueueConfig>>,
    endpoints: Known<(Tenant, Name), Option<Arc<Endpoint>>>,
    callback_secrets: Known<Tenant, Arc<CallbackSecrets>>,
}

/// Counter of configuration changes for each tenant, shared by the caches of one process.
///
/// A change makes all of them read the configuration of that tenant again, and of no other. A tenant that
/// changes its configuration all the time costs the others nothing.
///
/// A fixed number of counters serves any number of tenants. Tenants that share a counter read their
/// configuration a little more often.
#[derive(Clone, Debug)]
pub struct ConfigEpoch(Arc<[AtomicU64]>);

/// Number of counters in an [`ConfigEpoch`].
const COUNTERS: usize = 256;

impl Default for ConfigEpoch {
    fn default() -> Self {
        Self((0..COUNTERS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl ConfigEpoch {
    fn counter(&self, tenant: &Tenant) -> &AtomicU64 {
        // The operator names the tenants, so that no client can choose names that share a counter: any cheap
        // hash is good enough.
        let mixed = tenant
            .as_str()
            .bytes()
            .fold(0_usize, |mixed, byte| mixed.wrapping_mul(31).wrapping_add(byte.into()));
        &self.0[mixed % COUNTERS]
    }

    /// Returns the number of changes of the tenant's configuration.
    fn get(&self, tenant: &Tenant) -> u64 {
        self.counter(tenant).load(Ordering::Relaxed)
    }

    fn advance(&self, tenant: &Tenant) {
        self.counter(tenant).fetch_add(1, Ordering::Relaxed);
    }
}

/// Time for which a failed read is not repeated. Otherwise the callers that waited for it would wait again,
/// one after the other.
const FAILED: Duration = Duration::from_secs(1);

/// Maximum number of entries for each kind of configuration. Beyond that, the cache forgets the least
/// recently used ones and reads them again.
const MAX_KNOWN: usize = 10_000;

impl ConfigCache {
    /// Returns an empty cache of this registry.
    pub fn new(registry: Arc<dyn ConfigStore>, clock: Arc<dyn Clock>, epoch: ConfigEpoch) -> Self {
        Self {
            registry,
            clock,
            epoch,
            task_config: Known::default(),
            limit_keys: Known::default(),
            endpoints: Known::default(),
            callback_secrets: Known::default(),
        }
    }

    /// Returns the configuration for the tasks of this queue and kind.
    pub async fn task_config(
        &self,
        tenant: &Tenant,
        queue: &Name,
        kind: &Name,
    ) -> Result<Arc<TaskConfig>, StoreError> {
        let read = async {
            let queue = self
                .registry
                .queue_config(&QueueConfig::record_name(tenant, RecordKind::Queue, queue))
                .await?;
            let kind =
                self.registry.queue_config(&QueueConfig::record_name(tenant, RecordKind::Kind, kind)).await?;
            let tenant = self.registry.tenant(tenant).await?.limits;
            Ok(Arc::new(TaskConfig { queue, kind, tenant }))
        };
        self.task_config.get((tenant, (tenant.clone(), queue.clone(), kind.clone())), self, read).await
    }

    /// Returns the configuration of this limit key.
    pub async fn limit_key(&self, tenant: &Tenant, key: &Name) -> Result<Arc<QueueConfig>, StoreError> {
        let name: RecordName = QueueConfig::record_name(tenant, RecordKind::LimitKey, key);
        let read = async { self.registry.queue_config(&name).await.map(Arc::new) };
        self.limit_keys.get((tenant, (tenant.clone(), key.clone())), self, read).await
    }

    /// Returns the endpoint of this name, if there is one.
    pub async fn endpoint(&self, tenant: &Tenant, name: &Name) -> Result<Option<Arc<Endpoint>>, StoreError> {
        let read = async { Ok(self.registry.endpoint(tenant, name).await?.map(Arc::new)) };
        self.endpoints.get((tenant, (tenant.clone(), name.clone())), self, read).await
    }

    /// Returns the sealed secrets that sign a tenant's callbacks. Expired ones can be among them: check
    /// `expires_at`.
    pub async fn callback_secrets(&self, tenant: &Tenant) -> Result<Arc<CallbackSecrets>, StoreError> {
        let read = async { self.registry.callback_secrets(tenant).await.map(Arc::new) };
        self.callback_secrets.get((tenant, tenant.clone()), self, read).await
    }

    /// Makes this cache, and all that share its epoch, read the tenant's configuration again.
    pub fn forget(&self, tenant: &Tenant) {
        self.epoch.advance(tenant);
    }
}

/// Cached entries of one kind of configuration.
struct Known<K, V>(Mutex<Recent<K, Arc<CacheEntry<V>>>>);

/// One cached entry. The caller that holds the lock reads the entry, and all other callers wait for it.
type CacheEntry<V> = futures_util::lock::Mutex<Option<Seen<V>>>;

struct Seen<V> {
    /// `None` if the read failed.
    value: Option<V>,
    at: Timestamp,
    epoch: u64,
}

impl<K: Eq + Hash, V> Default for Known<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(MAX_KNOWN)))
    }
}

impl<K: Eq + Hash, V: Clone> Known<K, V> {
    async fn get(
        &self,
        (tenant, key): (&Tenant, K),
        config_cache: &ConfigCache,
        read: impl Future<Output = Result<V, StoreError>>,
    ) -> Result<V, StoreError> {
        let (place, asked_at) = (self.place(key), config_cache.clock.now());
        let mut seen = place.lock().await;
        // Taken before the read: a change during the read raises the epoch, so that the next caller reads
        // again.
        let (now, epoch) = (config_cache.clock.now(), config_cache.epoch.get(tenant));
        // A caller that waited for a slow read takes its value. A clock that was set back keeps no value
        // valid for longer.
        let is_fresh = |seen: &&Seen<V>| {
            let age = if seen.value.is_some() { CONFIG_TTL } else { FAILED };
            seen.epoch == epoch && seen.at <= now && asked_at < seen.at + age
        };
        if let Some(fresh) = seen.as_ref().filter(is_fresh) {
            return fresh.value.clone().ok_or_else(|| {
                StoreError::Unavailable("the same read failed within the last second".to_owned())
            });
        }
        let value = read.await;
        // The registry may have changed right after it received the request, however late it responded.
        let at = if value.is_ok() { now } else { config_cache.clock.now() };
        *seen = Some(Seen { value: value.as_ref().ok().cloned(), at, epoch });
        value
    }

    /// Returns the entry for a key. No change under the lock is left half done, so that a panic elsewhere
    /// does no harm here.
    fn place(&self, key: K) -> Arc<CacheEntry<V>> {
        let mut known = self.0.lock();
        if let Some(place) = known.get(&key) {
            return Arc::clone(place);
        }
        let place = Arc::<CacheEntry<V>>::default();
        known.insert(key, Arc::clone(&place));
        place
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize};

    use async_trait::async_trait;

    use super::*;
    use crate::auth::audit::Entry;
    use crate::config::record::Record;
    use crate::config::tenant::TenantSettings;
    use crate::limits::Limits;
    use crate::limits::token_bucket::{TakeResult, TokenRate};
    use crate::ports::config_store::{AuditPage, AuditQuery, RecordResult};

    /// Registry in which every queue is paused. Counts look-ups.
    #[derive(Default)]
    struct Paused(AtomicUsize, AtomicBool);

    #[async_trait]
    impl ConfigStore for Paused {
        async fn find(&self, name: &RecordName) -> Result<Option<Record>, StoreError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            // No read ends at the first poll.
            futures_util::pending!();
            if self.1.load(Ordering::Relaxed) {
                return Err(StoreError::Overloaded);
            }
            let queue_config = QueueConfig { paused: true, version: 1, ..QueueConfig::default() };
            let limiter = Limits { concurrency: NonZeroU32::new(3), ..Limits::default() };
            Ok(match name.kind {
                RecordKind::Queue | RecordKind::LimitKey => Some(queue_config.record(name.clone())),
                RecordKind::Tenant => {
                    let settings =
                        TenantSettings { limits: limiter, version: 1, ..TenantSettings::default() };
                    Some(Record { name: name.clone(), version: 1, body: settings.to_text() })
                }
                _ => None,
            })
        }

        async fn page(
            &self,
            _: Option<&Tenant>,
            _: RecordKind,
            _: Option<&Name>,
            _: usize,
        ) -> Result<Vec<Record>, StoreError> {
            unimplemented!("the cache does not call this")
        }

        async fn write(&self, _: Vec<Record>, _: Entry) -> Result<RecordResult, StoreError> {
            unimplemented!("the cache does not call this")
        }

        async fn remove(&self, _: &RecordName, _: u64, _: Entry) -> Result<RecordResult, StoreError> {
            unimplemented!("the cache does not call this")
        }

        async fn audit(&self, _: &AuditQuery, _: Timestamp) -> Result<AuditPage, StoreError> {
            unimplemented!("the cache does not call this")
        }

        async fn take(
            &self,
            _: &Tenant,
            _: TokenRate,
            _: NonZeroU32,
            _: Timestamp,
        ) -> Result<TakeResult, StoreError> {
            unimplemented!("the cache does not call this")
        }
    }

    #[derive(Default)]
    struct Hand(AtomicI64);

    #[async_trait]
    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::Relaxed))
        }

        async fn sleep(&self, _: Duration) {}
    }

    #[test]
    fn missing_old_and_changed_entries_are_read_again() {
        let (registry, hand, epoch) =
            (Arc::new(Paused::default()), Arc::new(Hand::default()), ConfigEpoch::default());
        let new = || ConfigCache::new(Arc::clone(&registry) as _, Arc::clone(&hand) as _, epoch.clone());
        let (config_cache, other) = (new(), new());
        let (tenant, name) = (Tenant::default(), |text| Name::new(text).unwrap());
        let look = |config_cache: &ConfigCache| {
            let before = registry.0.load(Ordering::Relaxed);
            let task_config = at_once(config_cache.task_config(&tenant, &name("q"), &name("k"))).unwrap();
            assert!(
                task_config.queue.paused
                    && !task_config.kind.paused
                    && task_config.tenant.concurrency == NonZeroU32::new(3)
            );
            registry.0.load(Ordering::Relaxed) - before
        };
        assert_eq!((look(&config_cache), look(&config_cache)), (3, 0));
        assert_eq!((look(&other), look(&other)), (3, 0));
        config_cache.forget(&tenant);
        assert_eq!(
            (look(&config_cache), look(&other), look(&other)),
            (3, 3, 0),
            "directories that share the epoch read again too"
        );
        config_cache.forget(&Tenant::new("another").unwrap());
        assert_eq!((look(&config_cache), look(&other)), (0, 0), "another tenant's change has no effect");
        hand.0.store(9_999, Ordering::Relaxed);
        assert_eq!(look(&config_cache), 0);
        hand.0.store(10_000, Ordering::Relaxed);
        assert_eq!(look(&config_cache), 3);
        hand.0.store(0, Ordering::Relaxed);
        assert_eq!(look(&config_cache), 3, "a clock that was set back keeps no entry valid");
        assert!(at_once(config_cache.endpoint(&tenant, &name("e"))).unwrap().is_none());
        assert!(at_once(config_cache.limit_key(&tenant, &name("f"))).unwrap().paused);
    }

    #[test]
    fn entry_age_counts_from_the_start_of_its_read() {
        let (registry, hand) = (Arc::new(Paused::default()), Arc::new(Hand::default()));
        let config_cache =
            ConfigCache::new(Arc::clone(&registry) as _, Arc::clone(&hand) as _, ConfigEpoch::default());
        let (tenant, name) = (Tenant::default(), Name::new("x").unwrap());
        let mut reading = Box::pin(config_cache.endpoint(&tenant, &name));
        assert!(
            futures_util::FutureExt::now_or_never(&mut reading).is_none(),
            "the lookup waits for the registry"
        );
        hand.0.store(9_000, Ordering::Relaxed);
        assert!(at_once(reading).is_ok());
        assert!(at_once(config_cache.endpoint(&tenant, &name)).is_ok());
        assert_eq!(registry.0.load(Ordering::Relaxed), 1);
        hand.0.store(10_000, Ordering::Relaxed);
        assert!(at_once(config_cache.endpoint(&tenant, &name)).is_ok());
        assert_eq!(
            registry.0.load(Ordering::Relaxed),
            2,
            "the registry may have changed right after the request"
        );
    }

    #[test]
    fn concurrent_lookups_share_one_read() {
        let registry = Arc::new(Paused::default());
        let config_cache =
            ConfigCache::new(Arc::clone(&registry) as _, Arc::new(Hand::default()), ConfigEpoch::default());
        let (tenant, name) = (Tenant::default(), Name::new("x").unwrap());
        let all =
            futures_util::future::join_all((0..10).map(|_| config_cache.task_config(&tenant, &name, &name)));
        assert!(at_once(all).into_iter().all(|task_config| task_config.is_ok()));
        assert_eq!(registry.0.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn concurrent_lookups_share_a_failed_read() {
        let (registry, hand) = (Arc::new(Paused::default()), Arc::new(Hand::default()));
        let config_cache =
            ConfigCache::new(Arc::clone(&registry) as _, Arc::clone(&hand) as _, ConfigEpoch::default());
        let (tenant, name) = (Tenant::default(), Name::new("x").unwrap());
        registry.1.store(true, Ordering::Relaxed);
        let all = futures_util::future::join_all((0..10).map(|_| config_cache.endpoint(&tenant, &name)));
        assert!(at_once(all).into_iter().all(|endpoint| endpoint.is_err()));
        assert_eq!(registry.0.load(Ordering::Relaxed), 1);
        registry.1.store(false, Ordering::Relaxed);
        hand.0.store(1_000, Ordering::Relaxed);
        assert!(at_once(config_cache.endpoint(&tenant, &name)).is_ok());
    }

    #[test]
    fn entry_in_use_is_known_after_any_number_of_others() {
        let registry = Arc::new(Paused::default());
        let config_cache =
            ConfigCache::new(Arc::clone(&registry) as _, Arc::new(Hand::default()), ConfigEpoch::default());
        let (quiet, loud, name) = (Tenant::default(), Tenant::new("loud").unwrap(), |number: usize| {
            Name::new(&format!("n{number}")).unwrap()
        });
        let others = 3 * MAX_KNOWN;
        for number in 0..others {
            assert!(at_once(config_cache.limit_key(&quiet, &name(0))).is_ok());
            assert!(at_once(config_cache.limit_key(&loud, &name(number))).is_ok());
        }
        assert_eq!(registry.0.load(Ordering::Relaxed), 1 + others);
    }

    /// Polls a future to its end. The futures here wait for no timer and no I/O.
    fn at_once<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        for _ in 0..100 {
            if let std::task::Poll::Ready(value) =
                future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
            {
                return value;
            }
        }
        panic!("the future waits for a timer or for I/O")
    }
}
