//! Conversion of a task to a row and back. Values that SQL needs have columns, and texts hold the rest.

use nobat_core::json::Json;
use nobat_core::task::{
    CancelRequest, Completion, Fingerprint, Held, Lease, Outcome, State, Status, Task, Waiting, codec,
};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::id::TaskId;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use rusqlite::{Row, Statement, ToSql};

use crate::Error;

/// Columns of a task, in the order in which [`read`] expects them. `payload` is null if the payload is in its
/// own table.
pub(crate) const COLUMNS: &str = "seq, tenant, id, kind, queue, status, version, token, attempt, generation, created_at, generation_at, \
     due_at, expires_at, lease_until, lease_started_at, lease_cancel, ended_at, held, options, attempts, error, progress, result, payload, \
     key_generation, fingerprint, hold_state, requests";

/// Statement that inserts a task. [`bind`] binds the parameters 1 to 21, and [`bind_fixed`] binds all other
/// parameters.
pub(crate) const INSERT: &str = "INSERT INTO tasks (status, wake_at, version, token, attempt, generation, generation_at, due_at, \
     expires_at, lease_until, lease_started_at, lease_cancel, ended_at, held, key_generation, attempts, error, progress, result, hold_state, requests, \
     tenant, id, kind, queue, created_at, options, fingerprint, seq, payload) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30) \
     ON CONFLICT (tenant, id) DO NOTHING";

/// Statement that updates a task. [`bind`] binds the parameters 1 to 21. Tenant, id and the version that was
/// read follow.
pub(crate) const UPDATE: &str = "UPDATE tasks SET status = ?1, wake_at = ?2, version = ?3, token = ?4, attempt = ?5, generation = ?6, \
     generation_at = ?7, due_at = ?8, expires_at = ?9, lease_until = ?10, lease_started_at = ?11, lease_cancel = ?12, ended_at = ?13, \
     held = ?14, key_generation = ?15, attempts = ?16, error = ?17, progress = ?18, result = ?19, hold_state = ?20, requests = ?21 \
     WHERE tenant = ?22 AND id = ?23 AND version = ?24";

/// Values of column `status`. A task with a value below 3 is waiting. The indexes depend on these numbers.
pub(crate) mod status {
    pub(crate) const SCHEDULED: i64 = 0;
    pub(crate) const RETRYING: i64 = 1;
    pub(crate) const HELD: i64 = 2;
    pub(crate) const RUNNING: i64 = 3;
    pub(crate) const SUCCEEDED: i64 = 4;
    pub(crate) const FAILED: i64 = 5;
    pub(crate) const CANCELED: i64 = 6;
    pub(crate) const EXPIRED: i64 = 7;
}

/// Binds the columns that change. The statement must have no bound parameters: nulls are not bound.
pub(crate) fn bind(statement: &mut Statement<'_>, task: &Task) -> Result<(), Error> {
    let lease = match &task.state {
        State::Running(lease) => Some(lease),
        _ => None,
    };
    let held = match &task.state {
        State::Waiting(Waiting::Held(held)) => Some(held.reason.as_str()),
        _ => None,
    };
    statement.raw_bind_parameter(1, status_number(&task.state))?;
    bind_if_any(statement, 2, task.wake_at().map(Timestamp::millis))?;
    statement.raw_bind_parameter(3, task.version.cast_signed())?;
    statement.raw_bind_parameter(4, task.token.cast_signed())?;
    statement.raw_bind_parameter(5, task.attempt)?;
    statement.raw_bind_parameter(6, task.generation)?;
    statement.raw_bind_parameter(7, task.generation_at.millis())?;
    statement.raw_bind_parameter(8, task.due_at.millis())?;
    bind_if_any(statement, 9, task.options.expires_at.map(Timestamp::millis))?;
    bind_if_any(statement, 10, lease.map(|lease| lease.until.millis()))?;
    bind_if_any(statement, 11, lease.map(|lease| lease.started_at.millis()))?;
    bind_if_any(statement, 12, lease.map(|lease| lease.cancel == CancelRequest::Requested))?;
    bind_if_any(statement, 13, task.finished_at().map(Timestamp::millis))?;
    bind_if_any(statement, 14, held)?;
    bind_if_any(statement, 15, task.options.key_generation)?;
    bind_if_any(statement, 16, codec::attempts_to_text(&task.attempts))?;
    bind_if_any(statement, 17, task.error.as_ref().map(codec::error_to_text))?;
    bind_if_any(statement, 18, task.progress.as_ref().map(Json::get))?;
    bind_if_any(statement, 19, task.result.as_ref().map(Json::get))?;
    bind_if_any(statement, 20, codec::hold_state_to_text(&task.hold))?;
    bind_if_any(statement, 21, codec::requests_to_text(&task.requests))?;
    Ok(())
}

/// Binds a value, if there is one. A parameter that is not bound is null. Most values of most tasks are null.
fn bind_if_any(
    statement: &mut Statement<'_>,
    index: usize,
    value: Option<impl ToSql>,
) -> Result<(), rusqlite::Error> {
    value.map_or(Ok(()), |value| statement.raw_bind_parameter(index, value))
}

