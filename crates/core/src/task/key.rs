//! Key of a task.

use crate::task::Task;
use crate::types::id::TaskId;
use crate::types::name::Tenant;

/// Key of a task: tenant and id. A hint carries the key of its task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskKey {
    /// Tenant that owns the task.
    pub tenant: Tenant,
    /// Id of the task.
    pub id: TaskId,
}

impl Task {
    /// Returns the key of the task.
    pub fn key(&self) -> TaskKey {
        TaskKey { tenant: self.tenant.clone(), id: self.id }
    }
}
