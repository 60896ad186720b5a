//! Attempt of an event's task: creates the tasks of its subscriptions.

use nobat_core::json::Json;
use nobat_core::ports::StoreError;
use nobat_core::service::fan_out::{FanOut, FanOutProgress};
use nobat_core::task::{ErrorCode, Task};
use nobat_core::types::field_error::FieldError;
use nobat_core::types::intervals::MAX_SCHEDULE_AHEAD;
use nobat_core::types::name::Name;

use crate::execution::runner::Runner;
use crate::handler::context::TaskContext;
use crate::handler::failure::Failure;

/// Maximum number of failed subscriptions that the error names.
const MAX_NAMED: usize = 5;

impl Runner {
    /// Creates the tasks of an event. A repetition creates no second task for a subscription.
    pub(crate) async fn fan_out(&self, task: &Task, context: &TaskContext) -> Result<Json, Failure> {
        let fan_out = FanOut {
            backend: &self.backend,
            config_cache: &self.config_cache,
            kinds: &self.handlers,
            // The server checked the timeout when the client wrote the template.
            max_timeout: MAX_SCHEDULE_AHEAD,
            now: self.clock.now(),
        };
        let outcome = fan_out.run(task).await.map_err(|error| match error {
            StoreError::Corrupt(_) => Failure::permanent(ErrorCode::INVALID_PAYLOAD, error.to_string()),
            error => Failure::retry(ErrorCode::STORE_UNAVAILABLE, error.to_string()),
        })?;
        let done = Json::from_value(&FanOutProgress { subscriptions: outcome.subscriptions })
            .map_err(|error| Failure::permanent(ErrorCode::INVALID_RESULT, error.to_string()))?;
        if outcome.failed.is_empty() {
            return Ok(done);
        }
        context.set_progress(done);
        Err(failure(&outcome.failed))
    }
}

/// Returns the failure for subscriptions without a task. If an endpoint or a kind is missing, the fan-out is
/// tried again, because the endpoint or kind can appear later.
fn failure(failed: &[(Name, Vec<FieldError>)]) -> Failure {
    let texts: Vec<String> = failed
        .iter()
        .take(MAX_NAMED)
        .map(|(name, errors)| {
            let (pointer, detail) =
                errors.first().map_or(("", ""), |error| (error.pointer.as_str(), error.detail.as_str()));
            format!("`{name}`: {pointer} {detail}")
        })
        .collect();
    let message =
        format!("no task could be created; failed subscriptions ({}): {}", failed.len(), texts.join("; "));
    let is_missing = |error: &FieldError| matches!(error.code, Some("unknown_endpoint" | "unknown_kind"));
    if failed.iter().any(|(_, errors)| errors.iter().all(is_missing)) {
        Failure::retry(ErrorCode::SUBSCRIPTION_FAILED, message)
    } else {
        Failure::permanent(ErrorCode::SUBSCRIPTION_FAILED, message)
    }
}
