//! One attempt: claim, run the handler, settle.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join};
use futures_util::poll;
use nobat_core::json::Json;
use nobat_core::limits::Reservations;
use nobat_core::limits::backoff::hold_backoff;
use nobat_core::ports::{ClaimResult, Clock, Delivery, Hint, Random, Settlement, StoreError};
use nobat_core::service::backend::{ApplyError, Backend};
use nobat_core::service::config_cache::{ConfigCache, ConfigEpoch};
use nobat_core::task::event::{EVENT_KIND, SCHEDULE_KIND, is_internal};
use nobat_core::task::lifecycle::{Event, Retry, TransitionError, overdue};
use nobat_core::task::{Task, TaskKey};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::intervals::LEASE;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::name::Name;
use tokio_util::sync::CancellationToken;

use crate::admission::limiter::Limiter;
use crate::admission::plan::{Admission, AttemptPlan};
use crate::execution::lease::{HEARTBEAT, HEARTBEAT_RETRY, LeaseKeeper, LeaseLost};
use crate::handler::context::TaskContext;
use crate::handler::failure::{DestinationSignal, Failure};
use crate::handler::registry::Handlers;
use crate::handler::tokens::TokenIssuer;

/// Runs tasks, for a [`Worker`](crate::worker::Worker) or for a Lambda function.
#[derive(Clone)]
pub struct Runner {
    /// The store and the message queue.
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
    tokens: Arc<TokenIssuer>,
}

/// Pause before a claim is repeated, because a hint can arrive before a read finds the task.
pub(crate) const RECHECK_DELAY: Duration = Duration::from_millis(200);
/// Maximum time that the worker waits for a task whose hint is early. Message queues delay hints by whole
/// seconds, so a hint can be early.
const EARLY: Duration = Duration::from_secs(1);
/// Maximum difference assumed between the clocks of two processes.
const CLOCK_SKEW: Duration = Duration::from_secs(15);
/// Time that a handler has to stop after its task was canceled.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// Delay before the next check of a task that this process cannot start.
pub(crate) const HOLD_INTERVAL: Duration = Duration::from_mins(1);
/// Delay before the next check of a task whose endpoint answered 410. By then, the endpoint is marked as
/// gone.
const GONE_RECHECK: Duration = Duration::from_secs(1);
/// Maximum duration of the admission check, because the lease is not renewed before the handler runs.
pub(crate) const ADMISSION: Duration = HEARTBEAT;
/// Maximum number of doublings of the minimum pause of an endpoint that asks for a pause (`Retry-After`)
/// several times in a row. The minimum pause then is about one minute.
const PUT_OFF_DOUBLINGS: u32 = 6;
/// Pause between the first two tries to store an outcome. The pause doubles with each try.
const FIRST_SETTLE_PAUSE: Duration = Duration::from_millis(100);
/// Maximum pause between two tries to store an outcome.
const MAX_SETTLE_PAUSE: Duration = Duration::from_secs(10);

