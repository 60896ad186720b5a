//! Runs schedules: creates the tasks of planned times.

use std::time::Duration;

use crate::config::kind::{KindError, KindRegistry, Target};
use crate::config::schedule::Schedule;
use crate::json::Json;
use crate::ports::{Clock, StoreError};
use crate::schedules::advance::Overlap;
use crate::schedules::advance::{Advance, DecisionOutcome, ScheduleState, advance};
use crate::service::backend::Backend;
use crate::service::config_cache::ConfigCache;
use crate::submission::SubmissionContext;
use crate::submission::schedule::{SchedulePayload, read_template, schedule_task};
use crate::task::{State, Task, TaskKey, TaskOrigin, Wait};
use crate::types::field_error::FieldError;
use crate::types::id::TaskId;
use crate::types::name::{Name, Tenant};
use crate::types::time::Timestamp;

/// Creates the tasks of schedules.
#[derive(Clone, Copy)]
pub struct Schedules<'a> {
    /// Stores the tasks and the schedules.
    pub backend: &'a Backend,
    /// Cached endpoints and queues.
    pub config_cache: &'a ConfigCache,
    /// Kinds that this installation runs.
    pub kinds: &'a dyn KindRegistry,
    /// Maximum timeout of an attempt.
    pub max_timeout: Duration,
    /// Clock and timer.
    pub clock: &'a dyn Clock,
    /// Current time.
    pub now: Timestamp,
}

/// Number of times that [`Schedules::state`] waits for a worker that decides just now, and the pause before
/// each.
const MAX_CHECKS: usize = 20;
const CHECK_PAUSE: Duration = Duration::from_millis(50);

/// Registry that also accepts kinds that this worker does not run. The server checked the kind. A task of such
/// a kind is held until a worker runs it.
pub(crate) struct AnyKind<'a>(pub(crate) &'a dyn KindRegistry);

impl KindRegistry for AnyKind<'_> {
    fn check(&self, kind: &Name, payload: &Json, aim: Target) -> Result<Option<Wait>, KindError> {
        match self.0.check(kind, payload, aim) {
            Err(KindError::UnknownKind(_)) => Ok(None),
            checked => checked,
        }
    }

    fn check_authority(&self, pem: &str) -> Result<(), String> {
        self.0.check_authority(pem)
    }
}

/// Result of [`Schedules::tick`].
#[derive(Debug)]
pub enum Tick {
    /// The task that runs the schedule starts again at this time. The JSON is the state of the schedule. The
    /// task stores this state as its progress.
    Continue(Timestamp, Json),
    /// The schedule was removed, paused or replaced, or has no later planned time. The JSON is the result of
    /// the task that runs the schedule.
    End(Json),
}

/// Task to create: for a planned time, or for a client's request to run the schedule now.
#[derive(Clone, Copy)]
pub struct Start {
    /// Id of the task.
    pub id: TaskId,
    /// Planned time. `None` for a client's request to run the schedule now.
    pub planned_at: Option<Timestamp>,
}

/// Reads the state of a schedule from the task that runs the schedule. `None` if the task has stored no
/// state.
pub fn stored_state(task: &Task) -> Result<Option<ScheduleState>, StoreError> {
    let stored = task.progress.as_ref().or(task.result.as_ref());
    let read = |stored: &Json| stored.parse().map_err(|error| StoreError::Corrupt(error.to_string()));
    stored.filter(|stored| stored.get() != "null").map(read).transpose()
}

/// Returns the key of the task that runs the current version of a schedule.
pub fn task_key(tenant: &Tenant, name: &Name, schedule: &Schedule) -> TaskKey {
    let id = TaskId::of_schedule(tenant, name.as_str(), schedule.incarnation, schedule.version);
    TaskKey { tenant: tenant.clone(), id }
}

