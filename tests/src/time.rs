//! Virtual time that passes only when a test advances it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use nobat_core::ports::Clock;
use nobat_core::types::time::Timestamp;

/// Virtual time. It stands still until it is advanced, and then wakes the sleepers whose deadline has passed.
pub struct Time {
    inner: Mutex<Inner>,
}

struct Inner {
    now: Timestamp,
    /// Wakers by deadline, then in order of arrival.
    sleepers: BTreeMap<(Timestamp, u64), Waker>,
    sleeps_started: u64,
}

impl Time {
    /// Creates a time that stands at `now`.
    pub fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(Inner { now, sleepers: BTreeMap::new(), sleeps_started: 0 }) })
    }

    /// Returns the current time.
    pub fn now(&self) -> Timestamp {
        self.lock().now
    }

    /// Advances the time to `moment`. An earlier moment has no effect.
    pub fn advance_to(&self, moment: Timestamp) {
        let woken = {
            let mut inner = self.lock();
            inner.now = inner.now.max(moment);
            let after = (inner.now + Duration::from_millis(1), 0);
            let asleep = inner.sleepers.split_off(&after);
            std::mem::replace(&mut inner.sleepers, asleep)
        };
        woken.into_values().for_each(Waker::wake);
    }

    /// Advances the time by `duration`.
    pub fn advance(&self, duration: Duration) {
        self.advance_to(self.now() + duration);
    }

    /// Returns the earliest deadline of a sleeper.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.lock().sleepers.keys().next().map(|(deadline, _)| *deadline)
    }

    /// Resolves when the time has reached `deadline`.
    pub fn sleep_until(self: &Arc<Self>, deadline: Timestamp) -> Sleep {
        Sleep { time: self.clone(), deadline, place: None }
    }

    /// Creates a machine's clock, which is right until it is set wrong.
    pub fn clock(self: &Arc<Self>) -> Arc<MachineClock> {
        Arc::new(MachineClock { time: self.clone(), skew: AtomicI64::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Future that waits for a moment of virtual time.
pub struct Sleep {
    time: Arc<Time>,
    deadline: Timestamp,
    place: Option<(Timestamp, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let time = self.time.clone();
        let mut inner = time.lock();
        if inner.now >= self.deadline {
            return Poll::Ready(());
        }
        let deadline = self.deadline;
        let place = *self.place.get_or_insert_with(|| {
            inner.sleeps_started += 1;
            (deadline, inner.sleeps_started)
        });
        inner.sleepers.insert(place, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.time.lock().sleepers.remove(&place);
        }
    }
}

/// Clock of one machine.
pub struct MachineClock {
    time: Arc<Time>,
    skew: AtomicI64,
}

impl MachineClock {
    /// Sets the clock's error, in milliseconds.
    pub fn set_wrong_by(&self, millis: i64) {
        self.skew.store(millis, Ordering::Relaxed);
    }
}

#[async_trait]
impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.time.now().millis() + self.skew.load(Ordering::Relaxed))
    }

    /// Sleeps for `duration`. A wrong clock shows another time, but it does not run faster or slower.
    async fn sleep(&self, duration: Duration) {
        self.time.sleep_until(self.time.now() + duration).await;
    }
}
