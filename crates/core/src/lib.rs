//! Domain of nobat: tasks, their lifecycle, configuration, and the ports to stores, queues and clocks.
//!
//! Pure: no runtime, no disk, no network. The current time and random values are arguments.
//!
//! Each module imports only from the modules before it in this order: `types`, `collections`, `json`, `auth`,
//! `limits`, `task`, `secrets`, `config`, `submission`, `ports`, `policy`, `service`.

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
