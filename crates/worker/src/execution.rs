//! Execution of attempts: one task, or several tasks in one request.

mod batch_attempt;
mod deliveries;
mod fan_out;
mod lease;
pub mod runner;
mod schedule;
mod waits;
