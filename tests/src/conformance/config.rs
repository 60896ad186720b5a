//! Configuration records and the audit trail.

use std::num::NonZeroU32;
use std::time::Duration;

use nobat_core::auth::api_key::KeyText;
use nobat_core::auth::audit::{Action, Actor, Entry};
use nobat_core::config::record::{Record, RecordKind, RecordName};
use nobat_core::limits::token_bucket::{TakeResult, TokenRate};
use nobat_core::ports::CommitResult;
use nobat_core::ports::config_store::{AuditQuery, RecordResult};
use nobat_core::task::Task;
use nobat_core::task::lifecycle::{Change, Event};
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;

use super::{RETENTION, World};
use crate::sample::{self, name, tenant};

fn record(sort: RecordKind, of: &str, version: u64) -> Record {
    Record {
        name: RecordName { tenant: None, kind: sort, name: name(of) },
        version,
        body: format!("{{\"says\":\"{of} «{version}»\"}}"),
    }
}

fn entry(of: &Tenant, object: &str, now: Timestamp) -> Entry {
    let actor = Actor::Key(KeyText::new([5; 20]).digest().id());
    Entry {
        tenant: of.clone(),
        at: now,
        actor,
        action: Action::TenantChanged,
        target: object.to_owned(),
        mark: rand::random(),
    }
}

/// Returns the fields of an entry without its random `mark`, for comparison.
fn fields(entry: &Entry) -> (Tenant, Timestamp, Actor, Action, String) {
    (entry.tenant.clone(), entry.at, entry.actor, entry.action, entry.target.clone())
}

async fn write(world: &World, records: Vec<Record>) -> RecordResult {
    world.backend.config.write(records, entry(&Tenant::default(), "x", world.now())).await.unwrap()
}

async fn audit(world: &World, tenant: &Tenant) -> Vec<Entry> {
    let query = AuditQuery { tenant: tenant.clone(), limit: 100, after: None };
    world.backend.config.audit(&query, world.now()).await.unwrap().entries
}

/// A record is read back as written, and can be written again over the version before.
pub async fn finds_the_written_record(world: World) {
    let (first, second) = (record(RecordKind::Tenant, "acme", 1), record(RecordKind::Tenant, "acme", 2));
    assert_eq!(world.backend.config.find(&first.name).await.unwrap(), None);
    for record in [first, second] {
        assert_eq!(write(&world, vec![record.clone()]).await, RecordResult::Done);
        assert_eq!(world.backend.config.find(&record.name).await.unwrap(), Some(record));
    }
    let other = RecordName { tenant: None, kind: RecordKind::Key, name: name("acme") };
    assert_eq!(
        world.backend.config.find(&other).await.unwrap(),
        None,
        "a record of another kind is not found"
    );
}

/// A record without an audit entry is written by its version like any other.
pub async fn writes_a_record_without_an_entry(world: World) {
    let write = async |version| {
        let records = vec![record(RecordKind::SourceCounts, "bank", version)];
        world.backend.config.write_with_tasks(records, Vec::new(), None, world.now()).await.unwrap()
    };
    let written = [write(2).await, write(1).await, write(1).await, write(3).await, write(2).await];
    let (done, conflict) = (RecordResult::Done, RecordResult::Conflict);
    assert_eq!(written, [conflict, done, conflict, conflict, done]);
    let stored = record(RecordKind::SourceCounts, "bank", 2);
    assert_eq!(world.backend.config.find(&stored.name).await.unwrap(), Some(stored));
    assert_eq!(audit(&world, &Tenant::default()).await, []);
}

/// If one record's version does not follow the stored one, no record and no entry is written.
pub async fn writes_all_or_nothing(world: World) {
    assert_eq!(write(&world, vec![record(RecordKind::Key, "a", 1)]).await, RecordResult::Done);
    for stale in [1, 3] {
        let records = vec![record(RecordKind::Key, "b", 1), record(RecordKind::Key, "a", stale)];
        assert_eq!(write(&world, records).await, RecordResult::Conflict, "version {stale} over 1");
    }
    assert_eq!(
        write(&world, vec![record(RecordKind::Key, "c", 2)]).await,
        RecordResult::Conflict,
        "version 2 without version 1"
    );
    assert_eq!(
        world.backend.config.page(None, RecordKind::Key, None, 10).await.unwrap(),
        [record(RecordKind::Key, "a", 1)]
    );
    assert_eq!(audit(&world, &Tenant::default()).await.len(), 1);
    let both = vec![record(RecordKind::Key, "a", 2), record(RecordKind::Key, "b", 1)];
    assert_eq!(write(&world, both.clone()).await, RecordResult::Done);
    assert_eq!(world.backend.config.page(None, RecordKind::Key, None, 10).await.unwrap(), both);
}

