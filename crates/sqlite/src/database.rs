//! All operations on the file, without threads. The writer decides which operations share a transaction.

mod scheduling;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nobat_core::json::Json;
use nobat_core::ports::{ClaimResult, CommitResult, Heartbeat, InsertResult};
use nobat_core::task::lifecycle::{Change, Event, transition};
use nobat_core::task::{CancelRequest, State, Task, TaskKey};
use nobat_core::types::intervals::LEASE;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use crate::dispatch::Dispatch;
use crate::file::BUSY_TIMEOUT;
use crate::row::status;
use crate::task_queries::{get, seq_of, to_sql};
use crate::tenant_scheduler::TenantScheduler;
use crate::worker_shares::WorkerShares;
use crate::{Error, row};

/// Maximum size of a payload in table `tasks`, in bytes. Larger payloads are in table `payloads`.
const INLINE_PAYLOAD: usize = 1_024;

/// Result of several writes. `All` keeps the writes, and `Nothing` undoes them.
pub(crate) enum Savepoint<T> {
    All(T),
    Nothing(T),
}

/// The file, and the state derived from it.
pub(crate) struct Database {
    connection: Connection,
    dispatch: Arc<Dispatch>,
    retention: Duration,
    last_seq: i64,
    /// `seq` at which the last [`Database::prune`] stopped. 0 if [`Database::prune`] reached the end.
    pruned_to: i64,
    /// Tenants with waiting tasks, and the time of each tenant's next task.
    scheduler: TenantScheduler,
    /// Worker slots that each tenant holds. Some slots are kept free for other tenants.
    shares: WorkerShares,
    /// Tenants with due tasks that could get no more worker slots in the last dispatch. A task of such a
    /// tenant starts when another task of the same tenant ends.
    withheld: BTreeSet<Tenant>,
    /// True if `scheduler` may differ from the file.
    is_unsure: bool,
    /// Tasks claimed in this transaction. Workers get these tasks after the COMMIT.
    handed: Vec<Task>,
    /// Tasks changed in this transaction. Watchers are notified after the COMMIT.
    touched: Vec<TaskKey>,
    /// Number of rows written by [`Database::probe`] on this connection.
    probes: u64,
}

impl Database {
    /// Creates a database on a connection to a migrated file.
    pub(crate) fn new(
        connection: Connection,
        dispatch: Arc<Dispatch>,
        retention: Duration,
    ) -> Result<Self, Error> {
        let last_seq =
            connection.query_row("SELECT coalesce(max(seq), 0) FROM tasks", [], |row| row.get(0))?;
        let mut database = Self {
            connection,
            dispatch,
            retention,
            last_seq,
            pruned_to: 0,
            scheduler: TenantScheduler::default(),
            shares: WorkerShares::default(),
            withheld: BTreeSet::new(),
            is_unsure: true,
            handed: Vec::new(),
            touched: Vec::new(),
            probes: 0,
        };
        database.make_sure()?;
        database.note_tenants()?;
        database.dispatch.set_next_due(database.scheduler.earliest());
        Ok(database)
    }

    /// Ends every lease, also unexpired leases, and returns the number of leases. No worker can still hold a
    /// lease, because this process has the lock of the file.
    pub(crate) fn end_leases(&self) -> Result<usize, Error> {
        let mut statement = self.prepare(
            "UPDATE tasks SET lease_until = 0, wake_at = 0, version = version + 1 WHERE status = 3",
        )?;
        Ok(statement.execute([])?)
    }

    pub(crate) fn insert(&mut self, mut tasks: Vec<Task>, now: Timestamp) -> Result<InsertResult, Error> {
        if let [task] = tasks.as_mut_slice() {
            return Ok(match self.insert_one(task, now)? {
                None => InsertResult::Created(tasks),
                Some(existing) => InsertResult::Existing(vec![existing]),
            });
        }
        self.savepoint(|database| {
            let mut existing = Vec::new();
            for task in &mut tasks {
                existing.extend(database.insert_one(task, now)?);
            }
            if existing.is_empty() {
                Ok(Savepoint::All(InsertResult::Created(tasks)))
            } else {
                Ok(Savepoint::Nothing(InsertResult::Existing(existing)))
            }
        })
    }

