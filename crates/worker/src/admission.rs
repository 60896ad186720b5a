//! What stands in the way of a task that was claimed; and if nothing does, how it runs.

use std::sync::Arc;
use std::time::Duration;

use nobat_core::audit::{Action, Actor, Entry};
use nobat_core::backend::changes;
use nobat_core::directory::{Lanes, flows_of};
use nobat_core::endpoint::{Endpoint, Meaning, Standing};
use nobat_core::flow::{FlowName, FlowOf, Gathered, Member, Place, Promise, Report, Reserved, Verdict, patience};
use nobat_core::id::TaskId;
use nobat_core::json::Json;
use nobat_core::lifecycle::{Event, Retry};
use nobat_core::name::{Name, Tenant};
use nobat_core::ports::StoreError;
use nobat_core::registry::Recorded;
use nobat_core::retry::RetryPolicy;
use nobat_core::task::{HeldReason, Settings, Task, TaskError};
use nobat_core::time::Timestamp;
use serde::Deserialize;

use crate::gate::{Entry as Answer, Limited, Passes};
use crate::run::Runner;

/// What is said to a task that wants to start.
pub(crate) enum Admission {
    /// Start.
    Go(Course),
    /// Not yet.
    Hold {
        /// Why not.
        reason: HeldReason,
        /// When to ask again.
        until: Timestamp,
        /// What it holds of its flows until then.
        reserved: Reserved,
    },
}

/// How a task runs that may.
#[derive(Default)]
pub(crate) struct Course {
    /// What it has taken of its flows.
    pub(crate) passes: Passes,
    /// The endpoint that it goes to, as it is now.
    pub(crate) endpoint: Option<(Name, Arc<Endpoint>)>,
    /// When to try again, where it left that to its endpoint.
    pub(crate) policy: Option<RetryPolicy>,
    /// The flow that rests if the other side asks to be left alone.
    pub(crate) resting: Option<FlowOf>,
    /// Who goes with it, of a task that was gathered with others: perhaps nobody.
    pub(crate) companions: Option<Vec<TaskId>>,
}

/// How long a task waits whose flow could not be asked.
const FLOW_AWAY: Duration = Duration::from_secs(10);
/// How often a change is tried that others are in the way of.
const MAX_CONFLICTS: usize = 5;

impl Course {
    /// What an attempt that failed says of the other side: by what its endpoint says of answers, whatever the task itself makes of them. That
    /// there was no answer is bad.
    fn verdict(&self, error: &TaskError) -> Verdict {
        let answers = self.endpoint.as_ref().map(|(_, endpoint)| endpoint.answers.clone()).unwrap_or_default();
        match error.code.status() {
            // "Not so often" says that it is well.
            Some(429) => Verdict::Unknown,
            Some(status) if answers.meaning(status) != Meaning::Retry => Verdict::Good,
            _ => Verdict::Bad,
        }
    }

    /// What an attempt that went well by its task's own lights says of the other side.
    fn verdict_of(&self, result: &Json) -> Verdict {
        #[derive(Deserialize)]
        struct Answered {
            status: u16,
        }
        match (&self.endpoint, result.parse::<Answered>()) {
            (Some((_, endpoint)), Ok(Answered { status })) if endpoint.answers.meaning(status) == Meaning::Retry && status != 429 => {
                Verdict::Bad
            }
            _ => Verdict::Good,
        }
    }

    /// Whether nobody wants to hear what comes of it.
    pub(crate) fn is_free(&self) -> bool {
        self.passes.are_none()
    }

    /// How long an attempt may take.
    pub(crate) fn timeout(&self, settings: &Settings) -> Duration {
        let endpoint = self.endpoint.as_ref().filter(|_| settings.left.timeout);
        endpoint.map_or(settings.timeout, |(_, endpoint)| endpoint.timeout.unwrap_or(Settings::DEFAULT_TIMEOUT))
    }

    /// How many attempts there are.
    pub(crate) fn max_attempts(&self, settings: &Settings) -> u32 {
        self.policy.as_ref().unwrap_or(&settings.retry).max_attempts()
    }
}