/// Records of a tenant, of another tenant and of the installation are separate, even if their names are
/// equal.
pub async fn keeps_records_of_tenants_apart(world: World) {
    let of = |of: Option<&str>| {
        let record = record(RecordKind::Key, "a", 1);
        Record {
            name: RecordName { tenant: of.map(tenant), ..record.name },
            body: format!("{of:?}"),
            ..record
        }
    };
    let records = [None, Some("acme"), Some("acme2"), Some("a")].map(of);
    for record in &records {
        assert_eq!(world.backend.config.find(&record.name).await.unwrap(), None);
        assert_eq!(write(&world, vec![record.clone()]).await, RecordResult::Done);
    }
    for record in &records {
        assert_eq!(world.backend.config.find(&record.name).await.unwrap().as_ref(), Some(record));
        let page =
            world.backend.config.page(record.name.tenant.as_ref(), RecordKind::Key, None, 10).await.unwrap();
        assert_eq!(page, std::slice::from_ref(record));
    }
}

/// A record is removed only at the version that was read, with an audit entry. A new record of its name
/// starts at version 1.
pub async fn removes_only_the_read_version(world: World) {
    let (first, second) = (record(RecordKind::Key, "a", 1), record(RecordKind::Key, "a", 2));
    for record in [&first, &second] {
        assert_eq!(write(&world, vec![record.clone()]).await, RecordResult::Done);
    }
    let remove = |version| {
        let entry = entry(&tenant("acme"), "a", world.now());
        world.backend.config.remove(&first.name, version, entry)
    };
    for other in [1, 3] {
        assert_eq!(remove(other).await.unwrap(), RecordResult::Conflict);
    }
    assert_eq!(world.backend.config.find(&first.name).await.unwrap(), Some(second.clone()));
    assert_eq!(audit(&world, &tenant("acme")).await.len(), 0);
    assert_eq!(remove(2).await.unwrap(), RecordResult::Done);
    assert_eq!(
        (remove(2).await.unwrap(), audit(&world, &tenant("acme")).await.len()),
        (RecordResult::Conflict, 1)
    );
    assert_eq!(world.backend.config.find(&first.name).await.unwrap(), None);
    assert_eq!(write(&world, vec![second]).await, RecordResult::Conflict);
    assert_eq!(write(&world, vec![first]).await, RecordResult::Done);
}

/// Each page continues after the last name of the page before, within one kind of record.
pub async fn pages_by_name(world: World) {
    let names = ["a", "a-1", "a.b", "b", "key"];
    for of in names {
        write(&world, vec![record(RecordKind::Key, of, 1)]).await;
    }
    write(&world, vec![record(RecordKind::Tenant, "a", 1)]).await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = world.backend.config.page(None, RecordKind::Key, after.as_ref(), 2).await.unwrap();
        assert!(page.len() <= 2 && page.iter().all(|record| record.name.kind == RecordKind::Key));
        let Some(last) = page.last() else { break };
        after = Some(last.name.name.clone());
        seen.extend(page.into_iter().map(|record| record.name.name.to_string()));
    }
    assert_eq!(seen, names);
}

/// The audit trail is newest first, in pages, separate for each tenant.
pub async fn lists_the_audit_trail(world: World) {
    let (one, other) = (tenant("one"), tenant("other"));
    let mut written = Vec::new();
    for number in 1..=5_u64 {
        world.time.advance(Duration::from_millis(1));
        let entry = entry(&one, &format!("object-{number}"), world.now());
        world
            .backend
            .config
            .write(vec![record(RecordKind::Tenant, "one", number)], entry.clone())
            .await
            .unwrap();
        written.insert(0, fields(&entry));
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let query = AuditQuery { tenant: one.clone(), limit: 2, after };
        let page = world.backend.config.audit(&query, world.now()).await.unwrap();
        assert!(page.entries.len() <= 2);
        seen.extend(page.entries.iter().map(fields));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, written);
    assert!(audit(&world, &other).await.is_empty());
}