/// Binds the columns that never change.
pub(crate) fn bind_fixed(
    statement: &mut Statement<'_>,
    task: &Task,
    seq: i64,
    payload: Option<&str>,
) -> Result<(), Error> {
    statement.raw_bind_parameter(22, task.tenant.as_str())?;
    statement.raw_bind_parameter(23, task.id.to_bytes())?;
    statement.raw_bind_parameter(24, task.kind.as_str())?;
    statement.raw_bind_parameter(25, task.queue.as_str())?;
    statement.raw_bind_parameter(26, task.created_at.millis())?;
    bind_if_any(statement, 27, codec::options_to_text(&task.options))?;
    bind_if_any(statement, 28, task.options.fingerprint.map(|fingerprint| fingerprint.0))?;
    statement.raw_bind_parameter(29, seq)?;
    bind_if_any(statement, 30, payload)?;
    Ok(())
}

/// Reads a task from [`COLUMNS`]. `payload_apart` reads a separate payload by its `seq`.
pub(crate) fn read(
    row: &Row<'_>,
    payload_apart: impl FnOnce(i64) -> Result<String, Error>,
) -> Result<Task, Error> {
    let moment = |index| row.get(index).map(Timestamp::from_millis);
    let optional_moment =
        |index| row.get::<_, Option<i64>>(index).map(|millis| millis.map(Timestamp::from_millis));
    let payload = match row.get::<_, Option<String>>(24)? {
        Some(payload) => payload,
        None => payload_apart(row.get(0)?)?,
    };
    let mut options = codec::options_from_text(row.get_ref(19)?.as_str_or_null()?)?;
    options.expires_at = optional_moment(13)?;
    options.key_generation = row.get(25)?;
    options.fingerprint = row.get::<_, Option<[u8; 32]>>(26)?.map(Fingerprint);
    Ok(Task {
        tenant: Tenant::new(row.get_ref(1)?.as_str()?)?,
        id: TaskId::from_bytes(row.get(2)?),
        kind: Name::new(row.get_ref(3)?.as_str()?)?,
        queue: Name::new(row.get_ref(4)?.as_str()?)?,
        payload: Json::from_text(payload)?,
        options: Box::new(options),
        created_at: moment(10)?,
        generation_at: moment(11)?,
        generation: row.get(9)?,
        due_at: moment(12)?,
        state: state(row)?,
        version: row.get::<_, i64>(6)?.cast_unsigned(),
        token: row.get::<_, i64>(7)?.cast_unsigned(),
        attempt: row.get(8)?,
        attempts: codec::attempts_from_text(row.get_ref(20)?.as_str_or_null()?)?,
        result: row.get::<_, Option<String>>(23)?.map(Json::from_text).transpose()?,
        error: row.get_ref(21)?.as_str_or_null()?.map(codec::error_from_text).transpose()?,
        progress: row.get::<_, Option<String>>(22)?.map(Json::from_text).transpose()?,
        hold: codec::hold_state_from_text(row.get_ref(27)?.as_str_or_null()?)?,
        requests: codec::requests_from_text(row.get_ref(28)?.as_str_or_null()?)?,
    })
}

fn status_number(state: &State) -> i64 {
    match state {
        State::Waiting(Waiting::Scheduled) => status::SCHEDULED,
        State::Waiting(Waiting::Retrying) => status::RETRYING,
        State::Waiting(Waiting::Held(_)) => status::HELD,
        State::Running(_) => status::RUNNING,
        State::Ended(ended) => end_number(ended.end),
    }
}

fn end_number(end: Outcome) -> i64 {
    match end {
        Outcome::Succeeded => status::SUCCEEDED,
        Outcome::Failed => status::FAILED,
        Outcome::Canceled => status::CANCELED,
        Outcome::Expired => status::EXPIRED,
    }
}

/// Returns true if a row with this number may be shown as `wanted`. Every waiting task is shown as `queued`
/// once it is due.
pub(crate) fn may_be(number: i64, wanted: Status) -> bool {
    match wanted {
        Status::Queued => number < status::RUNNING,
        Status::Scheduled => number == status::SCHEDULED,
        Status::Retrying => number == status::RETRYING,
        Status::Held => number == status::HELD,
        Status::Running => number == status::RUNNING,
        Status::Ended(end) => number == end_number(end),
    }
}

fn state(row: &Row<'_>) -> Result<State, Error> {
    let ended = |end| Ok(State::Ended(Completion { end, at: Timestamp::from_millis(row.get(17)?) }));
    match row.get(5)? {
        status::SCHEDULED => Ok(State::Waiting(Waiting::Scheduled)),
        status::RETRYING => Ok(State::Waiting(Waiting::Retrying)),
        status::HELD => {
            let reason = HeldReason::of(row.get_ref(18)?.as_str()?);
            Ok(State::Waiting(Waiting::Held(Held { reason })))
        }
        status::RUNNING => Ok(State::Running(Lease {
            until: Timestamp::from_millis(row.get(14)?),
            started_at: Timestamp::from_millis(row.get(15)?),
            cancel: if row.get(16)? { CancelRequest::Requested } else { CancelRequest::None },
        })),
        status::SUCCEEDED => ended(Outcome::Succeeded),
        status::FAILED => ended(Outcome::Failed),
        status::CANCELED => ended(Outcome::Canceled),
        status::EXPIRED => ended(Outcome::Expired),
        _ => Err(Error::Unreadable("the status of a task")),
    }
}
