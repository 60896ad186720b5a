//! The tables, and how older files come to have them.

use rusqlite::Connection;

use crate::OpenError;

/// Marks a SQLite file as nobat's, in the header field that SQLite keeps for it: "noba".
const APPLICATION_ID: i32 = 0x6e6f_6261;

/// One step a version, never edited once released: version n is what the first n steps make.
const MIGRATIONS: [&str; 1] = [V1];

/// `seq` is the moment of acceptance in milliseconds, shifted to leave room for making it unique: the order of the table is
/// the order of lists, and costs no index. `payload` is null when it stands in `payloads`, so that a change of status
/// does not copy it. `wake_at` is [`nobat_core::task::Task::wake_at`]; the two small indexes on it are the queue.
const V1: &str = "
CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id BLOB NOT NULL,
    kind TEXT NOT NULL,
    queue TEXT NOT NULL,
    status INTEGER NOT NULL,
    wake_at INTEGER,
    version INTEGER NOT NULL,
    token INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    generation_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    expires_at INTEGER,
    lease_until INTEGER,
    lease_started_at INTEGER,
    lease_cancel INTEGER,
    ended_at INTEGER,
    held TEXT,
    key_generation INTEGER,
    settings TEXT,
    fingerprint BLOB,
    attempts TEXT,
    error TEXT,
    progress TEXT,
    result TEXT,
    payload TEXT
) STRICT;
CREATE UNIQUE INDEX tasks_by_id ON tasks (tenant, id);
CREATE INDEX tasks_waiting ON tasks (wake_at) WHERE status < 3;
CREATE INDEX tasks_expiring ON tasks (expires_at) WHERE status < 3 AND expires_at IS NOT NULL;
CREATE INDEX tasks_leased ON tasks (wake_at) WHERE status = 3;
CREATE INDEX tasks_failed ON tasks (tenant, seq) WHERE status = 5;
CREATE TABLE payloads (
    seq INTEGER PRIMARY KEY,
    payload TEXT NOT NULL
) STRICT;
CREATE TABLE instance (
    secret BLOB NOT NULL
) STRICT;
INSERT INTO instance (secret) VALUES (randomblob(32));
";

/// Leaves another program's database alone.
pub(crate) fn refuse_foreign(connection: &Connection) -> Result<(), OpenError> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && tables > 0 { Err(OpenError::Foreign) } else { Ok(()) }
}

/// Brings the file up to this version of nobat, or says why it cannot be.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(OpenError::NewerSchema { found, known });
    }
    for step in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known)?;
    Ok(transaction.commit()?)
}
