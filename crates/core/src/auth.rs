//! API keys, their rights, and the audit of changes.

pub mod api_key;
pub mod audit;
pub mod network;
pub mod scope;
