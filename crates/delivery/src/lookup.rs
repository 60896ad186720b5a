//! Look-ups of names, with limits on their number (in total and per tenant) and on their time.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nobat_core::collections::recent::Recent;
use nobat_core::types::name::Tenant;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use crate::connect_error::{ConnectError, is_local};
use crate::resolver::Resolve;

/// Maximum number of parallel look-ups.
const MAX_LOOKUPS: usize = 256;
/// Maximum number of parallel look-ups of one tenant.
const MAX_LOOKUPS_OF_TENANT: usize = 64;
/// Maximum time that a look-up waits before it starts.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Maximum duration of a look-up, counted from its start.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which a failed look-up is not repeated.
const FAILURE_TTL: Duration = Duration::from_secs(3);
/// Maximum number of names in the cache of failed look-ups.
const MAX_FAILURES: usize = 1_024;
/// Number of tenants at which tenants without look-ups are dropped from the map.
const MAX_TENANTS: usize = 256;

tokio::task_local! {
    /// The request that the connection is opened for. The HTTP client first polls the connector inside the
    /// request's future, so the connector can read this value.
    pub(crate) static ORIGIN: Origin;
}

/// The request that a connection is opened for.
#[derive(Clone)]
pub(crate) struct Origin {
    tenant: Tenant,
    is_waiting: Arc<AtomicBool>,
}

/// Runs look-ups within the limits. Each look-up waits first until the tenant's limit permits it, then until
/// the limit of the process permits it, in order of arrival.
pub(crate) struct Lookups {
    resolver: Arc<dyn Resolve>,
    slots: Semaphore,
    tenants: Mutex<HashMap<Tenant, Arc<Semaphore>>>,
    /// Names whose look-up failed, each with the time until which the look-up is not repeated.
    failures: Mutex<Recent<String, Instant>>,
}

impl Origin {
    pub(crate) fn new(tenant: Tenant) -> Self {
        Self { tenant, is_waiting: Arc::default() }
    }

    /// Returns the origin of the current request. Returns the default tenant for a connection without a
    /// request.
    pub(crate) fn current() -> Self {
        ORIGIN.try_with(Self::clone).unwrap_or_else(|_| Self::new(Tenant::default()))
    }

    /// Returns true if the request's look-up is waiting to start.
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }
}

impl Lookups {
    pub(crate) fn new(resolver: Arc<dyn Resolve>) -> Self {
        let failures = Mutex::new(Recent::new(MAX_FAILURES));
        Self { resolver, slots: Semaphore::new(MAX_LOOKUPS), tenants: Mutex::default(), failures }
    }

