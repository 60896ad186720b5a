//! One attempt: claim, run the handler, settle.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Fuse, FusedFuture, join};
use futures_util::{FutureExt, poll};
use nobat_core::json::Json;
use nobat_core::limits::Reservations;
use nobat_core::limits::backoff::hold_backoff;
use nobat_core::ports::{ClaimResult, Clock, Delivery, Heartbeat, Hint, Random, Settlement, StoreError};
use nobat_core::service::backend::{ApplyError, Backend};
use nobat_core::service::config_cache::{ConfigCache, ConfigEpoch};
use nobat_core::task::lifecycle::{Event, Retry, TransitionError, overdue};
use nobat_core::task::{CancelRequest, ErrorCode, Task, TaskKey};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::intervals::LEASE;
use nobat_core::types::jitter_sample::JitterSample;
use tokio_util::sync::CancellationToken;

use crate::admission::limiter::{Limiter, Permits};
use crate::admission::plan::{Admission, AttemptPlan};
use crate::handler::context::TaskContext;
use crate::handler::failure::{DestinationSignal, Failure};
use crate::handler::registry::Handlers;

/// Runs tasks. [`Worker`](crate::worker::Worker) and functions use it.
#[derive(Clone)]
pub struct Runner {
    /// The store and the queue.
    pub backend: Backend,
    /// Handlers by kind.
    pub handlers: Handlers,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Source of randomness, for the jitter of retries.
    pub random: Arc<dyn Random>,
    /// Cached configuration of endpoints, queues, kinds and limit keys.
    pub config_cache: Arc<ConfigCache>,
    /// Access to the limiters.
    pub limiter: Arc<Limiter>,
}

/// Pause before a claim is repeated. A hint can arrive before a read shows its task.
pub(crate) const RECHECK_DELAY: Duration = Duration::from_millis(200);
/// A hint that is early by at most this is waited for: queues delay by whole seconds.
const EARLY: Duration = Duration::from_secs(1);
/// Maximum difference assumed between the clocks of two processes.
const CLOCK_SKEW: Duration = Duration::from_secs(15);
/// Interval of lease renewals, a third of the lease, so that two may fail.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// Delay before a failed renewal is repeated.
pub(crate) const HEARTBEAT_RETRY: Duration = Duration::from_secs(2);
/// Minimum interval between two writes of progress.
const PROGRESS: Duration = Duration::from_secs(1);
/// Time that a handler has to stop after its task was canceled.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// Delay before a task that this process cannot start is tried again.
pub(crate) const HOLD_INTERVAL: Duration = Duration::from_mins(1);
/// Delay before a task asks again after its endpoint answered 410. By then the endpoint is marked as gone.
const GONE_RECHECK: Duration = Duration::from_secs(1);
/// Maximum duration of the admission check. The lease is not renewed before the handler runs.
const ADMISSION: Duration = HEARTBEAT;
/// Number of consecutive pauses requested by the receiver (`Retry-After`) after which the minimum pause stops
/// growing, at about one minute.
const PUT_OFF_DOUBLINGS: u32 = 6;
/// Pause between the first two tries to store an outcome. It doubles with each try.
const FIRST_SETTLE_PAUSE: Duration = Duration::from_millis(100);
/// Maximum pause between two tries to store an outcome.
const MAX_SETTLE_PAUSE: Duration = Duration::from_secs(10);

/// Result of an attempt, as far as its worker knows.
enum Run {
    /// The handler returned, timed out or was stopped, or there is none.
    Over(Event),
    /// Another worker has the task. The result must not be stored.
    Lost,
}

impl Runner {
    /// Creates a runner. Processes that share an epoch see one another's configuration changes at once.
    pub fn new(
        backend: Backend,
        handlers: Handlers,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        epoch: ConfigEpoch,
    ) -> Self {
        let config_cache = Arc::new(ConfigCache::new(Arc::clone(&backend.config), Arc::clone(&clock), epoch));
        let limiter =
            Arc::new(Limiter::new(Arc::clone(&backend.limiters), Arc::clone(&clock), Arc::clone(&random)));
        Self { backend, handlers, clock, random, config_cache, limiter }
    }

    /// Runs a delivered task. Returns whether the queue may forget the hint.
    ///
    /// If `stop` fires, drops the handler and gives the task back. Every other outcome is stored, unless the
    /// lease was lost.
    pub async fn run(&self, delivery: Delivery, stop: &CancellationToken) -> Settlement {
        self.run_within(delivery, Duration::MAX, stop).await
    }

