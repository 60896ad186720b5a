//! Configuration store. The installation's records are in one partition. A tenant's records, audit trail and
//! token bucket are in one partition each.

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use nobat_core::auth::audit::{Action, Entry};
use nobat_core::config::record::{Record, RecordKind, RecordName};
use nobat_core::limits::token_bucket::{TakeResult, TokenBucket, TokenRate};
use nobat_core::ports::config_store::{AuditPage, AuditQuery, ConfigStore, RecordResult};
use nobat_core::ports::{Position, StoreError};
use nobat_core::task::Task;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;

use crate::error::{Unreadable, failed};
use crate::expression::Expression;
use crate::item::{self, Item, Key, Reader, at, expiry, moment, number, op, text};
use crate::keys;
use crate::store::new_op;
use crate::table::{Table, WriteOutcome};

/// Number of blocks into which the tokens that a tenant gets in one second are divided. One write takes a
/// whole block of tokens, so a request costs only a fraction of a write.
const BLOCKS_A_SECOND: u32 = 10;

/// Maximum number of tries to take tokens from a bucket that other processes change at the same time.
const MAX_TRIES: usize = 4;

/// Time after which an unused token bucket is deleted. A missing bucket counts as full.
const IDLE: Duration = Duration::from_hours(24);

#[async_trait]
impl ConfigStore for Table {
    async fn find(&self, name: &RecordName) -> Result<Option<Record>, StoreError> {
        let found = self.read(record_key(name)).await?;
        found.map(|item| record(name.clone(), &item)).transpose()
    }

    async fn page(
        &self,
        tenant: Option<&Tenant>,
        kind: RecordKind,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let (from, to) = keys::records_after(kind, after);
        let find = self.client.query().table_name(&self.name).consistent_read(true);
        let find = find.key_condition_expression("#PK = :records AND #SK BETWEEN :from AND :to");
        let find = find.expression_attribute_names("#PK", "PK").expression_attribute_names("#SK", "SK");
        let find = find.expression_attribute_values(":records", text(keys::records(tenant)));
        let find = find
            .expression_attribute_values(":from", text(from))
            .expression_attribute_values(":to", text(to));
        let found = find.limit(i32::try_from(limit).unwrap_or(i32::MAX)).send().await.map_err(failed)?;
        let items = found.items.unwrap_or_default();
        items
            .iter()
            .map(|item| record(RecordName { tenant: tenant.cloned(), kind, name: name(item)? }, item))
            .collect()
    }

    async fn write_with_tasks(
        &self,
        records: Vec<Record>,
        tasks: Vec<Task>,
        entry: Option<Entry>,
        now: Timestamp,
    ) -> Result<RecordResult, StoreError> {
        let own = new_op();
        if let ([record], [], None) = (&records[..], &tasks[..], &entry) {
            return match self.put(record_item(record, &own), next_version(record.version)).await? {
                WriteOutcome::Done(_) => Ok(RecordResult::Done),
                WriteOutcome::Refused(_) => Ok(RecordResult::Conflict),
            };
        }
        try_join_all(tasks.iter().map(|task| self.write_payload(task))).await?;
        let mut writes = Vec::with_capacity(records.len() + tasks.len() + 1);
        for record in &records {
            writes.push(self.put_write(record_item(record, &own), &next_version(record.version))?);
        }
        for task in &tasks {
            writes.push(self.put_write(item::whole(task, &own, now), &self.absent(now))?);
        }
        if let Some(entry) = entry {
            let absent = Expression::default().when("attribute_not_exists(#PK)");
            writes.push(self.put_write(self.entry_item(&entry, &own), &absent)?);
        }
        match self.transact(writes, &own).await? {
            Ok(()) => Ok(RecordResult::Done),
            // An earlier try of this transaction made the writes, and its response was lost.
            Err(refused) if refused.iter().any(|found| op(found) == Some(&own)) => Ok(RecordResult::Done),
            Err(_) => Ok(RecordResult::Conflict),
        }
    }

    async fn remove(
        &self,
        name: &RecordName,
        version: u64,
        entry: Entry,
    ) -> Result<RecordResult, StoreError> {
        let own = new_op();
        let condition = Expression::default().when("#version = :version").value("version", number(version));
        let absent = Expression::default().when("attribute_not_exists(#PK)");
        let writes = vec![
            self.delete_write(record_key(name), &condition)?,
            self.put_write(self.entry_item(&entry, &own), &absent)?,
        ];
        match self.transact(writes, &own).await? {
            Ok(()) => Ok(RecordResult::Done),
            // An earlier try of this transaction made the writes, and its response was lost.
            Err(refused) if refused.iter().any(|found| op(found) == Some(&own)) => Ok(RecordResult::Done),
            Err(_) => Ok(RecordResult::Conflict),
        }
    }

    async fn audit(&self, query: &AuditQuery, now: Timestamp) -> Result<AuditPage, StoreError> {
        // Entries as old as the retention are excluded.
        let from = keys::moment(now - self.retention + Duration::from_millis(1));
        // A tilde sorts after every digit.
        let before = query.after.as_ref().map_or_else(|| "~".to_owned(), |after| after.0.clone());
        // The last entry of the previous page has expired since then, and so have all older entries.
        if from > before {
            return Ok(AuditPage { entries: Vec::new(), next: None });
        }
        let find = self.client.query().table_name(&self.name).consistent_read(true).scan_index_forward(false);
        let find = find.key_condition_expression("#PK = :audit AND #SK BETWEEN :from AND :before");
        let find = find.expression_attribute_names("#PK", "PK").expression_attribute_names("#SK", "SK");
        let find = find.expression_attribute_values(":audit", text(keys::audit(&query.tenant)));
        let find = find
            .expression_attribute_values(":from", text(from))
            .expression_attribute_values(":before", text(&before));
        // One more than the limit, since the query finds the last entry of the previous page again.
        let limit = i32::try_from(query.limit).unwrap_or(i32::MAX).saturating_add(1);
        let mut items = find.limit(limit).send().await.map_err(failed)?.items.unwrap_or_default();
        items.retain(|item| place(item).is_some_and(|place| place != before));
        items.truncate(query.limit);
        let next = items
            .last()
            .filter(|_| items.len() == query.limit)
            .and_then(place)
            .map(|place| Position(place.to_owned()));
        let entries = items.iter().map(|item| entry(query.tenant.clone(), item)).collect::<Result<_, _>>()?;
        Ok(AuditPage { entries, next })
    }

