//! The one writer: many callers' operations in one transaction, and every reply after its COMMIT.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nobat_core::ports::{Clock, StoreError};
use nobat_core::task::Task;
use nobat_core::time::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::Error;
use crate::database::Database;

/// How many operations may wait for the writer. More are refused: what waits longer than a client does is of no use.
const MAX_WAITING: usize = 16_384;

/// How many operations go into one transaction, so that the first of them need not wait for ever more.
const MAX_GROUP: usize = 1_024;

/// An operation; it returns what is to be done once it is known whether the transaction is on disk.
pub(crate) type Operation = Box<dyn FnOnce(&mut Database) -> Outcome + Send>;

pub(crate) type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

pub(crate) struct Outcome {
    reply: Reply,
    /// Why SQLite failed at it, if it did: then nothing of the transaction can be relied on.
    spoiled: Option<String>,
}

/// Where operations are done.
pub(crate) enum Writer {
    /// At once, where they are called: for stores in memory. No thread, no time, no chance.
    Inline(Box<Mutex<Group>>),
    /// In a thread of its own.
    Thread(Thread),
}

/// The thread; dropping this waits for what it has still to do.
pub(crate) struct Thread {
    operations: Option<SyncSender<Operation>>,
    handle: Option<thread::JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.operations.take());
        if let Some(handle) = self.handle.take()
            && handle.join().is_err()
        {
            tracing::error!("the writer panicked");
        }
    }
}

/// What makes transactions.
pub(crate) struct Group {
    database: Database,
    clock: Arc<dyn Clock>,
    /// Opens the file anew after a transaction that failed; there is no such thing as that for a store in memory.
    reopen: Option<Reopen>,
}

pub(crate) type Reopen = Box<dyn Fn() -> Result<Connection, Error> + Send>;

impl Writer {
    pub(crate) fn inline(database: Database, clock: Arc<dyn Clock>) -> Self {
        Self::Inline(Box::new(Mutex::new(Group { database, clock, reopen: None })))
    }

    pub(crate) fn thread(database: Database, clock: Arc<dyn Clock>, reopen: Reopen) -> std::io::Result<Self> {
        let (operations, waiting) = sync_channel(MAX_WAITING);
        let group = Group { database, clock, reopen: Some(reopen) };
        let handle = thread::Builder::new().name("nobat-writer".to_owned()).spawn(move || group.run(&waiting))?;
        Ok(Self::Thread(Thread { operations: Some(operations), handle: Some(handle) }))
    }

    /// Has an operation done, and resolves when it is on disk.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Database) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, result) = oneshot::channel();
        self.submit(Box::new(move |database| {
            let done = operation(database);
            let spoiled = spoiled(&done);
            let reply = move |committed: Result<(), StoreError>| {
                // Nobody may be waiting for it any more.
                let _ = sender.send(committed.and_then(|()| done.map_err(StoreError::from)));
            };
            Outcome { reply: Box::new(reply), spoiled }
        }))?;
        result.await.unwrap_or_else(|_| Err(StoreError::Unavailable("it was not written".to_owned())))
    }

    /// Has claims taken back that nobody will act on. If that fails, their leases run out.
    pub(crate) fn give_back(&self, tasks: Vec<Task>, now: Timestamp) {
        if self.submit(release(tasks, now)).is_err() {
            tracing::warn!("claims could not be given back; their leases will run out");
        }
    }

    fn submit(&self, operation: Operation) -> Result<(), StoreError> {
        match self {
            Self::Inline(group) => {
                group.lock().unwrap_or_else(PoisonError::into_inner).transact(vec![operation]);
                Ok(())
            }
            Self::Thread(Thread { operations: Some(operations), .. }) => operations.try_send(operation).map_err(|error| match error {
                TrySendError::Full(_) => StoreError::Overloaded,
                TrySendError::Disconnected(_) => StoreError::Unavailable("the writer stopped".to_owned()),
            }),
            Self::Thread(_) => Err(StoreError::Unavailable("the writer stopped".to_owned())),
        }
    }
}

