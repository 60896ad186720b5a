//! Callback: the task that reports the outcome of another task.

use std::sync::LazyLock;

use crate::task::retry::RetryPolicy;
use crate::task::state::Outcome;
use crate::types::name::Name;

/// Settings of a task's callback.
#[derive(Clone, Debug, PartialEq)]
pub struct Callback {
    /// The `http` or `https` URL to call.
    pub url: String,
    /// Outcomes to report.
    pub on: Vec<Outcome>,
    /// Retry policy of the callback.
    pub retry: RetryPolicy,
}

/// Kind of the tasks that send an HTTP request.
pub static HTTP: LazyLock<Name> = LazyLock::new(|| Name::constant("http"));

/// The queue of callbacks.
pub static QUEUE: LazyLock<Name> = LazyLock::new(|| Name::constant("callbacks"));