impl Runner {
    /// Asks everything that a task has to pass.
    pub(crate) async fn admit(&self, task: &Task) -> Admission {
        self.ask(task).await.unwrap_or_else(|error| self.not_known(task, &error))
    }

    fn not_known(&self, task: &Task, error: &StoreError) -> Admission {
        tracing::warn!(task = %task.id, %error, "what is laid down for a task cannot be read, or its flow not be asked");
        self.unavailable(task, FLOW_AWAY)
    }

    /// The task keeps what it holds, and asks again after that long.
    pub(crate) fn unavailable(&self, task: &Task, pause: Duration) -> Admission {
        let (until, reserved) = (self.clock.now() + pause, task.turn.reserved.clone());
        Admission::Hold { reason: HeldReason::FlowUnavailable, until, reserved }
    }

    async fn ask(&self, task: &Task) -> Result<Admission, StoreError> {
        let lanes = self.directory.lanes(&task.tenant, &task.queue, &task.kind).await?;
        if lanes.queue.paused || lanes.kind.paused {
            return Ok(self.patiently(task, HeldReason::Paused).await);
        }
        let endpoint = match &task.settings.endpoint {
            None => None,
            Some(name) => match self.directory.endpoint(&task.tenant, name).await? {
                None => return Ok(self.patiently(task, HeldReason::NoEndpoint).await),
                Some(endpoint) => match endpoint.standing {
                    Standing::Open => Some((name.clone(), endpoint)),
                    Standing::Paused => return Ok(self.patiently(task, HeldReason::Paused).await),
                    Standing::Gone => return Ok(self.patiently(task, HeldReason::EndpointGone).await),
                },
            },
        };
        let others = self.others(task, &lanes).await?;
        let course = Course {
            policy: policy(task, endpoint.as_ref().map(|(_, endpoint)| &**endpoint), &lanes),
            resting: resting(task),
            endpoint,
            ..Course::default()
        };
        let Some((name, endpoint)) = &course.endpoint else { return self.enter(task, &others, course).await };
        let of_endpoint = limited(&task.tenant, FlowOf::Endpoint(name.clone()), endpoint.limits);
        let likeness = endpoint.batch.and(self.handlers.get(&task.kind)).and_then(|handler| handler.likeness(&task.payload));
        match endpoint.batch.zip(likeness) {
            Some((batch, likeness)) => {
                let of = FlowOf::Batch(name.clone(), likeness);
                let apart = endpoint.limits.pace.map_or(Duration::ZERO, |pace| pace.period / pace.rate.get());
                Box::pin(self.gather(task, of, Gathered { batch, apart }, &of_endpoint, &others, course)).await
            }
            None => self.enter(task, &[vec![of_endpoint], others].concat(), course).await,
        }
    }

    /// What a task that goes along with another has to pass: all but the endpoint, which sees one request.
    pub(crate) async fn admit_along(&self, task: &Task, leader: &Course) -> Admission {
        self.ask_along(task, leader).await.unwrap_or_else(|error| self.not_known(task, &error))
    }

    async fn ask_along(&self, task: &Task, leader: &Course) -> Result<Admission, StoreError> {
        let lanes = self.directory.lanes(&task.tenant, &task.queue, &task.kind).await?;
        if lanes.queue.paused || lanes.kind.paused {
            return Ok(self.patiently(task, HeldReason::Paused).await);
        }
        let others = self.others(task, &lanes).await?;
        if task.turn.reserved.promise.as_ref().is_some_and(|promise| others.iter().all(|flow| flow.name.of != promise.of)) {
            // Of the endpoint: the leader's is for all.
            let reserved = Reserved { batch: None, ..task.turn.reserved.clone() };
            self.give_back(task, reserved).await;
        }
        let policy = policy(task, leader.endpoint.as_ref().map(|(_, endpoint)| &**endpoint), &lanes);
        self.enter(task, &others, Course { policy, endpoint: leader.endpoint.clone(), resting: resting(task), ..Course::default() }).await
    }

