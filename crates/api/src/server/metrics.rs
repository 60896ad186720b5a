//! Counters of connections.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

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

    /// Number of connections that the server closed at once because
    /// [`Limits::connections`](crate::Limits::connections) was reached.
    pub fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    /// Number of connections that the server closed at once because
    /// [`Limits::connections_per_address`](crate::Limits::connections_per_address) was reached.
    pub fn refused_address(&self) -> u64 {
        self.refused_address.load(Ordering::Relaxed)
    }

    /// Number of connections that ended because the client did not read a response within
    /// [`Limits::write`](crate::Limits::write).
    pub fn write_timeouts(&self) -> u64 {
        self.write_timeouts.load(Ordering::Relaxed)
    }

    pub(crate) fn count_opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn count_refused_total(&self) {
        self.refused_total.fetch_add(1, Ordering::Relaxed);
        self.log("the limit of connections is reached; new connections are closed at once");
    }

    pub(crate) fn count_refused_address(&self) {
        self.refused_address.fetch_add(1, Ordering::Relaxed);
        self.log("an address has reached its limit of connections; its new connections are closed at once");
    }

    pub(crate) fn count_write_timeout(&self) {
        self.write_timeouts.fetch_add(1, Ordering::Relaxed);
        self.log("a client did not read its response in time; its connection is closed");
    }

    /// Logs the counters, at most once in [`LOG_INTERVAL`]. Otherwise every refused connection would write a
    /// log line.
    fn log(&self, message: &'static str) {
        let now = Instant::now();
        {
            let mut logged_at = self.logged_at.lock();
            if logged_at.is_some_and(|at| now < at + LOG_INTERVAL) {
                return;
            }
            *logged_at = Some(now);
        }
        let (open, refused_total, refused_address) =
            (self.open(), self.refused_total(), self.refused_address());
        tracing::warn!(
            open,
            refused_total,
            refused_address,
            write_timeouts = self.write_timeouts(),
            "{message}"
        );
    }
}
