//! What is configured, as it was read a moment ago: whoever asks with every task does not read the registry with every task.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::callback_secret::CallbackSecrets;
use crate::endpoint::Endpoint;
use crate::flow::{FlowOf, Limits};
use crate::lane::Lane;
use crate::name::{Name, Tenant};
use crate::ports::{Clock, StoreError};
use crate::recent::Recent;
use crate::registry::{RecordName, Registry, Sort};
use crate::task::Task;
use crate::time::Timestamp;

/// Knows endpoints, and what is laid down for queues, kinds and flow keys.
pub struct Directory {
    registry: Arc<dyn Registry>,
    clock: Arc<dyn Clock>,
    edition: Edition,
    lanes: Known<(Tenant, Name, Name), Arc<Lanes>>,
    flow_keys: Known<(Tenant, Name), Arc<Lane>>,
    endpoints: Known<(Tenant, Name), Option<Arc<Endpoint>>>,
    callback_secrets: Known<Tenant, Arc<CallbackSecrets>>,
}

/// Counter of configuration changes for each tenant, shared by the directories of one process. A change makes all of them read the tenant's
/// configuration anew, and no other tenant's: a tenant that changes its configuration all the time costs the others nothing.
///
/// A fixed number of counters serves any number of tenants. Tenants that share one read their configuration a little more often.
#[derive(Clone, Debug)]
pub struct Edition(Arc<[AtomicU64]>);

/// Number of counters in an [`Edition`].
const COUNTERS: usize = 256;

