//! Tests of the file: access by several processes, and its content after restarts and damage.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nobat_core::config::kind::{KindError, KindRegistry, Target};
use nobat_core::json::Json;
use nobat_core::ports::{ClaimResult, Clock, Delivery, InsertResult, StoreError};
use nobat_core::submission::{Submission, SubmissionContext};
use nobat_core::task::lifecycle::{Event, overdue};
use nobat_core::task::{Task, Wait};
use nobat_core::types::id::TaskId;
use nobat_core::types::intervals::LEASE;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use nobat_sqlite::{Holder, OpenError, Sqlite};
use rusqlite::Connection;

const RETENTION: Duration = Duration::from_hours(24);
const NOW: i64 = 1_800_000_000_000;

/// A clock that does not move.
struct Still;

#[async_trait]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(NOW)
    }

    async fn sleep(&self, duration: Duration) {
        if !duration.is_zero() {
            std::future::pending::<()>().await;
        }
    }
}

/// Accepts every kind and payload.
struct Any;

impl KindRegistry for Any {
    fn check(&self, _kind: &Name, _payload: &Json, _: Target) -> Result<Option<Wait>, KindError> {
        Ok(None)
    }

    fn check_authority(&self, _pem: &str) -> Result<(), String> {
        Ok(())
    }
}

fn now() -> Timestamp {
    Still.now()
}

fn open(path: &Path) -> Result<Sqlite, OpenError> {
    Sqlite::open(path, RETENTION, Arc::new(Still))
}

fn task(number: u128) -> Task {
    let id = TaskId::new(now(), number);
    let intake = SubmissionContext {
        tenant: &Tenant::default(),
        id,
        fingerprint: None,
        max_timeout: RETENTION,
        kinds: &Any,
        submitted_by: None,
        max_payload: None,
        endpoint: None,
        then_endpoint: None,
        queue: None,
        hops: 0,
        now: now(),
    };
    Submission { kind: "any".to_owned(), ..Submission::default() }.into_task(&intake).unwrap()
}

#[tokio::test]
async fn file_is_opened_by_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobat.db");
    let first = open(&path).unwrap();
    let holder = |path: &Path| match open(path).err() {
        Some(OpenError::InUse { holder, .. }) => holder,
        other => panic!("{other:?}"),
    };
    let process = Some(std::process::id());
    assert_eq!(holder(&path), Holder { process, address: None });
    assert_eq!(holder(&path).to_string(), format!("the nobat process {}", std::process::id()));
    for (address, url) in [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:8080", "http://[::1]:8080"),
        ("192.0.2.7:8080", "http://192.0.2.7:8080"),
    ] {
        let address = address.parse().unwrap();
        first.announce(address);
        assert_eq!(holder(&path), Holder { process, address: Some(address) });
        assert_eq!(holder(&path).url().as_deref(), Some(url));
        assert_eq!(
            holder(&path).to_string(),
            format!("the nobat server at {url} (process {})", std::process::id())
        );
    }
    drop(first);
    drop(open(&path).unwrap());
    let _next = open(&path).unwrap();
    assert_eq!(holder(&path).address, None, "the address of a stopped server is not named");
}

#[tokio::test]
async fn an_idle_writer_moves_the_log_into_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("nobat.db"), folder.path().join("copy.db"));
    let sqlite = open(&path).unwrap();
    for number in 0..20 {
        sqlite.backend().store.insert(vec![task(number)], now()).await.unwrap();
    }
    let log = folder.path().join("nobat.db-wal");
    let begun = std::time::Instant::now();
    while std::fs::metadata(&log).unwrap().len() > 0 {
        assert!(begun.elapsed() < Duration::from_mins(1), "the log is emptied within a minute");
        // An operation that writes nothing does not delay the checkpoint.
        let claimed = sqlite.backend().store.claim(&task(99).key(), now(), now()).await.unwrap();
        assert!(matches!(claimed, ClaimResult::Missing));
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::copy(&path, &copy).unwrap();
    let count = |path: &Path| {
        Connection::open(path)
            .unwrap()
            .query_row("SELECT count(*) FROM tasks", [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(count(&copy), 20);
    // A reader in a transaction neither blocks the writer nor loses its snapshot.
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM tasks").unwrap();
    sqlite.backend().store.insert(vec![task(20)], now()).await.unwrap();
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(count(&path), 21);
}

#[tokio::test]
async fn file_of_newer_or_other_program_is_refused_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let newer = folder.path().join("newer.db");
    drop(open(&newer).unwrap());
    let connection = Connection::open(&newer).unwrap();
    connection.pragma_update(None, "user_version", 1_000).unwrap();
    connection.execute("UPDATE instance SET oldest_reader = 999", []).unwrap();
    drop(connection);
    assert!(matches!(open(&newer), Err(OpenError::NewerSchema { found: 1_000, .. })));

    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(open(&foreign), Err(OpenError::Foreign)));
    let tables: i64 = Connection::open(&foreign)
        .unwrap()
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1, "no table is added");

    let text = folder.path().join("text.db");
    std::fs::write(&text, "not a database, but as long as the first fields of the header of a database file")
        .unwrap();
    assert!(matches!(open(&text), Err(OpenError::Sqlite(_))));
}

