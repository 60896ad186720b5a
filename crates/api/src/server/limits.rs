//! Limits of the server.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use nobat_core::auth::network::Network;

use crate::server::metrics::ConnectionMetrics;

/// Limits that apply to every client, with or without a key.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Maximum number of open connections. Default 10,000. The server closes further connections at once.
    pub connections: usize,
    /// Maximum number of open connections of one client address, or of one /64 network of IPv6. Default: half
    /// of `connections`, at least 1. The server closes further connections at once.
    pub connections_per_address: Option<NonZeroUsize>,
    /// Networks of proxies that forward requests of other clients. `connections_per_address` does not apply
    /// to these networks. Default: none.
    pub trusted_proxies: Vec<Network>,
    /// Maximum time until the head of a request has arrived, counted from the start of the connection or from
    /// the previous response. Default 10 s.
    pub head: Duration,
    /// Maximum time that a pending write waits for a client that reads nothing or too slowly. Then the server
    /// resets the connection. Default 15 s.
    pub write: Duration,
    /// Maximum time to finish requests after shutdown has begun. Default 10 s.
    pub grace: Duration,
    /// Counters of the connections.
    pub metrics: Arc<ConnectionMetrics>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: None,
            trusted_proxies: Vec::new(),
            head: Duration::from_secs(10),
            write: Duration::from_secs(15),
            grace: Duration::from_secs(10),
            metrics: Arc::default(),
        }
    }
}
