//! The engines of nobat, each one a `run_once(now)`, and the trait that handlers implement.

pub mod context;
pub mod handler;
