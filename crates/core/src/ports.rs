//! Ports: interfaces to stores, message queue, clock and randomness.
//!
//! Only the store decides the state of a task. A hint in the message queue only means "task X may be due". So
//! a lost, duplicated, late or out-of-order hint can only delay a task.

pub mod clock;
pub mod config_store;
pub mod error;
pub mod limiter_store;
pub mod queue;
pub mod random;
pub mod task_store;

pub use clock::Clock;
pub use error::StoreError;
pub use queue::{Delivery, Hint, Queue, QueueLoad, Receipt, Settlement};
pub use random::Random;
pub use task_store::{
    ClaimResult, CommitResult, Heartbeat, InsertResult, ListQuery, Page, Position, TaskStore,
};
