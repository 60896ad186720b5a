//! Queries of tasks: one task by key, due tasks, and lists.

use std::time::Duration;

use nobat_core::ports::{ListQuery, Page, Position};
use nobat_core::task::{Outcome, Status, Task, TaskKey};
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use rusqlite::{Connection, Params, Row, params};

use crate::row::COLUMNS;
use crate::{Error, row};

/// Bits of `seq` that distinguish tasks of one millisecond.
const SEQ_SHIFT: u32 = 20;

/// Returns the task, unless its retention has passed.
pub(crate) fn get(
    connection: &Connection,
    name: &TaskKey,
    retention: Duration,
    now: Timestamp,
) -> Result<Option<Task>, Error> {
    let sql = get_sql();
    let found = select(connection, sql, params![name.tenant.as_str(), name.id.to_bytes()])?;
    Ok(found.into_iter().next().filter(|task| is_kept(task, retention, now)))
}

/// Returns up to `limit` tasks whose lease has expired or whose deadline has passed. Other due tasks need no
/// sweep, because workers take them from the index.
pub(crate) fn due(connection: &Connection, limit: usize, now: Timestamp) -> Result<Vec<Task>, Error> {
    let leased = format!(
        "SELECT {COLUMNS} FROM tasks INDEXED BY tasks_leased WHERE status = 3 AND wake_at <= ?1 ORDER BY wake_at LIMIT ?2"
    );
    let expiring = format!(
        "SELECT {COLUMNS} FROM tasks INDEXED BY tasks_expiring
         WHERE status < 3 AND expires_at IS NOT NULL AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2"
    );
    let (mut due, _) = select_readable(connection, &leased, params![now.millis(), to_sql(limit)])?;
    due.extend(select_readable(connection, &expiring, params![now.millis(), to_sql(limit - due.len())])?.0);
    Ok(due)
}

/// Counts a tenant's waiting tasks, up to `at_most`.
pub(crate) fn waiting(connection: &Connection, tenant: &Tenant, at_most: usize) -> Result<usize, Error> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_waiting WHERE tenant = ?1 AND status < 3 LIMIT ?2)";
    let count: i64 = connection
        .prepare_cached(sql)?
        .query_row(params![tenant.as_str(), to_sql(at_most)], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(at_most))
}

/// Returns one page of a list, newest first, from the end of the previous page.
///
/// Scans up to [`ListQuery::MAX_SCANNED`] rows by their first columns and reads the full rows of those that
/// may match. `failed` and `held` have their own indexes, so that other tasks cost nothing.
pub(crate) fn list(
    connection: &Connection,
    query: &ListQuery,
    retention: Duration,
    now: Timestamp,
) -> Result<Page, Error> {
    let before = match (&query.after, query.created_before) {
        (Some(position), _) => position.0.parse().map_err(|_| Error::Unreadable("the position of a page"))?,
        // `seq` is never below the time of acceptance. `seq` can be higher after the clock was set back.
        (None, Some(moment)) => seq_of(moment) | ((1 << SEQ_SHIFT) - 1),
        (None, None) => i64::MAX,
    };
    let from = query.created_after.map_or(0, seq_of);
    let filter = match query.status {
        Some(Status::Ended(Outcome::Failed)) => "INDEXED BY tasks_failed WHERE status = 5 AND",
        Some(Status::Held) => "INDEXED BY tasks_held WHERE status = 2 AND",
        _ => "INDEXED BY tasks_of_tenant WHERE",
    };
    let sql = format!(
        "SELECT seq, kind, queue, status FROM tasks {filter} tenant = ?1 AND seq < ?2 AND seq >= ?3 ORDER BY seq DESC LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows =
        statement.query(params![query.tenant.as_str(), before, from, to_sql(ListQuery::MAX_SCANNED)])?;
    let (mut tasks, mut scanned, mut last) = (Vec::new(), 0, None);
    while let Some(found) = rows.next()? {
        scanned += 1;
        let seq: i64 = found.get(0)?;
        last = Some(seq);
        if may_match(found, query)? {
            let task = read_listed(connection, seq)?;
            tasks.extend(task.filter(|task| query.matches(task, now) && is_kept(task, retention, now)));
        }
        if tasks.len() == query.limit {
            break;
        }
    }
    let is_cut_short = tasks.len() == query.limit || scanned == ListQuery::MAX_SCANNED;
    Ok(Page { tasks, next: last.filter(|_| is_cut_short).map(|seq| Position(seq.to_string())) })
}

/// Returns true if a row of `seq, kind, queue, status` may match the filters.
fn may_match(found: &Row<'_>, query: &ListQuery) -> Result<bool, Error> {
    let is_of = |index, name: &Option<Name>| {
        name.as_ref()
            .map_or(Ok(true), |name| Ok::<_, Error>(found.get_ref(index)?.as_str()? == name.as_str()))
    };
    let status: i64 = found.get(3)?;
    let may_stand = query.status.is_none_or(|wanted| row::may_be(status, wanted));
    Ok(may_stand && is_of(1, &query.kind)? && is_of(2, &query.queue)?)
}

/// Reads a task without its payload and result. Lists do not show payloads and results, which can be long.
fn read_listed(connection: &Connection, seq: i64) -> Result<Option<Task>, Error> {
    let sql =
        format!("SELECT {} FROM tasks WHERE seq = ?1", COLUMNS.replace("result, payload", "NULL, 'null'"));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([seq])?;
    rows.next()?.map(|found| row::read(found, |_| Err(Error::Unreadable("a payload")))).transpose()
}

fn get_sql() -> &'static str {
    static SQL: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| format!("SELECT {COLUMNS} FROM tasks WHERE tenant = ?1 AND id = ?2"));
    &SQL
}

/// Returns the lowest `seq` of tasks accepted at `moment`. Times too far in the future share the highest
/// `seq`.
pub(crate) fn seq_of(moment: Timestamp) -> i64 {
    moment.millis().min(i64::MAX >> SEQ_SHIFT) << SEQ_SHIFT
}

fn is_kept(task: &Task, retention: Duration, now: Timestamp) -> bool {
    task.finished_at().is_none_or(|ended| ended + retention > now)
}

fn select(connection: &Connection, sql: &str, params: impl Params) -> Result<Vec<Task>, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut tasks = Vec::new();
    while let Some(found) = rows.next()? {
        tasks.push(read_whole(connection, found)?);
    }
    Ok(tasks)
}

/// Returns the tasks, and the `seq` of rows that cannot be read. An unreadable row must not block the other
/// tasks.
pub(crate) fn select_readable(
    connection: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<(Vec<Task>, Vec<i64>), Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let (mut tasks, mut unreadable) = (Vec::new(), Vec::new());
    while let Some(found) = rows.next()? {
        match read_whole(connection, found) {
            Ok(task) => tasks.push(task),
            Err(error @ Error::Unreadable(_)) => {
                let seq = found.get(0)?;
                tracing::error!(%error, seq, "the row of a task cannot be read; nobat skips the task");
                unreadable.push(seq);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((tasks, unreadable))
}

fn read_whole(connection: &Connection, found: &Row<'_>) -> Result<Task, Error> {
    row::read(found, |seq| {
        let mut statement = connection.prepare_cached("SELECT payload FROM payloads WHERE seq = ?1")?;
        Ok(statement.query_row([seq], |row| row.get(0))?)
    })
}

pub(crate) fn to_sql(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
