//! Events: their attributes, and the topics and filters that select them.

pub mod cloud_event;
pub mod filter;
pub mod topic;
