//! Batch attempt: one request for several tasks.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::future::{join, join_all, pending};
use futures_util::{StreamExt, stream};
use nobat_core::json::Json;
use nobat_core::limits::{CallHealth, CallReport};
use nobat_core::ports::{ClaimResult, Settlement};
use nobat_core::task::lifecycle::{Event, Retry, TransitionError};
use nobat_core::task::{ErrorCode, Task, TaskKey};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::id::TaskId;
use nobat_core::types::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::admission::plan::{Admission, AttemptPlan};
use crate::execution::lease::LeaseLost;
use crate::execution::runner::{RECHECK_DELAY, Runner};
use crate::handler::BatchOutcome;
use crate::handler::context::TaskContext;
use crate::handler::failure::Failure;

/// Maximum number of batch members claimed in parallel. It covers the largest batch, so that all claims end
/// soon: leases are not renewed during the claims.
const MAX_IN_FLIGHT: usize = 100;
/// Maximum duration of the admission check of a batch member.
const ADMISSION: Duration = Duration::from_secs(5);

/// One task of the batch.
struct BatchEntry {
    task: Task,
    context: TaskContext,
    plan: AttemptPlan,
    /// True for the task that holds the endpoint's permit, which counts for the whole batch.
    is_leader: bool,
}

/// Result of claiming a batch member.
enum Fetched {
    Part(Box<BatchEntry>),
    /// The member was claimed but may not join the batch. The worker must apply the event to the task.
    Aside(Box<Task>, Event),
    /// The member cannot be claimed. If the task still has to run, it runs later without this batch.
    Gone,
}

/// End of a batch attempt, before the worker stores any outcome.
enum Run {
    Over(BatchOutcome<Json>),
    /// The worker is stopping.
    Interrupted,
}

/// Outcome of one task or of the whole request. `None` if the worker stopped before the request ended.
type Outcome = Option<Result<Json, Failure>>;

impl BatchEntry {
    fn new(task: Task, plan: AttemptPlan, is_leader: bool) -> Self {
        Self { context: TaskContext::new(&task, &plan), task, plan, is_leader }
    }
}

impl Runner {
    /// Runs the leader of a batch together with the members. The returned settlement is for the leader's
    /// hint. The members' hints arrive later and have no effect.
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
        // The request does not wait for the writes about tasks that do not join the batch.
        let set_aside =
            join_all(aside.into_iter().map(|(task, event)| self.settle(task.key(), Some(task), event, stop)));
        join(work, set_aside).await.0
    }

    /// Claims the batch members and checks if each member may join the batch.
    async fn fetch(&self, leader: &Task, plan: &AttemptPlan, companions: Vec<TaskId>) -> Vec<Fetched> {
        let fetched = stream::iter(companions)
            .map(|id| self.fetch_one(TaskKey { tenant: leader.tenant.clone(), id }, leader, plan));
        fetched.buffer_unordered(MAX_IN_FLIGHT).collect().await
    }

    async fn fetch_one(&self, name: TaskKey, leader: &Task, plan: &AttemptPlan) -> Fetched {
        let mut claim = self.claim_now(&name).await;
        if matches!(claim, Ok(ClaimResult::Refused(TransitionError::Running, _))) {
            // The worker that has just added the task to the batch may be about to hold the task.
            self.clock.sleep(RECHECK_DELAY).await;
            claim = self.claim_now(&name).await;
        }
        let task = match claim {
            Ok(ClaimResult::Granted(task)) => task,
            // The task was canceled, or another worker runs it.
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

    /// Returns true if this version of the program would put the two tasks into one batch. Another version
    /// may have added the task to the batch.
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
        let work = handler.run_batch(parts.iter().map(|part| (&part.task.payload, &part.context)).collect());
        let leases = async {
            join_all(parts.iter().map(|part| self.keep_lease_of(part))).await;
            pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            outcome = work => Run::Over(outcome),
            () = self.clock.sleep(granted) => Run::Over(Err(Failure::timeout(granted))),
            () = stop.cancelled() => Run::Interrupted,
            never = leases => match never {},
        }
    }

    /// Keeps the lease of one task. A lost lease does not end the request, because the other tasks need it.
    async fn keep_lease_of(&self, part: &BatchEntry) {
        let LeaseLost = self.lease_keeper().keep(&part.task, &part.context, &part.plan.permits).await;
        tracing::warn!(task = %part.task.id, "the lease was lost; the handler's result is not stored");
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
            let token = part.task.token;
            // The endpoint got one request, so its limiter gets one report about the whole request. A
            // canceled task does not hide a failure of the request. A 410 counts as the first 410 if it is
            // the first for any task of the batch.
            let of_whole = match &whole {
                Some(Ok(result)) => Event::Succeed { token, result: result.clone() },
                Some(Err(failure)) => self.failure(&part.task, failure.clone(), &part.plan),
                None => Event::Interrupt { token },
            };
            let is_gone =
                matches!(of_whole, Event::Fail { retry: Retry::Defer(HeldReason::EndpointGone, _), .. });
            if is_gone || (part.is_leader && of_endpoint.is_none()) {
                of_endpoint = Some(of_whole);
            }
            events.push(match outcome {
                Some(outcome) => self.event(&part.task, outcome, &part.context, &part.plan),
                None => Event::Interrupt { token },
            });
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
