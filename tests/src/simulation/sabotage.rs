//! Backends that break a promise, which the simulation must notice.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use nobat_core::auth::audit::Entry;
use nobat_core::config::record::{Record, RecordKind, RecordName};
use nobat_core::json::Json;
use nobat_core::limits::token_bucket::{TakeResult, TokenRate};
use nobat_core::limits::{LimiterKey, LimiterState, Reservations};
use nobat_core::ports::config_store::{AuditPage, AuditQuery, ConfigStore, RecordResult};
use nobat_core::ports::limiter_store::{LimiterStore, VersionedState, WriteResult};
use nobat_core::ports::{
    ClaimResult, CommitResult, Heartbeat, InsertResult, ListQuery, Page, StoreError, TaskStore,
};
use nobat_core::service::backend::Backend;
use nobat_core::task::lifecycle::{Change, TransitionError};
use nobat_core::task::{State, Task, TaskKey};
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use serde_json::{Map, Value, json};

use super::Subject;
use crate::model::calls::{Call, Calls};

/// Broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A change is written over any version.
    IgnoresVersions,
    /// A change is written without its callback.
    ForgetsCallbacks,
    /// Every fifth insert is reported as done but not written.
    LosesInsertions,
    /// A running task can be claimed.
    IgnoresLeases,
    /// A heartbeat renews the lease but does not report a requested cancellation.
    KeepsQuietAboutCancel,
    /// The sweep sees no tasks.
    BlindsTheSweep,
    /// A second claim keeps the token of the first.
    ReusesTokens,
    /// A batch is written up to the first task that exists already.
    SplitsBatches,
    /// Every attempt after the first is missing from the record.
    LosesRecords,
    /// A repeated claim takes any lease for its own.
    TakesAnyLease,
    /// A repeated write is not recognized.
    ForgetsItsWrites,
    /// An end is written, and its callback is lost when the transaction of both is repeated.
    TearsTransactions,
    /// The sweep is postponed by another 12 hours.
    PutsOffForTooLong,
    /// Dead letters are acknowledged without handling.
    DropsDeadLetters,
    /// The first dead letter counts as the third.
    GivesUpTooSoon,
    /// A write of a limiter state is reported as done but not made.
    ForgetsLimiters,
    /// A limiter state is written over any version.
    OverwritesLimiters,
    /// The state of a circuit breaker is not stored.
    ForgetsBreakers,
    /// A pause that an endpoint asked for is not stored.
    ForgetsRests,
    /// Reservations are not released.
    KeepsReservations,
    /// Paused records are shown as open.
    HidesPauses,
}

impl Sabotage {
    /// All kinds of sabotage.
    pub const ALL: [Self; 21] = [
        Self::IgnoresVersions,
        Self::ForgetsCallbacks,
        Self::LosesInsertions,
        Self::IgnoresLeases,
        Self::KeepsQuietAboutCancel,
        Self::BlindsTheSweep,
        Self::ReusesTokens,
        Self::SplitsBatches,
        Self::LosesRecords,
        Self::TakesAnyLease,
        Self::ForgetsItsWrites,
        Self::TearsTransactions,
        Self::PutsOffForTooLong,
        Self::DropsDeadLetters,
        Self::GivesUpTooSoon,
        Self::ForgetsLimiters,
        Self::OverwritesLimiters,
        Self::ForgetsBreakers,
        Self::ForgetsRests,
        Self::KeepsReservations,
        Self::HidesPauses,
    ];

    /// Returns true if the sabotage affects this backend. Where the queue hands over claimed tasks, no worker
    /// calls `claim`. Repeated calls, postponed sweeps and dead letters exist in the cloud only.
    pub fn concerns(self, subject: Subject) -> bool {
        let of_the_store = [
            Self::IgnoresVersions,
            Self::ForgetsCallbacks,
            Self::LosesInsertions,
            Self::KeepsQuietAboutCancel,
            Self::BlindsTheSweep,
            Self::SplitsBatches,
            Self::LosesRecords,
            Self::ForgetsLimiters,
            Self::OverwritesLimiters,
            Self::ForgetsBreakers,
            Self::ForgetsRests,
            Self::KeepsReservations,
            Self::HidesPauses,
        ];
        subject == Subject::Model || of_the_store.contains(&self)
    }
}

/// Returns the backend with its task store, limiter store and configuration store sabotaged.
pub fn sabotaged(inner: Backend, sabotage: Sabotage, calls: Arc<Calls>) -> Backend {
    let store = Saboteur {
        inner: inner.store.clone(),
        sabotage,
        calls,
        seen: Mutex::default(),
        insertions: AtomicU64::new(0),
    };
    let limiters = LimiterSaboteur { inner: inner.limiters.clone(), sabotage };
    let registry = RegistrySaboteur { inner: inner.config.clone(), sabotage };
    Backend { store: Arc::new(store), limiters: Arc::new(limiters), config: Arc::new(registry), ..inner }
}

struct Saboteur {
    inner: Arc<dyn TaskStore>,
    sabotage: Sabotage,
    calls: Arc<Calls>,
    seen: Mutex<BTreeSet<Call>>,
    insertions: AtomicU64,
}

