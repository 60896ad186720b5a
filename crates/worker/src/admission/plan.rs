//! Plan of one attempt: the result of its admission.

use std::sync::Arc;
use std::time::Duration;

use nobat_core::config::endpoint::{Endpoint, ResponseClass};
use nobat_core::json::Json;
use nobat_core::limits::{CallHealth, LimitScope, Reservations};
use nobat_core::task::retry::RetryPolicy;
use nobat_core::task::{TaskError, TaskOptions};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Name;
use nobat_core::types::time::Timestamp;
use serde::Deserialize;

use crate::admission::limiter::Permits;

/// Decision about a task that wants to start.
pub(crate) enum Admission {
    /// The task may start.
    Go(AttemptPlan),
    /// The task must wait.
    Hold {
        /// Reason for the wait.
        reason: HeldReason,
        /// Time of the next admission check.
        until: Timestamp,
        /// Reservations and batch membership that the task keeps until the next check.
        reserved: Reservations,
    },
}

/// Settings and permits of one attempt.
#[derive(Default)]
pub(crate) struct AttemptPlan {
    /// Permits of the task's limiters.
    pub(crate) permits: Permits,
    /// Endpoint of the task, in its current version.
    pub(crate) endpoint: Option<(Name, Arc<Endpoint>)>,
    /// Retry policy of the endpoint, else of the queue, else the default. `None` if the task has its own
    /// retry policy, or names no endpoint.
    pub(crate) policy: Option<RetryPolicy>,
    /// The limiter to pause if the endpoint asks for a pause.
    pub(crate) pause_scope: Option<LimitScope>,
    /// Other tasks of the batch that this task leads, possibly none. `None` if the task leads no batch.
    pub(crate) companions: Option<Vec<TaskId>>,
}

impl AttemptPlan {
    /// Returns the endpoint's health after a failed attempt. The endpoint's response policy decides, not the
    /// task's policy. A call without a response counts as unhealthy.
    pub(super) fn health(&self, error: &TaskError) -> CallHealth {
        let answers =
            self.endpoint.as_ref().map(|(_, endpoint)| endpoint.answers.clone()).unwrap_or_default();
        match error.code.status() {
            // 429 limits the rate and says nothing about health.
            Some(429) => CallHealth::Unknown,
            Some(status) if answers.meaning(status) != ResponseClass::Retry => CallHealth::Good,
            _ => CallHealth::Bad,
        }
    }

    /// Returns the endpoint's health after an attempt that the task counts as success. The endpoint's
    /// response policy may count the same response as a failure.
    pub(super) fn health_after_success(&self, result: &Json) -> CallHealth {
        #[derive(Deserialize)]
        struct Answered {
            status: u16,
        }
        match (&self.endpoint, result.parse::<Answered>()) {
            (Some((_, endpoint)), Ok(Answered { status }))
                if endpoint.answers.meaning(status) == ResponseClass::Retry && status != 429 =>
            {
                CallHealth::Bad
            }
            _ => CallHealth::Good,
        }
    }

    /// Returns true if the attempt has no permits, so no limiter needs a report.
    pub(crate) fn is_free(&self) -> bool {
        self.permits.are_none()
    }

    /// Returns the maximum duration of an attempt.
    pub(crate) fn timeout(&self, options: &TaskOptions) -> Duration {
        let endpoint = self.endpoint.as_ref().filter(|_| options.left.timeout);
        endpoint
            .map_or(options.timeout, |(_, endpoint)| endpoint.timeout.unwrap_or(TaskOptions::DEFAULT_TIMEOUT))
    }

    /// Returns the maximum number of attempts.
    pub(crate) fn max_attempts(&self, options: &TaskOptions) -> u32 {
        self.policy.as_ref().unwrap_or(&options.retry).max_attempts()
    }
}