impl Default for Edition {
    fn default() -> Self {
        Self((0..COUNTERS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Edition {
    fn counter(&self, tenant: &Tenant) -> &AtomicU64 {
        // Tenants are named by the operator, so nobody can choose names that share a counter: any cheap mix of the bytes will do.
        let mixed = tenant.as_str().bytes().fold(0_usize, |mixed, byte| mixed.wrapping_mul(31).wrapping_add(byte.into()));
        &self.0[mixed % COUNTERS]
    }

    /// Number of changes of the tenant's configuration.
    fn get(&self, tenant: &Tenant) -> u64 {
        self.counter(tenant).load(Ordering::Relaxed)
    }

    fn advance(&self, tenant: &Tenant) {
        self.counter(tenant).fetch_add(1, Ordering::Relaxed);
    }
}

/// What is laid down for the tasks of one queue and one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lanes {
    /// For their queue.
    pub queue: Lane,
    /// For their kind.
    pub kind: Lane,
    /// For all tasks of their tenant.
    pub tenant: Limits,
}

/// For how long what was read is believed.
pub const FRESH: Duration = Duration::from_secs(10);
/// For how long nobody tries again what could not be read: those who waited for that do not wait again one after the other.
const FAILED: Duration = Duration::from_secs(1);
/// Maximum number of entries for each kind of configuration. Those that were not used for the longest time are forgotten, and read again.
const MAX_KNOWN: usize = 10_000;

impl Directory {
    /// Knows what stands in that registry.
    pub fn new(registry: Arc<dyn Registry>, clock: Arc<dyn Clock>, edition: Edition) -> Self {
        Self {
            registry,
            clock,
            edition,
            lanes: Known::default(),
            flow_keys: Known::default(),
            endpoints: Known::default(),
            callback_secrets: Known::default(),
        }
    }

    /// What is laid down for the tasks of that queue and kind.
    pub async fn lanes(&self, tenant: &Tenant, queue: &Name, kind: &Name) -> Result<Arc<Lanes>, StoreError> {
        let read = async {
            let queue = self.registry.lane(&Lane::record_name(tenant, Sort::Queue, queue)).await?;
            let kind = self.registry.lane(&Lane::record_name(tenant, Sort::Kind, kind)).await?;
            let tenant = self.registry.tenant(tenant).await?.flow;
            Ok(Arc::new(Lanes { queue, kind, tenant }))
        };
        self.lanes.get((tenant, (tenant.clone(), queue.clone(), kind.clone())), self, read).await
    }

    /// What is laid down for the tasks of that flow key.
    pub async fn flow_key(&self, tenant: &Tenant, key: &Name) -> Result<Arc<Lane>, StoreError> {
        let name: RecordName = Lane::record_name(tenant, Sort::FlowKey, key);
        let read = async { self.registry.lane(&name).await.map(Arc::new) };
        self.flow_keys.get((tenant, (tenant.clone(), key.clone())), self, read).await
    }

    /// The endpoint of that name, if there is one.
    pub async fn endpoint(&self, tenant: &Tenant, name: &Name) -> Result<Option<Arc<Endpoint>>, StoreError> {
        let read = async { Ok(self.registry.endpoint(tenant, name).await?.map(Arc::new)) };
        self.endpoints.get((tenant, (tenant.clone(), name.clone())), self, read).await
    }

    /// The secrets that sign a tenant's callbacks, sealed. Those that have ended may be among them: they are told by their `expires_at`.
    pub async fn callback_secrets(&self, tenant: &Tenant) -> Result<Arc<CallbackSecrets>, StoreError> {
        let read = async { self.registry.callback_secrets(tenant).await.map(Arc::new) };
        self.callback_secrets.get((tenant, tenant.clone()), self, read).await
    }

    /// Makes this directory, and all that share its edition, read the tenant's configuration anew.
    pub fn forget(&self, tenant: &Tenant) {
        self.edition.advance(tenant);
    }
}

/// The flows that a task has to pass, in the order in which it is asked for them: those that most often say no come first, and the others
/// are not asked in vain. `key` is what is laid down for its flow key.
pub fn flows_of(task: &Task, lanes: &Lanes, endpoint: Option<&Endpoint>, key: Option<&Lane>) -> Vec<(FlowOf, Limits)> {
    let of_endpoint = task.settings.endpoint.clone().zip(endpoint).map(|(name, endpoint)| (FlowOf::Endpoint(name), endpoint.limits));
    let of_key = task.settings.flow_key.clone().zip(key).map(|(key, lane)| (FlowOf::Key(key), lane.limits));
    let of_lanes = [
        (FlowOf::Kind(task.kind.clone()), lanes.kind.limits),
        (FlowOf::Queue(task.queue.clone()), lanes.queue.limits),
        (FlowOf::Tenant, lanes.tenant),
    ];
    of_endpoint.into_iter().chain(of_key).chain(of_lanes.into_iter().filter(|(_, limits)| !limits.is_none())).collect()
}

/// What was read of one sort of things.
struct Known<K, V>(Mutex<Recent<K, Arc<Place<V>>>>);

/// What was read of one thing. Whoever has the lock reads it; all others who ask for it wait for that.
type Place<V> = futures_util::lock::Mutex<Option<Seen<V>>>;

struct Seen<V> {
    /// `None`, if it could not be read.
    value: Option<V>,
    at: Timestamp,
    edition: u64,
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
        directory: &Directory,
        read: impl Future<Output = Result<V, StoreError>>,
    ) -> Result<V, StoreError> {
        let (place, asked_at) = (self.place(key), directory.clock.now());
        let mut seen = place.lock().await;
        // What is changed while it is read is read again: that is another edition.
        let (now, edition) = (directory.clock.now(), directory.edition.get(tenant));
        // Whoever has waited for a slow look-up takes what it brought. A clock that was set back makes nothing fresh for longer.
        let is_fresh = |seen: &&Seen<V>| {
            let age = if seen.value.is_some() { FRESH } else { FAILED };
            seen.edition == edition && seen.at <= now && asked_at < seen.at + age
        };
        if let Some(fresh) = seen.as_ref().filter(is_fresh) {
            return fresh.value.clone().ok_or_else(|| StoreError::Unavailable("it could not be read a moment ago".to_owned()));
        }
        let value = read.await;
        // It may have been changed right after the question, however long the answer took.
        let at = if value.is_ok() { now } else { directory.clock.now() };
        *seen = Some(Seen { value: value.as_ref().ok().cloned(), at, edition });
        value
    }

    /// Nothing is left half done under the lock, so a panic elsewhere does not spoil what it guards.
    fn place(&self, key: K) -> Arc<Place<V>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.get(&key) {
            return Arc::clone(place);
        }
        let place = Arc::<Place<V>>::default();
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
    use crate::audit::Entry;
    use crate::rate::{Rate, Taken};
    use crate::registry::{Record, Recorded, TrailPage, TrailQuery};
    use crate::tenant::TenantSettings;

    /// Every queue is paused, and every look-up counted.
    #[derive(Default)]
    struct Paused(AtomicUsize, AtomicBool);

    #[async_trait]
    impl Registry for Paused {
        async fn find(&self, name: &RecordName) -> Result<Option<Record>, StoreError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            // Whoever reads is not through at once.
            futures_util::pending!();
            if self.1.load(Ordering::Relaxed) {
                return Err(StoreError::Overloaded);
            }
            let lane = Lane { paused: true, version: 1, ..Lane::default() };
            let flow = Limits { parallelism: NonZeroU32::new(3), ..Limits::default() };
            Ok(match name.sort {
                Sort::Queue | Sort::FlowKey => Some(lane.record(name.clone())),
                Sort::Tenant => {
                    let settings = TenantSettings { flow, version: 1, ..TenantSettings::default() };
                    Some(Record { name: name.clone(), version: 1, body: settings.to_text() })
                }
                _ => None,
            })
        }

        async fn page(&self, _: Option<&Tenant>, _: Sort, _: Option<&Name>, _: usize) -> Result<Vec<Record>, StoreError> {
            unimplemented!("nobody asks")
        }

        async fn write(&self, _: Vec<Record>, _: Entry) -> Result<Recorded, StoreError> {
            unimplemented!("nobody asks")
        }

        async fn remove(&self, _: &RecordName, _: u64, _: Entry) -> Result<Recorded, StoreError> {
            unimplemented!("nobody asks")
        }

        async fn trail(&self, _: &TrailQuery, _: Timestamp) -> Result<TrailPage, StoreError> {
            unimplemented!("nobody asks")
        }

        async fn take(&self, _: &Tenant, _: Rate, _: NonZeroU32, _: Timestamp) -> Result<Taken, StoreError> {
            unimplemented!("nobody asks")
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
    fn reads_what_it_does_not_know_what_is_old_and_what_was_changed() {
        let (registry, hand, edition) = (Arc::new(Paused::default()), Arc::new(Hand::default()), Edition::default());
        let new = || Directory::new(Arc::clone(&registry) as _, Arc::clone(&hand) as _, edition.clone());
        let (directory, other) = (new(), new());
        let (tenant, name) = (Tenant::default(), |text| Name::new(text).unwrap());
        let look = |directory: &Directory| {
            let before = registry.0.load(Ordering::Relaxed);
            let lanes = at_once(directory.lanes(&tenant, &name("q"), &name("k"))).unwrap();
            assert!(lanes.queue.paused && !lanes.kind.paused && lanes.tenant.parallelism == NonZeroU32::new(3));
            registry.0.load(Ordering::Relaxed) - before
        };
        assert_eq!((look(&directory), look(&directory)), (3, 0));
        assert_eq!((look(&other), look(&other)), (3, 0));
        directory.forget(&tenant);
        assert_eq!((look(&directory), look(&other), look(&other)), (3, 3, 0), "whoever shares the edition forgets as well");
        directory.forget(&Tenant::new("another").unwrap());
        assert_eq!((look(&directory), look(&other)), (0, 0), "a change of another tenant's");
        hand.0.store(9_999, Ordering::Relaxed);
        assert_eq!(look(&directory), 0);
        hand.0.store(10_000, Ordering::Relaxed);
        assert_eq!(look(&directory), 3);
        hand.0.store(0, Ordering::Relaxed);
        assert_eq!(look(&directory), 3, "a clock that was set back makes nothing fresh");
        assert!(at_once(directory.endpoint(&tenant, &name("e"))).unwrap().is_none());
        assert!(at_once(directory.flow_key(&tenant, &name("f"))).unwrap().paused);
    }

    #[test]
    fn what_took_long_to_read_is_as_old_as_the_question() {
        let (registry, hand) = (Arc::new(Paused::default()), Arc::new(Hand::default()));
        let directory = Directory::new(Arc::clone(&registry) as _, Arc::clone(&hand) as _, Edition::default());
        let (tenant, name) = (Tenant::default(), Name::new("x").unwrap());
        let mut reading = Box::pin(directory.endpoint(&tenant, &name));
        assert!(futures_util::FutureExt::now_or_never(&mut reading).is_none(), "it waits for the registry");
        hand.0.store(9_000, Ordering::Relaxed);
        assert!(at_once(reading).is_ok());
        assert!(at_once(directory.endpoint(&tenant, &name)).is_ok());
        assert_eq!(registry.0.load(Ordering::Relaxed), 1);
        hand.0.store(10_000, Ordering::Relaxed);
        assert!(at_once(directory.endpoint(&tenant, &name)).is_ok());
        assert_eq!(registry.0.load(Ordering::Relaxed), 2, "what it says may have been changed right after it was asked for");
    }

    #[test]
    fn those_who_ask_at_the_same_time_have_it_read_once() {
        let registry = Arc::new(Paused::default());
        let directory = Directory::new(Arc::clone(&registry) as _, Arc::new(Hand::default()), Edition::default());
        let (tenant, name) = (Tenant::default(), Name::new("x").unwrap());
        let all = futures_util::future::join_all((0..10).map(|_| directory.lanes(&tenant, &name, &name)));
        assert!(at_once(all).into_iter().all(|lanes| lanes.is_ok()));
        assert_eq!(registry.0.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn those_who_wait_for_what_cannot_be_read_are_told_so_together() {
        let (registry, hand) = (Arc::new(Paused::default()), Arc::new(Hand::default()));
        let directory = Directory::new(Arc::clone(&registry) as _, Arc::clone(&hand) as _, Edition::default());
        let (tenant, name) = (Tenant::default(), Name::new("x").unwrap());
        registry.1.store(true, Ordering::Relaxed);
        let all = futures_util::future::join_all((0..10).map(|_| directory.endpoint(&tenant, &name)));
        assert!(at_once(all).into_iter().all(|endpoint| endpoint.is_err()));
        assert_eq!(registry.0.load(Ordering::Relaxed), 1);
        registry.1.store(false, Ordering::Relaxed);
        hand.0.store(1_000, Ordering::Relaxed);
        assert!(at_once(directory.endpoint(&tenant, &name)).is_ok());
    }

    #[test]
    fn entry_in_use_is_known_after_any_number_of_others() {
        let registry = Arc::new(Paused::default());
        let directory = Directory::new(Arc::clone(&registry) as _, Arc::new(Hand::default()), Edition::default());
        let (quiet, loud, name) =
            (Tenant::default(), Tenant::new("loud").unwrap(), |number: usize| Name::new(&format!("n{number}")).unwrap());
        let others = 3 * MAX_KNOWN;
        for number in 0..others {
            assert!(at_once(directory.flow_key(&quiet, &name(0))).is_ok());
            assert!(at_once(directory.flow_key(&loud, &name(number))).is_ok());
        }
        assert_eq!(registry.0.load(Ordering::Relaxed), 1 + others);
    }

    /// Nothing here waits for anything but its turn.
    fn at_once<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        for _ in 0..100 {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
                return value;
            }
        }
        panic!("it waits")
    }
}
