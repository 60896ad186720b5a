//! Explanation of a task that waits for the completion by its receiver.

use crate::policy::explain::{ExplainCode, Explainer, Explanation};
use crate::task::{ErrorCode, Then};
use crate::types::held_reason::HeldReason;

impl Explainer<'_> {
    /// Explains a wait that has not timed out. The configuration and the limiters do not affect it.
    pub(super) fn waiting(&self) -> Explanation {
        let (due, code) = (self.task.due_at, ErrorCode::WAIT_TIMEOUT);
        let since = self.task.attempts.last().map(|attempt| format!(" at {}", attempt.finished_at));
        let then = match &self.around.then {
            None => "the wait ends with",
            Some(Then::Fail) => "the task fails with",
            Some(Then::Retry) => "the attempt counts as failed with",
            Some(Then::Task(_)) => "nobat creates the task in `wait.then`, and this task fails with",
        };
        let reason = format!(
            "the receiver accepted the call{}, and the task waits for its completion; without a completion by {due}, {then} {code}{}",
            since.unwrap_or_default(),
            self.deadline()
        );
        self.says(ExplainCode::Held(HeldReason::Waiting), self.task.wake_at(), reason)
    }

    /// Explains a wait that has timed out and that no worker has ended yet.
    pub(super) fn timed_out(&self) -> String {
        format!(
            "the wait for the receiver's completion timed out at {}, and a worker must end it",
            self.task.due_at
        )
    }
}
