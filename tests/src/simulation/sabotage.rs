//! Backends that break a promise, to see that it is noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::FutureExt;
use nobat_core::backend::Backend;
use nobat_core::json::Json;
use nobat_core::lifecycle::Change;
use nobat_core::ports::{Beat, Claim, Committed, Inserted, ListQuery, Page, Store, StoreError, TaskName};
use nobat_core::task::{State, Task};
use nobat_core::time::Timestamp;

use super::Subject;

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A change is written whatever the version is that it was made from.
    IgnoresVersions,
    /// A change is written without the callback that belongs to it.
    ForgetsCallbacks,
    /// Every fifth insertion is answered for, and not made.
    LosesInsertions,
    /// A running task is claimed as if it waited.
    IgnoresLeases,
    /// A lease is renewed, and the answer is that nobody asked the handler to stop.
    KeepsQuietAboutCancel,
    /// The sweep is shown nothing.
    BlindsTheSweep,
    /// The token stays what it was when a task is claimed again.
    ReusesTokens,
    /// A batch is written up to the first task that is there already.
    SplitsBatches,
    /// The second attempt, and every other after it, leaves no record.
    LosesRecords,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::IgnoresVersions,
        Self::ForgetsCallbacks,
        Self::LosesInsertions,
        Self::IgnoresLeases,
        Self::KeepsQuietAboutCancel,
        Self::BlindsTheSweep,
        Self::ReusesTokens,
        Self::SplitsBatches,
        Self::LosesRecords,
    ];

    /// Whether it makes a difference: where the queue hands over claimed tasks, nobody asks for a claim.
    pub fn concerns(self, subject: Subject) -> bool {
        subject == Subject::Model || !matches!(self, Self::IgnoresLeases | Self::ReusesTokens)
    }
}

/// The backend, with its store sabotaged.
pub fn sabotaged(inner: Backend, sabotage: Sabotage) -> Backend {
    let store = Saboteur { inner: inner.store, sabotage, insertions: AtomicU64::new(0) };
    Backend { store: Arc::new(store), queue: inner.queue }
}

struct Saboteur {
    inner: Arc<dyn Store>,
    sabotage: Sabotage,
    insertions: AtomicU64,
}

impl Saboteur {
    /// The task as it is stored, at whatever version that is.
    fn current(&self, name: &TaskName, now: Timestamp) -> Option<Task> {
        self.inner.get(name, now).now_or_never().and_then(Result::ok).flatten()
    }

    /// Writes a task, whatever was there.
    async fn force(&self, task: Task, now: Timestamp) -> Result<Committed, StoreError> {
        let read_version = self.current(&task.name(), now).map_or(0, |task| task.version);
        self.inner.commit(Change { task: Task { version: read_version + 1, ..task }, read_version, follow_up: None }, now).await
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
        let before = self.current(name, now);
        let claim = self.inner.claim(name, until, now).await?;
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
            _ => {}
        }
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
        self.inner.postpone(task, until).await
    }

    async fn prune(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        self.inner.prune(limit, now).await
    }

    async fn changed(&self, name: &TaskName) {
        self.inner.changed(name).await;
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.inner.ready().await
    }
}