impl Saboteur {
    /// Returns the stored task.
    fn current(&self, name: &TaskKey, now: Timestamp) -> Option<Task> {
        self.inner.get(name, now).now_or_never().and_then(Result::ok).flatten()
    }

    /// Returns true if this call was made before.
    fn is_repeated(&self) -> bool {
        self.calls
            .announced()
            .is_some_and(|call| !self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(call))
    }

    /// Continues under a new call number.
    fn renumber_call(&self) {
        if self.sabotage == Sabotage::ForgetsItsWrites {
            self.calls.enter(self.calls.begin());
        }
    }

    /// Writes an end without its callback. The first try reports an error, and the retry finds the write
    /// already made.
    async fn tear_transaction(&self, change: Change, now: Timestamp) -> Result<CommitResult, StoreError> {
        if !self.is_repeated() {
            self.inner.commit(Change { callback: None, ..change }, now).await?;
            return Err(StoreError::Unavailable("sabotaged".to_owned()));
        }
        self.inner.commit(Change { callback: None, ..change }, now).await
    }

    /// Writes a task over any stored version.
    async fn force(&self, task: Task, now: Timestamp) -> Result<CommitResult, StoreError> {
        let read_version = self.current(&task.key(), now).map_or(0, |task| task.version);
        self.inner
            .commit(
                Change {
                    task: Task { version: read_version + 1, ..task },
                    read_version,
                    callback: None,
                    entry: None,
                    released: Reservations::default(),
                },
                now,
            )
            .await
    }
}

#[async_trait]
impl TaskStore for Saboteur {
    async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<InsertResult, StoreError> {
        match self.sabotage {
            Sabotage::LosesInsertions if self.insertions.fetch_add(1, Ordering::Relaxed) % 5 == 4 => {
                Ok(InsertResult::Created(tasks))
            }
            Sabotage::SplitsBatches => {
                for task in &tasks {
                    if let existing @ InsertResult::Existing(_) =
                        self.inner.insert(vec![task.clone()], now).await?
                    {
                        return Ok(existing);
                    }
                }
                Ok(InsertResult::Created(tasks))
            }
            _ => self.inner.insert(tasks, now).await,
        }
    }

    async fn get(&self, name: &TaskKey, now: Timestamp) -> Result<Option<Task>, StoreError> {
        self.inner.get(name, now).await
    }

    async fn claim(
        &self,
        name: &TaskKey,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<ClaimResult, StoreError> {
        let (before, is_repeated) = (self.current(name, now), self.is_repeated());
        self.renumber_call();
        let claim = self.inner.claim(name, until, now).await?;
        if let (Sabotage::TakesAnyLease, true, ClaimResult::Refused(TransitionError::Running, found)) =
            (self.sabotage, is_repeated, &claim)
        {
            return Ok(ClaimResult::Granted(found.clone()));
        }
        let forced = match (self.sabotage, before, &claim) {
            (Sabotage::IgnoresLeases, Some(mut task), ClaimResult::Refused(..)) => match &mut task.state {
                State::Running(lease) => {
                    lease.until = until;
                    task.token += 1;
                    task
                }
                _ => return Ok(claim),
            },
            (Sabotage::ReusesTokens, Some(before), ClaimResult::Granted(granted)) if before.token > 0 => {
                Task { token: before.token, ..granted.clone() }
            }
            _ => return Ok(claim),
        };
        match self.force(forced, now).await? {
            CommitResult::Done(task) => Ok(ClaimResult::Granted(*task)),
            CommitResult::Conflict => Ok(claim),
        }
    }

    async fn commit(&self, mut change: Change, now: Timestamp) -> Result<CommitResult, StoreError> {
        match self.sabotage {
            Sabotage::IgnoresVersions => {
                let Some(current) = self.current(&change.task.key(), now) else {
                    return Ok(CommitResult::Conflict);
                };
                change.read_version = current.version;
            }
            Sabotage::ForgetsCallbacks => change.callback = None,
            Sabotage::LosesRecords => {
                let mut written = change.clone();
                written.task.attempts.truncate(1);
                let done = matches!(self.inner.commit(written, now).await?, CommitResult::Done(_));
                return Ok(if done {
                    CommitResult::Done(Box::new(change.task))
                } else {
                    CommitResult::Conflict
                });
            }
            Sabotage::TearsTransactions if change.callback.is_some() => {
                return self.tear_transaction(change, now).await;
            }
            _ => {}
        }
        self.renumber_call();
        self.inner.commit(change, now).await
    }

    async fn heartbeat(
        &self,
        name: &TaskKey,
        token: u64,
        until: Timestamp,
        progress: Option<Json>,
    ) -> Result<Heartbeat, StoreError> {
        match self.inner.heartbeat(name, token, until, progress).await? {
            Heartbeat::Renewed { .. } if self.sabotage == Sabotage::KeepsQuietAboutCancel => {
                Ok(Heartbeat::Renewed { cancel: nobat_core::task::CancelRequest::None })
            }
            beat => Ok(beat),
        }
    }

    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError> {
        self.inner.list(query, now).await
    }

    async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError> {
        if self.sabotage == Sabotage::BlindsTheSweep {
            Ok(Vec::new())
        } else {
            self.inner.due(limit, now).await
        }
    }

    async fn postpone(&self, task: &Task, until: Timestamp) -> Result<(), StoreError> {
        let longer = if self.sabotage == Sabotage::PutsOffForTooLong {
            Duration::from_hours(12)
        } else {
            Duration::ZERO
        };
        self.inner.postpone(task, until + longer).await
    }

    async fn waiting(&self, tenant: &Tenant, at_most: usize) -> Result<usize, StoreError> {
        self.inner.waiting(tenant, at_most).await
    }

    async fn prune(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        self.inner.prune(limit, now).await
    }

    async fn changed(&self, name: &TaskKey) {
        self.inner.changed(name).await;
    }

    async fn ready(&self, now: Timestamp) -> Result<(), StoreError> {
        self.inner.ready(now).await
    }
}

struct LimiterSaboteur {
    inner: Arc<dyn LimiterStore>,
    sabotage: Sabotage,
}

#[async_trait]
impl LimiterStore for LimiterSaboteur {
    async fn read(&self, name: &LimiterKey) -> Result<VersionedState, StoreError> {
        self.inner.read(name).await
    }

