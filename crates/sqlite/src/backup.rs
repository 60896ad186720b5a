//! Backup of the file, and its restoration.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::file::{self, Lock, OpenError};
use crate::schema;

/// Reason why a file was not backed up or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file exists at the destination.
    #[error("{} already exists; choose another path or remove the file", .0.display())]
    Exists(PathBuf),
    /// The file to read does not exist.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// The file's content is damaged.
    #[error("{} is damaged: {found}", path.display())]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// The error that SQLite reports.
        found: String,
    },
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Open(error.into())
    }
}

impl From<std::io::Error> for BackupError {
    fn from(error: std::io::Error) -> Self {
        Self::Open(error.into())
    }
}

/// Copies the current state of the file at `from` to `to`, which must not exist. A running nobat may use the
/// file at `from`.
///
/// The copy is complete, checked and on disk when this returns. Until then the copy has another name.
pub fn backup(from: &Path, to: &Path) -> Result<(), BackupError> {
    refuse_existing(to)?;
    let draft = draft_of(to)?;
    let source = open(from)?;
    schema::refuse_foreign(&source)?;
    source.execute("VACUUM INTO ?1", [draft.to_string_lossy()])?;
    drop(source);
    put_in_place(&draft, to)
}

/// Restores the copy at `from` to `to`. Fails if a file exists at `to`, or if another process holds the lock
/// of that path.
pub fn restore(from: &Path, to: &Path) -> Result<(), BackupError> {
    let to = &std::path::absolute(to)?;
    // A program that starts during the restoration must not see an incomplete file.
    let _lock = Lock::take(to)?;
    refuse_existing(to)?;
    for log in ["-wal", "-shm"] {
        // A write-ahead log without its database file belongs to an earlier file. SQLite would apply that log
        // to the restored file.
        refuse_existing(&beside(to, log))?;
    }
    check(from)?;
    let draft = draft_of(to)?;
    // A copy of the bytes could be incomplete: another process may have the file open and keep new data in
    // its log.
    open(from)?.execute("VACUUM INTO ?1", [draft.to_string_lossy()])?;
    put_in_place(&draft, to)
}

/// Returns a temporary name. It contains the process id, because another process may be copying to the same
/// destination.
fn draft_of(to: &Path) -> Result<PathBuf, BackupError> {
    let draft = beside(to, &format!("-draft-{}", std::process::id()));
    // An interrupted copy may have left this file.
    remove(&draft)?;
    Ok(draft)
}

fn put_in_place(draft: &Path, to: &Path) -> Result<(), BackupError> {
    let checked = check(draft).and_then(|()| Ok(File::open(draft)?.sync_all()?));
    let placed = checked.and_then(|()| place(draft, to));
    remove(draft)?;
    placed?;
    let folder = std::path::absolute(to)?;
    File::open(folder.parent().unwrap_or(&folder))?.sync_all()?;
    Ok(())
}

/// Gives the draft its final name. Fails if a file has that name already.
fn place(draft: &Path, to: &Path) -> Result<(), BackupError> {
    match fs::hard_link(draft, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(BackupError::Exists(to.to_owned()))
        }
        // On file systems without links, the later of two simultaneous copies wins.
        Err(_) => {
            refuse_existing(to)?;
            Ok(fs::rename(draft, to)?)
        }
    }
}

/// Fails if the file is not nobat's or is damaged.
fn check(path: &Path) -> Result<(), BackupError> {
    let connection = open(path)?;
    schema::refuse_foreign(&connection)?;
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(BackupError::Damaged { path: path.to_owned(), found }) }
}

/// Opens an existing file. The connection is writable, because SQLite must write to use a write-ahead log.
fn open(path: &Path) -> Result<Connection, BackupError> {
    if !path.exists() {
        return Err(BackupError::Missing(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file::absolute(path)?, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

fn refuse_existing(path: &Path) -> Result<(), BackupError> {
    if path.exists() { Err(BackupError::Exists(path.to_owned())) } else { Ok(()) }
}

fn remove(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
