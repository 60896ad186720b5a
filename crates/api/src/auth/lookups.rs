//! Limits on the look-ups of API keys that are new to this process.
//!
//! A client that guesses keys can send any number of well-formed keys, and each costs a read of the store. A
//! valid key that is new to this process costs the same read. The server must not refuse a valid key because
//! a client at the same address guesses. So the server looks up every well-formed key, but only a few keys at
//! a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nobat_core::ports::QueueLoad;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};

/// Maximum number of look-ups of unknown keys at a time, for all clients together. Further look-ups wait in
/// order of arrival.
const MAX_IN_FLIGHT: usize = 16;
/// Minimum time between two look-ups that find no key, for a client network with too many failures. The
/// resulting 1,000 look-ups a second take only a few percent of a processor with SQLite.
const PAUSE: Duration = Duration::from_millis(1);
/// Maximum time that a request waits for the look-up of its key. Then the server refuses the request: with
/// 429 if the client network has sent too many invalid keys, otherwise with 503.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Number of locks of client networks ([`Lane`]) at which the server drops unused locks.
const MAX_IDLE_LANES: usize = 1_000;

/// Key look-ups in progress and waiting.
pub(crate) struct Lookups {
    in_flight: Semaphore,
    lanes: Mutex<HashMap<Option<IpAddr>, Lane>>,
    refused: AtomicU64,
}

/// Lock of a client network with too many failures. The network's look-ups run one at a time, in order of
/// arrival. The `Instant` is the earliest time of the next look-up.
type Lane = Arc<tokio::sync::Mutex<Instant>>;

/// Rate at which the server looks up the unknown keys of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GuessRate {
    /// Full speed: limited only by [`MAX_IN_FLIGHT`].
    Full,
    /// One look-up at a time for this client network, because it has sent too many invalid keys. `None`: all
    /// clients whose address is unknown.
    Slowed(Option<IpAddr>),
}

/// Permission to look up one key. Dropping the value permits another look-up.
pub(crate) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    not_before: Option<OwnedMutexGuard<Instant>>,
}

impl Turn<'_> {
    /// Reports that the key was found. The next look-up of the client network then starts without a pause.
    pub(crate) fn found(mut self) {
        if let Some(not_before) = &mut self.not_before {
            **not_before = Instant::now();
        }
    }
}

impl Default for Lookups {
    fn default() -> Self {
        Self { in_flight: Semaphore::new(MAX_IN_FLIGHT), lanes: Mutex::default(), refused: AtomicU64::new(0) }
    }
}

impl Lookups {
    /// Waits until a look-up may start. Returns `None` after [`MAX_WAIT`].
    pub(crate) async fn turn(&self, pace: GuessRate) -> Option<Turn<'_>> {
        let turn = timeout(MAX_WAIT, self.wait(pace)).await.ok().flatten();
        if turn.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        turn
    }

    async fn wait(&self, pace: GuessRate) -> Option<Turn<'_>> {
        let mut not_before = None;
        if let GuessRate::Slowed(network) = pace {
            let mut guard = self.lane(network).lock_owned().await;
            sleep_until(*guard).await;
            // The time is set before the look-up, so that a client cannot avoid the pause by disconnecting.
            *guard = Instant::now() + PAUSE;
            not_before = Some(guard);
        }
        Some(Turn { _permit: self.in_flight.acquire().await.ok()?, not_before })
    }

    fn lane(&self, network: Option<IpAddr>) -> Lane {
        let mut lanes = self.lanes.lock();
        if lanes.len() >= MAX_IDLE_LANES {
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        Arc::clone(lanes.entry(network).or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Instant::now()))))
    }

    /// Returns the number of look-ups in progress, and the number of look-ups refused after [`MAX_WAIT`].
    pub(crate) fn load(&self) -> QueueLoad {
        let length = MAX_IN_FLIGHT - self.in_flight.available_permits();
        let refused = self.refused.load(Ordering::Relaxed);
        QueueLoad { name: "key_lookup", length, limit: MAX_IN_FLIGHT, tenant_limit: MAX_IN_FLIGHT, refused }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    const GUESSER: GuessRate = GuessRate::Slowed(Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)));

    #[tokio::test(start_paused = true)]
    async fn slowed_address_looks_up_a_thousand_keys_a_second() {
        let (lookups, begun) = (Lookups::default(), Instant::now());
        let turns = join_all((0..301).map(async |_| lookups.turn(GUESSER).await.is_some())).await;
        assert!(turns.into_iter().all(|turn| turn));
        assert_eq!(begun.elapsed(), 300 * PAUSE);
        assert!(lookups.turn(GuessRate::Full).await.is_some());
        assert_eq!(begun.elapsed(), 300 * PAUSE, "other addresses do not wait");
    }

    #[tokio::test(start_paused = true)]
    async fn valid_keys_of_a_slowed_address_do_not_wait() {
        let (lookups, begun) = (Lookups::default(), Instant::now());
        for _ in 0..100 {
            lookups.turn(GUESSER).await.unwrap().found();
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn request_that_waited_too_long_is_refused_and_counted() {
        let (lookups, begun) = (Lookups::default(), Instant::now());
        let turns: Vec<_> = join_all((0..MAX_IN_FLIGHT).map(|_| lookups.turn(GuessRate::Full))).await;
        assert!(lookups.turn(GuessRate::Full).await.is_none());
        assert_eq!((begun.elapsed(), lookups.load().refused), (MAX_WAIT, 1));
        drop(turns);
        assert!(lookups.turn(GuessRate::Full).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_addresses_are_removed_from_the_map() {
        let lookups = Lookups::default();
        for number in 0..2 * u32::try_from(MAX_IDLE_LANES).unwrap() {
            lookups.turn(GuessRate::Slowed(Some(IpAddr::V4(number.into())))).await.unwrap();
        }
        assert!(lookups.lanes.lock().len() <= MAX_IDLE_LANES);
    }
}
