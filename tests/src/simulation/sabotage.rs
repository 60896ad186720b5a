//! Backends that break a promise, which the simulation must notice.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use nobat_core::audit::Entry;
use nobat_core::backend::Backend;
use nobat_core::flow::{Flow, FlowName, Flows, Kept, Reserved, Written};
use nobat_core::json::Json;
use nobat_core::lifecycle::{Change, Refused};
use nobat_core::name::{Name, Tenant};
use nobat_core::ports::{Beat, Claim, Committed, Inserted, ListQuery, Page, Store, StoreError, TaskName};
use nobat_core::rate::{Rate, Taken};
use nobat_core::registry::{Record, RecordName, Recorded, Registry, Sort, TrailPage, TrailQuery};
use nobat_core::task::{State, Task};
use nobat_core::time::Timestamp;
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
    ForgetsFlows,
    /// A limiter state is written over any version.
    OverwritesFlows,
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
        Self::ForgetsFlows,
        Self::OverwritesFlows,
        Self::ForgetsBreakers,
        Self::ForgetsRests,
        Self::KeepsReservations,
        Self::HidesPauses,
    ];

    /// Returns true if the sabotage affects this backend. Where the queue hands over claimed tasks, no worker calls `claim`. Repeated
    /// calls, postponed sweeps and dead letters exist in the cloud only.
    pub fn concerns(self, subject: Subject) -> bool {
        let of_the_store = [
            Self::IgnoresVersions,
            Self::ForgetsCallbacks,
            Self::LosesInsertions,
            Self::KeepsQuietAboutCancel,
            Self::BlindsTheSweep,
            Self::SplitsBatches,
            Self::LosesRecords,
            Self::ForgetsFlows,
            Self::OverwritesFlows,
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
    let store = Saboteur { inner: inner.store.clone(), sabotage, calls, seen: Mutex::default(), insertions: AtomicU64::new(0) };
    let flows = FlowSaboteur { inner: inner.flows.clone(), sabotage };
    let registry = RegistrySaboteur { inner: inner.registry.clone(), sabotage };
    Backend { store: Arc::new(store), flows: Arc::new(flows), registry: Arc::new(registry), ..inner }
}

struct Saboteur {
    inner: Arc<dyn Store>,
    sabotage: Sabotage,
    calls: Arc<Calls>,
    seen: Mutex<BTreeSet<Call>>,
    insertions: AtomicU64,
}

impl Saboteur {
    /// Returns the stored task.
    fn current(&self, name: &TaskName, now: Timestamp) -> Option<Task> {
        self.inner.get(name, now).now_or_never().and_then(Result::ok).flatten()
    }

    /// Returns true if this call was made before.
    fn is_repeated(&self) -> bool {
        self.calls.announced().is_some_and(|call| !self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(call))
    }

    /// Continues under a new call number.
    fn renumber_call(&self) {
        if self.sabotage == Sabotage::ForgetsItsWrites {
            self.calls.enter(self.calls.begin());
        }
    }

    /// Writes an end without its callback. The first try reports an error, and the retry finds the write already made.
    async fn tear_transaction(&self, change: Change, now: Timestamp) -> Result<Committed, StoreError> {
        if !self.is_repeated() {
            self.inner.commit(Change { follow_up: None, ..change }, now).await?;
            return Err(StoreError::Unavailable("sabotaged".to_owned()));
        }
        self.inner.commit(Change { follow_up: None, ..change }, now).await
    }

    /// Writes a task over any stored version.
    async fn force(&self, task: Task, now: Timestamp) -> Result<Committed, StoreError> {
        let read_version = self.current(&task.name(), now).map_or(0, |task| task.version);
        self.inner
            .commit(
                Change {
                    task: Task { version: read_version + 1, ..task },
                    read_version,
                    follow_up: None,
                    entry: None,
                    released: Reserved::default(),
                },
                now,
            )
            .await
    }
}

#[async_trait]
impl Store for Saboteur {
    async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<Inserted, StoreError> {
        match self.sabotage {
            Sabotage::LosesInsertions if self.insertions.fetch_add(1, Ordering::Relaxed) % 5 == 4 => Ok(Inserted::Created(tasks)),
            Sabotage::SplitsBatches => {
                for task in &tasks {
                    if let existing @ Inserted::Existing(_) = self.inner.insert(vec![task.clone()], now).await? {
                        return Ok(existing);
                    }
                }
                Ok(Inserted::Created(tasks))
            }
            _ => self.inner.insert(tasks, now).await,
        }
    }

    async fn get(&self, name: &TaskName, now: Timestamp) -> Result<Option<Task>, StoreError> {
        self.inner.get(name, now).await
    }

    async fn claim(&self, name: &TaskName, until: Timestamp, now: Timestamp) -> Result<Claim, StoreError> {
        let (before, is_repeated) = (self.current(name, now), self.is_repeated());
        self.renumber_call();
        let claim = self.inner.claim(name, until, now).await?;
        if let (Sabotage::TakesAnyLease, true, Claim::Refused(Refused::Running, found)) = (self.sabotage, is_repeated, &claim) {
            return Ok(Claim::Granted(found.clone()));
        }
        let forced = match (self.sabotage, before, &claim) {
            (Sabotage::IgnoresLeases, Some(mut task), Claim::Refused(..)) => match &mut task.state {
                State::Running(lease) => {
                    lease.until = until;
                    task.token += 1;
                    task
                }
                _ => return Ok(claim),
            },
            (Sabotage::ReusesTokens, Some(before), Claim::Granted(granted)) if before.token > 0 => {
                Task { token: before.token, ..granted.clone() }
            }
            _ => return Ok(claim),
        };
        match self.force(forced, now).await? {
            Committed::Done(task) => Ok(Claim::Granted(*task)),
            Committed::Conflict => Ok(claim),
        }
    }

    async fn commit(&self, mut change: Change, now: Timestamp) -> Result<Committed, StoreError> {
        match self.sabotage {
            Sabotage::IgnoresVersions => {
                let Some(current) = self.current(&change.task.name(), now) else { return Ok(Committed::Conflict) };
                change.read_version = current.version;
            }
            Sabotage::ForgetsCallbacks => change.follow_up = None,
            Sabotage::LosesRecords => {
                let mut written = change.clone();
                written.task.attempts.truncate(1);
                let done = matches!(self.inner.commit(written, now).await?, Committed::Done(_));
                return Ok(if done { Committed::Done(Box::new(change.task)) } else { Committed::Conflict });
            }
            Sabotage::TearsTransactions if change.follow_up.is_some() => return self.tear_transaction(change, now).await,
            _ => {}
        }
        self.renumber_call();
        self.inner.commit(change, now).await
    }

    async fn beat(&self, name: &TaskName, token: u64, until: Timestamp, progress: Option<Json>) -> Result<Beat, StoreError> {
        match self.inner.beat(name, token, until, progress).await? {
            Beat::Renewed { .. } if self.sabotage == Sabotage::KeepsQuietAboutCancel => {
                Ok(Beat::Renewed { cancel: nobat_core::task::CancelRequest::None })
            }
            beat => Ok(beat),
        }
    }

    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError> {
        self.inner.list(query, now).await
    }

    async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError> {
        if self.sabotage == Sabotage::BlindsTheSweep { Ok(Vec::new()) } else { self.inner.due(limit, now).await }
    }

    async fn postpone(&self, task: &Task, until: Timestamp) -> Result<(), StoreError> {
        let longer = if self.sabotage == Sabotage::PutsOffForTooLong { Duration::from_hours(12) } else { Duration::ZERO };
        self.inner.postpone(task, until + longer).await
    }

    async fn waiting(&self, tenant: &Tenant, at_most: usize) -> Result<usize, StoreError> {
        self.inner.waiting(tenant, at_most).await
    }

    async fn prune(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        self.inner.prune(limit, now).await
    }

    async fn changed(&self, name: &TaskName) {
        self.inner.changed(name).await;
    }

    async fn ready(&self, now: Timestamp) -> Result<(), StoreError> {
        self.inner.ready(now).await
    }
}

struct FlowSaboteur {
    inner: Arc<dyn Flows>,
    sabotage: Sabotage,
}

#[async_trait]
impl Flows for FlowSaboteur {
    async fn read(&self, name: &FlowName) -> Result<Kept, StoreError> {
        self.inner.read(name).await
    }

    async fn write(&self, name: &FlowName, flow: &Flow, over: u64, now: Timestamp) -> Result<Written, StoreError> {
        match self.sabotage {
            Sabotage::ForgetsFlows => Ok(Written::Done),
            Sabotage::OverwritesFlows => match self.inner.write(name, flow, over, now).await? {
                Written::Conflict(there) => self.inner.write(name, flow, there.version, now).await,
                Written::Done => Ok(Written::Done),
            },
            Sabotage::ForgetsBreakers => self.inner.write(name, &without(flow, "breaker"), over, now).await,
            Sabotage::ForgetsRests => self.inner.write(name, &without(flow, "paused_until"), over, now).await,
            Sabotage::KeepsReservations => {
                let before = self.inner.read(name).await?.flow;
                self.inner.write(name, &with_reservations_of(&before, flow), over, now).await
            }
            _ => self.inner.write(name, flow, over, now).await,
        }
    }
}

/// Returns the limiter state without one field.
fn without(flow: &Flow, what: &str) -> Flow {
    let mut known: Map<String, Value> = serde_json::from_str(&flow.to_text()).unwrap_or_default();
    known.remove(what);
    Flow::from_text(&Value::from(known).to_string()).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the limiter state without the release of any reservation.
fn with_reservations_of(before: &Flow, flow: &Flow) -> Flow {
    let [before, mut after] = [before, flow].map(|flow| serde_json::from_str::<Value>(&flow.to_text()).unwrap_or_default());
    after["times"]["next"] = json!(before["times"]["next"].as_i64().max(after["times"]["next"].as_i64()));
    after["times"]["free"] = json!([]);
    Flow::from_text(&after.to_string()).unwrap_or_else(|error| panic!("{error}"))
}

struct RegistrySaboteur {
    inner: Arc<dyn Registry>,
    sabotage: Sabotage,
}

#[async_trait]
impl Registry for RegistrySaboteur {
    async fn find(&self, name: &RecordName) -> Result<Option<Record>, StoreError> {
        let found = self.inner.find(name).await?;
        Ok(if self.sabotage == Sabotage::HidesPauses { found.map(opened) } else { found })
    }

    async fn page(&self, tenant: Option<&Tenant>, sort: Sort, after: Option<&Name>, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.inner.page(tenant, sort, after, limit).await
    }

    async fn write(&self, records: Vec<Record>, entry: Entry) -> Result<Recorded, StoreError> {
        self.inner.write(records, entry).await
    }

    async fn remove(&self, name: &RecordName, version: u64, entry: Entry) -> Result<Recorded, StoreError> {
        self.inner.remove(name, version, entry).await
    }

    async fn trail(&self, query: &TrailQuery, now: Timestamp) -> Result<TrailPage, StoreError> {
        self.inner.trail(query, now).await
    }

    async fn take(&self, tenant: &Tenant, rate: Rate, wanted: NonZeroU32, now: Timestamp) -> Result<Taken, StoreError> {
        self.inner.take(tenant, rate, wanted, now).await
    }
}

/// Returns the record with every pause removed.
fn opened(record: Record) -> Record {
    let body = record.body.replace(r#""paused":true"#, r#""paused":false"#).replace(r#""standing":"paused""#, r#""standing":"open""#);
    Record { body, ..record }
}
