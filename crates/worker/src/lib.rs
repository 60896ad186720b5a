//! The engines of nobat, each one a `run_once(now)`, and the trait that handlers implement.

mod admission;
pub mod batch;
pub mod context;
pub mod dead_letter;
pub mod gate;
pub mod handler;
pub mod http;
pub mod noop;
pub mod prune;
pub mod run;
pub mod signer;
pub mod sweep;
pub mod system;
mod together;
pub mod worker;
