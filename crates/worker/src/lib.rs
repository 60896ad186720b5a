//! The worker, the sweeper and the pruner of nobat, and the trait that handlers implement.

pub mod admission;
pub mod execution;
pub mod handler;
pub mod handlers;
pub mod maintenance;
pub mod signing;
pub mod system;
pub mod worker;
