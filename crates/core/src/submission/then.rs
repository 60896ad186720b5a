//! Task that nobat creates when a wait for a completion times out: the field `wait.then` of a payload.

use serde::Deserialize;

use crate::json::Json;
use crate::json::decode::read;
use crate::submission::schedule::read_fixed_template;
use crate::submission::{Submission, SubmissionContext};
use crate::task::Task;
use crate::types::field_error::{FieldError, ValidationErrors};
use crate::types::name::Name;

/// Payload, as far as the name of the endpoint in `wait.then` needs it.
#[derive(Deserialize)]
struct Payload {
    wait: PayloadWait,
}

#[derive(Deserialize)]
struct PayloadWait {
    then: PayloadThen,
}

#[derive(Deserialize)]
struct PayloadThen {
    endpoint: Name,
}

/// Position of a submission: a task of its own, or the task in `wait.then` of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    Outer,
    Then,
}

impl Submission {
    /// Returns the name of the endpoint in `wait.then` of the payload. `None` if there is none, or if the
    /// payload has another form.
    pub fn then_endpoint(&self) -> Option<Name> {
        let text = self.payload.as_ref()?.get();
        // Most payloads have no wait, and the check of the text takes far less time than parsing.
        if !text.contains("\"wait\"") {
            return None;
        }
        read::<Payload>(text.as_bytes()).ok().map(|payload| payload.wait.then.endpoint)
    }
}

/// Reads the submission in `wait.then`. JSON pointers in the errors are relative to it.
pub fn read_then(template: &Json) -> Result<Submission, Vec<FieldError>> {
    read_fixed_template(
        template,
        "the task is created only if the wait times out; omit this fixed time, or send `delay` for a later start",
    )
}

/// Returns the task in `wait.then`, or all errors.
pub fn follow_up(submission: Submission, context: &SubmissionContext<'_>) -> Result<Task, Vec<FieldError>> {
    submission.into_task_at(context, Position::Then)
}

impl ValidationErrors {
    /// Checks the submission in `wait.then`.
    pub(super) fn then(&mut self, template: &Json, context: &SubmissionContext<'_>) {
        let context = SubmissionContext { endpoint: context.then_endpoint, ..*context };
        if let Err(errors) = read_then(template).and_then(|submission| follow_up(submission, &context)) {
            self.0.extend(errors.into_iter().map(|error| error.under("/payload/wait/then")));
        }
    }
}
