//! The only writer of the file. It runs the operations of many callers in one transaction, and replies after
//! the COMMIT.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nobat_core::ports::{Clock, QueueLoad, StoreError};
use nobat_core::task::Task;
use nobat_core::types::time::Timestamp;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::Error;
use crate::database::Database;
use crate::turn_queue::{Bounds, Owner, TurnQueue};

/// Limits of the writer's queue of operations. One tenant cannot fill this queue.
const BOUNDS: Bounds = Bounds { name: "write", total: 16_384, tenant: 12_288 };

/// Maximum number of operations in one transaction. Larger transactions make their callers wait longer.
const MAX_GROUP: usize = 1_024;

/// Time without a write after which the write-ahead log is moved into the file. The file alone is then a
/// complete copy. Probes do not count as writes.
const IDLE: Duration = Duration::from_secs(1);

/// Maximum weight of one transaction ([`Operation::weight`]): about 4,096 small tasks, or 16 MiB of payloads.
const MAX_WEIGHT: usize = 4_096;

/// Number of bytes that weigh as much as one task.
const WEIGHED_BYTES: usize = 4_096;

/// Operation of one caller. Its outcome contains the reply, which is sent after the COMMIT has succeeded or
/// failed.
pub(crate) struct Operation {
    run: Run,
    /// Share of a transaction: 1 per task, plus 1 per 4 KiB of payload and result.
    weight: usize,
}

/// Owner and weight of an operation.
pub(crate) struct Load {
    owner: Owner,
    weight: usize,
}

impl Load {
    /// Returns the load of one small write for that owner.
    pub(crate) fn of(owner: Owner) -> Self {
        Self { owner, weight: 1 }
    }

    /// Returns the load of writing these tasks, which belong to one tenant.
    pub(crate) fn tasks<'a>(tasks: impl IntoIterator<Item = &'a Task>) -> Self {
        let (mut owner, mut weight) = (None, 0);
        for task in tasks {
            let bytes =
                task.payload.get().len() + task.result.as_ref().map_or(0, |result| result.get().len());
            weight += 1 + bytes / WEIGHED_BYTES;
            owner = owner.or_else(|| Some(task.tenant.clone()));
        }
        Self { owner, weight }
    }
}

type Run = Box<dyn FnOnce(&mut Database) -> Outcome + Send>;

pub(crate) type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

pub(crate) struct Outcome {
    reply: Reply,
    /// Error of SQLite, if SQLite failed. The whole transaction must then be undone.
    spoiled: Option<String>,
}

/// Runs operations.
pub(crate) enum Writer {
    /// Runs operations in the caller, for databases in memory. Uses no thread, so that results are
    /// deterministic.
    Inline(Box<Mutex<Group>>),
    /// Runs operations in a thread of its own.
    Thread(Thread),
}

/// The writer's thread. Dropping this value waits until the remaining operations are done.
pub(crate) struct Thread {
    queue: Arc<TurnQueue<Operation>>,
    handle: Option<thread::JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(handle) = self.handle.take()
            && handle.join().is_err()
        {
            tracing::error!("the writer panicked; the operations of its last transaction were not written");
        }
    }
}

/// Runs transactions.
pub(crate) struct Group {
    database: Database,
    clock: Arc<dyn Clock>,
    /// Opens the file again after a failed transaction. `None` for a database in memory.
    reopen: Option<Reopen>,
}

pub(crate) type Reopen = Box<dyn Fn() -> Result<Connection, Error> + Send>;

impl Writer {
    pub(crate) fn inline(database: Database, clock: Arc<dyn Clock>) -> Self {
        Self::Inline(Box::new(Mutex::new(Group { database, clock, reopen: None })))
    }

    pub(crate) fn thread(database: Database, clock: Arc<dyn Clock>, reopen: Reopen) -> std::io::Result<Self> {
        let queue = Arc::new(TurnQueue::new(BOUNDS));
        let (group, waiting) = (Group { database, clock, reopen: Some(reopen) }, Arc::clone(&queue));
        let handle =
            thread::Builder::new().name("nobat-writer".to_owned()).spawn(move || group.run(&waiting))?;
        Ok(Self::Thread(Thread { queue, handle: Some(handle) }))
    }

