//! Decisions about the planned times of a schedule: start a task, or skip the planned time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::schedules::timing::Timing;
use crate::types::id::TaskId;
use crate::types::time::Timestamp;

/// Rules of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Rule that gives the planned times.
    pub timing: Timing,
    /// Rule for a planned time at which the task of an earlier planned time has not ended.
    pub overlap: Overlap,
    /// Rule for planned times that passed while no worker ran.
    pub missed: Missed,
}

/// Rule for a planned time at which the task of an earlier planned time has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Overlap {
    /// Creates no task.
    #[default]
    Skip,
    /// Creates the task when the task of the earlier planned time has ended.
    Queue,
    /// Creates the task at once.
    Allow,
}

/// Rule for planned times that passed while no worker ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Missed {
    /// Creates no task.
    Skip,
    /// Creates one task, for the last missed planned time.
    #[default]
    Once,
    /// Creates a task for each missed planned time.
    All,
}

/// State of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// The planned times up to this time are decided: only later planned times can still create a task.
    pub through: Timestamp,
    /// Last time at which a worker checked the planned times, or a client created or resumed the schedule.
    pub looked_at: Timestamp,
    /// Task that the schedule created last.
    pub last_task: Option<TaskId>,
    /// Time at which the schedule started its last task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Missed planned times that are not decided yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<MissedRange>,
    /// Last decisions, oldest first. At most [`ScheduleState::KEPT`].
    pub decisions: Vec<Decision>,
}

/// Planned times from `from` to `until`, which passed while no worker checked the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedRange {
    /// First planned time.
    pub from: Timestamp,
    /// Last planned time.
    pub until: Timestamp,
}

/// Decision about a planned time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Planned time.
    pub planned_at: Timestamp,
    /// Outcome of the decision.
    pub outcome: DecisionOutcome,
    /// Task that was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
}

/// Outcome of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DecisionOutcome {
    /// A task was created.
    Started,
    /// No task was created, because the task of an earlier planned time had not ended.
    SkippedOverlap,
    /// No worker ran at the planned time.
    Missed,
    /// The schedule was paused.
    Paused,
    /// No task was created, because the task would not have been valid.
    Invalid,
}

/// Result of [`advance`].
#[derive(Clone, Debug, PartialEq)]
pub struct Advance {
    /// New state. Its new decisions with the outcome [`DecisionOutcome::Started`] have no task id yet.
    pub state: ScheduleState,
    /// Planned times for which tasks must be created, oldest first.
    pub start: Vec<Timestamp>,
    /// Time of the next decision. `None` if there is no later planned time.
    pub wake_at: Option<Timestamp>,
}

/// Time after which a planned time is missed, if no worker checked the schedule in between. It is longer than
/// nobat needs to notice a dead worker or a lost hint.
pub const GRACE: Duration = Duration::from_mins(5);

/// Maximum number of tasks that one call of [`advance`] starts. If more tasks are due, the next call follows
/// at once.
const MAX_STARTS: usize = 100;

/// Minimum and maximum delay before a planned time that waits for the end of an earlier task is checked again.
const MIN_QUEUE_RECHECK: Duration = Duration::from_millis(500);
const MAX_QUEUE_RECHECK: Duration = Duration::from_mins(1);

impl ScheduleState {
    /// Number of decisions that are kept.
    pub const KEPT: usize = 5;

    /// Creates the state of a new schedule. Only planned times after `now` create tasks.
    pub fn new(now: Timestamp) -> Self {
        Self {
            through: now,
            looked_at: now,
            last_task: None,
            started_at: None,
            missed: None,
            decisions: Vec::new(),
        }
    }

    /// Adds a decision.
    pub fn record(&mut self, planned_at: Timestamp, outcome: DecisionOutcome) {
        if self.decisions.len() == Self::KEPT {
            self.decisions.remove(0);
        }
        self.decisions.push(Decision { planned_at, outcome, task: None });
        self.through = self.through.max(planned_at);
    }
}

/// Decides about the planned times since the last decision.
///
/// `is_last_running` is true if the last task of the schedule has not ended. The next planned time follows
/// from the last planned time, never from `now`, so an early or a late clock neither repeats nor loses a
/// planned time.
pub fn advance(rules: &Rules, mut state: ScheduleState, is_last_running: bool, now: Timestamp) -> Advance {
    let (mut start, mut is_running) = (Vec::new(), is_last_running);
    let mut wake_at = None;
    state.note_missed(rules, now);
    while let Some(planned) = rules.timing.next_after(state.through) {
        if planned > now || start.len() == MAX_STARTS {
            wake_at = Some(planned);
            break;
        }
        if state.skip_missed(rules, planned) {
            continue;
        }
        match rules.overlap {
            Overlap::Skip if is_running => {
                // The earlier task cannot end during this call, so all planned times until now are skipped.
                let last = rules.timing.last_until(now).unwrap_or(planned).max(planned);
                state.record(last, DecisionOutcome::SkippedOverlap);
                continue;
            }
            Overlap::Queue if is_running => {
                // The longer the earlier task runs, the less often it is checked.
                let running_for = state.started_at.map_or(Duration::ZERO, |started_at| now.since(started_at));
                let recheck = (running_for / 10).clamp(MIN_QUEUE_RECHECK, MAX_QUEUE_RECHECK);
                wake_at = Some(now + recheck);
                break;
            }
            Overlap::Skip | Overlap::Queue | Overlap::Allow => {}
        }
        state.record(planned, DecisionOutcome::Started);
        start.push(planned);
        (state.started_at, is_running) = (Some(now), true);
    }
    state.looked_at = state.looked_at.max(now);
    Advance { state, start, wake_at }
}

impl ScheduleState {
    /// Notes the planned times that passed since the last call without a call. Those that waited at the last
    /// call are not among them.
    fn note_missed(&mut self, rules: &Rules, now: Timestamp) {
        let first = rules.timing.next_after(self.through.max(self.looked_at));
        let last = rules.timing.last_until(now - GRACE);
        if let (Some(first), Some(last)) = (first, last)
            && first <= last
        {
            let from = self.missed.map_or(first, |missed| missed.from);
            self.missed = Some(MissedRange { from, until: last });
        }
    }

    /// Returns true if the planned time is missed and creates no task. Records the decision then.
    fn skip_missed(&mut self, rules: &Rules, planned: Timestamp) -> bool {
        let Some(MissedRange { from, until }) = self.missed else { return false };
        if planned > until {
            self.missed = None;
        }
        if planned < from || planned > until {
            return false;
        }
        match rules.missed {
            Missed::All => false,
            Missed::Skip => {
                self.missed = None;
                self.record(until, DecisionOutcome::Missed);
                true
            }
            // Only the last missed planned time creates a task.
            Missed::Once => {
                let before = until - Duration::from_millis(1);
                let previous = rules.timing.last_until(before).filter(|previous| planned <= *previous);
                if let Some(previous) = previous {
                    self.record(previous, DecisionOutcome::Missed);
                }
                previous.is_some()
            }
        }
    }
}

#[cfg(test)]
mod tests;
