//! Decision whether a task may start. Admission applies the decision, and [`explain`](super::explain)
//! describes it.

use crate::config::endpoint::{Endpoint, EndpointStatus};
use crate::config::queue::QueueConfig;
use crate::config::task_config::TaskConfig;
use crate::limits::{LimitScope, Limits};
use crate::task::event::is_internal;
use crate::task::retry::RetryPolicy;
use crate::task::{Task, TaskOrigin};
use crate::types::held_reason::HeldReason;

/// Configuration that decides whether a task may start.
#[derive(Clone, Copy, Debug)]
pub struct Configuration<'a> {
    /// Configuration of the task's queue and kind, and limits of its tenant.
    pub task_config: &'a TaskConfig,
    /// Endpoint that the task names, if the endpoint exists.
    pub endpoint: Option<&'a Endpoint>,
    /// Configuration of the task's limit key, if the task names a limit key.
    pub limit_key: Option<&'a QueueConfig>,
    /// True if the subscription that created the task is paused.
    pub is_subscription_paused: bool,
    /// True if there is a handler for the task's kind.
    pub has_handler: bool,
}

/// Result of [`decide`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Hold that lasts until the configuration changes. `None`: the limiters decide.
    pub block: Option<Block>,
    /// Limiters that must grant a permit, in the order in which the worker acquires the permits. Limiters
    /// that often hold tasks come first, which saves requests to the other limiters. The endpoint's limiter,
    /// if any, is the first.
    pub limiters: Vec<(LimitScope, Limits)>,
}

/// Hold that lasts until a client or an operator changes the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Reason of the hold.
    pub reason: HeldReason,
    /// Objects that hold the task: queue, kind, endpoint or subscription. The list has more than one entry
    /// only if several objects are paused.
    pub by: Vec<LimitScope>,
}

/// Decides if the configuration lets a task start, and which limiters must grant a permit.
pub fn decide(task: &Task, configuration: Configuration<'_>) -> Decision {
    Decision { block: block(task, configuration), limiters: limiters(task, configuration) }
}

fn block(
    task: &Task,
    Configuration { task_config, endpoint, has_handler, is_subscription_paused, .. }: Configuration<'_>,
) -> Option<Block> {
    let status = endpoint.map(|endpoint| endpoint.status);
    let endpoint = || task.options.endpoint.clone().map(LimitScope::Endpoint);
    let subscription = task
        .options
        .origin
        .as_ref()
        .and_then(TaskOrigin::subscription)
        .cloned()
        .map(LimitScope::Subscription);
    let paused = [
        task_config.queue.paused.then(|| LimitScope::Queue(task.queue.clone())),
        task_config.kind.paused.then(|| LimitScope::Kind(task.kind.clone())),
        endpoint().filter(|_| status == Some(EndpointStatus::Paused)),
        subscription.filter(|_| is_subscription_paused),
    ];
    if paused.iter().any(Option::is_some) {
        return Some(Block { reason: HeldReason::Paused, by: paused.into_iter().flatten().collect() });
    }
    let reason = match (&task.options.endpoint, status) {
        (Some(_), None) => HeldReason::EndpointMissing,
        (Some(_), Some(EndpointStatus::Gone)) => HeldReason::EndpointGone,
        _ if !has_handler => {
            return Some(Block {
                reason: HeldReason::NoHandler,
                by: vec![LimitScope::Kind(task.kind.clone())],
            });
        }
        _ => return None,
    };
    Some(Block { reason, by: endpoint().into_iter().collect() })
}

fn limiters(
    task: &Task,
    Configuration { task_config, endpoint, limit_key, .. }: Configuration<'_>,
) -> Vec<(LimitScope, Limits)> {
    let endpoint = task
        .options
        .endpoint
        .clone()
        .zip(endpoint)
        .map(|(name, endpoint)| (LimitScope::Endpoint(name), endpoint.limits));
    let limit_key = task
        .options
        .limit_key
        .clone()
        .zip(limit_key)
        .map(|(key, config)| (LimitScope::Key(key), config.limits));
    let others = [
        (LimitScope::Kind(task.kind.clone()), task_config.kind.limits),
        (LimitScope::Queue(task.queue.clone()), task_config.queue.limits),
        (LimitScope::Tenant, task_config.tenant),
    ];
    endpoint
        .into_iter()
        .chain(limit_key)
        .chain(others.into_iter().filter(|(scope, limits)| {
            // Otherwise, one long task of a tenant could stop its schedules.
            !limits.is_none() && (*scope != LimitScope::Tenant || !is_internal(&task.kind))
        }))
        .collect()
}

/// Returns the limiter to pause if the receiver asks for a pause: the limiter of the task's limit key, else
/// of its endpoint.
pub fn pause_scope(task: &Task) -> Option<LimitScope> {
    let (limit_key, endpoint) = (task.options.limit_key.clone(), task.options.endpoint.clone());
    limit_key.map(LimitScope::Key).or_else(|| endpoint.map(LimitScope::Endpoint))
}

/// Returns the retry policy that a task inherits: the policy of its endpoint, else of its queue, else the
/// default. `None` if the task has its own retry policy, or no endpoint.
pub fn inherited_retry(task: &Task, endpoint: Option<&Endpoint>, queue: &QueueConfig) -> Option<RetryPolicy> {
    let endpoint = endpoint.filter(|_| task.options.left.retry)?;
    Some(endpoint.retry.clone().or_else(|| queue.retry.clone()).unwrap_or_default())
}
