//! Decides if a claimed task may start, and with which settings.

pub mod limiter;
pub(crate) mod plan;

use std::sync::Arc;
use std::time::Duration;

use nobat_core::auth::audit::{self, Action, Actor};
use nobat_core::config::endpoint::{Endpoint, EndpointStatus};
use nobat_core::limits::backoff::hold_backoff;
use nobat_core::limits::{
    BatchDecision, BatchLimits, BatchMember, CallHealth, CallReport, LimitScope, LimiterKey, Reservations,
    ScopedReservation,
};
use nobat_core::policy::{Block, Configuration, Decision, decide, inherited_retry, pause_scope};
use nobat_core::ports::StoreError;
use nobat_core::ports::config_store::RecordResult;
use nobat_core::service::backend::changes;
use nobat_core::task::lifecycle::{Event, Retry};
use nobat_core::task::{Task, TaskOrigin};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;

use crate::admission::limiter::{Entry, ScopedLimits};
use crate::admission::plan::{Admission, AttemptPlan};
use crate::execution::runner::{HOLD_INTERVAL, Runner};

/// Delay before the next check of a task whose limiter is unavailable.
pub(crate) const LIMITER_UNAVAILABLE_PAUSE: Duration = Duration::from_secs(10);

/// Maximum number of tries to mark an endpoint as gone while other processes change the endpoint.
const MAX_CONFLICTS: usize = 5;

impl Runner {
    /// Checks everything that can hold the task. If the store is unavailable, holds the task for
    /// [`LIMITER_UNAVAILABLE_PAUSE`].
    pub(crate) async fn admit(&self, task: &Task) -> Admission {
        self.decide(task).await.unwrap_or_else(|error| self.hold_unavailable(task, &error))
    }

    fn hold_unavailable(&self, task: &Task, error: &StoreError) -> Admission {
        tracing::warn!(task = %task.id, %error, "the admission check of a task failed; the task is held");
        self.unavailable(task, LIMITER_UNAVAILABLE_PAUSE)
    }

    /// Holds the task for `pause` with the reason `limiter_unavailable`. The task keeps its reservations.
    pub(crate) fn unavailable(&self, task: &Task, pause: Duration) -> Admission {
        let (until, reserved) = (self.clock.now() + pause, task.hold.reservations.clone());
        Admission::Hold { reason: HeldReason::LimiterUnavailable, until, reserved }
    }

    async fn decide(&self, task: &Task) -> Result<Admission, StoreError> {
        let endpoint = match &task.options.endpoint {
            Some(name) => {
                self.config_cache.endpoint(&task.tenant, name).await?.map(|endpoint| (name.clone(), endpoint))
            }
            None => None,
        };
        let (plan, limiters) = match self.plan(task, endpoint).await? {
            Ok(planned) => planned,
            Err(reason) => return Ok(self.hold_blocked(task, reason).await),
        };
        let Some((name, endpoint)) = &plan.endpoint else { return self.acquire(task, &limiters, plan).await };
        let batch_key = endpoint
            .batch
            .and(self.handlers.get(&task.kind))
            .and_then(|handler| handler.batch_key(&task.payload));
        match (endpoint.batch.zip(batch_key), limiters.split_first()) {
            (Some((policy, batch_key)), Some((of_endpoint, others))) => {
                let scope = LimitScope::Batch(name.clone(), batch_key);
                let interval = endpoint
                    .limits
                    .rate
                    .map_or(Duration::ZERO, |rate_limit| rate_limit.period / rate_limit.rate.get());
                Box::pin(self.join_batch(
                    task,
                    scope,
                    BatchLimits { policy, interval },
                    of_endpoint,
                    others,
                    plan,
                ))
                .await
            }
            _ => self.acquire(task, &limiters, plan).await,
        }
    }

    /// Returns the plan of an attempt, still without permits, and the limiters that must grant permits. The
    /// inner `Err` is the reason for a hold if the configuration blocks the task.
    async fn plan(
        &self,
        task: &Task,
        endpoint: Option<(Name, Arc<Endpoint>)>,
    ) -> Result<Result<(AttemptPlan, Vec<ScopedLimits>), HeldReason>, StoreError> {
        let task_config = self.config_cache.task_config(&task.tenant, &task.queue, &task.kind).await?;
        let limit_key = match &task.options.limit_key {
            Some(key) => Some(self.config_cache.limit_key(&task.tenant, key).await?),
            None => None,
        };
        let is_subscription_paused = match task.options.origin.as_ref().and_then(TaskOrigin::subscription) {
            Some(subscription) => {
                self.config_cache.is_subscription_paused(&task.tenant, subscription).await?
            }
            None => false,
        };
        let configuration = Configuration {
            task_config: &task_config,
            endpoint: endpoint.as_ref().map(|(_, endpoint)| &**endpoint),
            limit_key: limit_key.as_deref(),
            is_subscription_paused,
            has_handler: self.has_handler(&task.kind),
        };
        let Decision { block, limiters } = decide(task, configuration);
        if let Some(Block { reason, .. }) = block {
            return Ok(Err(reason));
        }
        let scoped = |(scope, limits)| ScopedLimits {
            name: LimiterKey { tenant: task.tenant.clone(), scope },
            limits,
        };
        let policy = inherited_retry(task, configuration.endpoint, &task_config.queue);
        let plan = AttemptPlan { policy, pause_scope: pause_scope(task), endpoint, ..AttemptPlan::default() };
        Ok(Ok((plan, limiters.into_iter().map(scoped).collect())))
    }