    /// What a task has to pass besides its endpoint.
    async fn others(&self, task: &Task, lanes: &Lanes) -> Result<Vec<Limited>, StoreError> {
        let key = match &task.settings.flow_key {
            Some(key) => Some(self.directory.flow_key(&task.tenant, key).await?),
            None => None,
        };
        let flows = flows_of(task, lanes, None, key.as_deref());
        Ok(flows.into_iter().map(|(of, limits)| limited(&task.tenant, of, limits)).collect())
    }

    async fn enter(&self, task: &Task, flows: &[Limited], course: Course) -> Result<Admission, StoreError> {
        if flows.is_empty() {
            return Ok(Admission::Go(course));
        }
        Ok(match self.gate.enter(flows, &task.turn, course.passes).await? {
            Answer::Go(passes) => Admission::Go(Course { passes, ..course }),
            Answer::Wait { wait, promise } => Admission::Hold { reason: wait.reason, until: wait.until, reserved: promise.into() },
        })
    }

    /// Has a task wait for others; if it is time, it leads them through.
    async fn gather(
        &self,
        task: &Task,
        of: FlowOf,
        gathered: Gathered,
        endpoint: &Limited,
        others: &[Limited],
        course: Course,
    ) -> Result<Admission, StoreError> {
        let batch = if let FlowOf::Batch(_, likeness) = of { Some(likeness) } else { None };
        let name = FlowName { tenant: task.tenant.clone(), of };
        let bytes = u64::try_from(task.payload.get().len()).unwrap_or(u64::MAX);
        let member = Member { id: task.id, bytes, deadline: task.settings.expires_at, times: task.turn.times, spread: self.spread() };
        // Whoever has waited for a limit of its own goes when it is called, with whoever is there: who waits again loses that place.
        let is_called =
            |promise: &Promise| promise.booking.at() <= self.clock.now() && others.iter().any(|flow| flow.name.of == promise.of);
        match self.gate.gather(&name, gathered, member).await? {
            Place::Wait(until) if !task.turn.reserved.promise.as_ref().is_some_and(is_called) => {
                self.give_back(task, Reserved { batch: None, ..task.turn.reserved.clone() }).await;
                return Ok(Admission::Hold { reason: HeldReason::Gathering, until, reserved: Reserved { promise: None, batch } });
            }
            Place::Wait(_) | Place::Lead => {}
        }
        let course = match self.enter(task, others, course).await? {
            Admission::Go(course) => course,
            // What it waits for is its own affair, and no reason for others to wait for it.
            held @ Admission::Hold { .. } => {
                self.give_back(task, Reserved { promise: None, batch }).await;
                return Ok(held);
            }
        };
        let course = match self.enter(task, std::slice::from_ref(endpoint), course).await? {
            Admission::Go(course) => course,
            Admission::Hold { reason, until, reserved } => {
                self.gate.put_off(&name, until).await;
                return Ok(Admission::Hold { reason, until, reserved: Reserved { batch, ..reserved } });
            }
        };
        let taken = self.gate.take(&name, task.id).await;
        let mut members = match taken {
            Ok(members) => members,
            Err(error) => {
                self.gate.give_back(course.passes.keeping(task.turn.reserved.promise.as_ref())).await;
                return Err(error);
            }
        };
        if members.is_empty() {
            // Somebody was here at the same time, took it for one who waits, and finds it at work.
            self.gate.give_back(course.passes).await;
            let until = self.clock.now() + patience(0, self.spread());
            return Ok(Admission::Hold { reason: HeldReason::Gathering, until, reserved: Reserved::default() });
        }
        members.retain(|member| *member != task.id);
        // What the other side asks for is about the request, whichever keys the tasks in it have.
        let resting = Some(endpoint.name.of.clone());
        Ok(Admission::Go(Course { companions: Some(members), resting, ..course }))
    }

    /// For what ends when somebody says so, and nobody knows when that is. Nobody waits for the task meanwhile: it holds nothing of its flows.
    async fn patiently(&self, task: &Task, reason: HeldReason) -> Admission {
        self.give_back(task, task.turn.reserved.clone()).await;
        let until = self.clock.now() + patience(task.turn.times, self.spread());
        Admission::Hold { reason, until, reserved: Reserved::default() }
    }

