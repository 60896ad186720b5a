//! What may become of a write that was made, and is made again because its answer was lost.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nobat_core::ports::TaskName;
use nobat_core::task::{CancelRequest, State, Task};

use super::witness::Witness;
use crate::model::calls::Call;
use crate::model::habits::{Habit, Habits};

/// What calls have written.
#[derive(Default)]
pub struct Repeats(Mutex<BTreeMap<Call, Made>>);

/// What a call has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// New tasks.
    Tasks,
    /// The claim of this number.
    Claim(u64),
    /// This version.
    Version(u64),
}

impl Repeats {
    fn made(&self) -> MutexGuard<'_, BTreeMap<Call, Made>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness {
    /// What this call has written already, if it is made again.
    pub(super) fn made_before(&self, call: Option<Call>) -> Option<Made> {
        let made = call.and_then(|call| self.repeats.made().get(&call).copied());
        if made.is_some() {
            self.stage.note(Habit::RepeatsWrite);
        }
        made
    }

    /// A call has written something.
    pub(super) fn note_made(&self, call: Option<Call>, made: Made) {
        if let Some(call) = call {
            self.repeats.made().insert(call, made);
        }
    }

    /// A write that is made again either is known, and changes nothing, or comes so late that somebody has written since.
    pub(super) fn check_repeated(&self, is_known: bool, before: Option<&Task>, after: Option<&Task>, made: Made, name: &TaskName) {
        self.expect(before == after, name, "a write that was made again was made twice");
        if is_known {
            return;
        }
        self.stage.note(Habit::RepeatsTooLate);
        let is_as_made = before.is_some_and(|task| match (made, &task.state) {
            (Made::Tasks, _) => task.version == 1,
            // Whoever calls a running task off leaves it its claim, and writes all the same.
            (Made::Claim(token), State::Running(lease)) => task.token == token && lease.cancel == CancelRequest::None,
            (Made::Claim(_), _) => false,
            (Made::Version(version), _) => task.version == version,
        });
        self.expect(!is_as_made, name, "a write that was made again was not known");
    }
}
