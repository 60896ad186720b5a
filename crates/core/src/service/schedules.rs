//! Runs schedules: creates the tasks of planned times.

use std::time::Duration;

use crate::config::kind::KindRegistry;
use crate::config::schedule::Schedule;
use crate::json::Json;
use crate::ports::StoreError;
use crate::schedules::advance::Overlap;
use crate::schedules::advance::{Advance, DecisionOutcome, ScheduleState, advance};
use crate::service::backend::Backend;
use crate::service::config_cache::ConfigCache;
use crate::submission::SubmissionContext;
use crate::submission::schedule::{SchedulePayload, read_template, schedule_task};
use crate::task::{State, Task, TaskKey, TaskOrigin};
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
    /// Current time.
    pub now: Timestamp,
}

/// Result of [`Schedules::tick`].
#[derive(Debug)]
pub enum Tick {
    /// The schedule continues at this time, with this state as its progress.
    Continue(Timestamp, Json),
    /// The schedule was removed, paused or replaced, or has no other planned time.
    End(Json),
}

/// Task of one planned time, or of a start by hand.
#[derive(Clone, Copy)]
pub struct Start {
    /// Id of the task.
    pub id: TaskId,
    /// Planned time. `None` for a start by hand.
    pub planned_at: Option<Timestamp>,
}

/// Reads the state that the task of a schedule stored last. `None` if it has stored none.
pub fn stored_state(task: &Task) -> Option<ScheduleState> {
    let stored = task.progress.as_ref().or(task.result.as_ref())?;
    stored.parse().ok()
}

/// Returns the key of the task that runs the current version of a schedule.
pub fn task_key(tenant: &Tenant, name: &Name, schedule: &Schedule) -> TaskKey {
    let id = TaskId::of_schedule(tenant, name.as_str(), schedule.incarnation, schedule.version);
    TaskKey { tenant: tenant.clone(), id }
}

impl Schedules<'_> {
    /// Returns the current state of a schedule: that of its task, or else that of its record.
    pub async fn state(
        &self,
        tenant: &Tenant,
        name: &Name,
        schedule: &Schedule,
    ) -> Result<ScheduleState, StoreError> {
        let task = self.backend.store.get(&task_key(tenant, name, schedule), self.now).await?;
        Ok(task.as_ref().and_then(stored_state).unwrap_or_else(|| schedule.state.clone()))
    }

    /// Decides about the planned times until now, and creates their tasks.
    ///
    /// The ids derive from the schedule and the planned time, so a repetition creates no second task.
    pub async fn tick(&self, task: &Task) -> Result<Tick, StoreError> {
        let corrupt = |error: crate::json::decode::ReadError| StoreError::Corrupt(error.to_string());
        let SchedulePayload { schedule: name, version } = task.payload.parse().map_err(corrupt)?;
        let tenant = &task.tenant;
        let found = self.backend.config.schedule(tenant, &name).await?;
        let Some(schedule) = found.filter(|schedule| schedule.version == version && !schedule.paused) else {
            return Ok(Tick::End(task.progress.clone().unwrap_or_else(Json::null)));
        };
        let state = stored_state(task).unwrap_or_else(|| schedule.state.clone());
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

    /// Returns a task of the schedule, or everything that is wrong with its template.
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
        let (endpoint, task_config) = self.config_cache.for_submission(tenant, &submission).await?;
        let context = SubmissionContext {
            tenant,
            id,
            fingerprint: None,
            submitted_by: None,
            max_payload: None,
            max_timeout: self.max_timeout,
            kinds: self.kinds,
            endpoint: endpoint.as_deref(),
            queue: task_config.as_ref().map(|task_config| &task_config.queue),
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

    /// Returns the task that runs this version of the schedule, if it has planned times.
    pub fn runner(&self, tenant: &Tenant, name: &Name, schedule: &Schedule) -> Option<Task> {
        schedule_task(tenant, name, schedule, self.now)
    }
}
