//! Cache of API keys and of tenants' limits, so that most requests need no read of the store.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use nobat_core::auth::api_key::{Key, KeyId, KeyText};
use nobat_core::auth::network::client_network;
use nobat_core::collections::recent::Recent;
use nobat_core::config::tenant::TenantSettings;
use nobat_core::limits::token_bucket::{TakeResult, TokenBucket, TokenRate};
use nobat_core::ports::StoreError;
use nobat_core::service::backend::Backend;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use parking_lot::Mutex;

use crate::auth::lookups::{GuessRate, Lookups, Turn};
use crate::auth::policy::AuthMode;
use crate::http::error_code::Code;
use crate::http::problem::{Problem, whole_seconds};

/// Time for which a cached key or tenant is valid. A key that another process revoked stays valid in this
/// process for up to this time.
///
/// A change by this process takes effect here at once.
const FRESH: Duration = Duration::from_secs(10);

/// Maximum rate of requests without a valid key from one client network: 20 at once, then one a second. Above
/// this rate, the server answers such requests with 429. If the network sends a key that is not in the cache,
/// the server then looks up only one such key at a time ([`Lookups`]).
const FAILURES: TokenRate =
    TokenRate { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN.saturating_add(19) };

/// Cache of the keys and tenants that this process has read.
pub(crate) struct AuthCache {
    asks_for_keys: AtomicBool,
    /// Time of the last read of the store that found no API keys, in milliseconds since the Unix epoch.
    looked_at: AtomicI64,
    keys: BoundedCache<KeyId, Arc<Key>>,
    tenants: BoundedCache<Tenant, TenantSettings>,
    /// Token buckets for requests without a valid key, one for each client network. `None`: all clients whose
    /// address is unknown.
    failures: Mutex<HashMap<Option<IpAddr>, TokenBucket>>,
    lookups: Lookups,
}

impl AuthCache {
    pub(crate) fn new(keys: AuthMode) -> Self {
        Self {
            asks_for_keys: AtomicBool::new(keys == AuthMode::Required),
            looked_at: AtomicI64::new(0),
            keys: BoundedCache::default(),
            tenants: BoundedCache::default(),
            failures: Mutex::default(),
            lookups: Lookups::default(),
        }
    }

    /// Returns true if every request needs a key. As long as no key exists, reads the store every 10 seconds,
    /// because another process can create the first key.
    pub(crate) async fn asks_for_keys(&self, backend: &Backend, now: Timestamp) -> Result<bool, StoreError> {
        if self.asks_for_keys.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let looked_at = self.looked_at.load(Ordering::Relaxed);
        if looked_at <= now.millis() && now < Timestamp::from_millis(looked_at) + FRESH {
            return Ok(false);
        }
        if backend.config.has_keys().await? {
            self.ask_for_keys();
            return Ok(true);
        }
        self.looked_at.store(now.millis(), Ordering::Relaxed);
        Ok(false)
    }

    /// Requires keys from now on, because one was created.
    pub(crate) fn ask_for_keys(&self) {
        self.asks_for_keys.store(true, Ordering::Relaxed);
    }

    /// Returns the API key with this text, or `None` if no such key exists. `origin` is the client's address,
    /// `None` if the address is unknown.
    ///
    /// If the cached key is too old, this function reads the key again at once. For a key that is not in the
    /// cache, the read must wait until [`Lookups`] permits it. After a wait of 5 s, the request fails.
    pub(crate) async fn key(
        &self,
        backend: &Backend,
        text: &KeyText,
        origin: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Option<Arc<Key>>, Problem> {
        let digest = text.digest();
        let id = digest.id();
        if let Some(known) = self.keys.get(&id, now) {
            return Ok(Some(known).filter(|key| key.digest == digest));
        }
        let mut turn = None;
        if !self.keys.has_seen(&id) {
            turn = Some(self.turn(origin, now).await?);
        }
        let since = self.keys.changes();
        let found = backend.config.key(id).await?.map(Arc::new);
        if let Some(key) = &found {
            self.keys.note(id, Arc::clone(key), since, now);
            turn.into_iter().for_each(Turn::found);
        }
        Ok(found.filter(|key| key.digest == digest))
    }

    /// Waits until the server may look up a credential that this process does not know. After a wait of 5 s, the
    /// request fails.
    pub(crate) async fn turn(&self, origin: Option<IpAddr>, now: Timestamp) -> Result<Turn<'_>, Problem> {
        let network = origin.map(client_network);
        let pace = if self.has_failed_too_often(network, now) {
            GuessRate::Slowed(network)
        } else {
            GuessRate::Full
        };
        self.lookups.turn(pace).await.ok_or_else(|| match pace {
            GuessRate::Slowed(_) => too_many_auth_failures(Duration::from_secs(1)),
            GuessRate::Full => StoreError::Overloaded.into(),
        })
    }