    /// Like [`Self::run`], but limits every attempt to `limit`, even if its task's timeout is longer.
    pub async fn run_within(
        &self,
        delivery: Delivery,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Settlement {
        match self.claim(delivery).await {
            Ok(Some(task)) => self.attempt(task, limit, stop).await,
            Ok(None) => Settlement::Acknowledge,
            Err(error) => {
                tracing::warn!(%error, "a task could not be claimed; its hint will be received again");
                Settlement::Return
            }
        }
    }

    /// Returns the task if this worker may run it.
    async fn claim(&self, delivery: Delivery) -> Result<Option<Task>, StoreError> {
        match delivery {
            Delivery::Claimed(task) => Ok(Some(*task)),
            Delivery::Hint { name, .. } => Box::pin(self.claim_hinted(&name)).await,
        }
    }

    async fn claim_hinted(&self, name: &TaskKey) -> Result<Option<Task>, StoreError> {
        let mut claim = self.claim_now(name).await?;
        if matches!(claim, ClaimResult::Missing) {
            self.clock.sleep(RECHECK_DELAY).await;
            claim = self.claim_now(name).await?;
        }
        if let ClaimResult::Refused(TransitionError::NotDue, task) = &claim
            && task.due_at.since(self.clock.now()) <= EARLY
        {
            self.clock.sleep(task.due_at.since(self.clock.now())).await;
            claim = self.claim_now(name).await?;
        }
        match claim {
            ClaimResult::Granted(task) => Ok(Some(task)),
            ClaimResult::Missing => Ok(None),
            ClaimResult::Refused(TransitionError::NotDue, task) => {
                self.hint_again(&task).await?;
                Ok(None)
            }
            ClaimResult::Refused(_, task) => {
                self.apply_overdue(&task).await?;
                Ok(None)
            }
        }
    }

    /// Sends a hint again that is at most [`CLOCK_SKEW`] early: the sender's clock was ahead. Otherwise the
    /// task would wait for the sweeper.
    async fn hint_again(&self, task: &Task) -> Result<(), StoreError> {
        let early = task.due_at.since(self.clock.now());
        if early > CLOCK_SKEW {
            return Ok(());
        }
        self.backend.queue.send(vec![Hint::new(task.key(), early)]).await
    }

    pub(crate) async fn claim_now(&self, name: &TaskKey) -> Result<ClaimResult, StoreError> {
        let now = self.clock.now();
        self.backend.store.claim(name, now + LEASE, now).await
    }

    /// Ends a task whose deadline has passed, or an attempt whose lease has expired. The claim was refused.
    async fn apply_overdue(&self, task: &Task) -> Result<(), StoreError> {
        let now = self.clock.now();
        let Some(event) = overdue(task, self.jitter(), now) else { return Ok(()) };
        match self.backend.apply(&task.key(), None, event, now).await {
            Ok(_) | Err(ApplyError::Missing | ApplyError::Refused(_)) => Ok(()),
            Err(ApplyError::Store(error)) => Err(error),
        }
    }

    async fn attempt(&self, task: Task, limit: Duration, stop: &CancellationToken) -> Settlement {
        let token = task.token;
        let not_yet = tokio::select! {
            biased;
            // Permits that the task has by now are dropped. Their slots become free with the next write, or
            // expire.
            () = stop.cancelled() => Err(Event::Release { token }),
            admission = self.admit(&task) => match admission {
                Admission::Go(plan) => Ok(plan),
                Admission::Hold { reason, until, reserved } => Err(Event::Hold { token, reason, until, reserved }),
            },
            // The lease is not renewed before the handler runs.
            () = self.clock.sleep(ADMISSION) => {
                let (until, reserved) = (self.clock.now() + HEARTBEAT_RETRY, task.hold.reservations.clone());
                Err(Event::Hold { token, reason: HeldReason::LimiterUnavailable, until, reserved })
            }
        };
        let plan = match not_yet {
            Ok(plan) => plan,
            Err(event) => return self.settle(task.key(), Some(task), event, stop).await,
        };
        if plan.companions.is_some() {
            return Box::pin(self.run_together(task, plan, limit, stop)).await;
        }
        let (context, started) = (TaskContext::new(&task, &plan), self.clock.now());
        match self.execute(&task, &context, &plan, limit, stop).await {
            Run::Lost => {
                tracing::warn!(task = %task.id, token, "the lease was lost; the handler's result is not stored");
                self.report(&context.name.tenant, plan, None, started).await;
                Settlement::Acknowledge
            }
            Run::Over(event) => {
                // Every heartbeat is a write and outdates the claimed copy.
                let (name, known) = (task.key(), (!context.has_beaten()).then_some(task));
                if plan.is_free() {
                    return self.settle(name, known, event, stop).await;
                }
                let report = self.report(&context.name.tenant, plan, Some(&event), started);
                Box::pin(join(self.settle(name, known, event.clone(), stop), report)).await.0
            }
        }
    }

    /// Runs the handler and keeps the lease alive.
    async fn execute(
        &self,
        task: &Task,
        context: &TaskContext,
        plan: &AttemptPlan,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Run {
        let token = task.token;
        let Some(handler) = self.handlers.get(&task.kind) else {
            return Run::Over(self.hold(token, HeldReason::NoHandler));
        };
        let mut work = handler.run(&task.payload, context);
        // A handler that finishes at once needs no timers.
        if let std::task::Poll::Ready(outcome) = poll!(&mut work) {
            return Run::Over(self.event(task, outcome, context, plan));
        }
        Box::pin(self.watch(work, task, context, plan, limit, stop)).await
    }

    /// Waits for the handler and renews its lease. Ends it at its timeout, after a cancellation or when the
    /// worker stops.
    async fn watch(
        &self,
        mut work: BoxFuture<'_, Result<Json, Failure>>,
        task: &Task,
        context: &TaskContext,
        plan: &AttemptPlan,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Run {
        let token = task.token;
        let granted = context.timeout.min(limit);
        let mut timeout = pin!(self.clock.sleep(granted));
        let mut pulse = pin!(self.clock.sleep(HEARTBEAT).fuse());
        let mut changed = pin!(self.backend.store.changed(&context.name).fuse());
        let mut renewing = pin!(self.renew(&plan.permits));
        let (mut beating, mut grace, mut rest) =
            (pin!(Fuse::terminated()), pin!(Fuse::terminated()), pin!(Fuse::terminated()));
        let mut is_beat_due = false;
        loop {
            if is_beat_due && beating.is_terminated() {
                is_beat_due = false;
                beating.set(self.heartbeat(context, token, context.take_progress()).fuse());
            }
            let is_resting = !rest.is_terminated();
            tokio::select! {
                biased;
                outcome = &mut work => {
                    self.store_last_progress(context, token).await;
                    return Run::Over(self.event(task, outcome, context, plan));
                }
                () = &mut timeout => {
                    let error = format!("the attempt took longer than {} seconds", granted.as_secs_f64());
                    return Run::Over(self.failure(task, Failure::retry(ErrorCode::TIMEOUT, error), plan));
                }
                () = stop.cancelled() => return Run::Over(Event::Interrupt { token }),
                () = &mut grace => return Run::Over(Event::Stop { token }),
                // Subscribes again before the heartbeat reads the change, so that no change is missed in
                // between.
                () = &mut changed => {
                    changed.set(self.backend.store.changed(&context.name).fuse());
                    is_beat_due = true;
                }
                beaten = &mut beating => match beaten {
                    Ok(Heartbeat::Lost) => return Run::Lost,
                    Ok(Heartbeat::Renewed { cancel }) => {
                        if cancel == CancelRequest::Requested && !context.is_canceled() {
                            context.cancel();
                            grace.set(self.clock.sleep(CANCEL_GRACE).fuse());
                        }
                        pulse.set(self.clock.sleep(HEARTBEAT).fuse());
                    }
                    // The handler continues. Storing its outcome shows whether the lease was still held.
                    Err(error) => {
                        tracing::warn!(task = %task.id, %error, "a lease could not be renewed yet; the worker tries again");
                        pulse.set(self.clock.sleep(HEARTBEAT_RETRY).fuse());
                    }
                },
                () = &mut pulse => is_beat_due = true,
                never = &mut renewing, if plan.permits.have_slots() => match never {},
                () = &mut rest => {}
                () = context.progressed(), if !is_resting => {
                    rest.set(self.clock.sleep(PROGRESS).fuse());
                    is_beat_due = true;
                }
            }
        }
    }

    /// Renews the slots of an attempt every [`HEARTBEAT`].
    pub(crate) async fn renew(&self, permits: &Permits) -> Infallible {
        loop {
            self.clock.sleep(HEARTBEAT).await;
            self.limiter.renew(permits).await;
        }
    }

    pub(crate) async fn heartbeat(
        &self,
        context: &TaskContext,
        token: u64,
        progress: Option<Json>,
    ) -> Result<Heartbeat, StoreError> {
        context.note_beat();
        let until = self.clock.now() + LEASE;
        self.backend.store.heartbeat(&context.name, token, until, progress).await
    }

    async fn store_last_progress(&self, context: &TaskContext, token: u64) {
        if let Some(progress) = context.take_progress()
            && let Err(error) = self.heartbeat(context, token, Some(progress)).await
        {
            tracing::warn!(task = %context.name.id, %error, "the last progress note was not stored");
        }
    }

    pub(crate) fn event(
        &self,
        task: &Task,
        outcome: Result<Json, Failure>,
        context: &TaskContext,
        plan: &AttemptPlan,
    ) -> Event {
        let token = task.token;
        match outcome {
            Ok(result) => Event::Succeed { token, result },
            Err(_) if context.is_canceled() => Event::Stop { token },
            Err(failure) => self.failure(task, failure, plan),
        }
    }

    pub(crate) fn failure(&self, task: &Task, failure: Failure, plan: &AttemptPlan) -> Event {
        let (token, Failure { error, retry, held, signal }) = (task.token, failure);
        match held {
            Some(reason @ HeldReason::ResourceExhausted) => return self.hold_briefly(task, reason),
            Some(reason) => return self.hold(token, reason),
            None => {}
        }
        let retry = match (signal, &plan.pause_scope) {
            // An endpoint that asks for no pause, or repeatedly for a short one, is unhealthy. Its pause
            // grows each time.
            (Some(DestinationSignal::Pause(pause)), Some(_)) => {
                let pause =
                    pause.max(hold_backoff(task.hold.deferrals.min(PUT_OFF_DOUBLINGS), self.jitter()));
                Retry::Defer(HeldReason::RetryAfter, self.clock.now() + pause)
            }
            // A second 410 after the endpoint was opened again concerns this task alone: it fails, and the
            // endpoint stays open.
            (Some(DestinationSignal::Gone), Some(_))
                if task.error.as_ref().is_none_or(|before| before.code != error.code) =>
            {
                Retry::Defer(HeldReason::EndpointGone, self.clock.now() + GONE_RECHECK)
            }
            _ => retry,
        };
        Event::Fail { token, error, retry, policy: plan.policy.clone(), spread: self.jitter() }
    }

    fn hold(&self, token: u64, reason: HeldReason) -> Event {
        Event::Hold {
            token,
            reason,
            until: self.clock.now() + HOLD_INTERVAL,
            reserved: Reservations::default(),
        }
    }

    /// Holds a task whose call needs resources that this process lacks. The first wait is up to 1 s. It
    /// doubles each time, up to 1 minute.
    fn hold_briefly(&self, task: &Task, reason: HeldReason) -> Event {
        tracing::warn!(task = %task.id, "a call lacks handles, ports, memory or look-up slots of this process; its task is held");
        let until = self.clock.now() + hold_backoff(task.hold.holds, self.jitter()).min(HOLD_INTERVAL);
        Event::Hold { token: task.token, reason, until, reserved: Reservations::default() }
    }

    pub(crate) fn jitter(&self) -> JitterSample {
        JitterSample::from_bits(self.random.next_u64())
    }

    /// Stores the outcome. Retries until `stop` fires if the store is unavailable: the work is done and would
    /// be repeated otherwise. An expired lease does no harm meanwhile, since the store refuses late outcomes.
    pub(crate) async fn settle(
        &self,
        name: TaskKey,
        mut known: Option<Task>,
        event: Event,
        stop: &CancellationToken,
    ) -> Settlement {
        let mut pause = FIRST_SETTLE_PAUSE;
        loop {
            match self.backend.apply(&name, known.take(), event.clone(), self.clock.now()).await {
                Ok(_) => return Settlement::Acknowledge,
                Err(ApplyError::Missing | ApplyError::Refused(_)) => {
                    // Either an earlier try stored it and its answer was lost, or another attempt took over.
                    // Both settle the hint.
                    tracing::info!(task = %name.id, "an outcome was not stored, because the lease had ended or was lost");
                    return Settlement::Acknowledge;
                }
                Err(ApplyError::Store(error)) => {
                    tracing::warn!(task = %name.id, %error, "an outcome could not be stored yet; the worker tries again");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {
                    tracing::error!(task = %name.id, "an outcome could not be stored; the task will be tried again");
                    return Settlement::Return;
                }
                () = self.clock.sleep(pause) => pause = (pause * 2).min(MAX_SETTLE_PAUSE),
            }
        }
    }
}