    /// Checks if a task may join the leader's batch. Skips the endpoint's limits: the batch is one request,
    /// and the leader has the endpoint's permit for this request.
    pub(crate) async fn admit_along(&self, task: &Task, leader: &AttemptPlan) -> Admission {
        self.decide_along(task, leader).await.unwrap_or_else(|error| self.hold_unavailable(task, &error))
    }

    async fn decide_along(&self, task: &Task, leader: &AttemptPlan) -> Result<Admission, StoreError> {
        let (plan, mut limiters) = match self.plan(task, leader.endpoint.clone()).await? {
            Ok(planned) => planned,
            Err(reason) => return Ok(self.hold_blocked(task, reason).await),
        };
        limiters.retain(|limiter| !matches!(limiter.name.scope, LimitScope::Endpoint(_)));
        if task
            .hold
            .reservations
            .rate
            .as_ref()
            .is_some_and(|scoped| limiters.iter().all(|limiter| limiter.name.scope != scoped.scope))
        {
            // The task does not need its reservation at the endpoint: the leader's permit covers the whole
            // batch.
            let reserved = Reservations { batch: None, ..task.hold.reservations.clone() };
            self.give_back(task, reserved).await;
        }
        self.acquire(task, &limiters, plan).await
    }

    /// Asks the limiters for permits.
    async fn acquire(
        &self,
        task: &Task,
        limiters: &[ScopedLimits],
        plan: AttemptPlan,
    ) -> Result<Admission, StoreError> {
        if limiters.is_empty() {
            return Ok(Admission::Go(plan));
        }
        Ok(match self.limiter.acquire(limiters, &task.hold, plan.permits).await? {
            Entry::Granted(permits) => Admission::Go(AttemptPlan { permits, ..plan }),
            Entry::Denied { wait, scoped } => {
                Admission::Hold { reason: wait.reason, until: wait.until, reserved: scoped.into() }
            }
        })
    }

    /// Adds the task to a batch. If the batch is due, the task leads it and asks the limiters for permits.
    async fn join_batch(
        &self,
        task: &Task,
        of: LimitScope,
        batch_limits: BatchLimits,
        endpoint: &ScopedLimits,
        others: &[ScopedLimits],
        plan: AttemptPlan,
    ) -> Result<Admission, StoreError> {
        let batch = if let LimitScope::Batch(_, batch_key) = of { Some(batch_key) } else { None };
        let name = LimiterKey { tenant: task.tenant.clone(), scope: of };
        let bytes = u64::try_from(task.payload.get().len()).unwrap_or(u64::MAX);
        let member = BatchMember {
            id: task.id,
            bytes,
            deadline: task.options.expires_at,
            holds: task.hold.holds,
            jitter: self.jitter(),
        };
        // A task with a due reservation at a limiter other than the endpoint's leads the batch at once.
        // Waiting would lose the reservation.
        let has_due_reservation_elsewhere = |scoped: &ScopedReservation| {
            scoped.reservation.at() <= self.clock.now()
                && others.iter().any(|limiter| limiter.name.scope == scoped.scope)
        };
        match self.limiter.join_batch(&name, batch_limits, member).await? {
            BatchDecision::Wait(until)
                if !task.hold.reservations.rate.as_ref().is_some_and(has_due_reservation_elsewhere) =>
            {
                self.give_back(task, Reservations { batch: None, ..task.hold.reservations.clone() }).await;
                return Ok(Admission::Hold {
                    reason: HeldReason::Batching,
                    until,
                    reserved: Reservations { rate: None, batch },
                });
            }
            BatchDecision::Wait(_) | BatchDecision::Lead => {}
        }
        let plan = match self.acquire(task, others, plan).await? {
            Admission::Go(plan) => plan,
            // This task leaves the batch, since its own limits must not delay the other members.
            held @ Admission::Hold { .. } => {
                self.give_back(task, Reservations { rate: None, batch }).await;
                return Ok(held);
            }
        };
        let plan = match self.acquire(task, std::slice::from_ref(endpoint), plan).await? {
            Admission::Go(plan) => plan,
            Admission::Hold { reason, until, reserved } => {
                self.limiter.defer_batch(&name, until).await;
                return Ok(Admission::Hold { reason, until, reserved: Reservations { batch, ..reserved } });
            }
        };
        let taken = self.limiter.take_batch(&name, task.id).await;
        let mut members = match taken {
            Ok(members) => members,
            Err(error) => {
                self.limiter.cancel(plan.permits.keeping(task.hold.reservations.rate.as_ref())).await;
                return Err(error);
            }
        };
        if members.is_empty() {
            // Another leader took this task into its batch at the same time, but finds the task running. So
            // this task returns its permits and waits.
            self.limiter.cancel(plan.permits).await;
            let until = self.clock.now() + hold_backoff(0, self.jitter());
            return Ok(Admission::Hold {
                reason: HeldReason::Batching,
                until,
                reserved: Reservations::default(),
            });
        }
        members.retain(|member| *member != task.id);
        // If the endpoint asks for a pause, the pause applies to the endpoint, even if tasks of the batch
        // have limit keys.
        let pause_scope = Some(endpoint.name.scope.clone());
        Ok(Admission::Go(AttemptPlan { companions: Some(members), pause_scope, ..plan }))
    }

