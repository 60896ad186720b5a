//! Port to the queue of hints.

use std::time::Duration;

use async_trait::async_trait;

use crate::ports::error::StoreError;
use crate::task::{Task, TaskKey};

/// Load of a queue, or of another bounded resource, inside this process. Operations, unless the name says
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLoad {
    /// Stable name of the queue, such as `write`.
    pub name: &'static str,
    /// Number that waits or is under way now.
    pub length: usize,
    /// Maximum of `length`.
    pub limit: usize,
    /// Maximum of `length` for one tenant.
    pub tenant_limit: usize,
    /// Operations refused or given up after too long a wait, since the process started.
    pub refused: u64,
}

/// Queue that carries hints from processes that know that a task is due to workers.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Sends hints, each visible after its delay. A hint whose delay exceeds the queue's maximum is not sent:
    /// the sweeper sends it later.
    ///
    /// A failure loses nothing, because the sweeper sends the hints again.
    async fn send(&self, hints: Vec<Hint>) -> Result<(), StoreError>;

    /// Waits for work and takes up to `max` deliveries. Dropping the future loses nothing.
    ///
    /// Returns an empty list if nothing arrived for a while.
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, StoreError>;

    /// Tells the queue the outcome of deliveries.
    async fn settle(&self, settlements: Vec<(Receipt, Settlement)>) -> Result<(), StoreError>;

    /// Checks that the queue answers.
    async fn ready(&self) -> Result<(), StoreError>;
}

/// Message to a queue: this task may be due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Key of the task.
    pub name: TaskKey,
    /// Time after which the queue delivers the hint.
    pub delay: Duration,
    /// Number of earlier hints in a row that became dead letters because each worker that received one died
    /// before it claimed the task.
    pub redrives: u32,
}

impl Hint {
    /// Hint that is sent for the first time.
    pub fn new(name: TaskKey, delay: Duration) -> Self {
        Self { name, delay, redrives: 0 }
    }
}

/// Message received from a queue.
#[derive(Debug)]
pub enum Delivery {
    /// Hint: a task may be due.
    Hint {
        /// Key of the task.
        name: TaskKey,
        /// Receipt that identifies the message to the queue.
        receipt: Receipt,
    },
    /// Task that the queue has claimed already. Only a queue that shares its database with the store can do
    /// this.
    Claimed(Box<Task>),
}

/// Identifier of a received message. Only the queue can interpret it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt(pub String);

/// Instruction to the queue for a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Delete the message: the outcome of its task is stored, whether it is success or failure.
    Acknowledge,
    /// Deliver the message again: the outcome could not be stored.
    Return,
}
