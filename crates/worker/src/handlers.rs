//! Built-in handlers.

pub mod http;
pub mod noop;
