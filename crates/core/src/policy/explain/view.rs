//! Explanation, as the API shows it.

use serde::Serialize;

use crate::policy::explain::{ExplainCode, Explanation};
use crate::task::Task;
use crate::task::view::{ErrorView, HeldView, StatusWord, TaskView};
use crate::types::id::TaskId;
use crate::types::name::Name;
use crate::types::time::Timestamp;

/// Reason why a task is not running.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Explanation))]
pub struct ExplanationView<'a> {
    /// ID of the task.
    #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^task_[0-9a-z]{26}$"))]
    pub id: TaskId,
    /// Status of the task.
    #[cfg_attr(feature = "openapi", schema(value_type = StatusWord))]
    pub status: StatusWord,
    /// Reason code for programs. The list is closed, and a code never changes its meaning.
    #[cfg_attr(feature = "openapi", schema(value_type = ExplainCode))]
    pub code: ExplainCode,
    /// Reason in one sentence for people, with more details.
    pub reason: String,
    /// Time at which the reason ends by itself, or at which nobat checks the task again. For a running task:
    /// end of its lease, unless the worker renews the lease. `null` if unknown, or if the task has ended.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime, required))]
    pub until: Option<Timestamp>,
    /// Object that holds the task. `null` if no object with a name holds it.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub blocked_by: Option<BlockedByView>,
    /// Number of attempts so far that count against the retry policy, including a running attempt.
    pub attempt: u32,
    /// Number of attempts that the retry policy allows. A task with an endpoint and without a retry policy of
    /// its own uses the current policy of the endpoint, or else of the queue.
    pub max_attempts: u32,
    /// Reason and end of the last hold. `code` can differ, because `code` describes the current state.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub held: Option<HeldView>,
    /// Error of the last attempt, or reason why there will be no other attempt.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub error: Option<ErrorView<'a>>,
}

/// Object that holds a task.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ExplanationBy))]
pub struct BlockedByView {
    /// Type of the object: `endpoint`, `limit_key`, `kind`, `queue`, `subscription` or `tenant`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub r#type: &'static str,
    /// Name of the object.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: Name,
}

impl<'a> ExplanationView<'a> {
    /// Returns the explanation as the API shows it.
    pub fn new(task: &'a Task, explanation: Explanation, now: Timestamp) -> Self {
        let TaskView { id, status, attempt, held, error, .. } = TaskView::summary(task, now);
        let Explanation { code, reason, until, by, max_attempts } = explanation;
        let blocked_by = by.map(|of| BlockedByView {
            r#type: of.type_name(),
            name: of.name().unwrap_or(task.tenant.name()).clone(),
        });
        Self {
            id,
            status,
            code,
            reason,
            until,
            blocked_by,
            attempt,
            max_attempts,
            held: held.flatten(),
            error,
        }
    }
}
