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
use nobat_core::task::Task;
use nobat_core::task::lifecycle::{Event, Retry};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;

use crate::admission::limiter::{Entry, ScopedLimits};
use crate::admission::plan::{Admission, AttemptPlan};
use crate::execution::runner::{HOLD_INTERVAL, Runner};

/// Delay before a task asks again if its limiter is unavailable.
const LIMITER_UNAVAILABLE_PAUSE: Duration = Duration::from_secs(10);

/// Maximum number of tries to change an endpoint that is being changed concurrently.
const MAX_CONFLICTS: usize = 5;

impl Runner {
    /// Checks everything that can hold the task. An unavailable store holds it for
    /// [`LIMITER_UNAVAILABLE_PAUSE`].
    pub(crate) async fn admit(&self, task: &Task) -> Admission {
        self.decide(task).await.unwrap_or_else(|error| self.hold_unavailable(task, &error))
    }

    fn hold_unavailable(&self, task: &Task, error: &StoreError) -> Admission {
        tracing::warn!(task = %task.id, %error, "the configuration or a limiter of a task cannot be read; the task is held");
        self.unavailable(task, LIMITER_UNAVAILABLE_PAUSE)
    }

    /// Holds the task for `pause`. It keeps its reservations.
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

    /// Returns the plan of an attempt without permits, and the limiters to ask. `Err` if the configuration
    /// holds the task.
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
        let configuration = Configuration {
            task_config: &task_config,
            endpoint: endpoint.as_ref().map(|(_, endpoint)| &**endpoint),
            limit_key: limit_key.as_deref(),
            has_handler: self.handlers.get(&task.kind).is_some(),
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

    /// Checks whether a task may join a batch: everything except the endpoint's limits. The endpoint sees one
    /// request, which the leader pays for.
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
            // The reservation is the endpoint's. The leader's permit counts for all.
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

    /// Adds the task to a batch. If the batch is due, asks for its permits as the leader.
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
        // A task whose reservation at its own limit is due leads the batch at once. Waiting again would lose
        // the reservation.
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
            // The task's own limit must not delay the other members.
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
            // Another leader took this task at the same time, and finds it running.
            self.limiter.cancel(plan.permits).await;
            let until = self.clock.now() + hold_backoff(0, self.jitter());
            return Ok(Admission::Hold {
                reason: HeldReason::Batching,
                until,
                reserved: Reservations::default(),
            });
        }
        members.retain(|member| *member != task.id);
        // A pause that the endpoint asks for concerns the request, whatever limit keys its tasks have.
        let pause_scope = Some(endpoint.name.scope.clone());
        Ok(Admission::Go(AttemptPlan { companions: Some(members), pause_scope, ..plan }))
    }

    /// Holds a task that the configuration blocks. Nothing is reserved meanwhile, since the time is unknown.
    async fn hold_blocked(&self, task: &Task, reason: HeldReason) -> Admission {
        self.give_back(task, task.hold.reservations.clone()).await;
        let pause = match reason {
            // No configuration change ends the hold. Another worker, or a new version of this one, may have
            // the handler.
            HeldReason::NoHandler => HOLD_INTERVAL,
            _ => hold_backoff(task.hold.holds, self.jitter()),
        };
        Admission::Hold { reason, until: self.clock.now() + pause, reserved: Reservations::default() }
    }

    /// Gives back what a task held at its limiters ([`nobat_core::service::backend::Backend::give_back`]), in
    /// the same write as other requests.
    async fn give_back(&self, task: &Task, reserved: Reservations) {
        for (of, change) in changes(task, reserved) {
            let successor =
                self.limiter.change(&LimiterKey { tenant: task.tenant.clone(), scope: of }, change).await;
            self.backend.lead(&task.tenant, successor, self.clock.now()).await;
        }
    }

    /// Reports an attempt to the task's limiters. Marks the endpoint as gone if it said so.
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
            Some(Event::Succeed { result, .. }) => (plan.health_after_success(result), None),
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

    /// Marks an endpoint as gone, so that it is not called until an operator or a client opens it again.
    ///
    /// Does nothing if its URL has changed or it was recreated since the call: the new address may work.
    async fn close(&self, tenant: &Tenant, name: &Name, called: &Endpoint) {
        for _ in 0..MAX_CONFLICTS {
            let endpoint = match self.backend.config.endpoint(tenant, name).await {
                Ok(Some(endpoint)) if endpoint.is_open() && endpoint.is_where(called) => endpoint,
                Ok(_) => return self.config_cache.forget(tenant),
                Err(error) => {
                    return tracing::warn!(endpoint = %name, %error, "an endpoint answered 410 Gone; it could not be marked as gone");
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
            // Also after an error: the write may have been made before its reply was lost.
            self.config_cache.forget(tenant);
            match written {
                Ok(RecordResult::Done) => {
                    return tracing::warn!(%tenant, endpoint = %name, "an endpoint answered 410 Gone; its tasks are held");
                }
                Ok(RecordResult::Conflict) => {}
                Err(error) => {
                    return tracing::warn!(endpoint = %name, %error, "an endpoint answered 410 Gone; it could not be marked as gone");
                }
            }
        }
        tracing::warn!(endpoint = %name, "an endpoint answered 410 Gone; it could not be marked as gone because of other changes");
    }
}
