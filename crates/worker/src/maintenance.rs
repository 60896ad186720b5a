//! Engines that repair and prune: each has one `run_once(now)`.

pub mod dead_letters;
pub mod pruner;
pub mod sweeper;
