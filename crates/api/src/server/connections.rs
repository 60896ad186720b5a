//! Bounds on open connections, for all clients together and for each client address, and their counters.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use nobat_core::auth::network::{Network, client_network};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::server::limits::Limits;

/// Minimum time between two log lines about refused or ended connections.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Counters of the server's connections. All but `open` count since the process started.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    open: AtomicUsize,
    refused_total: AtomicU64,
    refused_address: AtomicU64,
    write_timeouts: AtomicU64,
    logged_at: Mutex<Option<Instant>>,
}

impl ConnectionMetrics {
    /// Number of connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Number of connections that the server closed at once because [`Limits::connections`] was reached.
    pub fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    /// Number of connections that the server closed at once because [`Limits::connections_per_address`] was reached.
    pub fn refused_address(&self) -> u64 {
        self.refused_address.load(Ordering::Relaxed)
    }

    /// Number of connections that ended because the client did not read an answer within [`Limits::write`].
    pub fn write_timeouts(&self) -> u64 {
        self.write_timeouts.load(Ordering::Relaxed)
    }

    pub(crate) fn count_write_timeout(&self) {
        self.write_timeouts.fetch_add(1, Ordering::Relaxed);
        self.log("a client did not read its response in time; its connection is closed");
    }

    /// Logs the counters, at most once in [`LOG_INTERVAL`]: a flood of connections must not become a flood of log lines.
    fn log(&self, message: &'static str) {
        let now = Instant::now();
        {
            let mut logged_at = self.logged_at.lock();
            if logged_at.is_some_and(|at| now < at + LOG_INTERVAL) {
                return;
            }
            *logged_at = Some(now);
        }
        let (open, refused_total, refused_address) = (self.open(), self.refused_total(), self.refused_address());
        tracing::warn!(open, refused_total, refused_address, write_timeouts = self.write_timeouts(), "{message}");
    }
}

/// The open connections of one server.
pub(crate) struct Connections {
    slots: Arc<Semaphore>,
    total: usize,
    per_address: usize,
    trusted_proxies: Vec<Network>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    metrics: Arc<ConnectionMetrics>,
}

/// Slot of one open connection. Dropping it frees the slot.
pub(crate) struct Slot {
    connections: Arc<Connections>,
    /// Address that the connection counts for. `None` for a trusted proxy.
    address: Option<IpAddr>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let total = limits.connections.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(total)),
            total,
            per_address: limits.connections_per_address.map_or((total / 2).max(1), std::num::NonZeroUsize::get),
            trusted_proxies: limits.trusted_proxies.clone(),
            by_address: Mutex::default(),
            metrics: Arc::clone(&limits.metrics),
        })
    }

    /// Takes a slot for a new connection. Returns `None` if the server must close the connection at once.
    pub(crate) fn open(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.metrics.refused_total.fetch_add(1, Ordering::Relaxed);
            self.metrics.log("the limit of connections is reached; new connections are closed at once");
            return None;
        };
        let is_proxy = self.trusted_proxies.iter().any(|proxy| proxy.contains(peer));
        let address = (!is_proxy).then(|| client_network(peer));
        if address.is_some_and(|address| !self.count(address)) {
            self.metrics.refused_address.fetch_add(1, Ordering::Relaxed);
            self.metrics.log("an address has reached its limit of connections; its new connections are closed at once");
            return None;
        }
        self.metrics.open.fetch_add(1, Ordering::Relaxed);
        Some(Slot { connections: Arc::clone(self), address, _permit: permit })
    }

    fn count(&self, address: IpAddr) -> bool {
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_default();
        let is_below = *count < self.per_address;
        *count += usize::from(is_below);
        is_below
    }

    /// Resolves once all connections are closed.
    pub(crate) async fn closed(&self) {
        let _ = self.slots.acquire_many(u32::try_from(self.total).unwrap_or(u32::MAX)).await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.metrics.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = self.connections.by_address.lock();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(total: usize, per_address: Option<usize>, proxies: &[&str]) -> Arc<Connections> {
        Connections::new(&Limits {
            connections: total,
            connections_per_address: per_address.and_then(std::num::NonZeroUsize::new),
            trusted_proxies: proxies.iter().map(|proxy| proxy.parse().unwrap()).collect(),
            ..Limits::default()
        })
    }

    fn open(connections: &Arc<Connections>, peer: &str) -> Option<Slot> {
        connections.open(peer.parse().unwrap())
    }

    #[tokio::test]
    async fn address_gets_half_of_all_connections_by_default() {
        let connections = connections(4, None, &[]);
        let mut mine: Vec<_> = (0..3).map(|_| open(&connections, "203.0.113.9")).collect();
        assert_eq!(mine.iter().flatten().count(), 2);
        assert!(open(&connections, "::ffff:203.0.113.9").is_none(), "an IPv4-mapped address is the same address");
        let other = open(&connections, "203.0.113.10");
        assert!(other.is_some());
        mine.clear();
        assert!(open(&connections, "203.0.113.9").is_some());
        assert_eq!((connections.metrics.open(), connections.metrics.refused_address(), connections.metrics.refused_total()), (1, 2, 0));
        drop(other);
        assert!(connections.by_address.lock().is_empty(), "an address without connections takes no memory");
    }

    #[tokio::test]
    async fn addresses_of_one_ipv6_network_count_as_one() {
        let connections = connections(10, Some(1), &[]);
        let _one = open(&connections, "2001:db8:0:1::1").unwrap();
        assert!(open(&connections, "2001:db8:0:1::2").is_none());
        assert!(open(&connections, "2001:db8:0:2::1").is_some());
    }

    #[tokio::test]
    async fn trusted_proxy_is_limited_only_by_the_total() {
        let connections = connections(3, Some(1), &["127.0.0.1"]);
        let slots: Vec<_> = (0..4).map(|_| open(&connections, "127.0.0.1")).collect();
        assert_eq!((slots.iter().flatten().count(), connections.metrics.refused_total()), (3, 1));
    }

    #[tokio::test]
    async fn single_connection_is_always_allowed() {
        let connections = connections(1, None, &[]);
        assert!(open(&connections, "203.0.113.9").is_some());
    }
}
