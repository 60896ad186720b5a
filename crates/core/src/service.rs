//! Operations on the ports that keep the promises of the API.

pub mod backend;
pub mod config_cache;