fn release(tasks: Vec<Task>, now: Timestamp) -> Operation {
    Box::new(move |database| {
        let spoiled = spoiled(&database.release(tasks, now));
        Outcome { reply: Box::new(|_| ()), spoiled }
    })
}

/// What SQLite fails at it may have half done, or undone together with all that was done before.
fn spoiled<T>(done: &Result<T, Error>) -> Option<String> {
    match done {
        Err(Error::Sqlite(error)) => Some(error.to_string()),
        _ => None,
    }
}

impl Group {
    fn run(mut self, waiting: &Receiver<Operation>) {
        while let Ok(first) = waiting.recv() {
            let group = [first].into_iter().chain(waiting.try_iter().take(MAX_GROUP - 1)).collect();
            self.transact(group);
        }
        self.database.finish();
    }

    /// Does the operations in one transaction, then replies to all of them.
    fn transact(&mut self, operations: Vec<Operation>) {
        let mut replies = Vec::with_capacity(operations.len());
        let done = self.attempt(operations, &mut replies);
        if let Err(error) = &done {
            tracing::error!(%error, operations = replies.len(), "a transaction failed; the file is opened anew");
            self.recover();
        }
        for reply in replies {
            let failed = |error: &Error| StoreError::Unavailable(error.to_string());
            reply(done.as_ref().map(|_| ()).map_err(failed));
        }
        if let Ok(Some(give_back)) = done {
            self.transact(vec![give_back]);
        }
    }

    /// Returns an operation that is to follow, if claims were left that nobody took.
    fn attempt(&mut self, operations: Vec<Operation>, replies: &mut Vec<Reply>) -> Result<Option<Operation>, Error> {
        self.database.begin()?;
        for operation in operations {
            let Outcome { reply, spoiled } = operation(&mut self.database);
            replies.push(reply);
            if let Some(cause) = spoiled {
                // SQLite may have rolled back by itself, and what came now would stand alone. The rest is not done,
                // and those who wait for it are told so.
                return Err(Error::Spoiled(cause));
            }
        }
        let now = self.clock.now();
        self.database.dispatch(now)?;
        let left = self.database.commit_all()?;
        Ok((!left.is_empty()).then(|| release(left, now)))
    }

    fn recover(&mut self) {
        self.database.rollback();
        match self.reopen.as_ref().map(|reopen| reopen()) {
            Some(Ok(connection)) => self.database.reconnect(connection),
            Some(Err(error)) => tracing::error!(%error, "the file could not be opened anew"),
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
    use std::time::Duration;

    struct Still;

    #[async_trait]
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }

        async fn sleep(&self, _duration: Duration) {}
    }

    fn execute(sql: &'static str) -> Operation {
        Box::new(move |database| {
            let done = database.connection().execute_batch(sql).map_err(Error::from);
            Outcome { reply: Box::new(|_| ()), spoiled: spoiled(&done) }
        })
    }

    #[test]
    fn nothing_is_written_beside_an_operation_that_the_disk_has_no_room_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full.db");
        let mut connection = Connection::open(&path).unwrap();
        schema::migrate(&mut connection).unwrap();
        connection.pragma_update(None, "max_page_count", 40).unwrap();
        let database = Database::new(connection, Arc::new(Dispatch::default()), Duration::ZERO).unwrap();
        let mut group = Group { database, clock: Arc::new(Still), reopen: Some(Box::new(move || Ok(Connection::open(&path)?))) };
        let before = "INSERT INTO payloads VALUES (1, 'small')";
        let too_large = "INSERT INTO payloads VALUES (2, hex(randomblob(4000000)))";
        let after = "INSERT INTO payloads VALUES (3, 'small')";
        group.transact([before, too_large, after].map(execute).into());
        let count = |group: &Group| -> i64 {
            group.database.connection().query_row("SELECT count(*) FROM payloads", [], |row| row.get(0)).unwrap()
        };
        assert_eq!(count(&group), 0, "neither what came before it nor what came after");
        group.transact([before, after].map(execute).into());
        assert_eq!(count(&group), 2, "and what comes next is written");
    }
}
