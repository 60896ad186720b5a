//! Checks on dead letters: the worker sends two more hints, then ends the task, unless the task needs
//! neither.

use nobat_core::task::{ErrorCode, State, Task, TaskKey};
use nobat_core::types::time::Timestamp;

use super::ledger::key;
use crate::model::Letter;
use crate::model::backend_quirks::{Habit, Habits};
use crate::simulation::store_monitor::Witness;

/// Opened dead letter.
pub struct Opened {
    name: TaskKey,
    redrives: u32,
    at: Timestamp,
    /// Task as stored when the dead letter was opened.
    task: Option<Task>,
}

impl Witness {
    /// Records that a dead letter is opened.
    pub fn note_opened(&self, letter: &Letter) -> Opened {
        let at = self.stage.time.now();
        self.stage.ledger().opened(key(&letter.name), letter.redrives, at);
        Opened { name: letter.name.clone(), redrives: letter.redrives, at, task: self.look(&letter.name) }
    }

    /// Checks that an acknowledged dead letter has been handled.
    pub fn check_acknowledged(&self, letter: &Opened) {
        let Some(task) = &letter.task else { return };
        let is_same = self.look(&letter.name).is_some_and(|now| now.version == task.version);
        let hint = self.stage.ledger().last_hint_after(&key(&letter.name), letter.redrives + 1);
        let is_hinted = hint.is_some_and(|sent| sent >= letter.at);
        self.expect(
            !is_same || is_hinted || !self.needs_a_hint(task, letter.at),
            &letter.name,
            "a dead letter was acknowledged, but not handled",
        );
    }

    /// Returns true if a task waits and could start, by every clock.
    fn needs_a_hint(&self, task: &Task, at: Timestamp) -> bool {
        let apart = self.stage.plan.clocks_apart();
        let has_no_deadline =
            task.options.expires_at.is_none_or(|deadline| deadline > self.stage.time.now() + apart);
        matches!(task.state, State::Waiting(_)) && task.due_at + apart <= at && has_no_deadline
    }

    /// Checks that a task ends with `ErrorCode::DISPATCH_FAILED` only after its third dead letter.
    pub(super) fn check_dispatch_failed(&self, task: &Task) {
        let code = task.error.as_ref().map(|error| error.code.as_str());
        if matches!(task.state, State::Ended(_)) && code == Some(ErrorCode::DISPATCH_FAILED) {
            self.stage.note(Habit::EndsAsPipeline);
            let has_had_them = self.stage.ledger().had_three_dead_letters(&key(&task.key()));
            self.expect(has_had_them, &task.key(), "the task was ended before its third dead letter");
        }
    }
}
