//! Options of a task that its submission sets.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::auth::api_key::KeyId;
use crate::task::callback::Callback;
use crate::task::completion::TokenDigest;
use crate::task::retry::RetryPolicy;
use crate::types::id::{EventId, TaskId};
use crate::types::name::Name;
use crate::types::time::Timestamp;

/// Request with an idempotency key that changed a task. The task keeps it, so that a repetition of the
/// request changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedRequest {
    /// First 16 bytes of the SHA-256 of the request's route and idempotency key.
    pub key: [u8; 16],
    /// First 8 bytes of the SHA-256 of the request's route and body.
    pub body: [u8; 8],
}

impl KeyedRequest {
    /// Returns the request that a task keeps about a spent completion token. `body` is the first part of the
    /// SHA-256 of the completion, or zeros if the wait ended without a completion.
    pub fn of_token(TokenDigest(digest): &TokenDigest, body: [u8; 8]) -> Self {
        Self { key: std::array::from_fn(|place| digest[place]), body }
    }

    /// Returns true for a spent token whose wait ended without a completion.
    pub(crate) fn is_spent_token(&self) -> bool {
        self.body == [0; 8]
    }
}

/// Options of the submission. They never change, except that a replay may remove [`TaskOptions::expires_at`]
/// and set [`TaskOptions::key_generation`].
#[derive(Clone, Debug, PartialEq)]
pub struct TaskOptions {
    /// Maximum duration of one attempt. Default [`TaskOptions::DEFAULT_TIMEOUT`].
    pub timeout: Duration,
    /// Retry policy.
    pub retry: RetryPolicy,
    /// Deadline for starting. No attempt starts at or after this time.
    pub expires_at: Option<Timestamp>,
    /// Callback that reports the end of the task.
    pub callback: Option<Callback>,
    /// Labels set by the submitter.
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of the submitting request, if it had an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    /// Task whose end this task reports, if it is a callback.
    pub parent: Option<TaskId>,
    /// Event, schedule, source or other task that created the task, if one did.
    pub origin: Option<TaskOrigin>,
    /// API key of the submitting request, if the server required one.
    pub submitted_by: Option<KeyId>,
    /// Generation that is part of the idempotency key sent to the receiver. With `None`, that key is the
    /// task's id alone.
    pub key_generation: Option<u32>,
    /// Endpoint that the task calls.
    pub endpoint: Option<Name>,
    /// Limit key: tasks with the same limit key share the limits of this key.
    pub limit_key: Option<Name>,
    /// Settings that the submission left to the endpoint.
    pub left: InheritedDefaults,
    /// Number of tasks in the chain that led to this submission: the request of each task submitted the next
    /// task. 0 if no task led to this submission.
    pub hops: u8,
}

/// Event, schedule, source or other task that created a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskOrigin {
    /// A subscription created the task from an event.
    Event {
        /// The event.
        event: EventId,
        /// Name of the subscription.
        subscription: Name,
    },
    /// A schedule created the task.
    Schedule {
        /// Name of the schedule.
        schedule: Name,
        /// Planned time. `None` if a client started the schedule by hand.
        planned_at: Option<Timestamp>,
    },
    /// A source created the task from a request of a provider.
    Source {
        /// Name of the source.
        source: Name,
    },
    /// The wait of another task timed out.
    Wait {
        /// The task that waited.
        task: TaskId,
    },
}

impl TaskOrigin {
    /// Returns the subscription that created the task.
    pub fn subscription(&self) -> Option<&Name> {
        match self {
            Self::Event { subscription, .. } => Some(subscription),
            Self::Schedule { .. } | Self::Source { .. } | Self::Wait { .. } => None,
        }
    }
}

/// Settings that a submission left to its endpoint. The task stores the endpoint's values at submission. An
/// attempt uses the endpoint's values at the time of the attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InheritedDefaults {
    /// True if the submission set no timeout.
    pub timeout: bool,
    /// True if the submission set no retry policy.
    pub retry: bool,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            timeout: Self::DEFAULT_TIMEOUT,
            retry: RetryPolicy::default(),
            expires_at: None,
            callback: None,
            labels: BTreeMap::new(),
            fingerprint: None,
            parent: None,
            origin: None,
            submitted_by: None,
            key_generation: None,
            endpoint: None,
            limit_key: None,
            left: InheritedDefaults::default(),
            hops: 0,
        }
    }
}

impl TaskOptions {
    /// Maximum number of tasks in the chain that led to a request. The API refuses a longer chain as a loop.
    pub const MAX_HOPS: u8 = 3;
    /// Timeout of an attempt if neither the submission nor the endpoint sets one: 30 s.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
}

/// SHA-256 over method, path and body of a request. The hash distinguishes a repeated request from a
/// different request with the same idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);
