//! Schedules, as the API shows them.

use nobat_core::config::schedule::Schedule;
use nobat_core::json::Json;
use nobat_core::schedules::advance::{Decision, DecisionOutcome, Missed, Overlap};
use nobat_core::schedules::timing::Timing;
use nobat_core::submission::Submission;
use nobat_core::task::Status;
use nobat_core::task::view::StatusWord;
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Name;
use nobat_core::types::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// Number of planned times that are shown.
const NEXT: usize = 5;

/// Schedule.
#[derive(Serialize, ToSchema)]
#[schema(as = Schedule)]
pub(crate) struct ScheduleView {
    /// Name.
    #[schema(value_type = String)]
    name: Name,
    /// Cron expression. `null` if the schedule has `every` or `at`.
    #[schema(required)]
    cron: Option<String>,
    /// Time zone of the cron expression.
    #[schema(required)]
    timezone: Option<String>,
    /// Seconds between two planned times.
    #[schema(required)]
    every: Option<f64>,
    /// Planned times.
    #[schema(value_type = Option<Vec<String>>, format = DateTime, required)]
    at: Option<Vec<Timestamp>>,
    /// Rule for a planned time at which the task of an earlier planned time has not ended.
    overlap: Overlap,
    /// Rule for planned times that passed while no worker ran.
    missed: Missed,
    /// Maximum delay of a task after its planned time, in seconds.
    jitter: f64,
    /// Task to create, as the client sent it.
    #[schema(value_type = Submission)]
    task: Json,
    /// True if paused: a paused schedule creates no tasks.
    paused: bool,
    /// Time of creation.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Next planned times, at most five. Empty if the schedule is paused or has no later planned time.
    #[schema(value_type = Vec<String>, format = DateTime)]
    next: Vec<Timestamp>,
    /// Last decisions about planned times, oldest first, at most five. Lists show none.
    last: Vec<DecisionView>,
}

/// Decision about a planned time.
#[derive(Serialize, ToSchema)]
pub(crate) struct DecisionView {
    /// Planned time. A decision `missed`, `paused` or `skipped_overlap` can also apply to earlier planned
    /// times.
    #[schema(value_type = String, format = DateTime)]
    planned_at: Timestamp,
    /// Outcome of the decision.
    outcome: DecisionOutcome,
    /// Id of the task that was created.
    #[schema(value_type = Option<String>, required)]
    task: Option<TaskId>,
    /// Status of the task. `null` if no task was created, or if the retention of the task has ended.
    #[schema(value_type = Option<StatusWord>, required)]
    status: Option<StatusWord>,
}

/// One page of schedules.
#[derive(Serialize, ToSchema)]
#[schema(as = SchedulePage)]
pub(crate) struct PageView {
    /// Schedules, in the order of their names.
    pub(super) data: Vec<ScheduleView>,
    /// Cursor of the next page. `null` on the last page.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

impl ScheduleView {
    pub(super) fn new(name: Name, schedule: &Schedule, last: Vec<DecisionView>, now: Timestamp) -> Self {
        let timing = &schedule.rules.timing;
        let (mut next, mut at) = (Vec::new(), now.max(schedule.state.through));
        while let Some(planned) = timing.next_after(at).filter(|_| !schedule.paused && next.len() < NEXT) {
            next.push(planned);
            at = planned;
        }
        let (mut cron, mut timezone, mut every, mut times) = (None, None, None, None);
        match timing {
            Timing::Cron(timing) => {
                cron = Some(timing.expression().to_owned());
                timezone = Some(timing.zone().to_string());
            }
            Timing::Every(duration) => every = Some(duration.as_secs_f64()),
            Timing::At(planned) => times = Some(planned.clone()),
        }
        Self {
            name,
            cron,
            timezone,
            every,
            at: times,
            overlap: schedule.rules.overlap,
            missed: schedule.rules.missed,
            jitter: schedule.jitter.as_secs_f64(),
            task: schedule.task.clone(),
            paused: schedule.paused,
            created_at: schedule.created_at,
            next,
            last,
        }
    }
}

impl DecisionView {
    pub(super) fn new(decision: &Decision, status: Option<Status>) -> Self {
        Self {
            planned_at: decision.planned_at,
            outcome: decision.outcome,
            task: decision.task,
            status: status.map(StatusWord),
        }
    }
}
