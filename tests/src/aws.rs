//! AWS on this machine: an emulator that the tests install and start, and the helpers around it.
//!
//! The tests speak plain HTTP and JSON to it, without an SDK: an SDK could hide what the services really
//! hold.

pub mod client;
pub mod deployment;
pub mod emulator;
pub mod fault_proxy;
pub mod queues;
pub mod stack;
pub mod table;
pub mod template;
