//! Routes of tasks.

pub(crate) mod cancel_replay;
mod examples;
pub(crate) mod explain;
pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod submit;
