//! Conversion of a client's request into a schedule, and the tasks of schedules.

use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config::schedule::Schedule;
use crate::json::Json;
use crate::json::decode::read_object;
use crate::schedules::advance::{DecisionOutcome, Missed, Overlap, Rules, ScheduleState};
use crate::schedules::timing::{CronTiming, Timing, Zone};
use crate::submission::{Submission, SubmissionContext};
use crate::task::event::{SCHEDULE_KIND, SCHEDULE_QUEUE};
use crate::task::retry::{Exponential, Jitter, RetryPolicy, Schedule as Delays};
use crate::task::{Task, TaskKey, TaskOptions, TaskOrigin};
use crate::types::bounds::Bounds;
use crate::types::field_error::{FieldError, ValidationErrors};
use crate::types::id::TaskId;
use crate::types::intervals::MAX_SCHEDULE_AHEAD;
use crate::types::name::{Name, Tenant};
use crate::types::time::Timestamp;

/// Schedule: creates a task at each planned time. Exactly one of `cron`, `every` and `at` is required. The
/// request replaces the whole configuration: omitted fields reset to their defaults, except `paused`, which
/// keeps its value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleSubmission {
    /// Cron expression: minute, hour, day of month, month and day of week. If there are six fields, the first
    /// field is the seconds. `L` is the last day of the month. Words such as `@daily` are allowed.
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub cron: Option<String>,
    /// Time zone of `cron`, by its name in the IANA database. Default `UTC`.
    pub timezone: Option<String>,
    /// Seconds between two planned times. The planned times are multiples of this number of seconds, counted
    /// from 1970-01-01T00:00:00Z. At least 1.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 31_622_400))]
    pub every: Option<f64>,
    /// Planned times: 1 to 100.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>, format = DateTime, min_items = 1, max_items = 100))]
    pub at: Option<Vec<Timestamp>>,
    /// Rule for a planned time at which the task of an earlier planned time has not ended. Default `skip`.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_word")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Overlap>, required = false))]
    pub overlap: Option<Overlap>,
    /// Rule for planned times that passed while no worker ran. A planned time counts as missed if no worker
    /// checks it within five minutes. Default `once`.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_word")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Missed>, required = false))]
    pub missed: Option<Missed>,
    /// Maximum delay of a task after its planned time, in seconds. Default 0. At most 86,400.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 86_400))]
    pub jitter: Option<f64>,
    /// Task to create. `run_at` and `expires_at` are not allowed.
    #[cfg_attr(feature = "openapi", schema(value_type = Submission))]
    pub task: Box<RawValue>,
    /// True to pause the schedule: a paused schedule creates no tasks. False to resume the schedule. If
    /// omitted, the value does not change.
    pub paused: Option<bool>,
}

/// Maximum number of times in `at`.
const MAX_TIMES: usize = 100;
const EVERY: Bounds = Bounds::times(Duration::from_secs(1), MAX_SCHEDULE_AHEAD);
const JITTER: Bounds = Bounds::delay(Duration::from_hours(24));

impl ScheduleSubmission {
    /// Returns the template of the task, or the errors in the template. The caller needs the endpoint and the
    /// queue that the template names for the context of [`ScheduleSubmission::into_schedule`].
    pub fn template(&self) -> Result<Submission, Vec<FieldError>> {
        let template = Json::from_outside(&self.task)
            .map_err(|error| vec![FieldError::new("/task", error.to_string())])?;
        read_template(&template)
            .map_err(|errors| errors.into_iter().map(|error| error.under("/task")).collect())
    }

    /// Returns the schedule, or all errors in the request. `current` is the stored schedule of this name with
    /// its state. `random` is a random number for a new schedule.
    pub fn into_schedule(
        self,
        current: Option<(&Schedule, ScheduleState)>,
        random: u64,
        context: &SubmissionContext<'_>,
    ) -> Result<Schedule, Vec<FieldError>> {
        let mut wrong = ValidationErrors::default();
        let now = context.now;
        match self.template() {
            Ok(template) => {
                if let Err(errors) = template.into_task(context) {
                    wrong.0.extend(errors.into_iter().map(|error| error.under("/task")));
                }
            }
            Err(errors) => wrong.0.extend(errors),
        }
        let jitter = self.jitter.and_then(|jitter| wrong.take("/jitter", JITTER.seconds(jitter)));
        let timing = wrong.timing(self.cron, self.timezone.as_deref(), self.every, self.at, now);
        let (Some(timing), Ok(task)) =
            (timing.filter(|_| wrong.0.is_empty()), Json::from_outside(&self.task))
        else {
            return Err(wrong.0);
        };
        let rules = Rules {
            timing,
            overlap: self.overlap.unwrap_or_default(),
            missed: self.missed.unwrap_or_default(),
        };
        let was_paused = current.as_ref().is_some_and(|(current, _)| current.paused);
        let paused = self.paused.unwrap_or(was_paused);
        let (incarnation, created_at, version) = current.as_ref().map_or((random, now, 0), |(current, _)| {
            (current.incarnation, current.created_at, current.version)
        });
        let state = match current {
            None => ScheduleState::new(now),
            Some((before, mut state)) => {
                if was_paused && !paused {
                    state.resume(&before.rules.timing, now);
                } else if !was_paused && before.rules.timing != rules.timing {
                    // The planned times of the new rule count from now on.
                    (state.through, state.missed) = (now, None);
                }
                state
            }
        };
        let jitter = jitter.unwrap_or_default();
        Ok(Schedule { rules, jitter, task, paused, state, incarnation, created_at, version: version + 1 })
    }
}

