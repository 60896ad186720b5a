//! Operations that use several ports, and the configuration cache.

pub mod backend;
pub mod config_cache;
pub mod fan_out;
pub mod schedules;
pub mod sources;
pub mod waits;
