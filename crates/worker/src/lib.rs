//! The engines of nobat, each one a `run_once(now)`, and the trait that handlers implement.

pub mod admission;
pub mod execution;
pub mod handler;
pub mod handlers;
pub mod maintenance;
pub mod signing;
pub mod system;
pub mod worker;
