//! Ports of the engines: stores, queue, clock and randomness.
//!
//! The store holds the truth. A hint in the queue only means "task X may be due". A hint that is lost,
//! duplicated, late or out of order therefore costs time and nothing else.

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
