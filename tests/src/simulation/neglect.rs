//! No task is left alone for longer than the sweep pauses: one that is due is hinted, a lease that ran out is noticed.

use std::time::Duration;

use nobat_core::task::{State, Task};
use nobat_core::time::Timestamp;

use super::ledger::key;
use super::stage::short;
use super::witness::Witness;
use crate::model::table::ATTENTION_LAG;

/// The shortest and the longest pause of the sweep between two hints of one task.
const PAUSE: (Duration, Duration) = (Duration::from_mins(5), Duration::from_hours(1));
/// How long after its time the sweep looks at a task for the first time, how often it comes, and how long it takes.
const ROUND: Duration = Duration::from_mins(4);
/// How long it takes, after things went wrong for the last time, until everybody is there again and done with what hung.
const RECOVERY: Duration = Duration::from_mins(20);

impl Witness {
    /// Looks for tasks that nobody looks after.
    pub fn find_neglected(&self) {
        let Some(calm_since) = self.stage.calm_since() else { return };
        for task in self.open_tasks() {
            let Some(since) = waits_since(&task) else { continue };
            let now = self.stage.time.now();
            if now > self.latest_look(&task, since, calm_since) {
                let waits = now.since(since).as_secs();
                self.stage.violate(format!("{}: nobody has looked after it; it needs it since {waits} s", short(&task.name())));
            }
        }
    }

    /// When somebody must have looked after a task that needs it `since` then.
    fn latest_look(&self, task: &Task, since: Timestamp, calm_since: Timestamp) -> Timestamp {
        let hint = self.stage.ledger().last_hint(&key(&task.name())).unwrap_or(since);
        let last = hint.max(since);
        if self.stage.plan.is_calm() && matches!(task.state, State::Waiting(_)) {
            // As long again as it has waited: each pause of the sweep is twice the one before it.
            return last + last.since(since).clamp(PAUSE.0, PAUSE.1) + ROUND + ATTENTION_LAG;
        }
        last.max(calm_since) + PAUSE.1 + ROUND + ATTENTION_LAG + RECOVERY + self.stage.plan.clocks_apart()
    }
}

/// Since when a task needs somebody to look after it.
fn waits_since(task: &Task) -> Option<Timestamp> {
    match &task.state {
        State::Waiting(_) => Some(task.due_at),
        State::Running(lease) => Some(lease.until),
        State::Ended(_) => None,
    }
}
