//! Readiness of the store, with the cause if it is not ready.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use nobat_core::ports::Clock;
use nobat_core::service::backend::{Backend, NotReady};
use nobat_core::types::time::Timestamp;
use parking_lot::Mutex;

/// Reason why `/readyz` returns 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    StoreWriteFailed,
    StoreReadFailed,
    StoreOverloaded,
    QueueUnavailable,
    Timeout,
}

impl Cause {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::StoreWriteFailed => "store_write_failed",
            Self::StoreReadFailed => "store_read_failed",
            Self::StoreOverloaded => "store_overloaded",
            Self::QueueUnavailable => "queue_unavailable",
            Self::Timeout => "timeout",
        }
    }
}

impl From<NotReady> for Cause {
    fn from(error: NotReady) -> Self {
        match error {
            NotReady::StoreWriteFailed(_) => Self::StoreWriteFailed,
            NotReady::StoreReadFailed(_) => Self::StoreReadFailed,
            NotReady::StoreOverloaded => Self::StoreOverloaded,
            NotReady::QueueUnavailable(_) => Self::QueueUnavailable,
        }
    }
}

/// Result of the latest readiness check. Any client may call `/readyz` without a key, so the server checks
/// the store and the message queue at most once a second.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<Check>>);

#[derive(Clone)]
struct Check {
    began_at: Timestamp,
    result: Shared<BoxFuture<'static, Result<(), Cause>>>,
}

/// Time for which the result of a check is valid.
pub(crate) const BELIEVED: Duration = Duration::from_secs(1);

/// Maximum duration of a check.
const LIMIT: Duration = Duration::from_secs(5);

impl Readiness {
    /// Returns the result of the latest check if that check is still valid, or of a new check. Waits for the
    /// result if the check still runs.
    pub(crate) async fn check(
        &self,
        backend: &Backend,
        clock: &Arc<dyn Clock>,
        now: Timestamp,
    ) -> Result<(), Cause> {
        let check = {
            let mut last = self.0.lock();
            match &*last {
                Some(check) if check.is_good(now) => check.clone(),
                _ => last
                    .insert(Check {
                        began_at: now,
                        result: check(backend.clone(), Arc::clone(clock), now).boxed().shared(),
                    })
                    .clone(),
            }
        };
        check.result.await
    }
}

impl Check {
    /// Returns true if the check is valid at `now`. A clock that was set back must not extend the validity.
    fn is_good(&self, now: Timestamp) -> bool {
        let good_for = if self.result.peek().is_some() { BELIEVED } else { LIMIT };
        self.began_at <= now && now < self.began_at + good_for
    }
}

async fn check(backend: Backend, clock: Arc<dyn Clock>, now: Timestamp) -> Result<(), Cause> {
    tokio::select! {
        biased;
        ready = backend.ready(now) => ready.map_err(|error| {
            tracing::warn!(%error, "the readiness check failed; /readyz returns 503");
            Cause::from(error)
        }),
        () = clock.sleep(LIMIT) => {
            tracing::warn!("the store or the message queue did not respond in time; /readyz returns 503");
            Err(Cause::Timeout)
        }
    }
}
