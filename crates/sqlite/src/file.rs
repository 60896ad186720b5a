//! Opens the file and locks it for this process.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, MAIN_DB, OpenFlags, ffi};

/// Reason why a file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file open.
    #[error("{} is in use by {holder}", path.display())]
    InUse {
        /// Path of the file.
        path: PathBuf,
        /// The process, if the lock file names it.
        holder: Holder,
    },
    /// An older, unreleased version of nobat wrote the file.
    #[error(
        "the file has schema {found}, and this nobat needs {first} or later; choose another file with NOBAT_DATA"
    )]
    OldSchema {
        /// The file's schema version.
        found: i64,
        /// Oldest schema version that this nobat can use.
        first: i64,
    },
    /// A newer version of nobat wrote the file.
    #[error(
        "the file has schema {found}, and this nobat knows schemas up to {known}; run the version of nobat that wrote the file, or a newer version"
    )]
    NewerSchema {
        /// Schema version of the file.
        found: i64,
        /// Newest schema version that this nobat knows.
        known: i64,
    },
    /// The file is a SQLite database of another program.
    #[error("the file is a SQLite database of another program; choose another file with NOBAT_DATA")]
    Foreign,
    /// SQLite cannot use the file.
    #[error("SQLite cannot use the file: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The operating system refuses access.
    #[error("the file cannot be opened: {0}")]
    Io(#[from] std::io::Error),
    /// The file contains data that this version cannot read.
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

/// Process that has a file open, as its lock file names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Process id. `None` if the lock file does not contain an id (yet).
    pub process: Option<u32>,
    /// Address that the process listens on, if it is a server.
    pub address: Option<SocketAddr>,
}

impl Holder {
    /// Returns the URL of the server, as seen from this machine.
    pub fn url(self) -> Option<String> {
        let address = self.address?;
        let host = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Some(format!("http://{}", SocketAddr::new(host, address.port())))
    }

    fn read(file: &mut File) -> Self {
        let mut text = String::new();
        let read = file.read_to_string(&mut text).is_ok();
        let mut words = text.split_whitespace().take_while(|_| read);
        Self {
            process: words.next().and_then(|word| word.parse().ok()),
            address: words.next().and_then(|word| word.parse().ok()),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.url(), self.process) {
            (Some(url), Some(process)) => write!(f, "the nobat server at {url} (process {process})"),
            (None, Some(process)) => write!(f, "the nobat process {process}"),
            _ => f.write_str("another nobat process"),
        }
    }
}

/// Advisory lock on `<file>-lock`. The operating system releases the lock when the process ends. The lock
/// file names the process that holds the lock ([`Holder`]).
///
/// Between two transactions, SQLite's own locks would admit a second process. Both processes would then run
/// the same tasks.
pub(crate) struct Lock(File);

impl Lock {
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        let mut name = path.as_os_str().to_owned();
        name.push("-lock");
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(PathBuf::from(name))?;
        match file.try_lock() {
            Ok(()) => {
                let lock = Self(file);
                lock.name_holder("");
                Ok(lock)
            }
            Err(TryLockError::WouldBlock) => {
                Err(OpenError::InUse { path: path.to_owned(), holder: Holder::read(&mut file) })
            }
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Writes the address that this process listens on into the lock file.
    pub(crate) fn announce(&self, address: SocketAddr) {
        self.name_holder(&format!(" {address}"));
    }

    /// Writes the id of this process into the lock file. If that fails, for example on a full disk, the lock
    /// still holds, and errors of other processes do not name this process.
    fn name_holder(&self, rest: &str) {
        let mut file = &self.0;
        let text = format!("{}{rest}\n", std::process::id());
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        if let Err(error) = written {
            tracing::debug!(%error, "the lock file was not written; errors of other processes do not name this process");
        }
    }
}

/// Returns the absolute path without links. Otherwise a link to the file would get a lock of its own, and
/// SQLite would give a name like `:memory:` a special meaning.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, OpenError> {
    if path.exists() { Ok(path.canonicalize()?) } else { Ok(std::path::absolute(path)?) }
}

/// Opens a connection without changing the file.
pub(crate) fn connect_plainly(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

/// Maximum time that the writer waits for a lock of SQLite.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a connection for writing.
pub(crate) fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = connect_plainly(path)?;
    // If SQLite may not write to a file, it silently opens the file for reading only. Such a connection is
    // refused here, because it can never write, even after the disk has become writable again.
    if connection.is_readonly(MAIN_DB)? {
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY), None));
    }
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A response 202 promises that the task is on disk, so every COMMIT waits for the disk, not only every
    // checkpoint.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    // Fewer, larger checkpoints: a page that many transactions change is copied to the file once.
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    Ok(connection)
}

/// Opens a connection for reading.
pub(crate) fn connect_to_read(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -2 * 1024)?;
    Ok(connection)
}