    /// Returns the limits of a tenant, at most 10 seconds old.
    pub(crate) async fn settings(
        &self,
        backend: &Backend,
        tenant: &Tenant,
        now: Timestamp,
    ) -> Result<TenantSettings, StoreError> {
        if let Some(settings) = self.tenants.get(tenant, now) {
            return Ok(settings);
        }
        let since = self.tenants.changes();
        let settings = backend.config.tenant(tenant).await?;
        self.tenants.note(tenant.clone(), settings, since, now);
        Ok(settings)
    }

    /// Returns the limits on look-ups of keys that this process has not read recently.
    pub(crate) fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    /// Drops a key from the cache, because this process changed it.
    pub(crate) fn forget_key(&self, id: KeyId) {
        self.keys.forget(&id);
    }

    /// Drops a tenant from the cache, because this process changed its limits.
    pub(crate) fn forget_tenant(&self, tenant: &Tenant) {
        self.tenants.forget(tenant);
    }

    /// Counts a request without a valid key or completion token. Returns a 429 if the client network has sent too many such
    /// requests.
    pub(crate) fn count_failure(&self, origin: Option<IpAddr>, now: Timestamp) -> Result<(), Problem> {
        let mut failures = self.failures.lock();
        if failures.len() >= MAX_KNOWN {
            // A full bucket has the same effect as no bucket, so full buckets are removed first.
            failures.retain(|_, bucket| FAILURES.left(*bucket, now) < FAILURES.burst.get());
        }
        if failures.len() >= MAX_KNOWN {
            failures.clear();
        }
        let bucket = failures.entry(origin.map(client_network)).or_default();
        let (taken, left) = FAILURES.take(*bucket, NonZeroU32::MIN, now);
        *bucket = left;
        match taken {
            TakeResult::Granted(_) => Ok(()),
            TakeResult::Wait(pause) => Err(too_many_auth_failures(pause)),
        }
    }

    fn has_failed_too_often(&self, network: Option<IpAddr>, now: Timestamp) -> bool {
        let bucket = self.failures.lock().get(&network).copied().unwrap_or_default();
        matches!(FAILURES.take(bucket, NonZeroU32::MIN, now).0, TakeResult::Wait(_))
    }
}

fn too_many_auth_failures(pause: Duration) -> Problem {
    let detail = "too many requests from this address had no valid API key or completion token; try again after the time in Retry-After";
    Problem::new(Code::TooManyAuthFailures, detail).retry_after(whole_seconds(pause))
}

/// Maximum number of keys, of tenants and of client networks in the cache. The server reads a dropped key or
/// tenant again when a request needs it.
const MAX_KNOWN: usize = 10_000;

/// Values that were read from the store, each with the time of its read.
struct BoundedCache<K, V>(Mutex<CacheState<K, V>>);

struct CacheState<K, V> {
    things: Recent<K, (V, Timestamp)>,
    /// Number of changes by this process. A value that was read before a change must not enter the cache
    /// after the change.
    changes: u64,
}

impl<K: Hash + Eq, V> Default for BoundedCache<K, V> {
    fn default() -> Self {
        Self(Mutex::new(CacheState { things: Recent::new(MAX_KNOWN), changes: 0 }))
    }
}

impl<K: Hash + Eq, V: Clone> BoundedCache<K, V> {
    fn get(&self, name: &K, now: Timestamp) -> Option<V> {
        let mut known = self.0.lock();
        let (value, read_at) = known.things.get(name)?;
        // A clock that was set back must not extend the validity.
        (*read_at <= now && now < *read_at + FRESH).then(|| value.clone())
    }

    /// Returns true if the cache has the value, even if the value is too old to be valid.
    fn has_seen(&self, name: &K) -> bool {
        self.0.lock().things.get(name).is_some()
    }

    fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    fn note(&self, name: K, value: V, since: u64, now: Timestamp) {
        let mut known = self.0.lock();
        if known.changes != since {
            return;
        }
        known.things.insert(name, (value, now));
    }

