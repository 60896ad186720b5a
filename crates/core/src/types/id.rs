//! Ids of tasks and events.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256};

use crate::types::encoding;
use crate::types::name::Tenant;
use crate::types::serde_as_text::serde_as_text;
use crate::types::time::Timestamp;

/// Id of a task: 128 bits, written as `task_` and 26 characters of Crockford's base 32.
///
/// Ids that [`TaskId::new`] creates sort by time. Ids derived from other values do not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u128);

/// The text is not the id of a task.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the id of a task: `task_` and 26 letters and digits")]
pub struct InvalidId;

const PREFIX: &str = "task_";
const DIGITS: usize = encoding::length(16);

impl TaskId {
    /// Creates a new id: 48 bits of milliseconds since the Unix epoch, then 80 of the given random bits.
    pub fn new(now: Timestamp, random: u128) -> Self {
        Self((u128::from(now.millis().cast_unsigned()) << 80) | (random & ((1 << 80) - 1)))
    }

    /// Returns the id for an idempotency key: the first 128 bits of SHA-256 over tenant, route, key, and
    /// index in a batch.
    ///
    /// Repeated requests thus get the same id. Deduplication needs only the condition that no task with this
    /// id exists.
    pub fn from_key(tenant: &Tenant, route: &str, key: &str, index: usize) -> Self {
        Self::digest(&[tenant.as_str(), route, key, &index.to_string()])
    }

    /// Returns the id of the callback for the end of `parent` with that generation and version.
    ///
    /// The id is derived, so the same end can never enqueue two callbacks. If a client reuses an idempotency
    /// key after the key's task was removed, the new task has the same id. `created_at` distinguishes the two
    /// tasks.
    pub fn of_callback(
        tenant: &Tenant,
        parent: Self,
        created_at: Timestamp,
        generation: u32,
        version: u64,
    ) -> Self {
        let (created_at, generation, version) =
            (created_at.millis().to_string(), generation.to_string(), version.to_string());
        Self::digest(&[tenant.as_str(), "callback", &parent.to_string(), &created_at, &generation, &version])
    }

    /// Returns the id of the task that fans an event out. A repeated event has the same source and id, and
    /// so the same task.
    pub fn of_event(tenant: &Tenant, source: &str, id: &str) -> Self {
        Self::digest(&[tenant.as_str(), "event", source, id])
    }

    /// Returns the id of the task of a provider's request. `source` is the name of the source, and `id` the
    /// provider's id of the event.
    pub fn of_webhook(tenant: &Tenant, source: &str, id: &str) -> Self {
        Self::digest(&[tenant.as_str(), "webhook", source, id])
    }

    /// Returns the id of the task that a subscription gets from an event. `created_at` is the time at which
    /// the event was accepted: after the retention of the event, an event with the same source and id is a
    /// new event.
    pub fn of_subscription(tenant: &Tenant, event: Self, created_at: Timestamp, subscription: &str) -> Self {
        let created_at = created_at.millis().to_string();
        Self::digest(&[tenant.as_str(), "subscription", &event.to_string(), &created_at, subscription])
    }

    /// Returns the id of the task that a schedule creates for a planned time. `incarnation` tells the schedule
    /// apart from a removed one with the same name.
    pub fn of_planned(tenant: &Tenant, schedule: &str, incarnation: u64, planned_at: Timestamp) -> Self {
        let (incarnation, planned_at) = (incarnation.to_string(), planned_at.millis().to_string());
        Self::digest(&[tenant.as_str(), "planned", schedule, &incarnation, &planned_at])
    }

    /// Returns the id of the task that runs a version of a schedule.
    pub fn of_schedule(tenant: &Tenant, schedule: &str, incarnation: u64, version: u64) -> Self {
        let (incarnation, version) = (incarnation.to_string(), version.to_string());
        Self::digest(&[tenant.as_str(), "schedule", schedule, &incarnation, &version])
    }

    /// Returns the id of the task that is created when the wait of `task` times out. `created_at` is the time
    /// at which `task` was accepted: see [`TaskId::of_callback`].
    pub fn of_wait(tenant: &Tenant, task: Self, created_at: Timestamp, generation: u32) -> Self {
        let (created_at, generation) = (created_at.millis().to_string(), generation.to_string());
        Self::digest(&[tenant.as_str(), "wait", &task.to_string(), &created_at, &generation])
    }

    fn digest(parts: &[&str]) -> Self {
        Self(u128::from_be_bytes(digest(parts)))
    }

    /// Returns the 16 bytes to store. The bytes sort like the ids.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Inverse of [`TaskId::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// Returns the first 128 bits of SHA-256 over all parts.
pub(crate) fn digest<T: AsRef<str>>(parts: &[T]) -> [u8; 16] {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        // Without the length, ("ab", "c") and ("a", "bc") would have the same digest.
        hash.update(&(part.as_ref().len() as u64).to_be_bytes());
        hash.update(part.as_ref().as_bytes());
    }
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finish().as_ref()[..16]);
    first
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; PREFIX.len() + DIGITS];
        text[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
        encoding::encode(&self.to_bytes(), &mut text[PREFIX.len()..]);
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Id of an event: `event_` and the characters of its task's id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId(pub TaskId);

/// The text is not the id of an event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the id of an event: `event_` and 26 letters and digits")]
pub struct InvalidEventId;

const EVENT_PREFIX: &str = "event_";

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; DIGITS];
        encoding::encode(&self.0.to_bytes(), &mut digits);
        write!(f, "{EVENT_PREFIX}{}", std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let bytes = text.strip_prefix(EVENT_PREFIX).and_then(encoding::decode).ok_or(InvalidEventId)?;
        Ok(Self(TaskId::from_bytes(bytes)))
    }
}

serde_as_text!(EventId);

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TaskId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.strip_prefix(PREFIX).and_then(encoding::decode).map(Self::from_bytes).ok_or(InvalidId)
    }
}

serde_as_text!(TaskId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_sort_by_creation_time() {
        let early = TaskId::new(Timestamp::from_millis(1_000), u128::MAX);
        let late = TaskId::new(Timestamp::from_millis(1_001), 0);
        assert!(early < late && early.to_string() < late.to_string());
    }

    #[test]
    fn id_of_a_key_depends_on_tenant_route_and_position() {
        let tenant = Tenant::default();
        let id = TaskId::from_key(&tenant, "/v1/tasks", "k", 0);
        assert_eq!(id, TaskId::from_key(&tenant, "/v1/tasks", "k", 0));
        let other = Tenant::new("other").unwrap();
        assert_ne!(id, TaskId::from_key(&other, "/v1/tasks", "k", 0));
        assert_ne!(id, TaskId::from_key(&tenant, "/v1/tasks/batch", "k", 0));
        assert_ne!(id, TaskId::from_key(&tenant, "/v1/tasks", "k", 1));
    }

    #[test]
    fn malformed_id_is_refused() {
        for text in
            ["", "task_", "task_0", "job_01jd0000000000000000000000", "task_z1jd0000000000000000000000"]
        {
            assert_eq!(text.parse::<TaskId>(), Err(InvalidId), "{text}");
        }
    }

    proptest! {
        #[test]
        fn id_is_read_back_as_written(value: u128) {
            let id = TaskId(value);
            prop_assert_eq!(EventId(id).to_string().parse(), Ok(EventId(id)));
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(TaskId::from_bytes(id.to_bytes()), id);
        }
    }
}
