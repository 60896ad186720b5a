//! Model of the cloud backend: a separate table and queue, by the design's rules for AWS.
//!
//! It is no third backend. The conformance suite is tested on it, and the simulation uses it in place of
//! `DynamoDB` and SQS. If its [`Habits`] say so, it does everything that they are documented to do. Messages
//! come twice, late, or after their deletion. Indexes lag. Expired items stay. A repeated write finds itself
//! already made.

pub mod backend_quirks;
pub mod calls;
mod index;
mod queue;
mod registry;
mod store;
pub mod table;

use std::sync::Arc;
use std::time::Duration;

use nobat_core::service::backend::Backend;

pub use queue::{Letter, ModelQueue};
pub use registry::ModelRegistry;
pub use store::ModelStore;

use crate::conformance::Removal;
use crate::time::Time;
use backend_quirks::{Habits, Tame};
use calls::Calls;

/// Visibility timeout of a function's queue, as a multiple of the function's timeout.
pub const VISIBILITY_TIMEOUTS: u32 = 6;
/// Timeout of the function for dead letters.
pub const DEAD_LETTER_TIMEOUT: Duration = Duration::from_secs(30);

/// Table, queue of hints, and dead-letter queue.
#[derive(Clone)]
pub struct Model {
    /// Table.
    pub store: Arc<ModelStore>,
    /// Queue of hints.
    pub queue: Arc<ModelQueue>,
    /// Dead-letter queue.
    pub dead_letters: Arc<ModelQueue>,
}

impl Model {
    /// Creates an empty model with these habits. `worker` is the maximum time that a worker takes for a
    /// batch.
    pub fn new(
        time: &Arc<Time>,
        retention: Duration,
        worker: Duration,
        calls: Arc<Calls>,
        habits: &Arc<dyn Habits>,
    ) -> Self {
        let queue = |timeout: Duration, dead_letters| {
            Arc::new(ModelQueue::new(
                time.clone(),
                habits.clone(),
                timeout * VISIBILITY_TIMEOUTS,
                dead_letters,
            ))
        };
        let dead_letters = queue(DEAD_LETTER_TIMEOUT, None);
        let store = ModelStore::new(time.clone(), retention, Removal::ByItself, calls, habits.clone());
        Self { store: Arc::new(store), queue: queue(worker, Some(dead_letters.clone())), dead_letters }
    }

    /// Returns the model as a backend for the engines.
    pub fn backend(&self) -> Backend {
        let registry = self.store.registry();
        Backend {
            store: self.store.clone(),
            queue: self.queue.clone(),
            config: registry.clone(),
            limiters: registry,
        }
    }
}

/// Creates a separate model store and model queue without habits. Expired tasks are removed by pruning.
pub fn backend(time: &Arc<Time>, retention: Duration) -> Backend {
    let habits: Arc<dyn Habits> = Arc::new(Tame);
    let store = ModelStore::new(time.clone(), retention, Removal::ByPruning, Arc::default(), habits.clone());
    let queue = ModelQueue::new(time.clone(), habits, Duration::from_secs(90), None);
    let registry = store.registry();
    Backend { store: Arc::new(store), queue: Arc::new(queue), config: registry.clone(), limiters: registry }
}
