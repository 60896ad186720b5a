//! The domain of nobat: what a task is, what can become of it, and what is needed of the world to get it done.
//!
//! Pure: no runtime, no disk, no network. `now` and chance are arguments.

pub mod backend;
pub mod callback;
pub mod id;
pub mod json;
pub mod lifecycle;
pub mod name;
pub mod ports;
pub mod read;
pub mod retry;
pub mod stored;
pub mod submit;
pub mod task;
pub mod time;
pub mod view;
