//! End of a wait that timed out.

use nobat_core::limits::Reservations;
use nobat_core::ports::Settlement;
use nobat_core::service::waits::Waits;
use nobat_core::task::lifecycle::Event;
use nobat_core::task::{Task, Then};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::admission::LIMITER_UNAVAILABLE_PAUSE;
use crate::execution::runner::{ADMISSION, Runner};

impl Runner {
    /// Ends the wait of a claimed task. If the worker stops or dies before, the next claim ends the wait.
    pub(crate) async fn end_wait(&self, task: Task, stop: &CancellationToken) -> Settlement {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => Event::Release { token: task.token },
            event = self.time_out(&task) => event,
            // Nothing renews the lease.
            () = self.clock.sleep(ADMISSION) => self.try_later(&task),
        };
        self.settle(task.key(), Some(task), event, stop).await
    }

    /// Returns the service that ends waits.
    pub fn waits(&self, now: Timestamp) -> Waits<'_> {
        Waits { backend: &self.backend, config_cache: &self.config_cache, kinds: &self.handlers, now }
    }

    async fn time_out(&self, task: &Task) -> Event {
        let Some(handler) = self.handlers.get(&task.kind) else {
            return self.hold(task.token, HeldReason::NoHandler);
        };
        // A handler of another version may read no wait in the payload.
        let then = handler.wait(&task.payload).map_or(Then::Fail, |wait| wait.then);
        match self.waits(self.clock.now()).time_out(task, &then, self.jitter()).await {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(task = %task.id, %error, "the wait of a task timed out, but the store failed; the wait ends some seconds late");
                self.try_later(task)
            }
        }
    }

    fn try_later(&self, task: &Task) -> Event {
        Event::Hold {
            token: task.token,
            reason: HeldReason::LimiterUnavailable,
            until: self.clock.now() + LIMITER_UNAVAILABLE_PAUSE,
            reserved: Reservations::default(),
        }
    }
}
