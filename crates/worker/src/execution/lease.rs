//! Keeps the lease and the slots of an attempt while its handler runs.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Fuse, FusedFuture};
use nobat_core::json::Json;
use nobat_core::ports::{Clock, Heartbeat, StoreError, TaskStore};
use nobat_core::task::{CancelRequest, Task};
use nobat_core::types::intervals::LEASE;

use crate::admission::limiter::{Limiter, Permits};
use crate::handler::context::TaskContext;

/// Interval of lease renewals: a third of the lease, so that two renewals may fail.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// Delay before a failed renewal is repeated.
pub(crate) const HEARTBEAT_RETRY: Duration = Duration::from_secs(2);
/// Minimum interval between two writes of progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// The lease has expired, and another worker may have the task. The result must not be stored.
pub(crate) struct LeaseLost;

/// Renews leases.
#[derive(Clone, Copy)]
pub(crate) struct LeaseKeeper<'a> {
    pub(crate) store: &'a dyn TaskStore,
    pub(crate) limiter: &'a Limiter,
    pub(crate) clock: &'a dyn Clock,
}

impl LeaseKeeper<'_> {
    /// Renews the lease and the slots of an attempt, stores the handler's progress notes, and tells the
    /// handler if the task is canceled. Returns only when the lease was lost.
    pub(crate) async fn keep(self, task: &Task, context: &TaskContext, permits: &Permits) -> LeaseLost {
        // The lease began with the claim.
        let age = task.started_at().map_or(Duration::ZERO, |claimed| self.clock.now().since(claimed));
        let first = HEARTBEAT.saturating_sub(age);
        let mut slots = pin!(self.keep_slots(permits, first));
        let mut pulse = pin!(self.clock.sleep(first).fuse());
        let mut changed = pin!(self.store.changed(&context.name).fuse());
        let (mut beating, mut rest) = (pin!(Fuse::terminated()), pin!(Fuse::terminated()));
        let mut is_beat_due = false;
        loop {
            if is_beat_due && beating.is_terminated() {
                is_beat_due = false;
                beating.set(self.heartbeat(context, task.token, context.take_progress()).fuse());
            }
            let is_resting = !rest.is_terminated();
            tokio::select! {
                biased;
                // Subscribes again before the heartbeat reads the change, so that no change is missed in
                // between.
                () = &mut changed => {
                    changed.set(self.store.changed(&context.name).fuse());
                    is_beat_due = true;
                }
                beaten = &mut beating => match beaten {
                    Ok(Heartbeat::Lost) => return LeaseLost,
                    Ok(Heartbeat::Renewed { cancel }) => {
                        if cancel == CancelRequest::Requested {
                            context.cancel();
                        }
                        pulse.set(self.clock.sleep(HEARTBEAT).fuse());
                    }
                    // The handler continues. Storing its outcome shows whether the lease was still held.
                    Err(error) => {
                        tracing::warn!(task = %task.id, %error, "a lease could not be renewed; the worker tries again");
                        pulse.set(self.clock.sleep(HEARTBEAT_RETRY).fuse());
                    }
                },
                () = &mut pulse => is_beat_due = true,
                never = &mut slots => match never {},
                () = &mut rest => {}
                () = context.progressed(), if !is_resting => {
                    rest.set(self.clock.sleep(PROGRESS).fuse());
                    is_beat_due = true;
                }
            }
        }
    }

    /// Renews the slots after `first`, then every [`HEARTBEAT`].
    async fn keep_slots(self, permits: &Permits, first: Duration) -> Infallible {
        if !permits.have_slots() {
            return std::future::pending().await;
        }
        self.clock.sleep(first).await;
        loop {
            self.limiter.renew(permits).await;
            self.clock.sleep(HEARTBEAT).await;
        }
    }

    /// Stores the last progress note of a handler that has returned.
    pub(crate) async fn store_last_progress(self, context: &TaskContext, token: u64) {
        if let Some(progress) = context.take_progress()
            && let Err(error) = self.heartbeat(context, token, Some(progress)).await
        {
            tracing::warn!(task = %context.name.id, %error, "the last progress note of a task could not be stored; the task shows an older note or no note");
        }
    }

    async fn heartbeat(
        self,
        context: &TaskContext,
        token: u64,
        progress: Option<Json>,
    ) -> Result<Heartbeat, StoreError> {
        context.note_beat();
        let until = self.clock.now() + LEASE;
        self.store.heartbeat(&context.name, token, until, progress).await
    }
}