    async fn take(
        &self,
        tenant: &Tenant,
        rate: TokenRate,
        wanted: NonZeroU32,
        now: Timestamp,
    ) -> Result<TakeResult, StoreError> {
        let block = (rate.per_second.get() / BLOCKS_A_SECOND).clamp(1, rate.burst.get());
        let mut wanted = wanted.min(NonZeroU32::new(block).unwrap_or(NonZeroU32::MIN));
        let mut seen = self.buckets.lock().get(tenant).copied().unwrap_or_default();
        for _ in 0..MAX_TRIES {
            let (taken, left) = rate.take(seen, wanted, now);
            let TakeResult::Granted(granted) = taken else { return Ok(taken) };
            let (found, is_taken) = self.take_from(tenant, seen, left, rate, now).await?;
            self.buckets.lock().insert(tenant.clone(), found);
            if is_taken {
                return Ok(TakeResult::Granted(granted));
            }
            // Other processes have changed the bucket. The refused write returns the bucket's current level.
            (seen, wanted) = (found, granted);
        }
        Err(StoreError::Overloaded)
    }
}

/// Returns the condition that the stored record has the version before this one.
fn next_version(version: u64) -> Expression {
    match version {
        1 => Expression::default().when("attribute_not_exists(#PK)"),
        version => Expression::default().when("#version = :before").value("before", number(version - 1)),
    }
}

impl Table {
    /// Takes tokens: changes the tenant's bucket from `seen` to `left`. Returns the stored bucket, and true
    /// if this call changed it.
    ///
    /// If `seen` is not full, the update adds the difference to `full_at` and checks only that the bucket has
    /// enough tokens. Concurrent processes then do not conflict.
    async fn take_from(
        &self,
        tenant: &Tenant,
        seen: TokenBucket,
        left: TokenBucket,
        rate: TokenRate,
        now: Timestamp,
    ) -> Result<(TokenBucket, bool), StoreError> {
        let now_micros = now.millis().saturating_mul(1_000);
        let take = if seen.full_at > now_micros {
            let cost = left.full_at - seen.full_at;
            Expression::default()
                .add("full_at", number(cost))
                .when("#full_at BETWEEN :now AND :latest")
                .value("latest", number(now_micros + rate.room() - cost))
        } else {
            Expression::default()
                .set("full_at", number(left.full_at))
                .when("attribute_not_exists(#full_at) OR #full_at <= :now")
        };
        let take = take.set("expires_at", number(expiry(now + IDLE))).value("now", number(now_micros));
        let written = self.update(at(keys::limiter(tenant), keys::REQUESTS), take, None).await?;
        let (WriteOutcome::Done(item) | WriteOutcome::Refused(item)) = &written;
        let full_at = Reader(item).optional_number("full_at")?.unwrap_or(0);
        Ok((TokenBucket { full_at }, matches!(written, WriteOutcome::Done(_))))
    }

    /// Returns the item of an audit entry, with its expiry.
    pub(crate) fn entry_item(&self, entry: &Entry, own: &str) -> Item {
        let attributes = [
            ("actor", text(entry.actor.to_string())),
            ("action", text(entry.action.as_str())),
            ("target", text(&entry.target)),
            ("at", moment(entry.at)),
            ("expires_at", number(expiry(entry.at + self.retention))),
            ("op", text(own)),
        ];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value));
        at(keys::audit(&entry.tenant), keys::entry(entry)).into_iter().chain(attributes).collect()
    }
}

fn record_key(name: &RecordName) -> Key {
    at(keys::records(name.tenant.as_ref()), keys::record(name))
}

fn record_item(record: &Record, own: &str) -> Item {
    let attributes = [("version", number(record.version)), ("body", text(&record.body)), ("op", text(own))];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value));
    record_key(&record.name).into_iter().chain(attributes).collect()
}

fn record(name: RecordName, item: &Item) -> Result<Record, StoreError> {
    let reader = Reader(item);
    let version = reader.optional_number("version")?.ok_or(Unreadable("version"))?;
    Ok(Record { name, version, body: reader.text("body")?.to_owned() })
}

fn name(item: &Item) -> Result<Name, Unreadable> {
    let name = place(item).and_then(|place| place.split_once('#')).and_then(|(_, name)| Name::new(name).ok());
    name.ok_or(Unreadable("SK"))
}

fn place(item: &Item) -> Option<&str> {
    item.get("SK").and_then(|sort| sort.as_s().ok()).map(String::as_str)
}

fn entry(tenant: Tenant, item: &Item) -> Result<Entry, Unreadable> {
    let reader = Reader(item);
    let mark = place(item)
        .and_then(|place| place.split_once('#'))
        .and_then(|(_, mark)| u64::from_str_radix(mark, 16).ok());
    Ok(Entry {
        tenant,
        at: reader.moment("at")?,
        actor: reader.text("actor")?.parse().map_err(|_| Unreadable("actor"))?,
        action: Action::of(reader.text("action")?),
        target: reader.text("target")?.to_owned(),
        mark: mark.ok_or(Unreadable("SK"))?,
    })
}
