//! nobat on AWS Lambda: the same engines as in `nobat serve`, each in a function of its own.
//!
//! A program with kinds of its own has two functions like `src/bin/api.rs` and `src/bin/worker.rs`, which give the same
//! [`Handlers`] to [`api::run`] and [`worker::run`]: the first judges payloads by them, the second runs them.

pub mod api;
pub mod dead_letter;
mod log;
mod records;
mod settings;
pub mod sweeper;
pub mod worker;

pub use lambda_runtime::Error;
pub use nobat_worker::context::TaskContext;
pub use nobat_worker::handler::{Failure, Handler, Handlers};