    fn forget(&self, name: &K) {
        let mut known = self.0.lock();
        known.changes += 1;
        known.things.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use async_trait::async_trait;
    use nobat_core::auth::audit::{Action, Actor, Entry};
    use nobat_core::config::record::{Record, RecordKind, RecordName};
    use nobat_core::ports::Clock;
    use nobat_core::ports::config_store::RecordResult;
    use nobat_core::types::name::Name;
    use nobat_sqlite::Sqlite;

    use super::*;

    struct Still;

    #[async_trait]
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }

        async fn sleep(&self, _duration: Duration) {}
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + millis)
    }

    #[tokio::test]
    async fn absence_of_keys_is_cached_for_ten_seconds() {
        let backend = Sqlite::in_memory(Duration::from_hours(1), Arc::new(Still)).unwrap().backend();
        let ring = AuthCache::new(AuthMode::NotYet);
        assert!(!ring.asks_for_keys(&backend, at(0)).await.unwrap());
        // Another process creates a key.
        let name = RecordName { tenant: None, kind: RecordKind::Key, name: Name::new("one").unwrap() };
        let entry = Entry {
            tenant: Tenant::default(),
            at: at(0),
            actor: Actor::Operator,
            action: Action::KeyCreated,
            target: String::new(),
            mark: 0,
        };
        let record = Record { name, version: 1, body: "{}".to_owned() };
        assert_eq!(backend.config.write(vec![record], entry).await.unwrap(), RecordResult::Done);
        assert!(!ring.asks_for_keys(&backend, at(9_999)).await.unwrap());
        assert!(ring.asks_for_keys(&backend, at(10_000)).await.unwrap());
        assert!(ring.asks_for_keys(&backend, at(0)).await.unwrap(), "the server requires keys from then on");
    }

    fn address(number: usize) -> IpAddr {
        Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into()
    }

    #[test]
    fn full_failure_map_keeps_addresses_that_failed_too_often() {
        let (ring, guesser) = (AuthCache::new(AuthMode::Required), Some(address(MAX_KNOWN)));
        for _ in 0..FAILURES.burst.get() {
            ring.count_failure(guesser, at(0)).unwrap();
        }
        for number in 1..MAX_KNOWN {
            ring.count_failure(Some(address(number)), at(0)).unwrap();
        }
        // After a second, all other buckets are full again, and the map keeps none of them.
        let later = at(1_000);
        ring.count_failure(Some(address(MAX_KNOWN + 1)), later).unwrap();
        assert_eq!(ring.failures.lock().len(), 2);
        assert!(ring.count_failure(guesser, later).is_ok(), "one failure a second is allowed");
        assert!(ring.has_failed_too_often(guesser, later));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_key_of_a_guessing_address_is_looked_up() {
        let backend = Sqlite::in_memory(Duration::from_hours(1), Arc::new(Still)).unwrap().backend();
        let (ring, guess) = (AuthCache::new(AuthMode::Required), KeyText::new([7; 20]));
        for origin in [Some(address(1)), None] {
            for _ in 0..FAILURES.burst.get() {
                ring.count_failure(origin, at(0)).unwrap();
            }
            assert!(ring.has_failed_too_often(origin, at(0)) && ring.count_failure(origin, at(0)).is_err());
            assert!(ring.key(&backend, &guess, origin, at(0)).await.unwrap().is_none());
        }
        assert!(!ring.has_failed_too_often(Some(address(2)), at(0)));
    }

    #[test]
    fn value_read_before_a_change_is_not_cached() {
        let known = BoundedCache::<u8, &str>::default();
        let before = known.changes();
        known.forget(&1);
        known.note(1, "old", before, at(0));
        assert_eq!(known.get(&1, at(0)), None);
        known.note(1, "new", known.changes(), at(0));
        assert_eq!(
            (known.get(&1, at(9_999)), known.get(&1, at(10_000)), known.get(&1, at(-1))),
            (Some("new"), None, None)
        );
    }

    #[test]
    fn key_in_use_stays_cached_among_many_others() {
        let known = BoundedCache::<usize, ()>::default();
        known.note(0, (), 0, at(0));
        for number in 1..3 * MAX_KNOWN {
            known.note(number, (), 0, at(0));
            assert!(known.has_seen(&0), "{number}");
        }
        assert!(!known.has_seen(&1));
    }

    #[test]
    fn failure_map_is_cleared_at_its_maximum_size() {
        let ring = AuthCache::new(AuthMode::Required);
        for number in 0..=MAX_KNOWN {
            ring.count_failure(Some(address(number)), at(0)).unwrap();
        }
        assert_eq!(ring.failures.lock().len(), 1);
    }
}
