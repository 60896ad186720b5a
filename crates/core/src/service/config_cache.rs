//! Configuration cache. For most tasks, the cache saves a read of the configuration store.

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
use crate::config::source::Source;
use crate::config::subscription::Subscription;
use crate::config::task_config::TaskConfig;
use crate::ports::config_store::ConfigStore;
use crate::ports::{Clock, StoreError};
use crate::submission::Submission;
use crate::types::intervals::CONFIG_TTL;
use crate::types::name::{Name, Tenant};
use crate::types::time::Timestamp;

/// Cache of endpoints, sources, subscriptions, callback secrets, and the configuration of queues, kinds and limit keys.
pub struct ConfigCache {
    registry: Arc<dyn ConfigStore>,
    clock: Arc<dyn Clock>,
    epoch: ConfigEpoch,
    task_config: CachedRecords<(Tenant, Name, Name), Arc<TaskConfig>>,
    limit_keys: CachedRecords<(Tenant, Name), Arc<QueueConfig>>,
    endpoints: CachedRecords<(Tenant, Name), Option<Arc<Endpoint>>>,
    callback_secrets: CachedRecords<Tenant, Arc<CallbackSecrets>>,
    subscriptions: CachedRecords<Tenant, Arc<Vec<(Name, Subscription)>>>,
    sources: CachedRecords<(Tenant, Name), Option<Arc<Source>>>,
}

/// Counters of configuration changes, one per tenant, shared by the caches of one process.
///
/// After a change, all these caches read the configuration of that tenant again. The entries of other tenants
/// stay valid.
///
/// The number of counters is fixed, so several tenants can share one counter. Such tenants read their
/// configuration a little more often.
#[derive(Clone, Debug)]
pub struct ConfigEpoch(Arc<[AtomicU64]>);

/// Number of counters in a [`ConfigEpoch`].
const COUNTERS: usize = 256;

