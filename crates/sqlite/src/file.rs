//! Opening the file, and being the only one who does.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, MAIN_DB, OpenFlags, ffi};

/// Why a file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another nobat; stop that one, or give this one a file of its own with NOBAT_DATA", .0.display())]
    InUse(PathBuf),
    /// A newer nobat has written it.
    #[error("the file has schema {found}, and this nobat knows schemas up to {known}; run the nobat that wrote it, or a newer one")]
    NewerSchema {
        /// The file's schema version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// It is a SQLite file of some other program.
    #[error("the file is a SQLite database, but not one of nobat's; choose another with NOBAT_DATA")]
    Foreign,
    /// SQLite cannot use it.
    #[error("the file cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The operating system refuses.
    #[error("the file cannot be opened: {0}")]
    Io(#[from] std::io::Error),
    /// Something is in it that this version did not write.
    #[error("the file is damaged: {0}")]
    Damaged(String),
}

impl From<crate::Error> for OpenError {
    fn from(error: crate::Error) -> Self {
        match error {
            crate::Error::Sqlite(error) => Self::Sqlite(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// The right to the file, held by an advisory lock on `<file>-lock` and given up by the operating system when the process ends.
///
/// SQLite's own locks would let a second process in between two transactions, and each would hand out the other's tasks.
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not used")] File);

impl Lock {
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        let mut name = path.as_os_str().to_owned();
        name.push("-lock");
        let file = File::options().create(true).truncate(false).write(true).open(PathBuf::from(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

/// The one name of the file: a link to it must not have a lock of its own, nor a name like `:memory:` a meaning of its own.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, OpenError> {
    if path.exists() { Ok(path.canonicalize()?) } else { Ok(std::path::absolute(path)?) }
}

/// A connection that changes nothing by being opened.
pub(crate) fn connect_plainly(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

/// A connection that writes.
pub(crate) fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = connect_plainly(path)?;
    // What SQLite may not write it opens for reading, and says nothing. That is refused here: a disk that is read-only for a while
    // must not cost the writer a connection that can write again afterwards.
    if connection.is_readonly(MAIN_DB)? {
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY), None));
    }
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A 202 means that it is on disk: every COMMIT waits for the disk, not only every checkpoint.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    // Fewer, larger checkpoints: pages that many transactions change are copied to the file once.
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    Ok(connection)
}

/// A connection that reads beside it.
pub(crate) fn connect_to_read(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -2 * 1024)?;
    Ok(connection)
}
