//! A copy of the file as it is at one moment, and the way back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::file::{self, Lock, OpenError};
use crate::schema;

/// Why a file was not backed up or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something where the copy is to be.
    #[error("{} is there already; nothing is written over", .0.display())]
    Exists(PathBuf),
    /// There is no such file.
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    /// Something is wrong with what it holds.
    #[error("{} is damaged: {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite finds wrong.
        found: String,
    },
    /// It cannot be opened.
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

/// Copies the file at `from`, as it is at this moment, to `to`, which must not be there. Nobat may be running on it meanwhile.
///
/// The copy is whole, checked, and on disk when this returns; until then it has another name.
pub fn backup(from: &Path, to: &Path) -> Result<(), BackupError> {
    refuse_existing(to)?;
    let draft = draft_of(to)?;
    let source = open(from)?;
    schema::refuse_foreign(&source)?;
    source.execute("VACUUM INTO ?1", [draft.to_string_lossy()])?;
    drop(source);
    put_in_place(&draft, to)
}

/// Makes the copy at `from` the file at `to`, which must not be there, nor be open.
pub fn restore(from: &Path, to: &Path) -> Result<(), BackupError> {
    let to = &std::path::absolute(to)?;
    // Whoever starts meanwhile waits for no half of a file.
    let _lock = Lock::take(to)?;
    refuse_existing(to)?;
    for log in ["-wal", "-shm"] {
        // A log without its file is another file's: SQLite would play it into this one.
        refuse_existing(&beside(to, log))?;
    }
    check(from)?;
    let draft = draft_of(to)?;
    // Not by copying bytes: somebody may have it open, with a part of it in a log.
    open(from)?.execute("VACUUM INTO ?1", [draft.to_string_lossy()])?;
    put_in_place(&draft, to)
}

/// A name of this process's own: another may be making a copy for the same place.
fn draft_of(to: &Path) -> Result<PathBuf, BackupError> {
    let draft = beside(to, &format!("-draft-{}", std::process::id()));
    // What is left of a copy that was broken off.
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

/// Gives the draft its name, unless something has it by now.
fn place(draft: &Path, to: &Path) -> Result<(), BackupError> {
    match fs::hard_link(draft, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(BackupError::Exists(to.to_owned())),
        // There are file systems without links. There, of two who do this in the same moment the later one wins.
        Err(_) => {
            refuse_existing(to)?;
            Ok(fs::rename(draft, to)?)
        }
    }
}

/// Fails if something is wrong with a file of nobat's.
fn check(path: &Path) -> Result<(), BackupError> {
    let connection = open(path)?;
    schema::refuse_foreign(&connection)?;
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(BackupError::Damaged { path: path.to_owned(), found }) }
}

/// A connection that creates nothing. It may write, for that is how SQLite takes part in a log.
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
