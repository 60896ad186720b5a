//! API keys, networks, and the audit trail.

pub mod api_key;
pub mod audit;
pub mod network;
pub mod scope;