    /// Holds a task that the configuration blocks. Gives the task's reservations back, since the end of the
    /// hold is unknown.
    async fn hold_blocked(&self, task: &Task, reason: HeldReason) -> Admission {
        self.give_back(task, task.hold.reservations.clone()).await;
        let pause = match reason {
            // No configuration change ends the hold. Another worker, or a new version of this program, may
            // have the handler.
            HeldReason::NoHandler => HOLD_INTERVAL,
            _ => hold_backoff(task.hold.holds, self.jitter()),
        };
        Admission::Hold { reason, until: self.clock.now() + pause, reserved: Reservations::default() }
    }

    /// Gives back the task's reservations at its limiters. Several tasks share one write.
    async fn give_back(&self, task: &Task, reserved: Reservations) {
        for (of, change) in changes(task, reserved) {
            let successor =
                self.limiter.change(&LimiterKey { tenant: task.tenant.clone(), scope: of }, change).await;
            self.backend.lead(&task.tenant, successor, self.clock.now()).await;
        }
    }

    /// Reports the result of an attempt to the task's limiters. Marks the endpoint as gone if the endpoint
    /// answered 410.
    pub(crate) async fn report(
        &self,
        tenant: &Tenant,
        plan: AttemptPlan,
        event: Option<&Event>,
        started: Timestamp,
    ) {
        if let Some(Event::Fail { retry: Retry::Defer(HeldReason::EndpointGone, _), .. }) = event
            && let Some((name, endpoint)) = &plan.endpoint
        {
            self.close(tenant, name, endpoint).await;
        }
        let (health, pause_until) = match event {
            // No call was made.
            Some(Event::Hold { .. }) => return self.limiter.cancel(plan.permits).await,
            Some(Event::Succeed { result, .. } | Event::Wait { result, .. }) => {
                (plan.health_after_success(result), None)
            }
            Some(Event::Fail { retry: Retry::Defer(HeldReason::RetryAfter, until), error, .. }) => {
                (plan.health(error), Some(*until))
            }
            Some(Event::Fail { retry, error, .. })
                if *retry != Retry::Never || error.code.status().is_some() =>
            {
                (plan.health(error), None)
            }
            _ => (CallHealth::Unknown, None),
        };
        let report = CallReport { health, took: self.clock.now().since(started), pause_until };
        self.limiter.complete(plan.permits, &report, plan.pause_scope.as_ref()).await;
    }

    /// Marks an endpoint as gone. nobat then does not call the endpoint until a client resumes it or changes
    /// its URL.
    ///
    /// Does nothing if the endpoint was recreated or its URL changed since the call: the new endpoint may
    /// work.
    async fn close(&self, tenant: &Tenant, name: &Name, called: &Endpoint) {
        for _ in 0..MAX_CONFLICTS {
            let endpoint = match self.backend.config.endpoint(tenant, name).await {
                Ok(Some(endpoint)) if endpoint.is_open() && endpoint.is_same_destination(called) => endpoint,
                Ok(_) => return self.config_cache.forget(tenant),
                Err(error) => {
                    return tracing::warn!(endpoint = %name, %error, "an endpoint answered 410 Gone, but its status could not be stored; its tasks still call the endpoint");
                }
            };
            let entry = audit::Entry {
                tenant: tenant.clone(),
                at: self.clock.now(),
                actor: Actor::Worker,
                action: Action::EndpointGone,
                target: name.to_string(),
                mark: self.random.next_u64(),
            };
            let closed = Endpoint { status: EndpointStatus::Gone, version: endpoint.version + 1, ..endpoint };
            let written = self.backend.config.write(vec![closed.record(tenant, name)], entry).await;
            // Needed after an error too: the store may have made the write before its reply was lost.
            self.config_cache.forget(tenant);
            match written {
                Ok(RecordResult::Done) => {
                    return tracing::warn!(%tenant, endpoint = %name, "an endpoint answered 410 Gone; its tasks are held");
                }
                Ok(RecordResult::Conflict) => {}
                Err(error) => {
                    return tracing::warn!(endpoint = %name, %error, "an endpoint answered 410 Gone, but its status could not be stored; its tasks still call the endpoint");
                }
            }
        }
        tracing::warn!(endpoint = %name, "an endpoint answered 410 Gone, but concurrent changes prevented a change of its status; its tasks still call the endpoint");
    }
}
