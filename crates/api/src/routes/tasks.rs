//! Routes of tasks.

pub(crate) mod cancel_replay;
pub(crate) mod complete_fail;
pub(crate) mod examples;
pub(crate) mod explain;
pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod submit;
