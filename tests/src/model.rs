//! A backend that is a picture of one: a table and a queue that stand apart, by the rules of the design for the cloud.
//!
//! It is no third backend, but what the conformance suite is tried on and what the simulation puts in the place of `DynamoDB` and
//! SQS. It takes every freedom that they are documented to take, when its [`Habits`] say so: messages come twice, late, or after
//! they were deleted; indexes are behind; what has expired stays; and a write that is repeated finds itself already made.

pub mod calls;
pub mod habits;
mod index;
mod queue;
mod registry;
mod store;
pub mod table;

use std::sync::Arc;
use std::time::Duration;

use nobat_core::backend::Backend;

pub use queue::{Letter, ModelQueue};
pub use registry::ModelRegistry;
pub use store::ModelStore;

use crate::conformance::Removal;
use crate::time::Time;
use calls::Calls;
use habits::{Habits, Tame};

/// A function's queue hides what was received for so many times the function's own timeout.
pub const VISIBILITY_TIMEOUTS: u32 = 6;
/// How long the function for dead letters may take.
pub const DEAD_LETTER_TIMEOUT: Duration = Duration::from_secs(30);

/// A table, a queue, and the queue of dead letters.
#[derive(Clone)]
pub struct Model {
    /// The table.
    pub store: Arc<ModelStore>,
    /// The queue of hints.
    pub queue: Arc<ModelQueue>,
    /// What the queue of hints has given up on.
    pub dead_letters: Arc<ModelQueue>,
}

impl Model {
    /// Empty ones, with such habits, for a worker that may take that long over a batch.
    pub fn new(time: &Arc<Time>, retention: Duration, worker: Duration, calls: Arc<Calls>, habits: &Arc<dyn Habits>) -> Self {
        let queue = |timeout: Duration, dead_letters| {
            Arc::new(ModelQueue::new(time.clone(), habits.clone(), timeout * VISIBILITY_TIMEOUTS, dead_letters))
        };
        let dead_letters = queue(DEAD_LETTER_TIMEOUT, None);
        let store = ModelStore::new(time.clone(), retention, Removal::ByItself, calls, habits.clone());
        Self { store: Arc::new(store), queue: queue(worker, Some(dead_letters.clone())), dead_letters }
    }

    /// What the engines see of it.
    pub fn backend(&self) -> Backend {
        let registry = self.store.registry();
        Backend { store: self.store.clone(), queue: self.queue.clone(), registry: registry.clone(), flows: registry }
    }
}

/// A model store and a model queue, which know nothing of one another and have no habits. What has expired is pruned.
pub fn backend(time: &Arc<Time>, retention: Duration) -> Backend {
    let habits: Arc<dyn Habits> = Arc::new(Tame);
    let store = ModelStore::new(time.clone(), retention, Removal::ByPruning, Arc::default(), habits.clone());
    let queue = ModelQueue::new(time.clone(), habits, Duration::from_secs(90), None);
    let registry = store.registry();
    Backend { store: Arc::new(store), queue: Arc::new(queue), registry: registry.clone(), flows: registry }
}
