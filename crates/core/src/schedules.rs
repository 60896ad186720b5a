//! Schedules: the planned times at which a schedule creates tasks, and the decisions about each of them.

pub mod advance;
pub mod timing;
