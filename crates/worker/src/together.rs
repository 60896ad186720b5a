//! One attempt of several tasks at once, which were gathered to go to their endpoint together.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Fuse, FusedFuture, join, join_all};
use futures_util::{FutureExt, StreamExt, stream};
use nobat_core::flow::{Report, Verdict};
use nobat_core::id::TaskId;
use nobat_core::json::Json;
use nobat_core::lifecycle::Event;
use nobat_core::ports::{Beat, Claim, Settlement, TaskName};
use nobat_core::task::{ErrorCode, HeldReason, Task};
use nobat_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Course};
use crate::context::TaskContext;
use crate::handler::{Failure, Together};
use crate::run::{BEAT, Runner};

/// How many claims are under way at a time.
const SIDE_BY_SIDE: usize = 32;

/// One of them.
struct Part {
    task: Task,
    context: TaskContext,
    course: Course,
}

/// What became of the attempt, as far as its worker knows.
enum Run {
    Over(Together<Json>),
    /// The worker is being stopped.
    Interrupted,
}

/// What came of a part, or of the whole; `None`, if the worker was stopped before that.
type Outcome = Option<Result<Json, Failure>>;

impl Part {
    fn new(task: Task, course: Course) -> Self {
        Self { context: TaskContext::new(&task, &course), task, course }
    }
}

impl Runner {
    /// Runs a task together with its companions. The settlement is about the task's own message: those of the others come later, and find
    /// nothing to do.
    pub(crate) async fn run_together(&self, leader: Task, mut course: Course, limit: Duration, stop: &CancellationToken) -> Settlement {
        let companions = course.companions.take().unwrap_or_default();
        let fetched = self.fetch(&leader, &course, companions, stop).await;
        let parts: Vec<Part> = [Part::new(leader, course)].into_iter().chain(fetched).collect();
        let started = self.clock.now();
        let run = self.execute_together(&parts, limit, stop).await;
        self.settle_together(parts, run, started, stop).await
    }

    /// The companions that can go along. Those that may not are held; those that cannot be had come for themselves.
    async fn fetch(&self, leader: &Task, course: &Course, companions: Vec<TaskId>, stop: &CancellationToken) -> Vec<Part> {
        let fetched =
            stream::iter(companions).map(|id| self.fetch_one(TaskName { tenant: leader.tenant.clone(), id }, leader, course, stop));
        fetched.buffered(SIDE_BY_SIDE).filter_map(std::future::ready).collect().await
    }

    async fn fetch_one(&self, name: TaskName, leader: &Task, course: &Course, stop: &CancellationToken) -> Option<Part> {
        let task = match self.claim_now(&name).await {
            Ok(Claim::Granted(task)) => task,
            // It was called off, or somebody runs it.
            Ok(Claim::Refused(..) | Claim::Missing) => return None,
            Err(error) => {
                tracing::warn!(task = %name.id, %error, "a task could not be claimed to go along; it comes for itself");
                return None;
            }
        };
        let token = task.token;
        let is_of_them = task.kind == leader.kind && task.settings.endpoint == leader.settings.endpoint;
        let event = match self.admit_along(&task, course).await {
            Admission::Go(own) if is_of_them => return Some(Part::new(task, own)),
            Admission::Go(own) => {
                self.gate.give_back(own.passes).await;
                Event::Release { token }
            }
            Admission::Hold { reason, until, promise } => Event::Hold { token, reason, until, promise },
        };
        self.settle(name, Some(task), event, stop).await;
        None
    }

    /// Runs the handler and keeps all leases alive around it.
    async fn execute_together(&self, parts: &[Part], limit: Duration, stop: &CancellationToken) -> Run {
        let Some(handler) = parts.first().and_then(|part| self.handlers.get(&part.task.kind)) else {
            return Run::Over(Err(Failure::held(HeldReason::NoHandler, "nobody here runs this kind")));
        };
        let granted = parts.iter().map(|part| part.context.timeout).min().unwrap_or(limit).min(limit);
        let mut work = handler.run_together(parts.iter().map(|part| (&part.task.payload, &part.context)).collect());
        let mut timeout = pin!(self.clock.sleep(granted));
        let (mut pulse, mut beating) = (pin!(self.clock.sleep(BEAT).fuse()), pin!(Fuse::terminated()));
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
                () = &mut beating, if !beating.is_terminated() => pulse.set(self.clock.sleep(BEAT).fuse()),
            }
        }
    }

    /// Renews all leases. Whose is lost, or cannot be renewed, is found out when its outcome is stored; so is who was called off.
    async fn beat_all(&self, parts: &[Part]) {
        let beats = parts.iter().map(async |part| {
            self.gate.renew(&part.course.passes).await;
            match self.beat(&part.context, part.task.token, None).await {
                Ok(Beat::Renewed { .. }) => {}
                Ok(Beat::Lost) => tracing::warn!(task = %part.task.id, "the lease was lost; what came of it is not stored"),
                Err(error) => tracing::warn!(task = %part.task.id, %error, "a lease could not be renewed yet"),
            }
        });
        join_all(beats).await;
    }

    async fn settle_together(&self, parts: Vec<Part>, run: Run, started: Timestamp, stop: &CancellationToken) -> Settlement {
        let (whole, mut each): (Outcome, Vec<Outcome>) = match run {
            Run::Over(Ok(outcomes)) => (Some(Ok(Json::null())), outcomes.into_iter().map(Some).collect()),
            Run::Over(Err(failure)) => (Some(Err(failure.clone())), vec![Some(Err(failure)); parts.len()]),
            Run::Interrupted => (None, vec![None; parts.len()]),
        };
        each.resize(parts.len(), Some(Err(Failure::retry(ErrorCode::HANDLER_ERROR, "the handler said nothing of this task"))));
        let passed = Report { verdict: Verdict::Unknown, took: self.clock.now().since(started), pause_until: None };
        let settled = parts.into_iter().zip(each).enumerate().map(|(place, (part, outcome))| {
            let Part { task, context, course } = part;
            let token = task.token;
            let event = |outcome: Outcome| match outcome {
                Some(outcome) => self.event(&task, outcome, &context, &course),
                None => Event::Interrupt { token },
            };
            // The endpoint saw one request, for which the leader has its permission: what became of that is what it is told.
            let (event, of_whole) = (event(outcome), (place == 0).then(|| event(whole.clone())));
            let (name, known) = (task.name(), (!context.has_beaten()).then_some(task));
            let report = async move {
                match of_whole {
                    Some(event) => self.report(&context.name.tenant, course, Some(&event), started).await,
                    None => self.gate.leave(course.passes, &passed, None).await,
                }
            };
            async move { join(self.settle(name, known, event, stop), report).await.0 }
        });
        join_all(settled).await.first().copied().unwrap_or(Settlement::Return)
    }
}