impl Default for ConfigEpoch {
    fn default() -> Self {
        Self((0..COUNTERS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl ConfigEpoch {
    fn counter(&self, tenant: &Tenant) -> &AtomicU64 {
        // A cheap hash is good enough: only the operator names tenants, so no client can choose names that
        // share a counter.
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

/// Time for which a failed read is not repeated. Otherwise all callers that waited for the read would repeat
/// the read, one caller after the other.
const FAILED: Duration = Duration::from_secs(1);

/// Maximum number of entries for each kind of configuration. Above this number, the cache removes the least
/// recently used entry.
const MAX_KNOWN: usize = 10_000;

impl ConfigCache {
    /// Creates an empty cache of this configuration store.
    pub fn new(registry: Arc<dyn ConfigStore>, clock: Arc<dyn Clock>, epoch: ConfigEpoch) -> Self {
        Self {
            registry,
            clock,
            epoch,
            task_config: CachedRecords::default(),
            limit_keys: CachedRecords::default(),
            endpoints: CachedRecords::default(),
            callback_secrets: CachedRecords::default(),
            subscriptions: CachedRecords::default(),
            sources: CachedRecords::default(),
        }
    }

    /// Returns the configuration for the tasks of this queue and kind.
    pub async fn task_config(
        &self,
        tenant: &Tenant,
        queue: &Name,
        kind: &Name,
    ) -> Result<Arc<TaskConfig>, StoreError> {
        let read = async || {
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
        let read = async || self.registry.queue_config(&name).await.map(Arc::new);
        self.limit_keys.get((tenant, (tenant.clone(), key.clone())), self, read).await
    }

    /// Returns the endpoint of this name, if there is one.
    pub async fn endpoint(&self, tenant: &Tenant, name: &Name) -> Result<Option<Arc<Endpoint>>, StoreError> {
        let read = async || Ok(self.registry.endpoint(tenant, name).await?.map(Arc::new));
        self.endpoints.get((tenant, (tenant.clone(), name.clone())), self, read).await
    }

    /// Returns the sealed secrets that sign a tenant's callbacks. The result can include expired secrets, so
    /// the caller must check `expires_at`.
    pub async fn callback_secrets(&self, tenant: &Tenant) -> Result<Arc<CallbackSecrets>, StoreError> {
        let read = async || self.registry.callback_secrets(tenant).await.map(Arc::new);
        self.callback_secrets.get((tenant, tenant.clone()), self, read).await
    }

    /// Returns the source of this name, if there is one. `read` reads it from the store.
    ///
    /// A missing source is not cached: strangers can ask for any name.
    pub async fn source(
        &self,
        tenant: &Tenant,
        name: &Name,
        read: impl AsyncFnOnce() -> Result<Option<Source>, StoreError>,
    ) -> Result<Option<Arc<Source>>, StoreError> {
        let key = (tenant.clone(), name.clone());
        let read = async || Ok(read().await?.map(Arc::new));
        let found = self.sources.get((tenant, key.clone()), self, read).await;
        if !matches!(found, Ok(Some(_))) {
            self.sources.0.lock().remove(&key);
        }
        found
    }

    /// Returns true if the cache has a source of this name, of any age.
    pub fn has_source(&self, tenant: &Tenant, name: &Name) -> bool {
        let known = self.sources.0.lock().get(&(tenant.clone(), name.clone())).map(Arc::clone);
        // A locked entry is being read.
        known.is_some_and(|entry| {
            entry
                .try_lock()
                .is_some_and(|read| matches!(&*read, Some(CachedRead { value: Some(Some(_)), .. })))
        })
    }

    /// Returns all subscriptions of the tenant, as they were stored at a time after `since`.
    ///
    /// So a subscription gets every event that was accepted after its creation, even if another process
    /// created the subscription. One read serves all events that were accepted before the read.
    pub async fn subscriptions(
        &self,
        tenant: &Tenant,
        since: Timestamp,
    ) -> Result<Arc<Vec<(Name, Subscription)>>, StoreError> {
        let read = async || self.registry.subscriptions(tenant).await.map(Arc::new);
        self.subscriptions.get_since((tenant, tenant.clone()), self, Some(since), read).await
    }

    /// Returns true if the tenant has a paused subscription of this name. If the cache does not know the
    /// subscription, reads again, because the subscription may be newer than the cache.
    pub async fn is_subscription_paused(&self, tenant: &Tenant, name: &Name) -> Result<bool, StoreError> {
        let find = |all: &[(Name, Subscription)]| {
            all.iter().find(|(other, _)| other == name).map(|(_, subscription)| subscription.paused)
        };
        let read = async || self.registry.subscriptions(tenant).await.map(Arc::new);
        let all = self.subscriptions.get((tenant, tenant.clone()), self, read).await?;
        if let Some(paused) = find(&all) {
            return Ok(paused);
        }
        let now = self.clock.now();
        let all = self.subscriptions.get_since((tenant, tenant.clone()), self, Some(now), read).await?;
        Ok(find(&all).unwrap_or(false))
    }

    /// Returns the configuration that the conversion of a submission into a task needs. A malformed name gives
    /// `None`, and the conversion reports the error.
    pub async fn for_submission(
        &self,
        tenant: &Tenant,
        submission: &Submission,
    ) -> Result<SubmissionConfig, StoreError> {
        let endpoint = match submission.endpoint.as_deref().map(Name::new) {
            Some(Ok(name)) => self.endpoint(tenant, &name).await?,
            _ => None,
        };
        let then_endpoint = match submission.then_endpoint() {
            Some(name) => self.endpoint(tenant, &name).await?,
            None => None,
        };
        let task_config = match (submission.queue(), Name::new(&submission.kind)) {
            (Ok(queue), Ok(kind)) if submission.retry.is_none() => {
                Some(self.task_config(tenant, &queue, &kind).await?)
            }
            _ => None,
        };
        Ok(SubmissionConfig { endpoint, then_endpoint, task_config })
    }

    /// Same as [`ConfigCache::for_submission`], for a task that nobat creates itself. If the cache has no endpoint of
    /// a name, reads the store, because the endpoint may be newer than the cache.
    pub async fn for_template(
        &self,
        tenant: &Tenant,
        submission: &Submission,
    ) -> Result<SubmissionConfig, StoreError> {
        let mut config = self.for_submission(tenant, submission).await?;
        let stored =
            async |name| self.registry.endpoint(tenant, &name).await.map(|found| found.map(Arc::new));
        if let (None, Some(Ok(name))) = (&config.endpoint, submission.endpoint.as_deref().map(Name::new)) {
            config.endpoint = stored(name).await?;
        }
        if let (None, Some(name)) = (&config.then_endpoint, submission.then_endpoint()) {
            config.then_endpoint = stored(name).await?;
        }
        Ok(config)
    }

    /// Makes this cache, and all caches that share its epoch, read the tenant's configuration again.
    pub fn forget(&self, tenant: &Tenant) {
        self.epoch.advance(tenant);
    }
}

/// Configuration that the conversion of a submission into a task needs.
#[derive(Clone, Debug, Default)]
pub struct SubmissionConfig {
    /// Endpoint that the submission names, if it exists.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Endpoint that `wait.then` of the payload names, if it exists.
    pub then_endpoint: Option<Arc<Endpoint>>,
    /// Configuration of the queue and the kind. `None` if the submission has a retry policy of its own.
    pub task_config: Option<Arc<TaskConfig>>,
}

impl SubmissionConfig {
    /// Returns the configuration of the queue.
    pub fn queue(&self) -> Option<&QueueConfig> {
        self.task_config.as_ref().map(|task_config| &task_config.queue)
    }
}

/// Cached entries of one kind of configuration.
struct CachedRecords<K, V>(Mutex<Recent<K, Arc<CacheEntry<V>>>>);

/// One cached entry. The caller that holds the lock reads from the store, and all other callers wait for that
/// read.
type CacheEntry<V> = futures_util::lock::Mutex<Option<CachedRead<V>>>;

struct CachedRead<V> {
    /// Value that was read. `None` if the read failed.
    value: Option<V>,
    at: Timestamp,
    epoch: u64,
}

impl<K: Eq + Hash, V> Default for CachedRecords<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(MAX_KNOWN)))
    }
}

impl<K: Eq + Hash, V: Clone> CachedRecords<K, V> {
    async fn get(
        &self,
        owner: (&Tenant, K),
        config_cache: &ConfigCache,
        read: impl AsyncFnOnce() -> Result<V, StoreError>,
    ) -> Result<V, StoreError> {
        self.get_since(owner, config_cache, None, read).await
    }

    /// Returns the value. If `since` is given, returns the value as it was stored at a time after `since`.
    async fn get_since(
        &self,
        (tenant, key): (&Tenant, K),
        config_cache: &ConfigCache,
        since: Option<Timestamp>,
        read: impl AsyncFnOnce() -> Result<V, StoreError>,
    ) -> Result<V, StoreError> {
        let (place, asked_at) = (self.place(key), config_cache.clock.now());
        let mut seen = place.lock().await;
        // The epoch is taken before the read. A change during the read raises the epoch, so the next caller
        // reads again.
        let (now, epoch) = (config_cache.clock.now(), config_cache.epoch.get(tenant));
        // A caller that waited for a slow read may use the value of that read, so the age is counted up to
        // `asked_at`. A value whose time is in the future is not fresh: it would stay valid for too long
        // after the clock was set back.
        let is_fresh = |seen: &&CachedRead<V>| {
            let age = if seen.value.is_some() { CONFIG_TTL } else { FAILED };
            let is_recent = seen.value.is_none() || since.is_none_or(|since| seen.at > since);
            is_recent && seen.epoch == epoch && seen.at <= now && asked_at < seen.at + age
        };
        if let Some(fresh) = seen.as_ref().filter(is_fresh) {
            return fresh.value.clone().ok_or_else(|| {
                StoreError::Unavailable(
                    "the last read of this configuration failed; try again after one second".to_owned(),
                )
            });
        }
        // In a box, so that the future of a request stays small: most requests read nothing.
        let value = Box::pin(read()).await;
        // The age counts from the start of the read, because the record may have changed right after the
        // store read it.
        let at = if value.is_ok() { now } else { config_cache.clock.now() };
        *seen = Some(CachedRead { value: value.as_ref().ok().cloned(), at, epoch });
        value
    }

    /// Returns the entry for a key. Adds an empty entry if there is none.
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
    use crate::task::Task;

    /// Configuration store in which every queue is paused. Counts the reads.
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

        async fn write_with_tasks(
            &self,
            _: Vec<Record>,
            _: Vec<Task>,
            _: Option<Entry>,
            _: Timestamp,
        ) -> Result<RecordResult, StoreError> {
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
            "caches that share the epoch read again too"
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
