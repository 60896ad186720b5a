//! Domain of nobat: tasks, their lifecycle, configuration, and the ports to stores, queues and clocks.
//!
//! Pure: no runtime, no disk, no network. The current time and random values are arguments.

pub mod audit;
pub mod authority;
pub mod backend;
mod base32;
pub mod bounds;
pub mod callback;
pub mod callback_secret;
pub mod directory;
pub mod endpoint;
pub mod explain;
pub mod flow;
pub mod http_url;
pub mod id;
pub mod json;
pub mod key;
pub mod lane;
pub mod lifecycle;
pub mod name;
pub mod network;
pub mod ports;
pub mod rate;
pub mod read;
pub mod recent;
pub mod registry;
pub mod retry;
#[cfg(feature = "openapi")]
mod schema;
pub mod scope;
pub mod secrets;
pub mod statuses;
pub mod stored;
pub mod submit;
pub mod task;
pub mod tenant;
pub mod time;
pub mod turns;
pub mod vault;
pub mod view;
pub mod webhook;
