//! Clock that counts the sleeps that have started.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::poll;
use nobat_core::ports::Clock;
use nobat_core::types::time::Timestamp;

use crate::time::Time;

/// Virtual time that counts pending sleeps.
pub(super) struct WatchedClock {
    time: Arc<Time>,
    sleeps_started: AtomicUsize,
}

impl WatchedClock {
    pub(super) fn new(time: &Arc<Time>) -> Arc<Self> {
        Arc::new(Self { time: Arc::clone(time), sleeps_started: AtomicUsize::new(0) })
    }

    /// Returns the number of sleeps that have started so far.
    pub(super) fn sleeps_started(&self) -> usize {
        self.sleeps_started.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Clock for WatchedClock {
    fn now(&self) -> Timestamp {
        self.time.now()
    }

    async fn sleep(&self, duration: Duration) {
        let mut sleep = pin!(self.time.sleep_until(self.time.now() + duration));
        // Counted only after `Time` knows the sleeper: a test that sees the count may advance the time.
        if poll!(&mut sleep).is_pending() {
            self.sleeps_started.fetch_add(1, Ordering::SeqCst);
            sleep.await;
        }
    }
}