    /// Runs an operation when its owner's turn comes. Resolves when the result is on disk.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        load: Load,
        operation: impl FnOnce(&mut Database) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, result) = oneshot::channel();
        self.submit(load, move |database| {
            let done = operation(database);
            let spoiled = spoiled(&done);
            let reply = move |committed: Result<(), StoreError>| {
                // The caller may be gone.
                let _ = sender.send(committed.and_then(|()| done.map_err(StoreError::from)));
            };
            Outcome { reply: Box::new(reply), spoiled }
        })?;
        result.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable("the operation panicked, or the writer stopped".to_owned()))
        })
    }

    /// Releases the claims of tasks that no worker will run. If the release fails, the leases of these tasks
    /// expire.
    pub(crate) fn give_back(&self, tasks: Vec<Task>, now: Timestamp) {
        // The installation owns this operation and the last write at shutdown, and operations of one owner
        // run in order. So the claims are released when that last write is done.
        if self.submit(Load::of(None), release(tasks, now)).is_err() {
            tracing::warn!(
                "claimed tasks could not be released; these tasks do not run until their leases have expired"
            );
        }
    }

    /// Returns the load of the queue. `None` for a database in memory, where no operation waits.
    pub(crate) fn load(&self) -> Option<QueueLoad> {
        match self {
            Self::Inline(_) => None,
            Self::Thread(thread) => Some(thread.queue.load()),
        }
    }

    fn submit(
        &self,
        load: Load,
        run: impl FnOnce(&mut Database) -> Outcome + Send + 'static,
    ) -> Result<(), StoreError> {
        let Load { owner, weight } = load;
        let operation = Operation { run: Box::new(run), weight };
        match self {
            Self::Inline(group) => {
                group.lock().transact(vec![operation]);
                Ok(())
            }
            Self::Thread(thread) => thread.queue.push(&owner, operation).map(drop),
        }
    }
}

fn release(tasks: Vec<Task>, now: Timestamp) -> impl FnOnce(&mut Database) -> Outcome + Send + 'static {
    move |database| {
        let spoiled = spoiled(&database.release(tasks, now));
        Outcome { reply: Box::new(|_| ()), spoiled }
    }
}

/// Returns the error of SQLite, if SQLite failed. The failed operation may be half done, or SQLite may have
/// undone all operations before it.
fn spoiled<T>(done: &Result<T, Error>) -> Option<String> {
    match done {
        Err(Error::Sqlite(error)) => Some(error.to_string()),
        _ => None,
    }
}

