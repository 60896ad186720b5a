//! Legal changes of a task between two looks at it.

use nobat_core::task::{CancelRequest, Outcome, State, Task, TaskKey};
use nobat_core::types::id::TaskId;

/// Returns true if no write changed the task.
///
/// If the queue is an index over the tasks, any call may hand over a waiting task or end it past its
/// deadline. Such changes are ignored.
pub(super) fn is_untouched(before: Option<&Task>, after: Option<&Task>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) if before != after => {
            let is_expired = matches!(after.state, State::Ended(ended) if ended.end == Outcome::Expired);
            matches!(before.state, State::Waiting(_)) && (after.token > before.token || is_expired)
        }
        _ => before == after,
    }
}

/// Returns the name of the callback that must have been written with the task's end.
pub(super) fn callback_of(task: &Task) -> Option<TaskKey> {
    let State::Ended(ended) = &task.state else { return None };
    let is_wanted = task.options.callback.as_ref().is_some_and(|callback| callback.on.contains(&ended.end));
    let id = TaskId::of_callback(&task.tenant, task.id, task.created_at, task.generation, task.version);
    is_wanted.then(|| TaskKey { tenant: task.tenant.clone(), id })
}

/// Checks that the task can have changed from `before` to `after`, in any number of writes.
pub(super) fn follows(before: &Task, after: &Task) -> Result<(), &'static str> {
    if before.version == after.version {
        return if before == after { Ok(()) } else { Err("the task changed, but its version did not") };
    }
    let writes = after.version.checked_sub(before.version).ok_or("its version decreased")?;
    let claims = after.token.checked_sub(before.token).ok_or("its token decreased")?;
    let replays = after.generation.checked_sub(before.generation).ok_or("its generation decreased")?;
    let is_kept = |attempt| after.attempts.contains(attempt);
    let forgotten = before.attempts.iter().filter(|attempt| !is_kept(attempt)).count();
    let (is_ended, wakes) = (matches!(after.state, State::Ended(_)), after.wake_at().is_some());
    match () {
        () if claims > writes => Err("the task has more claims than writes"),
        () if matches!(before.state, State::Ended(_)) && replays == 0 => {
            Err("an ended task changed without a replay")
        }
        () if replays == 0 && is_asked_to_stop(before) && matches!(after.state, State::Waiting(_)) => {
            Err("the task waits although its cancellation was requested while it ran")
        }
        () if u64::from(replays) > writes => Err("the task has more replays than writes"),
        () if is_ended == wakes => Err("an unended task has no wake time, or an ended task has one"),
        () if after.attempt > after.options.retry.max_attempts() => {
            Err("the task has more attempts than its retry policy allows")
        }
        () if !after.attempts.is_sorted_by(|one, next| one.number < next.number) => {
            Err("its attempts are out of order")
        }
        () if after.attempts.last().is_some_and(|attempt| attempt.number > after.token) => {
            Err("an attempt is on record without a claim")
        }
        () if forgotten > 0 && after.attempts.len() < Task::KEPT_ATTEMPTS => {
            Err("an attempt is missing from the record")
        }
        () if (&before.payload, before.created_at) != (&after.payload, after.created_at) => {
            Err("the payload or the creation time has changed")
        }
        () => Ok(()),
    }
}

fn is_asked_to_stop(task: &Task) -> bool {
    matches!(&task.state, State::Running(lease) if lease.cancel == CancelRequest::Requested)
}
