//! Store of limiter states, in table `limiters`.

use async_trait::async_trait;
use nobat_core::limits::{LimiterChange, LimiterKey, LimiterState, Reservations, Successor};
use nobat_core::ports::StoreError;
use nobat_core::ports::limiter_store::{IDLE, LimiterStore, VersionedState, WriteResult};
use nobat_core::service::backend::changes;
use nobat_core::task::lifecycle::{Event, transition};
use nobat_core::task::{Task, TaskKey};
use nobat_core::types::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use crate::database::Database;
use crate::read_pool::Cost;
use crate::task_queries::to_sql;
use crate::writer::Load;
use crate::{Error, Sqlite};

#[async_trait]
impl LimiterStore for Sqlite {
    async fn read(&self, name: &LimiterKey) -> Result<VersionedState, StoreError> {
        let name = name.clone();
        Sqlite::read(self, Cost::Record, Some(name.tenant.clone()), move |connection| find(connection, &name))
            .await
    }

    async fn write(
        &self,
        name: &LimiterKey,
        limiter: &LimiterState,
        over: u64,
        now: Timestamp,
    ) -> Result<WriteResult, StoreError> {
        let (name, body) = (name.clone(), limiter.to_text());
        self.0
            .writer
            .call(Load::of(Some(name.tenant.clone())), move |database| {
                database.write_limiter(&name, &body, over, now)
            })
            .await
    }

    /// Runs as one operation of the writer, so that no other write comes in between.
    async fn change(
        &self,
        name: &LimiterKey,
        change: LimiterChange,
        now: Timestamp,
    ) -> Result<Option<Successor>, StoreError> {
        let name = name.clone();
        self.0
            .writer
            .call(Load::of(Some(name.tenant.clone())), move |database| {
                database.change_limiter(&name, change, now)
            })
            .await
    }
}

impl Database {
    fn write_limiter(
        &mut self,
        name: &LimiterKey,
        body: &str,
        over: u64,
        now: Timestamp,
    ) -> Result<WriteResult, Error> {
        let sql = if over == 0 {
            "INSERT INTO limiters (tenant, name, version, written_at, body) VALUES (?1, ?2, ?3 + 1, ?4, ?5) ON CONFLICT DO NOTHING"
        } else {
            "UPDATE limiters SET version = ?3 + 1, written_at = ?4, body = ?5 WHERE tenant = ?1 AND name = ?2 AND version = ?3"
        };
        let connection = self.connection();
        let mut statement = connection.prepare_cached(sql)?;
        let values =
            params![name.tenant.as_str(), name.scope.to_string(), over.cast_signed(), now.millis(), body];
        if statement.execute(values)? == 1 {
            Ok(WriteResult::Done)
        } else {
            Ok(WriteResult::Conflict(find(connection, name)?))
        }
    }

    fn change_limiter(
        &mut self,
        name: &LimiterKey,
        change: LimiterChange,
        now: Timestamp,
    ) -> Result<Option<Successor>, Error> {
        let kept = find(self.connection(), name)?;
        let mut limiter = kept.limiter.clone();
        let successor = limiter.change(change, now);
        if limiter != kept.limiter {
            self.write_limiter(name, &limiter.to_text(), kept.version, now)?;
        }
        Ok(successor)
    }

    /// Gives back the reservation of a task and removes the task from its batch, as
    /// [`nobat_core::service::backend::Backend::give_back`] does, but in the same transaction.
    pub(crate) fn give_back(
        &mut self,
        task: &Task,
        reserved: Reservations,
        now: Timestamp,
    ) -> Result<(), Error> {
        for (of, change) in changes(task, reserved) {
            let name = LimiterKey { tenant: task.tenant.clone(), scope: of };
            let Some(Successor { id, at }) = self.change_limiter(&name, change, now)? else { continue };
            if let Some(next) = self.get(&TaskKey { tenant: task.tenant.clone(), id }, now)?
                && let Ok(change) = transition(next, Event::Lead { at }, now)
            {
                self.commit(change)?;
            }
        }
        Ok(())
    }

    /// Deletes up to `limit` limiters that have not been written to for [`IDLE`]. Returns the number of
    /// deleted limiters.
    pub(crate) fn forget_limiters(&self, limit: usize, now: Timestamp) -> Result<usize, Error> {
        let sql = "DELETE FROM limiters WHERE (tenant, name) IN (SELECT tenant, name FROM limiters WHERE written_at < ?1 LIMIT ?2)";
        let mut statement = self.connection().prepare_cached(sql)?;
        Ok(statement.execute(params![(now - IDLE).millis(), to_sql(limit)])?)
    }
}

fn find(connection: &Connection, name: &LimiterKey) -> Result<VersionedState, Error> {
    let mut statement =
        connection.prepare_cached("SELECT version, body FROM limiters WHERE tenant = ?1 AND name = ?2")?;
    let found = statement.query_row(params![name.tenant.as_str(), name.scope.to_string()], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, String>(1)?))
    });
    let Some((version, body)) = found.optional()? else { return Ok(VersionedState::default()) };
    Ok(VersionedState { version, limiter: LimiterState::from_text(&body)? })
}
