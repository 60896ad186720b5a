//! Batch attempt: one request for several tasks.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Fuse, FusedFuture, join, join_all};
use futures_util::{FutureExt, StreamExt, stream};
use nobat_core::json::Json;
use nobat_core::limits::{CallHealth, CallReport};
use nobat_core::ports::{ClaimResult, Heartbeat, Settlement};
use nobat_core::task::lifecycle::{Event, Retry, TransitionError};
use nobat_core::task::{ErrorCode, Task, TaskKey};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::id::TaskId;
use nobat_core::types::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::admission::plan::{Admission, AttemptPlan};
use crate::execution::runner::{HEARTBEAT, HEARTBEAT_RETRY, RECHECK_DELAY, Runner};
use crate::handler::BatchOutcome;
use crate::handler::context::TaskContext;
use crate::handler::failure::Failure;

/// Number of companions claimed in parallel. It covers the largest batch: their leases are not renewed during
/// the claims.
const MAX_IN_FLIGHT: usize = 100;
/// Maximum duration of the admission check of a companion.
const ADMISSION: Duration = Duration::from_secs(5);

/// One task of the batch.
struct BatchEntry {
    task: Task,
    context: TaskContext,
    plan: AttemptPlan,
    /// True for the task that holds the endpoint's permit, which counts for the whole batch.
    is_leader: bool,
}

/// Result of claiming a companion.
enum Fetched {
    Part(Box<BatchEntry>),
    /// It was claimed but may not join. The event is to be stored.
    Aside(Box<Task>, Event),
    /// It cannot be claimed. It runs by itself later.
    Gone,
}

/// Result of the batch attempt, as far as its worker knows.
enum Run {
    Over(BatchOutcome<Json>),
    /// The worker is stopping.
    Interrupted,
}

/// Outcome of one task or of the whole request. `None` if the worker was stopped before.
type Outcome = Option<Result<Json, Failure>>;

impl BatchEntry {
    fn new(task: Task, plan: AttemptPlan, is_leader: bool) -> Self {
        Self { context: TaskContext::new(&task, &plan), task, plan, is_leader }
    }
}