impl Schedules<'_> {
    /// Returns the current state of a schedule. The task that runs the schedule stores this state. If the
    /// task has stored no state yet, returns the state in the schedule's record.
    pub async fn state(
        &self,
        tenant: &Tenant,
        name: &Name,
        schedule: &Schedule,
    ) -> Result<ScheduleState, StoreError> {
        let key = task_key(tenant, name, schedule);
        let mut task = self.backend.store.get(&key, self.now).await?;
        for _ in 0..MAX_CHECKS {
            // A worker decides just now. The state after that decision counts.
            if !task.as_ref().is_some_and(|task| matches!(task.state, State::Running(_))) {
                break;
            }
            self.clock.sleep(CHECK_PAUSE).await;
            task = self.backend.store.get(&key, self.now).await?;
        }
        match &task {
            Some(task) => Ok(stored_state(task)?.unwrap_or_else(|| schedule.state.clone())),
            None if schedule.paused => Ok(schedule.state.clone()),
            // The task ended longer ago than the retention. Its decisions are not known any more.
            None => Ok(ScheduleState { through: self.now, looked_at: self.now, ..schedule.state.clone() }),
        }
    }

    /// Decides about the planned times until now, and creates the tasks. `task` is the task that runs the
    /// schedule.
    ///
    /// The id of a created task derives from the schedule and the planned time, so a repeated call creates no
    /// second task for a planned time.
    pub async fn tick(&self, task: &Task) -> Result<Tick, StoreError> {
        let corrupt = |error: crate::json::decode::ReadError| StoreError::Corrupt(error.to_string());
        let SchedulePayload { schedule: name, version } = task.payload.parse().map_err(corrupt)?;
        let tenant = &task.tenant;
        let found = self.backend.config.schedule(tenant, &name).await?;
        let Some(schedule) = found.filter(|schedule| schedule.version == version && !schedule.paused) else {
            return Ok(Tick::End(task.progress.clone().unwrap_or_else(Json::null)));
        };
        let state = stored_state(task)?.unwrap_or_else(|| schedule.state.clone());
        let is_last_running = match (schedule.rules.overlap, state.last_task) {
            (Overlap::Allow, _) | (_, None) => false,
            (_, Some(id)) => {
                let key = TaskKey { tenant: tenant.clone(), id };
                let last = self.backend.store.get(&key, self.now).await?;
                last.is_some_and(|last| !matches!(last.state, State::Ended(_)))
            }
        };
        let Advance { mut state, start, wake_at } =
            advance(&schedule.rules, state, is_last_running, self.now);
        let mut tasks = Vec::with_capacity(start.len());
        for planned_at in start {
            let id = TaskId::of_planned(tenant, name.as_str(), schedule.incarnation, planned_at);
            let made =
                self.task(tenant, &name, &schedule, Start { id, planned_at: Some(planned_at) }).await?;
            let decision = state.decisions.iter_mut().find(|decision| decision.planned_at == planned_at);
            match (made, decision) {
                (Ok(made), decision) => {
                    state.last_task = Some(made.id);
                    if let Some(decision) = decision {
                        decision.task = Some(made.id);
                    }
                    tasks.push(made);
                }
                (Err(_), Some(decision)) => decision.outcome = DecisionOutcome::Invalid,
                (Err(_), None) => {}
            }
        }
        self.backend.accept_each(tasks, self.now).await?;
        let progress = Json::from_value(&state).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        Ok(match wake_at {
            Some(wake_at) => Tick::Continue(wake_at, progress),
            None => Tick::End(progress),
        })
    }

    /// Returns a task that the schedule creates, or all errors in the schedule's template.
    pub async fn task(
        &self,
        tenant: &Tenant,
        name: &Name,
        schedule: &Schedule,
        Start { id, planned_at }: Start,
    ) -> Result<Result<Task, Vec<FieldError>>, StoreError> {
        let submission = match read_template(&schedule.task) {
            Ok(submission) => submission,
            Err(errors) => return Ok(Err(errors)),
        };
        let config = self.config_cache.for_template(tenant, &submission).await?;
        let context = SubmissionContext {
            tenant,
            id,
            fingerprint: None,
            submitted_by: None,
            max_payload: None,
            max_timeout: self.max_timeout,
            kinds: &AnyKind(self.kinds),
            endpoint: config.endpoint.as_deref(),
            then_endpoint: config.then_endpoint.as_deref(),
            queue: config.queue(),
            hops: 0,
            now: self.now,
        };
        Ok(submission.into_task(&context).map(|mut task| {
            if let Some(planned_at) = planned_at {
                task.due_at = task.due_at + schedule.delay(name, planned_at);
            }
            task.options.origin = Some(TaskOrigin::Schedule { schedule: name.clone(), planned_at });
            task
        }))
    }

    /// Returns the task that runs this version of the schedule. `None` if the schedule is paused or has no
    /// later planned time.
    pub fn runner(&self, tenant: &Tenant, name: &Name, schedule: &Schedule) -> Option<Task> {
        schedule_task(tenant, name, schedule, self.now)
    }
}