    /// Gives back what a task held of its flows ([`nobat_core::backend::Backend::give_back`]), together with whatever else this process writes.
    async fn give_back(&self, task: &Task, reserved: Reserved) {
        for (of, change) in changes(task, reserved) {
            let successor = self.gate.change(&FlowName { tenant: task.tenant.clone(), of }, change).await;
            self.backend.lead(&task.tenant, successor, self.clock.now()).await;
        }
    }

    /// Tells the flows of a task what came of its attempt, and notes it of an endpoint that it is gone.
    pub(crate) async fn report(&self, tenant: &Tenant, course: Course, event: Option<&Event>, started: Timestamp) {
        if let Some(Event::Fail { retry: Retry::PutOff(HeldReason::EndpointGone, _), .. }) = event
            && let Some((name, endpoint)) = &course.endpoint
        {
            self.close(tenant, name, endpoint).await;
        }
        let (verdict, pause_until) = match event {
            // Nothing was tried.
            Some(Event::Hold { .. }) => return self.gate.give_back(course.passes).await,
            Some(Event::Succeed { result, .. }) => (course.verdict_of(result), None),
            Some(Event::Fail { retry: Retry::PutOff(HeldReason::RetryAfter, until), error, .. }) => (course.verdict(error), Some(*until)),
            Some(Event::Fail { retry, error, .. }) if *retry != Retry::Never || error.code.status().is_some() => {
                (course.verdict(error), None)
            }
            _ => (Verdict::Unknown, None),
        };
        let report = Report { verdict, took: self.clock.now().since(started), pause_until };
        self.gate.leave(course.passes, &report, course.resting.as_ref()).await;
    }

    /// Notes that an endpoint said that it is gone, so that nobody calls it until somebody looks after it.
    ///
    /// Only if it is still where it was called: at another address it may be there.
    async fn close(&self, tenant: &Tenant, name: &Name, called: &Endpoint) {
        for _ in 0..MAX_CONFLICTS {
            let endpoint = match self.backend.registry.endpoint(tenant, name).await {
                Ok(Some(endpoint)) if endpoint.is_open() && endpoint.is_where(called) => endpoint,
                Ok(_) => return self.directory.forget(tenant),
                Err(error) => return tracing::warn!(endpoint = %name, %error, "an endpoint is gone, and that could not be noted"),
            };
            let entry = Entry {
                tenant: tenant.clone(),
                at: self.clock.now(),
                actor: Actor::Worker,
                action: Action::EndpointGone,
                object: name.to_string(),
                mark: self.chance.bits(),
            };
            let closed = Endpoint { standing: Standing::Gone, version: endpoint.version + 1, ..endpoint };
            match self.backend.registry.write(vec![closed.record(tenant, name)], entry).await {
                Ok(Recorded::Done) => {
                    tracing::warn!(%tenant, endpoint = %name, "an endpoint is gone (410); what is meant for it is held");
                    return self.directory.forget(tenant);
                }
                Ok(Recorded::Conflict) => {}
                Err(error) => return tracing::warn!(endpoint = %name, %error, "an endpoint is gone, and that could not be noted"),
            }
        }
        tracing::warn!(endpoint = %name, "an endpoint is gone, and is being changed all the time");
    }
}

fn limited(tenant: &Tenant, of: FlowOf, limits: nobat_core::flow::Limits) -> Limited {
    Limited { name: FlowName { tenant: tenant.clone(), of }, limits }
}

/// The flow that rests if the other side asks to be left alone: that of the key, or else of the endpoint.
fn resting(task: &Task) -> Option<FlowOf> {
    let Settings { endpoint, flow_key, .. } = &*task.settings;
    flow_key.clone().map(FlowOf::Key).or_else(|| endpoint.clone().map(FlowOf::Endpoint))
}

/// When to try again, for a task that left it to its endpoint: as the endpoint says, or else its queue.
fn policy(task: &Task, endpoint: Option<&Endpoint>, lanes: &Lanes) -> Option<RetryPolicy> {
    let endpoint = endpoint.filter(|_| task.settings.left.retry)?;
    Some(endpoint.retry.clone().or_else(|| lanes.queue.retry.clone()).unwrap_or_default())
}