    /// Runs several writes, and keeps all of them or none.
    pub(crate) fn savepoint<T>(
        &mut self,
        operation: impl FnOnce(&mut Self) -> Result<Savepoint<T>, Error>,
    ) -> Result<T, Error> {
        self.prepare("SAVEPOINT several")?.raw_execute()?;
        let (handed, touched) = (self.handed.len(), self.touched.len());
        let done = operation(self);
        if !matches!(done, Ok(Savepoint::All(_))) {
            for task in self.handed.drain(handed..) {
                self.shares.end(&task.tenant, &task.id);
            }
            self.touched.truncate(touched);
            self.prepare("ROLLBACK TO several")?.raw_execute()?;
        }
        self.prepare("RELEASE several")?.raw_execute()?;
        match done? {
            Savepoint::All(result) | Savepoint::Nothing(result) => Ok(result),
        }
    }

    /// Inserts a task. Returns the existing task if there is one.
    ///
    /// If the task is due, a worker is free and no other task waits before it, the task is claimed in the
    /// same write.
    pub(crate) fn insert_one(&mut self, task: &mut Task, now: Timestamp) -> Result<Option<Task>, Error> {
        let is_first = self.scheduler.earliest().is_none_or(|due| due > now);
        self.shares.note_tenant(&task.tenant);
        let wanted = if is_first { self.dispatch.wanted() } else { 0 };
        self.shares.note_offer(wanted.saturating_sub(self.handed.len()));
        if self.handed.len() < wanted && task.due_at <= now && self.shares.allowance(&task.tenant) > 0 {
            // A refused claim means that the task cannot start now. The task then waits like any other task.
            let _ = task.claim_unstored(now + LEASE, now);
        }
        if !self.write_new(task)? {
            let name = task.key();
            match self.get(&name, now)? {
                Some(existing) => return Ok(Some(existing)),
                None => self.delete(&name)?,
            }
            self.write_new(task)?;
        }
        match &task.state {
            State::Running(_) => self.hand(task.clone()),
            _ => self.will_be_due(task),
        }
        Ok(None)
    }

    /// Inserts the row of a task. Returns false if a task with that key exists.
    fn write_new(&mut self, task: &Task) -> Result<bool, Error> {
        let seq = (self.last_seq + 1).max(seq_of(task.created_at));
        let text = task.payload.get();
        let is_inline = text.len() <= INLINE_PAYLOAD;
        let mut statement = self.prepare(row::INSERT)?;
        row::bind(&mut statement, task)?;
        row::bind_fixed(&mut statement, task, seq, is_inline.then_some(text))?;
        if statement.raw_execute()? == 0 {
            return Ok(false);
        }
        drop(statement);
        if !is_inline {
            self.prepare("INSERT INTO payloads (seq, payload) VALUES (?1, ?2)")?
                .execute(params![seq, text])?;
        }
        self.last_seq = seq;
        Ok(true)
    }

    /// Deletes a task after its retention, so that its key can be used again.
    fn delete(&self, name: &TaskKey) -> Result<(), Error> {
        let id = name.id.to_bytes();
        self.prepare(
            "DELETE FROM payloads WHERE seq = (SELECT seq FROM tasks WHERE tenant = ?1 AND id = ?2)",
        )?
        .execute(params![name.tenant.as_str(), id])?;
        self.prepare("DELETE FROM tasks WHERE tenant = ?1 AND id = ?2")?
            .execute(params![name.tenant.as_str(), id])?;
        Ok(())
    }

    pub(crate) fn get(&self, name: &TaskKey, now: Timestamp) -> Result<Option<Task>, Error> {
        get(&self.connection, name, self.retention, now)
    }

