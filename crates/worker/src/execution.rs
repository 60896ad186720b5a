//! Execution of attempts: one task, or several tasks in one request.

mod batch_attempt;
mod deliveries;
pub mod runner;
