//! Tasks that keep an event and fan it out.

use std::sync::LazyLock;

use crate::types::name::Name;

/// Kind of the tasks that fan events out. No client can submit such a task.
pub static EVENT_KIND: LazyLock<Name> = LazyLock::new(|| Name::constant("event"));

/// Queue of the tasks that fan events out.
pub static EVENT_QUEUE: LazyLock<Name> = LazyLock::new(|| Name::constant("events"));

/// Kind of the tasks that run schedules. No client can submit such a task.
pub static SCHEDULE_KIND: LazyLock<Name> = LazyLock::new(|| Name::constant("schedule"));

/// Queue of the tasks that run schedules.
pub static SCHEDULE_QUEUE: LazyLock<Name> = LazyLock::new(|| Name::constant("schedules"));

/// Returns true if only nobat creates tasks of this kind.
pub fn is_internal(kind: &Name) -> bool {
    *kind == *EVENT_KIND || *kind == *SCHEDULE_KIND
}