/// End of an attempt, before the worker stores the outcome.
enum Run {
    /// The handler returned, timed out or was stopped, or this worker has no handler for the task.
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
        let tokens = Arc::new(TokenIssuer {
            backend: backend.clone(),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
        });
        Self { backend, handlers, clock, random, config_cache, limiter, tokens }
    }

    /// Runs a delivered task. The settlement says if the message queue may delete the hint.
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

    /// Sends a new hint if the task is due within [`CLOCK_SKEW`], because the clock of the first hint's
    /// sender may be ahead. Otherwise the task would wait for the sweeper.
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

    /// Ends a task whose deadline has passed, or an attempt whose lease has expired. Called after a refused
    /// claim.
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
        if task.is_wait_over() {
            return Box::pin(self.end_wait(task, stop)).await;
        }
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
        let (context, started) = (TaskContext::new(&task, &plan).issuing(&self.tokens), self.clock.now());
        match self.execute(&task, &context, &plan, limit, stop).await {
            Run::Lost => {
                if context.completion_token().is_some() {
                    tracing::info!(task = %task.id, token, "the lease was lost, or the receiver has reported the outcome; the handler's result is not stored");
                } else {
                    tracing::warn!(task = %task.id, token, "the lease was lost; the handler's result is not stored");
                }
                self.report(&context.name.tenant, plan, None, started).await;
                Settlement::Acknowledge
            }
            Run::Over(event) => {
                // Every heartbeat writes the task, so the claimed copy is outdated after a heartbeat.
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
        if task.kind == *SCHEDULE_KIND {
            return Run::Over(Box::pin(self.run_schedule(task, plan, limit, stop)).await);
        }
        let mut work = match self.handlers.get(&task.kind) {
            _ if task.kind == *EVENT_KIND => Box::pin(self.fan_out(task, context)),
            Some(handler) => handler.run(&task.payload, context),
            None => return Run::Over(self.hold(token, HeldReason::NoHandler)),
        };
        // A handler that finishes at once needs no timers.
        if let std::task::Poll::Ready(outcome) = poll!(&mut work) {
            self.lease_keeper().store_last_progress(context, token).await;
            return Run::Over(self.event(task, outcome, context, plan));
        }
        Box::pin(self.watch(work, task, context, plan, limit, stop)).await
    }

    /// Runs the task of a schedule. It takes far less time than a lease, so that nothing renews the lease.
    async fn run_schedule(
        &self,
        task: &Task,
        plan: &AttemptPlan,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Event {
        let granted = task.options.timeout.min(limit);
        tokio::select! {
            biased;
            event = self.tick(task) => event.unwrap_or_else(|failure| self.failure(task, failure, plan)),
            () = self.clock.sleep(granted) => self.failure(task, Failure::timeout(granted), plan),
            () = stop.cancelled() => Event::Interrupt { token: task.token },
        }
    }

    /// Returns true if tasks of this kind can run here.
    pub(crate) fn has_handler(&self, kind: &Name) -> bool {
        is_internal(kind) || self.handlers.get(kind).is_some()
    }

    pub(crate) fn lease_keeper(&self) -> LeaseKeeper<'_> {
        LeaseKeeper { store: &*self.backend.store, limiter: &self.limiter, clock: &*self.clock }
    }

    /// Waits for the handler and renews the attempt's lease. Ends the attempt when its timeout passes, when
    /// the lease is lost, when the worker stops, or when [`CANCEL_GRACE`] has passed after a cancellation.
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
        let grace = async {
            context.canceled().await;
            self.clock.sleep(CANCEL_GRACE).await;
        };
        tokio::select! {
            biased;
            outcome = &mut work => {
                self.lease_keeper().store_last_progress(context, token).await;
                Run::Over(self.event(task, outcome, context, plan))
            }
            () = self.clock.sleep(granted) => {
                Run::Over(self.failure(task, Failure::timeout(granted), plan))
            }
            () = stop.cancelled() => Run::Over(Event::Interrupt { token }),
            () = grace => Run::Over(Event::Stop { token }),
            LeaseLost = self.lease_keeper().keep(task, context, &plan.permits) => {
                if context.completion_token().is_none() {
                    return Run::Lost;
                }
                // The receiver may have reported the outcome before it responds. It must not find its
                // connection closed.
                tokio::select! {
                    biased;
                    outcome = work => Run::Over(self.event(task, outcome, context, plan)),
                    () = self.clock.sleep(CANCEL_GRACE) => Run::Lost,
                    () = stop.cancelled() => Run::Lost,
                }
            }
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
        match (outcome, context.wait_timeout()) {
            (Ok(result), Some(timeout)) => Event::Wait { token, result, until: self.clock.now() + timeout },
            (Ok(result), None) => Event::Succeed { token, result },
            (Err(_), _) if context.is_canceled() => Event::Stop { token },
            (Err(failure), _) => self.failure(task, failure, plan),
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
            // An endpoint that asks for very short pauses in a row would be called too often. So the minimum
            // pause doubles each time.
            (Some(DestinationSignal::Pause(pause)), Some(_)) => {
                let pause =
                    pause.max(hold_backoff(task.hold.deferrals.min(PUT_OFF_DOUBLINGS), self.jitter()));
                Retry::Defer(HeldReason::RetryAfter, self.clock.now() + pause)
            }
            // A second 410, after a client resumed the endpoint, concerns this task alone: the task fails,
            // and the endpoint stays open.
            (Some(DestinationSignal::Gone), Some(_))
                if task.error.as_ref().is_none_or(|before| before.code != error.code) =>
            {
                Retry::Defer(HeldReason::EndpointGone, self.clock.now() + GONE_RECHECK)
            }
            _ => retry,
        };
        Event::Fail { token, error, retry, policy: plan.policy.clone(), spread: self.jitter() }
    }

    pub(crate) fn hold(&self, token: u64, reason: HeldReason) -> Event {
        Event::Hold {
            token,
            reason,
            until: self.clock.now() + HOLD_INTERVAL,
            reserved: Reservations::default(),
        }
    }

    /// Holds a task whose call needs resources that this process lacks. The first wait is up to 1 s. The wait
    /// doubles each time, up to 1 minute.
    fn hold_briefly(&self, task: &Task, reason: HeldReason) -> Event {
        tracing::warn!(task = %task.id, "this process lacks file handles, ports or memory for a call, or runs too many DNS look-ups; the task is held");
        let until = self.clock.now() + hold_backoff(task.hold.holds, self.jitter()).min(HOLD_INTERVAL);
        Event::Hold { token: task.token, reason, until, reserved: Reservations::default() }
    }

    pub(crate) fn jitter(&self) -> JitterSample {
        JitterSample::from_bits(self.random.next_u64())
    }

    /// Stores the outcome. If the store is unavailable, retries until `stop` fires: otherwise the finished
    /// work would be repeated. If the lease expires meanwhile, the store refuses the outcome.
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
                // The receiver reported the outcome before this worker stored the response.
                Err(ApplyError::Refused(_)) if matches!(event, Event::Wait { .. }) => {
                    return Settlement::Acknowledge;
                }
                Err(ApplyError::Missing | ApplyError::Refused(_)) => {
                    // Either an earlier try stored the outcome and its reply was lost, or another attempt
                    // took over. In both cases, the hint is settled.
                    tracing::info!(task = %name.id, "the store refused an outcome, because the attempt no longer has the lease; the outcome is dropped");
                    return Settlement::Acknowledge;
                }
                Err(ApplyError::Store(error)) => {
                    tracing::warn!(task = %name.id, %error, "an outcome could not be stored yet; the worker tries again");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {
                    tracing::error!(task = %name.id, "an outcome could not be stored before the worker stopped; the task will run again");
                    return Settlement::Return;
                }
                () = self.clock.sleep(pause) => pause = (pause * 2).min(MAX_SETTLE_PAUSE),
            }
        }
    }
}
