//! Default backend of nobat: one SQLite file with one writer.
//!
//! One table contains the tasks. The message queue is an index over the due tasks, and the writer wakes
//! waiting workers. So no hint can be lost between store and message queue. A write is on disk before its
//! caller gets the result (WAL, `synchronous=FULL`).

mod backup;
mod config_store;
mod database;
mod dispatch;
mod file;
mod limiter_store;
mod queue;
mod read_pool;
mod row;
mod schema;
mod store;
mod task_queries;
mod tenant_scheduler;
mod turn_queue;
mod worker_shares;
mod writer;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nobat_core::ports::{Clock, StoreError};
use nobat_core::service::backend::Backend;
use nobat_core::types::name::InvalidName;
use nobat_core::types::unreadable::Unreadable;

pub use backup::{BackupError, backup, restore};
pub use file::{Holder, OpenError};

use crate::config_store::Buckets;
use crate::database::Database;
use crate::dispatch::Dispatch;
use crate::file::Lock;
use crate::read_pool::Readers;
use crate::writer::Writer;

/// A backend in one SQLite database. Clones share the database.
#[derive(Clone)]
pub struct Sqlite(Arc<Inner>);

struct Inner {
    writer: Writer,
    /// Threads that read the file. `None` for a database in memory, where one connection reads and writes.
    readers: Option<Readers>,
    dispatch: Arc<Dispatch>,
    clock: Arc<dyn Clock>,
    retention: Duration,
    buckets: Buckets,
    secret: [u8; 32],
    /// Lock of the file, held while this process has the file open. `None` for a database in memory.
    lock: Option<Lock>,
}

impl Sqlite {
    /// Opens the file or creates it. Ended tasks are kept for `retention`.
    ///
    /// Fails if another process has the file open, if another program wrote the file, or if the version of
    /// its schema is not compatible.
    pub fn open(path: &Path, retention: Duration, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let path = &file::absolute(path)?;
        let lock = Lock::take(path)?;
        schema::refuse_foreign(&file::connect_plainly(path)?)?;
        let mut connection = file::connect(path)?;
        schema::migrate(&mut connection)?;
        let secret = read_secret(&connection)?;
        let dispatch = Arc::new(Dispatch::default());
        let database = Database::new(connection, Arc::clone(&dispatch), retention)?;
        let ended = database.end_leases()?;
        if ended > 0 {
            tracing::warn!(
                tasks = ended,
                "the previous nobat process stopped while tasks were running; the attempts of these tasks count as crashed"
            );
        }
        let again = path.to_owned();
        let writer =
            Writer::thread(database, Arc::clone(&clock), Box::new(move || Ok(file::connect(&again)?)))?;
        let readers = Some(Readers::new(|| file::connect_to_read(path))?);
        Ok(Self(Arc::new(Inner {
            writer,
            readers,
            dispatch,
            clock,
            retention,
            buckets: Buckets::default(),
            secret,
            lock: Some(lock),
        })))
    }

    /// Creates a database in memory, which is deleted with the last clone.
    ///
    /// All operations run in the caller, without threads: results depend only on the order of calls.
    pub fn in_memory(retention: Duration, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let mut connection = rusqlite::Connection::open_in_memory()?;
        schema::migrate(&mut connection)?;
        let secret = read_secret(&connection)?;
        let dispatch = Arc::new(Dispatch::default());
        let database = Database::new(connection, Arc::clone(&dispatch), retention)?;
        let writer = Writer::inline(database, Arc::clone(&clock));
        Ok(Self(Arc::new(Inner {
            writer,
            readers: None,
            dispatch,
            clock,
            retention,
            buckets: Buckets::default(),
            secret,
            lock: None,
        })))
    }

    /// Returns the stores and the message queue of this database.
    pub fn backend(&self) -> Backend {
        let sqlite = Arc::new(self.clone());
        Backend { store: sqlite.clone(), queue: sqlite.clone(), config: sqlite.clone(), limiters: sqlite }
    }

    /// Writes this server's address into the lock file, so that errors of other processes can name this
    /// server.
    pub fn announce(&self, address: SocketAddr) {
        if let Some(lock) = &self.0.lock {
            lock.announce(address);
        }
    }

    /// Returns 32 random bytes, which are created with the file and stored in it. These bytes authenticate
    /// the cursors of lists, which clients send back.
    pub fn secret(&self) -> [u8; 32] {
        self.0.secret
    }
}

fn read_secret(connection: &rusqlite::Connection) -> Result<[u8; 32], rusqlite::Error> {
    connection.query_row("SELECT secret FROM instance", [], |row| row.get(0))
}

/// Reason why an operation on the database failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// SQLite failed in this operation.
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    /// SQLite failed in another operation of the same transaction.
    #[error("the transaction was rolled back: {0}")]
    Spoiled(String),
    /// The row contains data that this version cannot read.
    #[error("{0} cannot be read")]
    Unreadable(&'static str),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            error @ rusqlite::Error::SqliteFailure(..) => Self::Sqlite(error),
            _ => Self::Unreadable("a row"),
        }
    }
}

impl From<rusqlite::types::FromSqlError> for Error {
    fn from(_: rusqlite::types::FromSqlError) -> Self {
        Self::Unreadable("a column")
    }
}

impl From<serde_json::Error> for Error {
    fn from(_: serde_json::Error) -> Self {
        Self::Unreadable("a column of JSON")
    }
}

impl From<Unreadable> for Error {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unreadable(unreadable.0)
    }
}

impl From<InvalidName> for Error {
    fn from(_: InvalidName) -> Self {
        Self::Unreadable("a name")
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error {
            Error::Sqlite(_) | Error::Spoiled(_) => Self::Unavailable(error.to_string()),
            Error::Unreadable(_) => Self::Corrupt(error.to_string()),
        }
    }
}
