//! One attempt: claim, run the handler, settle.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Fuse, FusedFuture, join};
use futures_util::{FutureExt, poll};
use nobat_core::backend::{ApplyError, Backend};
use nobat_core::directory::{Directory, Edition};
use nobat_core::flow::{Reserved, patience};
use nobat_core::json::Json;
use nobat_core::lifecycle::{Event, Refused, Retry, overdue};
use nobat_core::ports::{Beat, Chance, Claim, Clock, Delivery, Hint, LEASE, Settlement, StoreError, TaskName};
use nobat_core::retry::Spread;
use nobat_core::task::{CancelRequest, ErrorCode, HeldReason, Task};
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Course};
use crate::context::TaskContext;
use crate::gate::{Gate, Passes};
use crate::handler::{Failure, Handlers, Wish};

/// Runs tasks, whoever brings them.
#[derive(Clone)]
pub struct Runner {
    /// Where the tasks are.
    pub backend: Backend,
    /// What runs them.
    pub handlers: Handlers,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance, to spread retries with.
    pub chance: Arc<dyn Chance>,
    /// What is laid down for endpoints, queues, kinds and flow keys.
    pub directory: Arc<Directory>,
    /// The way through the flows.
    pub gate: Arc<Gate>,
}

/// A hint can overtake the read that would show its task; it is looked for once more after this pause.
pub(crate) const SECOND_LOOK: Duration = Duration::from_millis(200);
/// A hint that comes by less than this too early is waited for: queues count in whole seconds.
const EARLY: Duration = Duration::from_secs(1);
/// How far the clocks of two processes are taken to differ at most.
const CLOCK_SKEW: Duration = Duration::from_secs(15);
/// A lease is renewed every third of its time, so that two renewals may fail.
pub(crate) const BEAT: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// How soon a renewal that failed is tried again.
pub(crate) const BEAT_AGAIN: Duration = Duration::from_secs(2);
/// Progress is stored no more often than this.
const PROGRESS: Duration = Duration::from_secs(1);
/// How long a handler has to stop by itself once its task was called off.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// How long a task rests that cannot be begun here.
const REST: Duration = Duration::from_mins(1);
/// How soon a task asks again whose endpoint said that it is gone: by then it is known to be.
const GONE: Duration = Duration::from_secs(1);
/// How long it may take to find out whether a task may start.
const ADMISSION: Duration = BEAT;
/// How often in a row the other side may ask to be left alone before it is left alone no longer each time: then it is for a minute or so.
const PUT_OFF_DOUBLINGS: u32 = 6;
/// The pause between the first two tries to store an outcome; it doubles from one to the next.
const FIRST_SETTLE_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two tries to store an outcome.
const MAX_SETTLE_PAUSE: Duration = Duration::from_secs(10);

/// What became of an attempt, as far as its worker knows.
enum Run {
    /// The handler returned, or there is none.
    Over(Event),
    /// Somebody else has the task now; what this worker did is not to be stored.
    Lost,
}

impl Runner {
    /// Runs what is in that backend by those handlers. Processes that share an edition share what is changed in one of them.
    pub fn new(backend: Backend, handlers: Handlers, clock: Arc<dyn Clock>, chance: Arc<dyn Chance>, edition: Edition) -> Self {
        let directory = Arc::new(Directory::new(Arc::clone(&backend.registry), Arc::clone(&clock), edition));
        let gate = Arc::new(Gate::new(Arc::clone(&backend.flows), Arc::clone(&clock), Arc::clone(&chance)));
        Self { backend, handlers, clock, chance, directory, gate }
    }

    /// Runs what was delivered, and says whether the queue may forget it.
    ///
    /// When `stop` is fired the handler is dropped, and its task given back. Every other outcome is stored, whatever it is.
    pub async fn run(&self, delivery: Delivery, stop: &CancellationToken) -> Settlement {
        self.run_within(delivery, Duration::MAX, stop).await
    }

