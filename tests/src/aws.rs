//! AWS on this machine: an emulator that is installed and started by whoever asks for it, and what the tests need around it.
//!
//! The tests speak to it in plain HTTP and JSON, and know no SDK: what they see is what is really there.

pub mod client;
pub mod deployment;
pub mod emulator;
pub mod queues;
pub mod stack;
pub mod table;
pub mod tap;
pub mod template;
