//! Collections with a bound.

pub mod recent;
pub mod turns;
