//! Handlers that nobat brings along.

pub mod http;
pub mod noop;
