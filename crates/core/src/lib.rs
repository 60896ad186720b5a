//! Domain of nobat: tasks, their lifecycle, configuration, and the ports to stores, queues and clocks.
//!
//! Pure: no runtime, no disk, no network. The current time and random values are arguments.
//!
//! The modules stand in the order of their imports: each imports only from the modules above it.

pub mod auth;
pub mod collections;
pub mod config;
pub mod json;
pub mod limits;
pub mod policy;
pub mod ports;
pub mod secrets;
pub mod service;
pub mod submission;
pub mod task;
pub mod types;
