//! Configuration store. Records and the audit trail are in tables. Token buckets of requests are in memory,
//! because only one process uses the file.

use std::collections::HashMap;
use std::num::NonZeroU32;

use async_trait::async_trait;
use nobat_core::auth::audit::{Action, Entry};
use nobat_core::config::record::{Record, RecordKind, RecordName};
use nobat_core::limits::token_bucket::{TakeResult, TokenBucket, TokenRate};
use nobat_core::ports::config_store::{AuditPage, AuditQuery, ConfigStore, RecordResult};
use nobat_core::ports::{Position, StoreError};
use nobat_core::task::Task;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::database::{Database, Savepoint};
use crate::read_pool::Cost;
use crate::task_queries::to_sql;
use crate::writer::Load;
use crate::{Error, Sqlite};

/// Token buckets of tenants with a request rate. All buckets are full after a restart.
#[derive(Default)]
pub(crate) struct Buckets(Mutex<HashMap<Tenant, TokenBucket>>);

#[async_trait]
impl ConfigStore for Sqlite {
    async fn find(&self, name: &RecordName) -> Result<Option<Record>, StoreError> {
        let name = name.clone();
        self.read(Cost::Record, name.tenant.clone(), move |connection| find(connection, &name)).await
    }

    async fn page(
        &self,
        tenant: Option<&Tenant>,
        kind: RecordKind,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let (tenant, after) = (tenant.cloned(), after.map(ToString::to_string).unwrap_or_default());
        // A page of one row checks whether any API key exists. Requests without a key wait for this check, so
        // the check must not wait behind scans.
        let cost = if limit == 1 { Cost::Record } else { Cost::Scan };
        self.read(cost, tenant.clone(), move |connection| {
            page(connection, tenant.as_ref(), kind, &after, limit)
        })
        .await
    }

    async fn write_with_tasks(
        &self,
        records: Vec<Record>,
        tasks: Vec<Task>,
        entry: Option<Entry>,
        now: Timestamp,
    ) -> Result<RecordResult, StoreError> {
        let tenant = entry.as_ref().map(|entry| entry.tenant.clone());
        let tenant = tenant.or_else(|| records.first()?.name.tenant.clone());
        self.0
            .writer
            .call(Load::of(tenant), move |database| {
                database.write_records(&records, tasks, entry.as_ref(), now)
            })
            .await
    }

    async fn remove(
        &self,
        name: &RecordName,
        version: u64,
        entry: Entry,
    ) -> Result<RecordResult, StoreError> {
        let name = name.clone();
        self.0
            .writer
            .call(Load::of(Some(entry.tenant.clone())), move |database| {
                database.remove_record(&name, version, &entry)
            })
            .await
    }

    async fn audit(&self, query: &AuditQuery, now: Timestamp) -> Result<AuditPage, StoreError> {
        let (query, oldest) = (query.clone(), now - self.0.retention);
        self.read(Cost::Scan, Some(query.tenant.clone()), move |connection| audit(connection, &query, oldest))
            .await
    }

    async fn take(
        &self,
        tenant: &Tenant,
        rate: TokenRate,
        _wanted: NonZeroU32,
        now: Timestamp,
    ) -> Result<TakeResult, StoreError> {
        let mut buckets = self.0.buckets.0.lock();
        let bucket = buckets.entry(tenant.clone()).or_default();
        let (taken, left) = rate.take(*bucket, NonZeroU32::MIN, now);
        *bucket = left;
        Ok(taken)
    }
}

impl Database {
    fn write_records(
        &mut self,
        records: &[Record],
        tasks: Vec<Task>,
        entry: Option<&Entry>,
        now: Timestamp,
    ) -> Result<RecordResult, Error> {
        self.savepoint(|database| {
            for record in records {
                if !database.write_record(record)? {
                    return Ok(Savepoint::Nothing(RecordResult::Conflict));
                }
            }
            for mut task in tasks {
                if database.insert_one(&mut task, now)?.is_some() {
                    return Ok(Savepoint::Nothing(RecordResult::Conflict));
                }
            }
            if let Some(entry) = entry {
                database.write_entry(entry)?;
            }
            Ok(Savepoint::All(RecordResult::Done))
        })
    }

