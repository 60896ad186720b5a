//! Data that an explanation needs in addition to the task.

use crate::config::endpoint::Endpoint;
use crate::config::queue::QueueConfig;
use crate::config::task_config::TaskConfig;
use crate::limits::{LimitScope, LimiterState, Limits};
use crate::policy::Configuration;
use crate::task::Then;

/// Configuration and limiters of a task. For a task that has ended, the default is enough.
#[derive(Clone, Debug, Default)]
pub struct ExplainInput {
    /// Configuration of the task's queue and kind, and limits of its tenant.
    pub task_config: TaskConfig,
    /// Endpoint that the task names, if the endpoint exists.
    pub endpoint: Option<Endpoint>,
    /// Configuration of the task's limit key, if the task names a limit key.
    pub limit_key: Option<QueueConfig>,
    /// The task's limiters, as [`decide`](crate::policy::decide) lists them.
    pub limiters: Vec<LimiterSnapshot>,
    /// True if the subscription that created the task is paused.
    pub is_subscription_paused: bool,
    /// True if this installation has a handler for the task's kind.
    pub has_handler: bool,
    /// Consequence of the time-out of the task's wait, if its payload has a wait.
    pub then: Option<Then>,
}

impl ExplainInput {
    /// Returns the configuration that decides about the task.
    pub fn configuration(&self) -> Configuration<'_> {
        let Self { task_config, limit_key, has_handler, is_subscription_paused, .. } = self;
        let (endpoint, limit_key) = (self.endpoint.as_ref(), limit_key.as_ref());
        Configuration {
            task_config,
            endpoint,
            limit_key,
            is_subscription_paused: *is_subscription_paused,
            has_handler: *has_handler,
        }
    }
}

/// Limiter with its limits and its state.
#[derive(Clone, Debug)]
pub struct LimiterSnapshot {
    /// Property that the limiter's tasks share.
    pub of: LimitScope,
    /// Limits of the limiter.
    pub limits: Limits,
    /// State of the limiter.
    pub limiter: LimiterState,
}
