//! Limits on open connections, for all clients together and for each client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use nobat_core::auth::network::{Network, client_network};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::server::limits::Limits;
use crate::server::metrics::ConnectionMetrics;

/// The open connections of one server.
pub(crate) struct Connections {
    slots: Arc<Semaphore>,
    total: usize,
    per_address: usize,
    trusted_proxies: Vec<Network>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    metrics: Arc<ConnectionMetrics>,
}

/// One open connection in the counts. Dropping the value removes the connection from the counts.
pub(crate) struct Slot {
    connections: Arc<Connections>,
    /// Address whose limit the connection counts against. `None` for a trusted proxy.
    address: Option<IpAddr>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let total = limits.connections.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(total)),
            total,
            per_address: limits
                .connections_per_address
                .map_or((total / 2).max(1), std::num::NonZeroUsize::get),
            trusted_proxies: limits.trusted_proxies.clone(),
            by_address: Mutex::default(),
            metrics: Arc::clone(&limits.metrics),
        })
    }

    /// Counts a new connection. Returns `None` if a limit is reached. The server must then close the
    /// connection at once.
    pub(crate) fn open(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.metrics.count_refused_total();
            return None;
        };
        let is_proxy = self.trusted_proxies.iter().any(|proxy| proxy.contains(peer));
        let address = (!is_proxy).then(|| client_network(peer));
        if address.is_some_and(|address| !self.count(address)) {
            self.metrics.count_refused_address();
            return None;
        }
        self.metrics.count_opened();
        Some(Slot { connections: Arc::clone(self), address, _permit: permit })
    }

    fn count(&self, address: IpAddr) -> bool {
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_default();
        let is_below = *count < self.per_address;
        *count += usize::from(is_below);
        is_below
    }

    /// Waits until all connections are closed.
    pub(crate) async fn closed(&self) {
        let _ = self.slots.acquire_many(u32::try_from(self.total).unwrap_or(u32::MAX)).await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.metrics.count_closed();
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
        assert!(
            open(&connections, "::ffff:203.0.113.9").is_none(),
            "an IPv4-mapped address is the same address"
        );
        let other = open(&connections, "203.0.113.10");
        assert!(other.is_some());
        mine.clear();
        assert!(open(&connections, "203.0.113.9").is_some());
        assert_eq!(
            (
                connections.metrics.open(),
                connections.metrics.refused_address(),
                connections.metrics.refused_total()
            ),
            (1, 2, 0)
        );
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
