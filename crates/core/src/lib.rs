//! Domain of nobat: tasks, their lifecycle, configuration, and the ports to stores, message queues and
//! clocks.
//!
//! This crate uses no async runtime, no disk and no network. Callers pass the current time and random values
//! as arguments.
//!
//! Each module imports only from the modules before it in this order: `types`, `collections`, `json`, `auth`,
//! `limits`, `task`, `secrets`, `events`, `schedules`, `sources`, `config`, `submission`, `ports`, `policy`, `service`.

pub mod auth;
pub mod collections;
pub mod config;
pub mod events;
pub mod json;
pub mod limits;
pub mod policy;
pub mod ports;
pub mod schedules;
pub mod secrets;
pub mod service;
pub mod sources;
pub mod submission;
pub mod task;
pub mod types;