    /// The same, for a worker who can grant no attempt more than `limit`, whatever its task's timeout is.
    pub async fn run_within(&self, delivery: Delivery, limit: Duration, stop: &CancellationToken) -> Settlement {
        match self.claim(delivery).await {
            Ok(Some(task)) => self.attempt(task, limit, stop).await,
            Ok(None) => Settlement::Acknowledge,
            Err(error) => {
                tracing::warn!(%error, "a task could not be claimed; its hint will come again");
                Settlement::Return
            }
        }
    }

    /// The task, if it is ours to run.
    async fn claim(&self, delivery: Delivery) -> Result<Option<Task>, StoreError> {
        match delivery {
            Delivery::Claimed(task) => Ok(Some(*task)),
            Delivery::Hint { name, .. } => Box::pin(self.claim_hinted(&name)).await,
        }
    }

    async fn claim_hinted(&self, name: &TaskName) -> Result<Option<Task>, StoreError> {
        let mut claim = self.claim_now(name).await?;
        if matches!(claim, Claim::Missing) {
            self.clock.sleep(SECOND_LOOK).await;
            claim = self.claim_now(name).await?;
        }
        if let Claim::Refused(Refused::NotDue, task) = &claim
            && task.due_at.since(self.clock.now()) <= EARLY
        {
            self.clock.sleep(task.due_at.since(self.clock.now())).await;
            claim = self.claim_now(name).await?;
        }
        match claim {
            Claim::Granted(task) => Ok(Some(task)),
            Claim::Missing => Ok(None),
            Claim::Refused(Refused::NotDue, task) => {
                self.hint_again(&task).await?;
                Ok(None)
            }
            Claim::Refused(_, task) => {
                self.judge(&task).await?;
                Ok(None)
            }
        }
    }

    /// A hint that comes a little early was sent by a clock ahead of ours: acknowledged, it would leave the task to the sweep.
    async fn hint_again(&self, task: &Task) -> Result<(), StoreError> {
        let early = task.due_at.since(self.clock.now());
        if early > CLOCK_SKEW {
            return Ok(());
        }
        self.backend.queue.send(vec![Hint::new(task.name(), early)]).await
    }

    pub(crate) async fn claim_now(&self, name: &TaskName) -> Result<Claim, StoreError> {
        let now = self.clock.now();
        self.backend.store.claim(name, now + LEASE, now).await
    }

    /// A task that cannot be claimed may have a lease that ran out, or a deadline that passed.
    async fn judge(&self, task: &Task) -> Result<(), StoreError> {
        let now = self.clock.now();
        let Some(event) = overdue(task, self.spread(), now) else { return Ok(()) };
        match self.backend.apply(&task.name(), None, event, now).await {
            Ok(_) | Err(ApplyError::Missing | ApplyError::Refused(_)) => Ok(()),
            Err(ApplyError::Store(error)) => Err(error),
        }
    }

    async fn attempt(&self, task: Task, limit: Duration, stop: &CancellationToken) -> Settlement {
        let token = task.token;
        let not_yet = tokio::select! {
            biased;
            // What it has taken by then comes back with what it was kept in, or by itself.
            () = stop.cancelled() => Err(Event::Release { token }),
            admission = self.admit(&task) => match admission {
                Admission::Go(course) => Ok(course),
                Admission::Hold { reason, until, reserved } => Err(Event::Hold { token, reason, until, reserved }),
            },
            // It has a lease, which is not renewed before it runs.
            () = self.clock.sleep(ADMISSION) => {
                let (until, reserved) = (self.clock.now() + BEAT_AGAIN, task.turn.reserved.clone());
                Err(Event::Hold { token, reason: HeldReason::FlowUnavailable, until, reserved })
            }
        };
        let course = match not_yet {
            Ok(course) => course,
            Err(event) => return self.settle(task.name(), Some(task), event, stop).await,
        };
        if course.companions.is_some() {
            return Box::pin(self.run_together(task, course, limit, stop)).await;
        }
        let (context, started) = (TaskContext::new(&task, &course), self.clock.now());
        match self.execute(&task, &context, &course, limit, stop).await {
            Run::Lost => {
                tracing::warn!(task = %task.id, token, "the lease was lost; what the handler did is not stored");
                self.report(&context.name.tenant, course, None, started).await;
                Settlement::Acknowledge
            }
            Run::Over(event) => {
                // Every beat is a write, and outdates the copy that was claimed.
                let (name, known) = (task.name(), (!context.has_beaten()).then_some(task));
                if course.is_free() {
                    return self.settle(name, known, event, stop).await;
                }
                let report = self.report(&context.name.tenant, course, Some(&event), started);
                Box::pin(join(self.settle(name, known, event.clone(), stop), report)).await.0
            }
        }
    }

