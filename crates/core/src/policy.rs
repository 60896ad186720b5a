//! Decisions about a task that combine its state with the configuration and the limits.

pub mod explain;
