//! nobat on AWS Lambda: the engines of `nobat serve`, each in its own function.
//!
//! A program with its own kinds has two functions like `src/bin/api.rs` and `src/bin/worker.rs`, which pass
//! the same [`Handlers`] to [`api::run`] and [`worker::run`]. The first validates payloads with them, the
//! second runs them.

pub mod api;
pub mod dead_letter;
mod log;
mod records;
mod settings;
pub mod sweeper;
pub mod worker;

pub use lambda_runtime::Error;
pub use nobat_worker::handler::Handler;
pub use nobat_worker::handler::context::TaskContext;
pub use nobat_worker::handler::failure::Failure;
pub use nobat_worker::handler::registry::Handlers;