    async fn write(
        &self,
        name: &LimiterKey,
        limiter: &LimiterState,
        over: u64,
        now: Timestamp,
    ) -> Result<WriteResult, StoreError> {
        match self.sabotage {
            Sabotage::ForgetsLimiters => Ok(WriteResult::Done),
            Sabotage::OverwritesLimiters => match self.inner.write(name, limiter, over, now).await? {
                WriteResult::Conflict(there) => self.inner.write(name, limiter, there.version, now).await,
                WriteResult::Done => Ok(WriteResult::Done),
            },
            Sabotage::ForgetsBreakers => {
                self.inner.write(name, &without(limiter, "breaker"), over, now).await
            }
            Sabotage::ForgetsRests => {
                self.inner.write(name, &without(limiter, "paused_until"), over, now).await
            }
            Sabotage::KeepsReservations => {
                let before = self.inner.read(name).await?.limiter;
                self.inner.write(name, &with_reservations_of(&before, limiter), over, now).await
            }
            _ => self.inner.write(name, limiter, over, now).await,
        }
    }
}

/// Returns the limiter state without one field.
fn without(limiter: &LimiterState, what: &str) -> LimiterState {
    let mut known: Map<String, Value> = serde_json::from_str(&limiter.to_text()).unwrap_or_default();
    known.remove(what);
    LimiterState::from_text(&Value::from(known).to_string()).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the limiter state without the release of any reservation.
fn with_reservations_of(before: &LimiterState, limiter: &LimiterState) -> LimiterState {
    let [before, mut after] = [before, limiter]
        .map(|limiter| serde_json::from_str::<Value>(&limiter.to_text()).unwrap_or_default());
    after["gcra"]["next"] = json!(before["gcra"]["next"].as_i64().max(after["gcra"]["next"].as_i64()));
    after["gcra"]["free"] = json!([]);
    LimiterState::from_text(&after.to_string()).unwrap_or_else(|error| panic!("{error}"))
}

struct RegistrySaboteur {
    inner: Arc<dyn ConfigStore>,
    sabotage: Sabotage,
}

#[async_trait]
impl ConfigStore for RegistrySaboteur {
    async fn find(&self, name: &RecordName) -> Result<Option<Record>, StoreError> {
        let found = self.inner.find(name).await?;
        Ok(if self.sabotage == Sabotage::HidesPauses { found.map(opened) } else { found })
    }

    async fn page(
        &self,
        tenant: Option<&Tenant>,
        sort: RecordKind,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.inner.page(tenant, sort, after, limit).await
    }

    async fn write_with_tasks(
        &self,
        records: Vec<Record>,
        tasks: Vec<Task>,
        entry: Option<Entry>,
        now: Timestamp,
    ) -> Result<RecordResult, StoreError> {
        self.inner.write_with_tasks(records, tasks, entry, now).await
    }

    async fn remove(
        &self,
        name: &RecordName,
        version: u64,
        entry: Entry,
    ) -> Result<RecordResult, StoreError> {
        self.inner.remove(name, version, entry).await
    }

    async fn audit(&self, query: &AuditQuery, now: Timestamp) -> Result<AuditPage, StoreError> {
        self.inner.audit(query, now).await
    }

    async fn take(
        &self,
        tenant: &Tenant,
        rate: TokenRate,
        wanted: NonZeroU32,
        now: Timestamp,
    ) -> Result<TakeResult, StoreError> {
        self.inner.take(tenant, rate, wanted, now).await
    }
}

/// Returns the record with every pause removed.
fn opened(record: Record) -> Record {
    let body = record
        .body
        .replace(r#""paused":true"#, r#""paused":false"#)
        .replace(r#""status":"paused""#, r#""status":"open""#);
    Record { body, ..record }
}
