//! Configuration that applies to one task.

use crate::config::queue::QueueConfig;
use crate::limits::Limits;

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
