//! Port to the message queue, which carries hints.

use std::time::Duration;

use async_trait::async_trait;

use crate::ports::error::StoreError;
use crate::task::{Task, TaskKey};

/// Load of a queue or another bounded resource inside this process. The unit is operations, or bytes if the
/// name ends with `bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLoad {
    /// Stable name of the resource, such as `write`.
    pub name: &'static str,
    /// Current number of waiting and running operations.
    pub length: usize,
    /// Maximum of `length`.
    pub limit: usize,
    /// Maximum of `length` for one tenant.
    pub tenant_limit: usize,
    /// Number of operations since the process started that were refused or waited too long.
    pub refused: u64,
}

/// Message queue that carries hints to the workers.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Sends hints, each visible after its delay. A hint whose delay exceeds the maximum of the message queue
    /// is not sent: the sweeper sends that hint later.
    ///
    /// A failure loses nothing, because the sweeper sends the hints again.
    async fn send(&self, hints: Vec<Hint>) -> Result<(), StoreError>;

    /// Waits for hints and takes up to `max` deliveries. Dropping the future loses no delivery.
    ///
    /// Returns an empty list if nothing arrived within the waiting time of the message queue.
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, StoreError>;

    /// Tells the message queue whether deliveries are handled or must be delivered again.
    async fn settle(&self, settlements: Vec<(Receipt, Settlement)>) -> Result<(), StoreError>;

    /// Checks that the message queue responds.
    async fn ready(&self) -> Result<(), StoreError>;
}

/// Message that says that a task may be due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Key of the task.
    pub name: TaskKey,
    /// Time after which the message queue delivers the hint.
    pub delay: Duration,
    /// Number of consecutive earlier hints of the task that ended in the dead-letter queue. Each worker that
    /// received such a hint died before it claimed the task.
    pub redrives: u32,
}

impl Hint {
    /// Creates a hint that is sent for the first time.
    pub fn new(name: TaskKey, delay: Duration) -> Self {
        Self { name, delay, redrives: 0 }
    }
}

/// Message received from the message queue.
#[derive(Debug)]
pub enum Delivery {
    /// Hint: a task may be due.
    Hint {
        /// Key of the task.
        name: TaskKey,
        /// Receipt that identifies the message to the message queue.
        receipt: Receipt,
    },
    /// Task that the message queue has claimed already. Only a message queue that shares its database with
    /// the store can do this.
    Claimed(Box<Task>),
}

/// Identifier of a received message. Only the message queue can interpret the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt(pub String);

/// Instruction to the message queue for a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Delete the message: the outcome of its task is stored, whether it is success or failure.
    Acknowledge,
    /// Deliver the message again: the outcome could not be stored.
    Return,
}