impl Runner {
    /// Runs a task together with its companions. The returned settlement concerns the task's own hint. The
    /// companions' hints arrive later and find nothing to do.
    pub(crate) async fn run_together(
        &self,
        leader: Task,
        mut plan: AttemptPlan,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Settlement {
        let (companions, began) = (plan.companions.take().unwrap_or_default(), self.clock.now());
        let (mut parts, mut aside) = (Vec::new(), Vec::new());
        for fetched in self.fetch(&leader, &plan, companions).await {
            match fetched {
                Fetched::Part(part) => parts.push(*part),
                Fetched::Aside(task, event) => aside.push((*task, event)),
                Fetched::Gone => {}
            }
        }
        parts.push(BatchEntry::new(leader, plan, true));
        // The same tasks make the same request, whatever order they arrive in.
        parts.sort_by(|one, other| one.context.idempotency_key.cmp(&other.context.idempotency_key));
        let work = async {
            let started = self.clock.now();
            let run = self.execute_together(&parts, limit.saturating_sub(started.since(began)), stop).await;
            self.settle_together(parts, run, started, stop).await
        };
        // The request does not wait for the writes about tasks that stay behind.
        let set_aside =
            join_all(aside.into_iter().map(|(task, event)| self.settle(task.key(), Some(task), event, stop)));
        join(work, set_aside).await.0
    }

    /// Claims the companions and checks whether each may join.
    async fn fetch(&self, leader: &Task, plan: &AttemptPlan, companions: Vec<TaskId>) -> Vec<Fetched> {
        let fetched = stream::iter(companions)
            .map(|id| self.fetch_one(TaskKey { tenant: leader.tenant.clone(), id }, leader, plan));
        fetched.buffer_unordered(MAX_IN_FLIGHT).collect().await
    }

    async fn fetch_one(&self, name: TaskKey, leader: &Task, plan: &AttemptPlan) -> Fetched {
        let mut claim = self.claim_now(&name).await;
        if matches!(claim, Ok(ClaimResult::Refused(TransitionError::Running, _))) {
            // It may be about to be held, by the worker that has just added it to the batch.
            self.clock.sleep(RECHECK_DELAY).await;
            claim = self.claim_now(&name).await;
        }
        let task = match claim {
            Ok(ClaimResult::Granted(task)) => task,
            // It was canceled, or another worker runs it.
            Ok(ClaimResult::Refused(..) | ClaimResult::Missing) => return Fetched::Gone,
            Err(error) => {
                tracing::warn!(task = %name.id, %error, "a batch member could not be claimed; it starts later, without this batch");
                return Fetched::Gone;
            }
        };
        let token = task.token;
        if !self.is_alike(&task, leader) {
            return Fetched::Aside(Box::new(task), Event::Release { token });
        }
        let admission = tokio::select! {
            biased;
            admission = self.admit_along(&task, plan) => admission,
            () = self.clock.sleep(ADMISSION) => self.unavailable(&task, ADMISSION),
        };
        match admission {
            Admission::Go(own) => Fetched::Part(Box::new(BatchEntry::new(task, own, false))),
            Admission::Hold { reason, until, reserved } => {
                Fetched::Aside(Box::new(task), Event::Hold { token, reason, until, reserved })
            }
        }
    }

    /// Returns true if this program version would batch the two tasks as well.
    fn is_alike(&self, task: &Task, leader: &Task) -> bool {
        let batch_key =
            |task: &Task| self.handlers.get(&task.kind).and_then(|handler| handler.batch_key(&task.payload));
        task.kind == leader.kind
            && task.options.endpoint == leader.options.endpoint
            && batch_key(task) == batch_key(leader)
    }

    /// Runs the handler and keeps all leases alive.
    async fn execute_together(&self, parts: &[BatchEntry], limit: Duration, stop: &CancellationToken) -> Run {
        let Some(handler) = parts.first().and_then(|part| self.handlers.get(&part.task.kind)) else {
            return Run::Over(Err(Failure::held(
                HeldReason::NoHandler,
                "this worker has no handler for the kind of the task",
            )));
        };
        let granted = parts.iter().map(|part| part.context.timeout).min().unwrap_or(limit).min(limit);
        let mut work =
            handler.run_batch(parts.iter().map(|part| (&part.task.payload, &part.context)).collect());
        let mut timeout = pin!(self.clock.sleep(granted));
        // The leases began with the claims.
        let oldest = parts.iter().filter_map(|part| part.task.started_at()).min().unwrap_or(self.clock.now());
        let first = HEARTBEAT.saturating_sub(self.clock.now().since(oldest));
        let (mut pulse, mut beating) = (pin!(self.clock.sleep(first).fuse()), pin!(Fuse::terminated()));
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return Run::Over(outcome),
                () = &mut timeout => {
                    let error = format!("the attempt took longer than {} seconds", granted.as_secs_f64());
                    return Run::Over(Err(Failure::retry(ErrorCode::TIMEOUT, error)));
                }
                () = stop.cancelled() => return Run::Interrupted,
                () = &mut pulse => beating.set(self.beat_all(parts).fuse()),
                all_renewed = &mut beating, if !beating.is_terminated() => {
                    pulse.set(self.clock.sleep(if all_renewed { HEARTBEAT } else { HEARTBEAT_RETRY }).fuse());
                }
            }
        }
    }

    /// Renews all leases. Returns true if no renewal failed. Storing an outcome shows whether its lease was
    /// lost or its task canceled.
    async fn beat_all(&self, parts: &[BatchEntry]) -> bool {
        let beats = parts.iter().map(async |part| {
            let ((), beat) = join(self.limiter.renew(&part.plan.permits), self.heartbeat(&part.context, part.task.token, None)).await;
            match &beat {
                Ok(Heartbeat::Renewed { .. }) => {}
                Ok(Heartbeat::Lost) => tracing::warn!(task = %part.task.id, "the lease was lost; the result is not stored"),
                Err(error) => tracing::warn!(task = %part.task.id, %error, "a lease could not be renewed yet; the worker tries again"),
            }
            beat.is_ok()
        });
        join_all(beats).await.into_iter().all(|is_renewed| is_renewed)
    }

    async fn settle_together(
        &self,
        parts: Vec<BatchEntry>,
        run: Run,
        started: Timestamp,
        stop: &CancellationToken,
    ) -> Settlement {
        let (whole, mut each): (Outcome, Vec<Outcome>) = match run {
            Run::Over(Ok(outcomes)) => (Some(Ok(Json::null())), outcomes.into_iter().map(Some).collect()),
            Run::Over(Err(failure)) => (Some(Err(failure.clone())), vec![Some(Err(failure)); parts.len()]),
            Run::Interrupted => (None, vec![None; parts.len()]),
        };
        each.resize(
            parts.len(),
            Some(Err(Failure::retry(
                ErrorCode::HANDLER_ERROR,
                "the handler returned no outcome for this task",
            ))),
        );
        let took = self.clock.now().since(started);
        let mut events = Vec::with_capacity(parts.len());
        let mut of_endpoint = None;
        for (part, outcome) in parts.iter().zip(each) {
            let event = |outcome: Outcome| match outcome {
                Some(outcome) => self.event(&part.task, outcome, &part.context, &part.plan),
                None => Event::Interrupt { token: part.task.token },
            };
            // The endpoint saw one request, so its limiter gets one report. A 410 counts as new if it is new
            // to any of the tasks.
            let of_whole = event(whole.clone());
            let is_gone =
                matches!(of_whole, Event::Fail { retry: Retry::Defer(HeldReason::EndpointGone, _), .. });
            if is_gone || (part.is_leader && of_endpoint.is_none()) {
                of_endpoint = Some(of_whole);
            }
            events.push(event(outcome));
        }
        let of_endpoint = of_endpoint.as_ref();
        let settled =
            parts.into_iter().zip(events).map(|(BatchEntry { task, context, plan, is_leader }, event)| {
                let (name, known) = (task.key(), (!context.has_beaten()).then_some(task));
                let report = async move {
                    if is_leader {
                        self.report(&context.name.tenant, plan, of_endpoint, started).await;
                    } else {
                        self.limiter
                            .complete(
                                plan.permits,
                                &CallReport { health: CallHealth::Unknown, took, pause_until: None },
                                None,
                            )
                            .await;
                    }
                };
                async move { (is_leader, join(self.settle(name, known, event, stop), report).await.0) }
            });
        let settlements = join_all(settled).await;
        settlements
            .into_iter()
            .find_map(|(is_leader, settlement)| is_leader.then_some(settlement))
            .unwrap_or(Settlement::Return)
    }
}
