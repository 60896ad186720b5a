//! Liveness check: the sweep must send hints for due tasks and notice expired leases within its longest
//! pause.

use std::time::Duration;

use nobat_core::task::{State, Task};
use nobat_core::types::time::Timestamp;

use super::ledger::key;
use crate::model::table::ATTENTION_LAG;
use crate::simulation::context::short;
use crate::simulation::store_monitor::Witness;

/// Minimum and maximum pause of the sweep between two hints of one task.
const PAUSE: (Duration, Duration) = (Duration::from_mins(5), Duration::from_hours(1));
/// Delay of the sweep's first look at a task, plus the sweep's interval and duration.
const ROUND: Duration = Duration::from_mins(4);
/// Time after the last fault until every process runs again and every hung call is over.
const RECOVERY: Duration = Duration::from_mins(20);

impl Witness {
    /// Reports tasks that no process has looked after in time.
    pub fn find_neglected(&self) {
        let Some(calm_since) = self.stage.calm_since() else { return };
        for task in self.open_tasks() {
            let Some(since) = waits_since(&task) else { continue };
            let now = self.stage.time.now();
            if now > self.latest_look(&task, since, calm_since) {
                let waits = now.since(since).as_secs();
                self.stage.violate(format!(
                    "{}: the task has needed attention for {waits} s, and no process has looked after it",
                    short(&task.key())
                ));
            }
        }
    }

    /// Returns the latest time at which a process must have looked after a task that needs it since `since`.
    fn latest_look(&self, task: &Task, since: Timestamp, calm_since: Timestamp) -> Timestamp {
        let hint = self.stage.ledger().last_hint(&key(&task.key())).unwrap_or(since);
        let last = hint.max(since);
        if self.stage.plan.is_calm() && matches!(task.state, State::Waiting(_)) {
            // Each pause of the sweep is twice the one before, so it equals the time that the task has
            // waited.
            return last + last.since(since).clamp(PAUSE.0, PAUSE.1) + ROUND + ATTENTION_LAG;
        }
        last.max(calm_since) + PAUSE.1 + ROUND + ATTENTION_LAG + RECOVERY + self.stage.plan.clocks_apart()
    }
}

/// Returns the time since when a task needs attention.
fn waits_since(task: &Task) -> Option<Timestamp> {
    match &task.state {
        State::Waiting(_) => Some(task.due_at),
        State::Running(lease) => Some(lease.until),
        State::Ended(_) => None,
    }
}