impl Group {
    fn run(mut self, waiting: &TurnQueue<Operation>) {
        // Time of the last write that is still in the log.
        let mut written: Option<Instant> = Some(Instant::now());
        loop {
            if let Some(at) = written
                && !waiting.wait(IDLE.saturating_sub(at.elapsed()))
            {
                written = (!self.database.checkpoint()).then(Instant::now);
                continue;
            }
            let (mut count, mut weight) = (0, 0);
            let group = waiting.take(|operation| {
                (count, weight) = (count + 1, weight + operation.weight);
                count <= MAX_GROUP && weight <= MAX_WEIGHT
            });
            if group.is_empty() {
                return self.database.finish();
            }
            let (changes, probes) = (self.database.changes(), self.database.probes());
            self.transact(group);
            if self.database.changes() != changes {
                written = Some(Instant::now());
            } else if self.database.probes() != probes {
                // A load balancer may probe every second. The log would never be emptied if probes counted.
                written.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Runs the operations in one transaction, then replies to all of them.
    fn transact(&mut self, operations: Vec<Operation>) {
        let mut replies = Vec::with_capacity(operations.len());
        let done = self.attempt(operations, &mut replies);
        if let Err(error) = &done {
            tracing::error!(%error, operations = replies.len(), "a transaction failed; all its operations get an error, and nobat opens the database file again");
            self.recover();
        }
        for reply in replies {
            let failed = |error: &Error| StoreError::Unavailable(error.to_string());
            reply(done.as_ref().map(|_| ()).map_err(failed));
        }
        if let Ok(Some(give_back)) = done {
            self.transact(vec![Operation { run: give_back, weight: 1 }]);
        }
    }

    /// Runs the operations in one transaction. If no worker took some claimed tasks, returns an operation
    /// that releases their claims.
    fn attempt(
        &mut self,
        operations: Vec<Operation>,
        replies: &mut Vec<Reply>,
    ) -> Result<Option<Run>, Error> {
        self.database.begin()?;
        for operation in operations {
            // A panic must not end the thread. Otherwise all later operations would wait forever.
            let run = AssertUnwindSafe(|| (operation.run)(&mut self.database));
            let Ok(Outcome { reply, spoiled }) = catch_unwind(run) else {
                return Err(Error::Spoiled("an operation panicked".to_owned()));
            };
            replies.push(reply);
            if let Some(cause) = spoiled {
                // SQLite may have rolled back by itself. A later operation would then be committed without
                // the earlier ones. So the remaining operations are not run, and their callers get an error.
                return Err(Error::Spoiled(cause));
            }
        }
        let now = self.clock.now();
        self.database.dispatch(now)?;
        let left = self.database.commit_all()?;
        Ok((!left.is_empty()).then(|| Box::new(release(left, now)) as Run))
    }

    fn recover(&mut self) {
        self.database.rollback();
        match self.reopen.as_ref().map(|reopen| reopen()) {
            Some(Ok(connection)) => self.database.reconnect(connection),
            Some(Err(error)) => {
                tracing::error!(%error, "the file could not be reopened; nobat tries again after the next failed write");
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Dispatch;
    use crate::schema;
    use async_trait::async_trait;

    struct Still;

    #[async_trait]
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }

        async fn sleep(&self, _duration: Duration) {}
    }

    fn execute(sql: &'static str) -> Operation {
        let run = move |database: &mut Database| {
            let done = database.connection().execute_batch(sql).map_err(Error::from);
            Outcome { reply: Box::new(|_| ()), spoiled: spoiled(&done) }
        };
        Operation { run: Box::new(run), weight: 1 }
    }

    #[test]
    fn probes_do_not_keep_the_log_from_being_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("idle.db");
        let mut connection = crate::file::connect(&path).unwrap();
        schema::migrate(&mut connection).unwrap();
        let database = Database::new(connection, Arc::new(Dispatch::default()), Duration::ZERO).unwrap();
        let log = folder.path().join("idle.db-wal");
        let writer =
            Writer::thread(database, Arc::new(Still), Box::new(move || Ok(crate::file::connect(&path)?)))
                .unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        assert!(std::fs::metadata(&log).unwrap().len() > 0);
        // Sends probes in a row, at shorter intervals than [`IDLE`].
        while std::fs::metadata(&log).unwrap().len() > 0 {
            assert!(Instant::now() < end, "the log is emptied within 30 seconds");
            let probe = |database: &mut Database| {
                let done = database.probe(Timestamp::EPOCH);
                Outcome { reply: Box::new(|_| ()), spoiled: spoiled(&done) }
            };
            writer.submit(Load::of(None), probe).unwrap();
            thread::sleep(IDLE / 10);
        }
    }

    #[tokio::test]
    async fn operation_after_a_panic_is_carried_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("panic.db");
        let mut connection = crate::file::connect(&path).unwrap();
        schema::migrate(&mut connection).unwrap();
        let database = Database::new(connection, Arc::new(Dispatch::default()), Duration::ZERO).unwrap();
        let writer =
            Writer::thread(database, Arc::new(Still), Box::new(move || Ok(crate::file::connect(&path)?)))
                .unwrap();
        let panicked =
            writer.call(Load::of(None), |_| -> Result<(), Error> { panic!("an error in nobat") }).await;
        assert!(matches!(panicked, Err(StoreError::Unavailable(_))), "{panicked:?}");
        let probe = |database: &mut Database| database.probe(Timestamp::EPOCH);
        writer.call(Load::of(None), probe).await.unwrap();
    }

    #[test]
    fn full_disk_undoes_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full.db");
        let mut connection = Connection::open(&path).unwrap();
        schema::migrate(&mut connection).unwrap();
        connection.pragma_update(None, "max_page_count", 40).unwrap();
        let database = Database::new(connection, Arc::new(Dispatch::default()), Duration::ZERO).unwrap();
        let mut group = Group {
            database,
            clock: Arc::new(Still),
            reopen: Some(Box::new(move || Ok(Connection::open(&path)?))),
        };
        let before = "INSERT INTO payloads VALUES (1, 'small')";
        let too_large = "INSERT INTO payloads VALUES (2, hex(randomblob(4000000)))";
        let after = "INSERT INTO payloads VALUES (3, 'small')";
        group.transact([before, too_large, after].map(execute).into());
        let count = |group: &Group| -> i64 {
            group
                .database
                .connection()
                .query_row("SELECT count(*) FROM payloads", [], |row| row.get(0))
                .unwrap()
        };
        assert_eq!(count(&group), 0, "no operation of the failed group is written");
        group.transact([before, after].map(execute).into());
        assert_eq!(count(&group), 2, "the next group is written");
    }
}