#[tokio::test]
async fn reopened_file_keeps_tasks_and_ends_old_leases() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobat.db");
    let (waiting, running) = (task(1), task(2));
    let sqlite = open(&path).unwrap();
    let store = sqlite.backend().store;
    store.insert(vec![waiting.clone(), running.clone()], now()).await.unwrap();
    assert!(matches!(store.claim(&running.key(), now() + LEASE, now()).await, Ok(ClaimResult::Granted(_))));
    drop((store, sqlite));

    let store = open(&path).unwrap().backend().store;
    assert_eq!(store.get(&waiting.key(), now()).await.unwrap(), Some(waiting));
    let found = store.get(&running.key(), now()).await.unwrap().unwrap();
    assert!(matches!(overdue(&found, JitterSample::from_bits(0), now()), Some(Event::LeaseExpired { .. })));
    assert_eq!(store.due(10, now()).await.unwrap(), [found]);
}

#[tokio::test]
async fn closed_file_is_complete_without_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobat.db");
    let sqlite = open(&path).unwrap();
    sqlite.backend().store.insert(vec![task(1)], now()).await.unwrap();
    drop(sqlite);
    let alone = folder.path().join("alone.db");
    std::fs::copy(&path, &alone).unwrap();
    assert!(open(&alone).unwrap().backend().store.get(&task(1).key(), now()).await.unwrap().is_some());
}

#[tokio::test]
async fn unwritable_file_refuses_writes_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobat.db");
    let sqlite = open(&path).unwrap();
    let store = sqlite.backend().store;
    store.insert(vec![task(0)], now()).await.unwrap();
    // To the writer, a connection that holds the file's lock looks like a disk that does not answer.
    let mut other = Connection::open(&path).unwrap();
    let held = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    assert!(matches!(store.insert(vec![task(1)], now()).await, Err(StoreError::Unavailable(_))));
    assert!(store.ready(now()).await.is_err());
    drop(held);
    assert!(matches!(store.insert(vec![task(1)], now()).await, Ok(InsertResult::Created(_))));
    store.ready(now()).await.unwrap();
    assert!(store.get(&task(0).key(), now()).await.unwrap().is_some());
}

/// Creates a file with two tasks and damages the first with `change`.
async fn with_one_damaged(path: &Path, change: &str) -> (Task, Task) {
    let (damaged, sound) = (task(1), task(2));
    open(path).unwrap().backend().store.insert(vec![damaged.clone(), sound.clone()], now()).await.unwrap();
    let changed = Connection::open(path).unwrap().execute(change, [damaged.id.to_bytes()]);
    assert_eq!(changed.unwrap(), 1);
    (damaged, sound)
}

#[tokio::test]
async fn unreadable_row_does_not_block_other_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobat.db");
    let (damaged, sound) = with_one_damaged(&path, "UPDATE tasks SET options = '{' WHERE id = ?1").await;

    let backend = open(&path).unwrap().backend();
    assert!(matches!(backend.store.get(&damaged.key(), now()).await, Err(StoreError::Corrupt(_))));
    // Room for one task: if the damaged row always came first, the other would never run.
    let received = backend.queue.receive(1).await.unwrap();
    let [Delivery::Claimed(claimed)] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!(claimed.id, sound.id);
    assert!(matches!(backend.accept(vec![task(3)], now()).await, Ok(InsertResult::Created(_))));
}

#[tokio::test]
async fn accepted_task_goes_to_a_waiting_worker_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = open(&folder.path().join("nobat.db")).unwrap();
    let backend = sqlite.backend();
    let mut receive = std::pin::pin!(backend.queue.receive(1));
    // Registers the worker as waiting.
    assert!(futures_util::poll!(receive.as_mut()).is_pending());
    let InsertResult::Created(created) = backend.accept(vec![task(1)], now()).await.unwrap() else {
        panic!("the task was not created")
    };
    let received = receive.await.unwrap();
    let [Delivery::Claimed(claimed)] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!(**claimed, created[0], "the task is claimed in the transaction that accepts it");
}

#[tokio::test]
async fn unreadable_tenant_name_does_not_block_other_tenants() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobat.db");
    let (_, sound) = with_one_damaged(&path, "UPDATE tasks SET tenant = 'a b' WHERE id = ?1").await;
    let backend = open(&path).unwrap().backend();
    let received = backend.queue.receive(2).await.unwrap();
    let [Delivery::Claimed(claimed)] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!(claimed.id, sound.id);
}
