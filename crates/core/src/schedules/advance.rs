//! Decisions about the planned times of a schedule: start a task, or skip the time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::schedules::timing::Timing;
use crate::types::id::TaskId;
use crate::types::time::Timestamp;

/// Rules of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Planned times.
    pub timing: Timing,
    /// Rule for a planned time at which the task of an earlier one has not ended.
    pub overlap: Overlap,
    /// Rule for planned times that passed while no worker ran.
    pub missed: Missed,
}

/// Rule for a planned time at which the task of an earlier one has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Overlap {
    /// Creates no task.
    #[default]
    Skip,
    /// Creates the task when the earlier one has ended.
    Queue,
    /// Creates the task.
    Allow,
}

/// Rule for planned times that passed while no worker ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Missed {
    /// Creates no task.
    Skip,
    /// Creates one task, for the last of them.
    #[default]
    Once,
    /// Creates a task for each of them.
    All,
}

/// State of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// Last planned time that has been decided, or the time from which the schedule applies.
    pub through: Timestamp,
    /// Last time at which a worker decided.
    pub looked_at: Timestamp,
    /// Task that the schedule created last.
    pub last_task: Option<TaskId>,
    /// Last decisions, oldest first. At most [`ScheduleState::KEPT`].
    pub decisions: Vec<Decision>,
}

/// Decision about a planned time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Planned time.
    pub planned_at: Timestamp,
    /// Decision.
    pub outcome: DecisionOutcome,
    /// Task that was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
}

/// Kind of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DecisionOutcome {
    /// A task was created.
    Started,
    /// The task of an earlier planned time had not ended.
    SkippedOverlap,
    /// No worker ran at the planned time.
    Missed,
    /// The schedule was paused.
    Paused,
    /// The task would not have been valid.
    Invalid,
}

/// Result of [`advance`].
#[derive(Clone, Debug, PartialEq)]
pub struct Advance {
    /// New state. Its decisions of kind [`DecisionOutcome::Started`] name no task yet.
    pub state: ScheduleState,
    /// Planned times for which tasks must be created, oldest first.
    pub start: Vec<Timestamp>,
    /// Time of the next decision. `None` if there is no other planned time.
    pub wake_at: Option<Timestamp>,
}

/// Time after a planned time from which the planned time counts as missed, if no worker decided in between.
pub const GRACE: Duration = Duration::from_mins(1);

/// Maximum number of tasks that one decision starts. The next decision follows at once.
const MAX_STARTS: usize = 100;

/// Delay before a planned time that waits for the end of an earlier task is decided again.
const QUEUE_RECHECK: Duration = Duration::from_secs(2);

impl ScheduleState {
    /// Number of decisions that are kept.
    pub const KEPT: usize = 5;

    /// State of a schedule that applies from `now` on.
    pub fn new(now: Timestamp) -> Self {
        Self { through: now, looked_at: now, last_task: None, decisions: Vec::new() }
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
/// from the last one, never from `now`: an early or a late clock neither repeats nor loses one.
pub fn advance(rules: &Rules, mut state: ScheduleState, is_last_running: bool, now: Timestamp) -> Advance {
    let (mut start, mut is_running) = (Vec::new(), is_last_running);
    let mut wake_at = None;
    skip_missed(rules, &mut state, now);
    while let Some(planned) = rules.timing.next_after(state.through) {
        if planned > now || start.len() == MAX_STARTS {
            wake_at = Some(planned);
            break;
        }
        match rules.overlap {
            Overlap::Skip if is_running => {
                // Nothing ends that task during this decision, so all planned times until now are skipped.
                let last = rules.timing.last_until(now).unwrap_or(planned).max(planned);
                state.record(last, DecisionOutcome::SkippedOverlap);
                continue;
            }
            Overlap::Queue if is_running => {
                wake_at = Some(now + QUEUE_RECHECK);
                break;
            }
            Overlap::Skip | Overlap::Queue | Overlap::Allow => {}
        }
        state.record(planned, DecisionOutcome::Started);
        start.push(planned);
        is_running = true;
    }
    state.looked_at = state.looked_at.max(now);
    Advance { state, start, wake_at }
}

/// Decides about planned times that count as missed, except that the last of them is left for
/// [`Missed::Once`], and all of them for [`Missed::All`].
fn skip_missed(rules: &Rules, state: &mut ScheduleState, now: Timestamp) {
    if rules.missed == Missed::All {
        return;
    }
    // A planned time before the last decision waits for an earlier task. It is not missed.
    let Some(first) = rules.timing.next_after(state.through.max(state.looked_at)) else { return };
    let Some(last) = rules.timing.last_until(now - GRACE).filter(|last| first <= *last) else { return };
    // Of an earlier planned time that waits, the rule for overlaps decides.
    if rules.timing.next_after(state.through).is_some_and(|next| next < first) {
        return;
    }
    match rules.missed {
        Missed::Skip => state.record(last, DecisionOutcome::Missed),
        // Only the last one is left, so that the rule for overlaps decides about one task.
        Missed::Once => {
            let before = last - Duration::from_millis(1);
            if let Some(previous) = rules.timing.last_until(before).filter(|previous| first <= *previous) {
                state.record(previous, DecisionOutcome::Missed);
            }
        }
        Missed::All => {}
    }
}

#[cfg(test)]
mod tests;