    pub(crate) fn claim(
        &mut self,
        name: &TaskKey,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<ClaimResult, Error> {
        let Some(task) = self.get(name, now)? else { return Ok(ClaimResult::Missing) };
        match transition(task.clone(), Event::Claim { until }, now) {
            Err(refused) => Ok(ClaimResult::Refused(refused, task)),
            Ok(change) => match self.commit(change)? {
                CommitResult::Done(task) => Ok(ClaimResult::Granted(*task)),
                CommitResult::Conflict => Err(Error::Unreadable("the version of a task")),
            },
        }
    }

    pub(crate) fn commit(&mut self, change: Change) -> Result<CommitResult, Error> {
        let Change { task, read_version, callback: follow_up, entry, released: _ } = change;
        let is_written = if follow_up.is_none() && entry.is_none() {
            self.update(&task, read_version)?
        } else {
            self.savepoint(|database| {
                let is_written = database.update(&task, read_version)?;
                if is_written {
                    if let Some(mut follow_up) = follow_up {
                        let now = follow_up.created_at;
                        database.insert_one(&mut follow_up, now)?;
                    }
                    if let Some(entry) = entry {
                        database.write_entry(&entry)?;
                    }
                }
                Ok(Savepoint::All(is_written))
            })?
        };
        if !is_written {
            return Ok(CommitResult::Conflict);
        }
        if !matches!(task.state, State::Running(_)) {
            self.shares.end(&task.tenant, &task.id);
        }
        self.will_be_due(&task);
        self.touched.push(task.key());
        Ok(CommitResult::Done(Box::new(task)))
    }

    /// Writes the task if its stored version is `read_version`. Returns true if it was written.
    fn update(&self, task: &Task, read_version: u64) -> Result<bool, Error> {
        let mut statement = self.prepare(row::UPDATE)?;
        row::bind(&mut statement, task)?;
        statement.raw_bind_parameter(22, task.tenant.as_str())?;
        statement.raw_bind_parameter(23, task.id.to_bytes())?;
        statement.raw_bind_parameter(24, read_version.cast_signed())?;
        Ok(statement.raw_execute()? == 1)
    }

    pub(crate) fn beat(
        &mut self,
        name: &TaskKey,
        token: u64,
        until: Timestamp,
        progress: Option<&Json>,
    ) -> Result<Heartbeat, Error> {
        let mut statement = self.prepare(
            "UPDATE tasks SET lease_until = ?1, wake_at = ?1, version = version + 1, progress = coalesce(?2, progress)
             WHERE tenant = ?3 AND id = ?4 AND token = ?5 AND status = 3 RETURNING lease_cancel",
        )?;
        let found: Option<bool> = statement
            .query_row(
                params![
                    until.millis(),
                    progress.map(Json::get),
                    name.tenant.as_str(),
                    name.id.to_bytes(),
                    token.cast_signed()
                ],
                |row| row.get(0),
            )
            .optional()?;
        // No notification: a worker that is notified of its own heartbeats would send more of them.
        Ok(match found {
            None => Heartbeat::Lost,
            Some(false) => Heartbeat::Renewed { cancel: CancelRequest::None },
            Some(true) => Heartbeat::Renewed { cancel: CancelRequest::Requested },
        })
    }

    /// Deletes ended tasks and audit entries after their retention, oldest first, and idle limiters.
    pub(crate) fn prune(&mut self, limit: usize, now: Timestamp) -> Result<usize, Error> {
        let cutoff = now - self.retention;
        let mut statement = self.prepare(
            "SELECT seq FROM tasks WHERE seq < ?1 AND seq > ?2 AND ended_at <= ?3 ORDER BY seq LIMIT ?4",
        )?;
        let seqs: Vec<i64> = statement
            .query_map(params![seq_of(cutoff), self.pruned_to, cutoff.millis(), to_sql(limit)], |row| {
                row.get(0)
            })?
            .collect::<Result<_, _>>()?;
        drop(statement);
        let forget = "DELETE FROM audit WHERE seq IN (SELECT seq FROM (SELECT seq, at FROM audit ORDER BY seq LIMIT ?2) WHERE at <= ?1)";
        let forgotten = self.prepare(forget)?.execute(params![cutoff.millis(), to_sql(limit)])?;
        // The next call continues at this `seq`, so that it does not scan old unfinished tasks again. After
        // the last task, the next call starts from the beginning.
        self.pruned_to = seqs.last().copied().filter(|_| seqs.len() == limit).unwrap_or(0);
        for seq in &seqs {
            self.prepare("DELETE FROM payloads WHERE seq = ?1")?.execute([seq])?;
            self.prepare("DELETE FROM tasks WHERE seq = ?1")?.execute([seq])?;
        }
        let limiters = self.forget_limiters(limit, now)?;
        // The caller repeats the call as long as the result reaches `limit`.
        Ok(seqs.len().max(forgotten).max(limiters))
    }

    /// Writes a test row, because an empty transaction would succeed even on a full disk.
    pub(crate) fn probe(&mut self, now: Timestamp) -> Result<(), Error> {
        let sql = "INSERT INTO probe (id, written_at) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET written_at = ?1";
        self.prepare(sql)?.execute([now.millis()])?;
        self.probes += 1;
        Ok(())
    }

    /// Releases the claims of tasks that no worker took.
    pub(crate) fn release(&mut self, tasks: Vec<Task>, now: Timestamp) -> Result<(), Error> {
        for Task { tenant, id, token, .. } in tasks {
            // The task is read again, because it may have been canceled after its claim.
            if let Some(task) = self.get(&TaskKey { tenant, id }, now)?
                && let Ok(change) = transition(task, Event::Release { token }, now)
            {
                self.commit(change)?;
            }
        }
        Ok(())
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Continues with a new connection to the same file.
    pub(crate) fn reconnect(&mut self, connection: Connection) {
        self.connection = connection;
        self.probes = 0;
    }

    pub(crate) fn begin(&self) -> Result<(), Error> {
        Ok(self.prepare("BEGIN IMMEDIATE")?.raw_execute().map(drop)?)
    }

    /// Commits everything since [`Database::begin`], then notifies watchers and workers.
    ///
    /// Returns the tasks that no worker took.
    pub(crate) fn commit_all(&mut self) -> Result<Vec<Task>, Error> {
        self.prepare("COMMIT")?.raw_execute()?;
        // The next task of a withheld tenant starts in the transaction that ends another task of that tenant.
        // So no worker has to wake up for that task.
        self.dispatch.set_next_due(self.scheduler.earliest_of_others(&self.withheld));
        self.dispatch.tell(&self.touched);
        self.touched.clear();
        Ok(self.dispatch.hand_over(std::mem::take(&mut self.handed)))
    }

    /// Discards everything since [`Database::begin`].
    pub(crate) fn rollback(&mut self) {
        for task in self.handed.drain(..) {
            self.shares.end(&task.tenant, &task.id);
        }
        self.touched.clear();
        // Tasks claimed in the transaction are due again.
        self.is_unsure = true;
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back; nobat opens the database file again");
        }
    }

    /// Moves the write-ahead log into the file, so that the file alone is complete.
    pub(crate) fn finish(&self) {
        let is_busy = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        if !matches!(is_busy, Ok(false)) {
            tracing::warn!(
                "the SQLite write-ahead log could not be merged into the database file; both files are kept, and the next start reads both"
            );
        }
    }

    /// Returns the number of rows changed by this connection since it was opened, without the rows of
    /// [`Database::probe`].
    pub(crate) fn changes(&self) -> u64 {
        self.connection.total_changes().saturating_sub(self.probes)
    }

    /// Returns the number of rows written by [`Database::probe`] on this connection.
    pub(crate) fn probes(&self) -> u64 {
        self.probes
    }

    /// Moves the write-ahead log into the file and empties the log, without waiting for readers. Returns true
    /// if the log is empty.
    ///
    /// While a reader uses the log, SQLite moves as much as it can, but does not empty the log.
    pub(crate) fn checkpoint(&self) -> bool {
        let emptied = self.connection.busy_timeout(Duration::ZERO).and_then(|()| {
            let is_busy: bool =
                self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            Ok(!is_busy)
        });
        let restored = self.connection.busy_timeout(BUSY_TIMEOUT);
        emptied.and_then(|is_empty| restored.map(|()| is_empty)).unwrap_or_else(|error| {
            tracing::debug!(%error, "the SQLite checkpoint failed; the write-ahead log is kept until the next checkpoint");
            false
        })
    }

    /// Prepares each statement once and caches it.
    pub(crate) fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, Error> {
        Ok(self.connection.prepare_cached(sql)?)
    }
}

const _: () = assert!(
    status::HELD < status::RUNNING,
    "the indexes treat every status below 3 as waiting, and 3 as running"
);