    /// Writes the record if the stored version is one lower. Returns true if it was written.
    fn write_record(&self, record: &Record) -> Result<bool, Error> {
        let Record { name, version, body } = record;
        let (kind, version) = (name.kind.as_str(), version.cast_signed());
        let sql = if version == 1 {
            "INSERT INTO records (version, body, tenant, kind, name) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING"
        } else {
            "UPDATE records SET version = ?1, body = ?2 WHERE tenant = ?3 AND kind = ?4 AND name = ?5 AND version = ?1 - 1"
        };
        Ok(self.prepare(sql)?.execute(params![
            version,
            body,
            whose(name.tenant.as_ref()),
            kind,
            name.name.as_str()
        ])? == 1)
    }

    fn remove_record(
        &mut self,
        name: &RecordName,
        version: u64,
        entry: &Entry,
    ) -> Result<RecordResult, Error> {
        self.savepoint(|database| {
            let sql = "DELETE FROM records WHERE tenant = ?1 AND kind = ?2 AND name = ?3 AND version = ?4";
            let values = params![
                whose(name.tenant.as_ref()),
                name.kind.as_str(),
                name.name.as_str(),
                version.cast_signed()
            ];
            if database.prepare(sql)?.execute(values)? == 0 {
                return Ok(Savepoint::Nothing(RecordResult::Conflict));
            }
            database.write_entry(entry)?;
            Ok(Savepoint::All(RecordResult::Done))
        })
    }

    /// Writes an audit entry. A trigger prevents later changes.
    pub(crate) fn write_entry(&self, entry: &Entry) -> Result<(), Error> {
        let Entry { tenant, at, actor, action, target, mark: _ } = entry;
        self.prepare("INSERT INTO audit (tenant, at, actor, action, target) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![tenant.as_str(), at.millis(), actor.to_string(), action.as_str(), target])?;
        Ok(())
    }
}

/// Returns the value of column `tenant`. Empty for records of the installation.
fn whose(tenant: Option<&Tenant>) -> &str {
    tenant.map_or("", Tenant::as_str)
}

fn find(connection: &Connection, name: &RecordName) -> Result<Option<Record>, Error> {
    let mut statement = connection
        .prepare_cached("SELECT version, body FROM records WHERE tenant = ?1 AND kind = ?2 AND name = ?3")?;
    let found = statement.query_row(
        params![whose(name.tenant.as_ref()), name.kind.as_str(), name.name.as_str()],
        |row| {
            Ok(Record {
                name: name.clone(),
                version: row.get::<_, i64>(0)?.cast_unsigned(),
                body: row.get(1)?,
            })
        },
    );
    Ok(found.optional()?)
}

fn page(
    connection: &Connection,
    tenant: Option<&Tenant>,
    kind: RecordKind,
    after: &str,
    limit: usize,
) -> Result<Vec<Record>, Error> {
    let sql = "SELECT name, version, body FROM records WHERE tenant = ?1 AND kind = ?2 AND name > ?3 ORDER BY name LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![whose(tenant), kind.as_str(), after, to_sql(limit)])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let name = RecordName { tenant: tenant.cloned(), kind, name: Name::new(row.get_ref(0)?.as_str()?)? };
        records.push(Record { name, version: row.get::<_, i64>(1)?.cast_unsigned(), body: row.get(2)? });
    }
    Ok(records)
}

fn audit(connection: &Connection, query: &AuditQuery, oldest: Timestamp) -> Result<AuditPage, Error> {
    let before = query
        .after
        .as_ref()
        .map_or(Ok(i64::MAX), |after| after.0.parse().map_err(|_| Error::Unreadable("position")))?;
    let sql = "SELECT seq, tenant, at, actor, action, target FROM audit WHERE tenant = ?1 AND seq < ?2 AND at > ?3 ORDER BY seq DESC LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows =
        statement.query(params![query.tenant.as_str(), before, oldest.millis(), to_sql(query.limit)])?;
    let (mut entries, mut last) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        last = Some(Position(row.get::<_, i64>(0)?.to_string()));
        entries.push(entry(row)?);
    }
    let next = last.filter(|_| entries.len() == query.limit);
    Ok(AuditPage { entries, next })
}

fn entry(row: &Row<'_>) -> Result<Entry, Error> {
    Ok(Entry {
        tenant: Tenant::new(row.get_ref(1)?.as_str()?)?,
        at: Timestamp::from_millis(row.get(2)?),
        actor: row.get_ref(3)?.as_str()?.parse().map_err(|_| Error::Unreadable("an actor"))?,
        action: Action::of(row.get_ref(4)?.as_str()?),
        target: row.get(5)?,
        mark: row.get::<_, i64>(0)?.cast_unsigned(),
    })
}
