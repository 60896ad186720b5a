//! Checks on repeated writes: a write that took effect is repeated because its answer was lost.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nobat_core::task::{CancelRequest, State, Task, TaskKey};

use crate::model::backend_quirks::{Habit, Habits};
use crate::model::calls::Call;
use crate::simulation::store_monitor::Witness;

/// Effects of each call.
#[derive(Default)]
pub struct Repeats(Mutex<BTreeMap<Call, Made>>);

/// Effect of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// New tasks.
    Tasks,
    /// Claim with this token.
    Claim(u64),
    /// Task version.
    Version(u64),
}

impl Repeats {
    fn made(&self) -> MutexGuard<'_, BTreeMap<Call, Made>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness {
    /// Returns the earlier effect of this call, if the call is a repetition.
    pub(super) fn made_before(&self, call: Option<Call>) -> Option<Made> {
        let made = call.and_then(|call| self.repeats.made().get(&call).copied());
        if made.is_some() {
            self.stage.note(Habit::RepeatsWrite);
        }
        made
    }

    /// Records the effect of a call.
    pub(super) fn note_made(&self, call: Option<Call>, made: Made) {
        if let Some(call) = call {
            self.repeats.made().insert(call, made);
        }
    }

    /// Checks a repeated write: it must be recognized and change nothing, or be refused because another write
    /// came in between.
    pub(super) fn check_repeated(
        &self,
        is_known: bool,
        before: Option<&Task>,
        after: Option<&Task>,
        made: Made,
        name: &TaskKey,
    ) {
        self.expect(before == after, name, "a repeated write took effect twice");
        if is_known {
            return;
        }
        self.stage.note(Habit::RepeatsTooLate);
        let is_as_made = before.is_some_and(|task| match (made, &task.state) {
            (Made::Tasks, _) => task.version == 1,
            // A cancellation of a running task keeps its claim but counts as a write in between.
            (Made::Claim(token), State::Running(lease)) => {
                task.token == token && lease.cancel == CancelRequest::None
            }
            (Made::Claim(_), _) => false,
            (Made::Version(version), _) => task.version == version,
        });
        self.expect(!is_as_made, name, "a repeated write was not recognized");
    }
}
