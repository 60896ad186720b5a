//! A backend that is a picture of one: two maps, and the rules of the design for a table and a queue that stand apart.
//!
//! It is no third backend, but what the conformance suite is tried on and what the simulation puts in the place of
//! `DynamoDB` and SQS. It shows every freedom that they take: hints are delayed, hidden and given up on as SQS does it,
//! and the sweep finds by marks what it must look at.

mod queue;
mod store;

use std::sync::Arc;
use std::time::Duration;

use nobat_core::backend::Backend;

pub use queue::ModelQueue;
pub use store::ModelStore;

use crate::time::Time;

/// A model store and a model queue, which know nothing of one another.
pub fn backend(time: &Arc<Time>, retention: Duration) -> Backend {
    Backend { store: Arc::new(ModelStore::new(retention)), queue: Arc::new(ModelQueue::new(time.clone())) }
}
