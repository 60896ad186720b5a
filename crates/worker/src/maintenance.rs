//! Sweeper, pruner, and handling of hints in the dead-letter queue. All three run beside the worker.

pub mod dead_letters;
pub mod pruner;
pub mod sweeper;
