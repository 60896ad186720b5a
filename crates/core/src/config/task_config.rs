//! Configuration that applies to one task.

use crate::config::endpoint::Endpoint;
use crate::config::queue::QueueConfig;
use crate::limits::{LimitScope, Limits};
use crate::task::Task;

/// Configuration for the tasks of one queue and one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskConfig {
    /// Configuration of the queue.
    pub queue: QueueConfig,
    /// Configuration of the kind.
    pub kind: QueueConfig,
    /// Limits of the tenant.
    pub tenant: Limits,
}

/// Returns the limiters that a task must pass, in the order in which the worker asks them. Those that hold tasks most often come first, so
/// that the others are not asked in vain. `key` is the configuration of the task's limit key.
pub fn limiters_of(
    task: &Task,
    task_config: &TaskConfig,
    endpoint: Option<&Endpoint>,
    key: Option<&QueueConfig>,
) -> Vec<(LimitScope, Limits)> {
    let of_endpoint = task.options.endpoint.clone().zip(endpoint).map(|(name, endpoint)| (LimitScope::Endpoint(name), endpoint.limits));
    let of_key = task.options.limit_key.clone().zip(key).map(|(key, queue_config)| (LimitScope::Key(key), queue_config.limits));
    let of_task_config = [
        (LimitScope::Kind(task.kind.clone()), task_config.kind.limits),
        (LimitScope::Queue(task.queue.clone()), task_config.queue.limits),
        (LimitScope::Tenant, task_config.tenant),
    ];
    of_endpoint.into_iter().chain(of_key).chain(of_task_config.into_iter().filter(|(_, limits)| !limits.is_none())).collect()
}
