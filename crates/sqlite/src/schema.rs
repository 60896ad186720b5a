//! Tables of the file, and the steps that bring an older file up to date.

use rusqlite::Connection;

use crate::OpenError;

/// Value of SQLite's header field `application_id` in files of nobat: "noba".
const APPLICATION_ID: i32 = 0x6e6f_6261;

/// Schema version that the first of [`MIGRATIONS`] creates. Earlier versions were never released, so their
/// files are refused.
const FIRST_VERSION: i64 = 6;

/// Steps from one version of the schema to the next. A released step is never edited.
const MIGRATIONS: [&str; 1] = [V6];

/// Oldest schema version that is compatible with the newest version: a nobat built for this version can use a
/// file of the newest version. A step that only adds something leaves this value unchanged. A step that
/// removes something, or changes a meaning, sets this value to its own version. Such a step must come one
/// release after the last use of the removed part.
const OLDEST_READER: i64 = 6;

/// Table `tasks`: `seq` is the time of acceptance in milliseconds, shifted left so that tasks of the same
/// millisecond get different values. Lists have the order of `seq`, so they need no sorting. `payload` is
/// null if the payload is in table `payloads`, so that a change of status does not copy the payload.
/// `wake_at` is [`nobat_core::task::Task::wake_at`]; its indexes `tasks_waiting` and `tasks_leased` are the
/// message queue. `requests` holds the requests with an idempotency key that changed the task.
///
/// Indexes: `tasks_of_tenant` contains a tenant's tasks in the order of `seq`. `tasks_held` lets a wake-up of
/// held tasks skip all other tasks.
///
/// Table `records`: configuration and API keys. `tenant` is empty for records of the installation. Table
/// `probe`: the row that readiness checks write.
const V6: &str = "
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
    options TEXT,
    fingerprint BLOB,
    attempts TEXT,
    error TEXT,
    progress TEXT,
    result TEXT,
    payload TEXT,
    hold_state TEXT,
    requests TEXT
) STRICT;
CREATE UNIQUE INDEX tasks_by_id ON tasks (tenant, id);
CREATE INDEX tasks_of_tenant ON tasks (tenant);
CREATE INDEX tasks_waiting ON tasks (tenant, wake_at) WHERE status < 3;
CREATE INDEX tasks_expiring ON tasks (expires_at) WHERE status < 3 AND expires_at IS NOT NULL;
CREATE INDEX tasks_held ON tasks (tenant, seq) WHERE status = 2;
CREATE INDEX tasks_leased ON tasks (wake_at) WHERE status = 3;
CREATE INDEX tasks_failed ON tasks (tenant, seq) WHERE status = 5;
CREATE TABLE payloads (
    seq INTEGER PRIMARY KEY,
    payload TEXT NOT NULL
) STRICT;
CREATE TABLE records (
    tenant TEXT NOT NULL DEFAULT '',
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE limiters (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    written_at INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_tenant ON audit (tenant, seq);
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit entries are never changed'); END;
CREATE TABLE probe (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    written_at INTEGER NOT NULL
) STRICT;
CREATE TABLE instance (
    secret BLOB NOT NULL,
    oldest_reader INTEGER NOT NULL
) STRICT;
INSERT INTO instance (secret, oldest_reader) VALUES (randomblob(32), 6);
";

/// Fails for a database of another program.
pub(crate) fn refuse_foreign(connection: &Connection) -> Result<(), OpenError> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && tables > 0 { Err(OpenError::Foreign) } else { Ok(()) }
}

/// Creates the tables, or migrates them to the newest version. Does not change a file of a later version that
/// this version can use.
///
/// Returns [`OpenError::OldSchema`] or [`OpenError::NewerSchema`] if this version cannot use the file.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    migrate_by(connection, &MIGRATIONS, OLDEST_READER)
}

fn migrate_by(connection: &mut Connection, steps: &[&str], oldest_reader: i64) -> Result<(), OpenError> {
    // All steps run for an empty file. SQLite reports version 0 for such a file.
    const EMPTY: i64 = FIRST_VERSION - 1;
    let known = EMPTY + i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if (1..FIRST_VERSION).contains(&found) {
        return Err(OpenError::OldSchema { found, first: FIRST_VERSION });
    }
    if found > known {
        let needed: i64 =
            transaction.query_row("SELECT oldest_reader FROM instance", [], |row| row.get(0))?;
        return if needed > known { Err(OpenError::NewerSchema { found, known }) } else { Ok(()) };
    }
    if found < known {
        for step in steps.iter().skip(usize::try_from(found - EMPTY).unwrap_or(0)) {
            transaction.execute_batch(step)?;
        }
        transaction.execute("UPDATE instance SET oldest_reader = ?1", [oldest_reader])?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", known)?;
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V7: &str = "ALTER TABLE tasks ADD COLUMN colour TEXT";

    fn later(oldest_reader: i64) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        migrate_by(&mut connection, &[V6, V7], oldest_reader).unwrap();
        connection
    }

    #[test]
    fn file_of_compatible_later_version_is_accepted() {
        let mut connection = later(OLDEST_READER);
        migrate(&mut connection).unwrap();
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, 7, "the file keeps its version");
        migrate_by(&mut connection, &[V6, V7], OLDEST_READER).unwrap();
    }

    #[test]
    fn file_of_incompatible_later_version_is_refused() {
        let refused = migrate(&mut later(7)).unwrap_err();
        assert!(matches!(refused, OpenError::NewerSchema { found: 7, known: 6 }), "{refused}");
    }

    #[test]
    fn file_older_than_the_first_version_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        connection.pragma_update(None, "user_version", 4).unwrap();
        let refused = migrate(&mut connection).unwrap_err();
        assert!(matches!(refused, OpenError::OldSchema { found: 4, first: 6 }), "{refused}");
    }

    #[test]
    fn audit_cannot_be_changed() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        connection
            .execute_batch("INSERT INTO audit (tenant, at, actor, action, target) VALUES ('a', 1, 'operator', 'key.created', 'k')")
            .unwrap();
        let refused = connection.execute_batch("UPDATE audit SET actor = 'anonymous'").unwrap_err();
        assert!(refused.to_string().contains("never changed"), "{refused}");
    }
}