    /// Returns the addresses of a name. Dropping the future ends the look-up, and another look-up may start.
    pub(crate) async fn resolve(&self, name: &str, origin: &Origin) -> Result<Vec<IpAddr>, ConnectError> {
        if self.has_failed(name) {
            return Err(ConnectError::Dns);
        }
        let own = self.of_tenant(&origin.tenant);
        let _slots = self.acquire(&own, origin).await?;
        // Another look-up of this name may have failed during the wait.
        if self.has_failed(name) {
            return Err(ConnectError::Dns);
        }
        let found = timeout(LOOKUP_TIMEOUT, self.resolver.resolve(name)).await;
        match found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(addresses) => Ok(addresses),
            Err(error) if is_local(&error) => Err(ConnectError::Io(error)),
            Err(error) => {
                tracing::debug!(%error, "the look-up of a name failed; it is not repeated for a few seconds");
                self.note_failure(name);
                Err(ConnectError::Dns)
            }
        }
    }

    /// Waits until the tenant's limit, and then the limit of the process, permits the look-up.
    async fn acquire<'a>(
        &'a self,
        own: &'a Semaphore,
        origin: &Origin,
    ) -> Result<[SemaphorePermit<'a>; 2], ConnectError> {
        let never_closed = |_| unreachable!("the semaphores are never closed");
        origin.is_waiting.store(true, Ordering::Relaxed);
        let slots = timeout(MAX_WAIT, async {
            let own = own.acquire().await.unwrap_or_else(never_closed);
            [own, self.slots.acquire().await.unwrap_or_else(never_closed)]
        });
        let slots = slots.await.map_err(|_| ConnectError::Busy)?;
        origin.is_waiting.store(false, Ordering::Relaxed);
        Ok(slots)
    }

    fn of_tenant(&self, tenant: &Tenant) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock();
        if tenants.len() >= MAX_TENANTS && !tenants.contains_key(tenant) {
            tenants.retain(|_, slots| Arc::strong_count(slots) > 1);
        }
        let slots =
            tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(Semaphore::new(MAX_LOOKUPS_OF_TENANT)));
        Arc::clone(slots)
    }

    fn has_failed(&self, name: &str) -> bool {
        self.failures.lock().get(name).is_some_and(|until| Instant::now() < *until)
    }

    fn note_failure(&self, name: &str) {
        self.failures.lock().insert(name.to_owned(), Instant::now() + FAILURE_TTL);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use futures_util::future::join_all;

    use super::*;

    /// Answers names that begin with `quick` at once, refuses those that begin with `none`, and never answers
    /// other names. Counts running look-ups.
    #[derive(Default)]
    struct Silent {
        asked: AtomicUsize,
        under_way: AtomicUsize,
    }

    struct UnderWay<'a>(&'a AtomicUsize);

    impl Drop for UnderWay<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[async_trait]
    impl Resolve for Silent {
        async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.under_way.fetch_add(1, Ordering::SeqCst);
            let _under_way = UnderWay(&self.under_way);
            match name {
                name if name.starts_with("quick") => Ok(vec![[127, 0, 0, 1].into()]),
                name if name.starts_with("none") => Err(io::ErrorKind::NotFound.into()),
                _ => std::future::pending().await,
            }
        }
    }

    /// Lets every spawned task run until it waits. The runtime polls about sixty of them between two yields.
    async fn until_all_wait() {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    fn origin(name: &str) -> Origin {
        Origin::new(Tenant::new(name).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn flood_of_one_tenant_delays_no_other() {
        let silent = Arc::new(Silent::default());
        let lookups = Arc::new(Lookups::new(silent.clone()));
        let flood: Vec<_> = (0..1_000)
            .map(|number| {
                let lookups = Arc::clone(&lookups);
                tokio::spawn(
                    async move { lookups.resolve(&format!("slow{number}.test"), &origin("flood")).await },
                )
            })
            .collect();
        until_all_wait().await;
        assert_eq!(silent.under_way.load(Ordering::SeqCst), MAX_LOOKUPS_OF_TENANT);
        let began = Instant::now();
        for number in 0..100 {
            assert!(lookups.resolve(&format!("quick{number}.test"), &origin("other")).await.is_ok());
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        let outcomes = join_all(flood).await;
        let (mut dns, mut busy) = (0, 0);
        for outcome in outcomes {
            match outcome.unwrap() {
                Err(ConnectError::Dns) => dns += 1,
                Err(ConnectError::Busy) => busy += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(dns >= MAX_LOOKUPS_OF_TENANT && busy > 0, "{dns} failed, and {busy} found no slot");
        assert!(began.elapsed() <= MAX_WAIT + LOOKUP_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn look_ups_of_all_tenants_are_bounded() {
        let silent = Arc::new(Silent::default());
        let lookups = Arc::new(Lookups::new(silent.clone()));
        for number in 0..1_000 {
            let lookups = Arc::clone(&lookups);
            tokio::spawn(
                async move { lookups.resolve("slow.test", &origin(&format!("t{}", number % 10))).await },
            );
        }
        until_all_wait().await;
        assert_eq!(silent.under_way.load(Ordering::SeqCst), MAX_LOOKUPS);
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_look_up_frees_its_slots() {
        let silent = Arc::new(Silent::default());
        let lookups = Lookups::new(silent.clone());
        for round in 0..10 {
            let round = (0..MAX_LOOKUPS_OF_TENANT).map(async |number| {
                let (name, origin) = (format!("slow{round}-{number}.test"), origin("flood"));
                timeout(Duration::from_millis(20), lookups.resolve(&name, &origin)).await
            });
            assert!(join_all(round).await.iter().all(Result::is_err));
            assert_eq!(silent.under_way.load(Ordering::SeqCst), 0);
        }
        assert_eq!(
            silent.asked.load(Ordering::SeqCst),
            10 * MAX_LOOKUPS_OF_TENANT,
            "no look-up waits for an earlier one"
        );
        assert!(lookups.resolve("quick.test", &origin("flood")).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn failed_name_is_not_looked_up_again_for_a_moment() {
        let silent = Arc::new(Silent::default());
        let lookups = Lookups::new(silent.clone());
        let ask = async || lookups.resolve("none.test", &origin("a")).await.unwrap_err();
        for _ in 0..3 {
            assert!(matches!(ask().await, ConnectError::Dns));
        }
        assert_eq!(silent.asked.load(Ordering::SeqCst), 1);
        tokio::time::advance(FAILURE_TTL).await;
        ask().await;
        assert_eq!(silent.asked.load(Ordering::SeqCst), 2);
        for number in 0..2 * MAX_FAILURES {
            assert!(lookups.resolve(&format!("none{number}.test"), &origin("a")).await.is_err());
        }
        let asked = silent.asked.load(Ordering::SeqCst);
        ask().await;
        assert_eq!(
            silent.asked.load(Ordering::SeqCst),
            asked + 1,
            "the number of remembered names is bounded"
        );
    }
}