/// A change of a task is on the audit trail if it was committed, and not if it was refused.
pub async fn records_an_entry_with_its_change(world: World) {
    let task = world.insert(sample::reported(sample::task(1, world.now()))).await;
    let entry = entry(&task.tenant, &task.id.to_string(), world.now());
    let cancel = Change { entry: Some(entry.clone()), ..world.change(&task, Event::Cancel) };
    let stale = Change { read_version: cancel.read_version + 1, ..cancel.clone() };
    assert!(matches!(world.backend.store.commit(stale, world.now()).await.unwrap(), CommitResult::Conflict));
    assert!(audit(&world, &task.tenant).await.is_empty());
    let follow_up = cancel.callback.clone().unwrap();
    assert_eq!(world.commit(cancel).await.version, 2);
    assert_eq!(audit(&world, &task.tenant).await.iter().map(fields).collect::<Vec<_>>(), [fields(&entry)]);
    assert!(world.find(&follow_up.key()).await.is_some(), "the callback is written");
}

/// Audit entries are kept as long as ended tasks.
pub async fn prunes_old_audit_entries(world: World) {
    write(&world, vec![record(RecordKind::Key, "a", 1)]).await;
    let last = Duration::from_millis(1);
    world.time.advance(RETENTION.saturating_sub(last));
    assert_eq!(audit(&world, &Tenant::default()).await.len(), 1);
    world.time.advance(Duration::from_millis(1));
    world.backend.store.prune(10, world.now()).await.unwrap();
    assert!(audit(&world, &Tenant::default()).await.is_empty());
    assert!(
        world.backend.config.find(&record(RecordKind::Key, "a", 1).name).await.unwrap().is_some(),
        "the key itself is kept"
    );
}

/// Takes never exceed the tenant's rate and burst. Each tenant has its own bucket.
pub async fn takes_no_more_than_the_rate(world: World) {
    let count = |count| NonZeroU32::new(count).unwrap();
    let rate = TokenRate { per_second: count(20), burst: count(30) };
    let (one, other) = (tenant("one"), tenant("other"));
    let drain = async |of: &Tenant| {
        let mut taken = 0;
        loop {
            match world.backend.config.take(of, rate, count(4), world.now()).await.unwrap() {
                TakeResult::Granted(count) => taken += count.get(),
                TakeResult::Wait(pause) => return (taken, pause),
            }
        }
    };
    assert_eq!(drain(&one).await, (30, Duration::from_millis(50)));
    assert_eq!(drain(&other).await.0, 30);
    world.time.advance(Duration::from_millis(1_049));
    assert_eq!(drain(&one).await, (20, Duration::from_millis(1)));
    world.time.advance(Duration::from_hours(1));
    assert_eq!(drain(&one).await.0, 30);
}

/// Records and new tasks are written together, or not at all.
pub async fn writes_records_and_tasks_together(world: World) {
    let write = async |version, task: Task| {
        let records = vec![record(RecordKind::Queue, "with-task", version)];
        let entry = entry(&Tenant::default(), &format!("with-task-{version}"), world.now());
        world.backend.configure(records, vec![task], entry, world.now()).await.unwrap()
    };
    let first = sample::task(1, world.now());
    assert_eq!(write(1, first.clone()).await, RecordResult::Done);
    assert_eq!(world.get(&first).await.key(), first.key());
    // The version is stale, so the task is not written either.
    let second = sample::task(2, world.now());
    assert_eq!(write(1, second.clone()).await, RecordResult::Conflict);
    assert!(world.find(&second.key()).await.is_none());
    // The task exists, so the record is not written either.
    assert_eq!(write(2, first.clone()).await, RecordResult::Conflict);
    let name = record(RecordKind::Queue, "with-task", 1).name;
    assert_eq!(world.backend.config.find(&name).await.unwrap().map(|found| found.version), Some(1));
}
