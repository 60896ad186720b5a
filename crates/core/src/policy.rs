//! Decisions about a task that combine its state with the configuration and the limits.

mod decide;
pub mod explain;

pub use decide::{Block, Configuration, Decision, decide, inherited_retry, pause_scope};