    /// Runs the handler and keeps the lease alive around it.
    async fn execute(&self, task: &Task, context: &TaskContext, course: &Course, limit: Duration, stop: &CancellationToken) -> Run {
        let token = task.token;
        let Some(handler) = self.handlers.get(&task.kind) else {
            return Run::Over(self.hold(token, HeldReason::NoHandler));
        };
        let mut work = handler.run(&task.payload, context);
        // What is done at once needs neither a timer nor a watch.
        if let std::task::Poll::Ready(outcome) = poll!(&mut work) {
            return Run::Over(self.event(task, outcome, context, course));
        }
        Box::pin(self.watch(work, task, context, course, limit, stop)).await
    }

    /// Waits for the handler's work, keeps its lease alive, and ends it at its timeout, at a cancellation or when the worker stops.
    async fn watch(
        &self,
        mut work: BoxFuture<'_, Result<Json, Failure>>,
        task: &Task,
        context: &TaskContext,
        course: &Course,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Run {
        let token = task.token;
        let granted = context.timeout.min(limit);
        let mut timeout = pin!(self.clock.sleep(granted));
        let mut pulse = pin!(self.clock.sleep(BEAT).fuse());
        let mut changed = pin!(self.backend.store.changed(&context.name).fuse());
        let mut renewing = pin!(self.renew(&course.passes));
        let (mut beating, mut grace, mut rest) = (pin!(Fuse::terminated()), pin!(Fuse::terminated()), pin!(Fuse::terminated()));
        let mut is_beat_due = false;
        loop {
            if is_beat_due && beating.is_terminated() {
                is_beat_due = false;
                beating.set(self.beat(context, token, context.take_progress()).fuse());
            }
            let is_resting = !rest.is_terminated();
            tokio::select! {
                biased;
                outcome = &mut work => {
                    self.store_last_progress(context, token).await;
                    return Run::Over(self.event(task, outcome, context, course));
                }
                () = &mut timeout => {
                    let error = format!("the attempt took longer than {} seconds", granted.as_secs_f64());
                    return Run::Over(self.failure(task, Failure::retry(ErrorCode::TIMEOUT, error), course));
                }
                () = stop.cancelled() => return Run::Over(Event::Interrupt { token }),
                () = &mut grace => return Run::Over(Event::Stop { token }),
                // Watched for anew before the beat is made that looks what it was, so that nothing can come in between.
                () = &mut changed => {
                    changed.set(self.backend.store.changed(&context.name).fuse());
                    is_beat_due = true;
                }
                beaten = &mut beating => match beaten {
                    Ok(Beat::Lost) => return Run::Lost,
                    Ok(Beat::Renewed { cancel }) => {
                        if cancel == CancelRequest::Requested && !context.is_canceled() {
                            context.cancel();
                            grace.set(self.clock.sleep(CANCEL_GRACE).fuse());
                        }
                        pulse.set(self.clock.sleep(BEAT).fuse());
                    }
                    // The handler goes on: whether its lease still held is found out when its outcome is stored.
                    Err(error) => {
                        tracing::warn!(task = %task.id, %error, "a lease could not be renewed yet");
                        pulse.set(self.clock.sleep(BEAT_AGAIN).fuse());
                    }
                },
                () = &mut pulse => is_beat_due = true,
                never = &mut renewing, if course.passes.have_slots() => match never {},
                () = &mut rest => {}
                () = context.progressed(), if !is_resting => {
                    rest.set(self.clock.sleep(PROGRESS).fuse());
                    is_beat_due = true;
                }
            }
        }
    }

    /// Says from time to time that the slots of an attempt are in use.
    pub(crate) async fn renew(&self, passes: &Passes) -> Infallible {
        loop {
            self.clock.sleep(BEAT).await;
            self.gate.renew(passes).await;
        }
    }

    pub(crate) async fn beat(&self, context: &TaskContext, token: u64, progress: Option<Json>) -> Result<Beat, StoreError> {
        context.note_beat();
        let until = self.clock.now() + LEASE;
        self.backend.store.beat(&context.name, token, until, progress).await
    }

    async fn store_last_progress(&self, context: &TaskContext, token: u64) {
        if let Some(progress) = context.take_progress()
            && let Err(error) = self.beat(context, token, Some(progress)).await
        {
            tracing::warn!(task = %context.name.id, %error, "the last progress note was not stored");
        }
    }

    pub(crate) fn event(&self, task: &Task, outcome: Result<Json, Failure>, context: &TaskContext, course: &Course) -> Event {
        let token = task.token;
        match outcome {
            Ok(result) => Event::Succeed { token, result },
            Err(_) if context.is_canceled() => Event::Stop { token },
            Err(failure) => self.failure(task, failure, course),
        }
    }

    pub(crate) fn failure(&self, task: &Task, failure: Failure, course: &Course) -> Event {
        let (token, Failure { error, retry, held, wish }) = (task.token, failure);
        match held {
            Some(reason @ HeldReason::ResourceExhausted) => return self.hold_briefly(task, reason),
            Some(reason) => return self.hold(token, reason),
            None => {}
        }
        let retry = match (wish, &course.resting) {
            // Whoever asks for no pause, or for a short one again and again, is not well, and is left alone for longer each time.
            (Some(Wish::Pause(pause)), Some(_)) => {
                let pause = pause.max(patience(task.turn.put_off.min(PUT_OFF_DOUBLINGS), self.spread()));
                Retry::PutOff(HeldReason::RetryAfter, self.clock.now() + pause)
            }
            // A task that is told so again, after somebody looked at it, is told it of itself: it fails, and closes nothing.
            (Some(Wish::Gone), Some(_)) if task.error.as_ref().is_none_or(|before| before.code != error.code) => {
                Retry::PutOff(HeldReason::EndpointGone, self.clock.now() + GONE)
            }
            _ => retry,
        };
        Event::Fail { token, error, retry, policy: course.policy.clone(), spread: self.spread() }
    }

    fn hold(&self, token: u64, reason: HeldReason) -> Event {
        Event::Hold { token, reason, until: self.clock.now() + REST, reserved: Reserved::default() }
    }

    /// Holds a task whose call this process lacks the resources for: up to 1 s the first time, then up to twice as long each time, at most
    /// for a minute.
    fn hold_briefly(&self, task: &Task, reason: HeldReason) -> Event {
        tracing::warn!(task = %task.id, "a call cannot be made: this process lacks handles, ports, memory or look-ups; the task is held");
        let until = self.clock.now() + patience(task.turn.times, self.spread()).min(REST);
        Event::Hold { token: task.token, reason, until, reserved: Reserved::default() }
    }

    pub(crate) fn spread(&self) -> Spread {
        Spread::from_bits(self.chance.bits())
    }

    /// Stores the outcome, and tries again until `stop` is fired if the store is away: the work is done, and given up it would
    /// be done again. That the lease may run out meanwhile does no harm, since what comes too late is refused.
    pub(crate) async fn settle(&self, name: TaskName, mut known: Option<Task>, event: Event, stop: &CancellationToken) -> Settlement {
        let mut pause = FIRST_SETTLE_PAUSE;
        loop {
            match self.backend.apply(&name, known.take(), event.clone(), self.clock.now()).await {
                Ok(_) => return Settlement::Acknowledge,
                Err(ApplyError::Missing | ApplyError::Refused(_)) => {
                    // Stored by an earlier try whose answer was lost, or overtaken by another attempt: settled either way.
                    tracing::info!(task = %name.id, "an outcome was refused: the lease was given up or lost");
                    return Settlement::Acknowledge;
                }
                Err(ApplyError::Store(error)) => tracing::warn!(task = %name.id, %error, "an outcome could not be stored yet"),
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