impl ScheduleState {
    /// Ends a pause. Planned times up to `now` create no tasks.
    pub fn resume(&mut self, timing: &Timing, now: Timestamp) {
        if let Some(last) = timing.last_until(now).filter(|last| *last > self.through) {
            self.record(last, DecisionOutcome::Paused);
        }
        (self.through, self.looked_at, self.missed) = (now, now, None);
    }
}

impl ValidationErrors {
    fn timing(
        &mut self,
        cron: Option<String>,
        timezone: Option<&str>,
        every: Option<f64>,
        at: Option<Vec<Timestamp>>,
        now: Timestamp,
    ) -> Option<Timing> {
        if timezone.is_some() && cron.is_none() {
            self.add("/timezone", "expected only together with `cron`; omit `timezone`");
        }
        let timing = match (cron, every, at) {
            (Some(expression), None, None) => {
                let zone = timezone.unwrap_or("UTC").parse::<Zone>().map_err(|error| error.to_string());
                let zone = self.take("/timezone", zone)?;
                self.take("/cron", CronTiming::new(&expression, zone)).map(Timing::Cron)?
            }
            (None, Some(every), None) => self.take("/every", EVERY.seconds(every)).map(Timing::Every)?,
            (None, None, Some(mut at)) => {
                if !(1..=MAX_TIMES).contains(&at.len()) {
                    self.add("/at", format!("expected 1 to {MAX_TIMES} times"));
                    return None;
                }
                at.sort_unstable();
                at.dedup();
                Timing::At(at)
            }
            _ => {
                self.add("", "expected exactly one of `cron`, `every` and `at`");
                return None;
            }
        };
        let pointer = match &timing {
            Timing::Cron(_) => "/cron",
            Timing::Every(_) => "/every",
            Timing::At(_) => "/at",
        };
        if timing.next_after(now).is_none() {
            self.add(pointer, "expected at least one planned time in the future");
        }
        Some(timing)
    }
}

/// Reads the template of a schedule. Such a template has no placeholders, unlike the template of a
/// subscription.
pub fn read_template(template: &Json) -> Result<Submission, Vec<FieldError>> {
    read_fixed_template(
        template,
        "a schedule creates many tasks; omit this fixed time, or send `delay` for a later start",
    )
}

/// Reads a template without placeholders. `detail` is the error for a fixed time.
pub(super) fn read_fixed_template(
    template: &Json,
    detail: &'static str,
) -> Result<Submission, Vec<FieldError>> {
    let submission: Submission =
        read_object(template.get().as_bytes()).map_err(|error| vec![FieldError::from(error)])?;
    let fixed = [("/run_at", submission.run_at.is_some()), ("/expires_at", submission.expires_at.is_some())];
    match fixed.into_iter().find(|(_, is_set)| *is_set) {
        Some((pointer, _)) => Err(vec![FieldError::new(pointer, detail)]),
        None => Ok(submission),
    }
}

/// Payload of the task that runs a version of a schedule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SchedulePayload {
    /// Name of the schedule.
    pub schedule: Name,
    /// Version of the schedule's record.
    pub version: u64,
}

/// Retry policy of the task that runs a schedule. The retries never end in practice, because the schedule
/// creates no tasks without this task.
static RETRY: LazyLock<RetryPolicy> = LazyLock::new(|| RetryPolicy {
    schedule: Delays::Exponential(Exponential {
        max_attempts: NonZeroU32::MAX,
        initial_delay: Duration::from_secs(1),
        multiplier: 2.0,
        max_delay: Duration::from_mins(1),
        jitter: Jitter::Full,
    }),
    max_age: None,
});

/// Returns the task that runs this version of the schedule. This task is due at the next planned time. `None`
/// if the schedule is paused or has no later planned time.
pub fn schedule_task(tenant: &Tenant, name: &Name, schedule: &Schedule, now: Timestamp) -> Option<Task> {
    let due_at = schedule.rules.timing.next_after(schedule.state.through).filter(|_| !schedule.paused)?;
    let payload = SchedulePayload { schedule: name.clone(), version: schedule.version };
    let payload = Json::from_value(&payload).unwrap_or_else(|_| unreachable!("a text and a number"));
    let id = TaskId::of_schedule(tenant, name.as_str(), schedule.incarnation, schedule.version);
    let options = TaskOptions {
        retry: RETRY.clone(),
        origin: Some(TaskOrigin::Schedule { schedule: name.clone(), planned_at: None }),
        ..TaskOptions::default()
    };
    let key = TaskKey { tenant: tenant.clone(), id };
    let (kind, queue) = (SCHEDULE_KIND.clone(), SCHEDULE_QUEUE.clone());
    Some(Task { due_at: due_at.max(now), ..Task::new(key, kind, queue, payload, options, now) })
}
