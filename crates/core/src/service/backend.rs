//! Backend: the stores and the message queue, and the operations that use more than one of them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use crate::auth::audit::Entry;
use crate::config::record::{Record, RecordName};
use crate::limits::{LimitScope, LimiterChange, LimiterKey, Reservations, Successor};
use crate::ports::config_store::{ConfigStore, RecordResult};
use crate::ports::limiter_store::LimiterStore;
use crate::ports::{CommitResult, Hint, InsertResult, ListQuery, Queue, StoreError, TaskStore};
use crate::task::lifecycle::{Change, Event, TransitionError, transition};
use crate::task::{KeyedRequest, State, Task, TaskKey, Waiting};
use crate::types::name::Tenant;
use crate::types::time::Timestamp;

/// Stores and message queue of an installation.
#[derive(Clone)]
pub struct Backend {
    /// Stores the tasks.
    pub store: Arc<dyn TaskStore>,
    /// Carries the hints to the workers.
    pub queue: Arc<dyn Queue>,
    /// Stores API keys, configuration and the audit trail.
    pub config: Arc<dyn ConfigStore>,
    /// Stores the states of limiters.
    pub limiters: Arc<dyn LimiterStore>,
}

/// Reason why an event was not applied to a task.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The task does not exist.
    #[error("the task does not exist")]
    Missing,
    /// The lifecycle does not allow the event.
    #[error(transparent)]
    Refused(#[from] TransitionError),
    /// The store failed, or its response was lost.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Outcome of a client's request to change a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// The change was made. Holds the task as written.
    Done(Task),
    /// An earlier request with the same idempotency key made the change. Holds the task as it is now.
    Repeated(Task),
}

impl Applied {
    fn into_task(self) -> Task {
        match self {
            Self::Done(task) | Self::Repeated(task) => task,
        }
    }
}

/// Reason why a backend cannot take work.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// A write failed: for example, the disk is full or read-only, or the table is unavailable.
    #[error("a write to the store failed: {0}")]
    StoreWriteFailed(StoreError),
    /// A read failed, although a write succeeded.
    #[error("a read of the store failed: {0}")]
    StoreReadFailed(StoreError),
    /// The store has too many requests to accept another one.
    #[error("the store is overloaded")]
    StoreOverloaded,
    /// The message queue does not respond. Tasks are accepted, but run late.
    #[error("the message queue does not respond: {0}")]
    QueueUnavailable(StoreError),
}

/// Maximum number of tries to apply an event to a task that other processes change at the same time.
const MAX_CONFLICTS: usize = 10;

/// Number of woken tasks after which [`Backend::wake`] reads no further page. The tasks of the last page may
/// exceed this number.
pub const MAX_WOKEN: usize = 1_000;
/// Maximum number of pages of held tasks that [`Backend::wake`] reads.
const MAX_PAGES: usize = 50;
/// Maximum number of empty pages that [`Backend::wake`] reads. A store without an index of held tasks reads
/// [`ListQuery::MAX_SCANNED`] tasks for each page.
const MAX_EMPTY_PAGES: usize = 10;
/// Number of tasks that are woken, or stored by [`Backend::accept_each`], at the same time.
const MAX_IN_FLIGHT: usize = 32;

impl Backend {
    /// Stores new tasks, then sends their hints.
    ///
    /// A stored task is accepted even if its hint is lost, because the sweeper sends missing hints.
    pub async fn accept(&self, tasks: Vec<Task>, now: Timestamp) -> Result<InsertResult, StoreError> {
        let inserted = self.store.insert(tasks, now).await?;
        if let InsertResult::Created(tasks) = &inserted {
            self.send(hints(tasks.iter(), now)).await;
        }
        Ok(inserted)
    }

    /// Writes records together with new tasks, then sends the hints of the tasks.
    pub async fn configure(
        &self,
        records: Vec<Record>,
        tasks: Vec<Task>,
        entry: Entry,
        now: Timestamp,
    ) -> Result<RecordResult, StoreError> {
        let hints = hints(tasks.iter(), now);
        let result = self.config.write_with_tasks(records, tasks, Some(entry), now).await?;
        if result == RecordResult::Done {
            self.send(hints).await;
        }
        Ok(result)
    }

    /// Stores new tasks one by one, then sends their hints. Skips tasks that exist already. After an error,
    /// some tasks may be stored. A second call stores the other tasks.
    pub async fn accept_each(&self, tasks: Vec<Task>, now: Timestamp) -> Result<(), StoreError> {
        let inserting = tasks.into_iter().map(|task| self.store.insert(vec![task], now));
        let inserted: Vec<_> = stream::iter(inserting).buffered(MAX_IN_FLIGHT).collect().await;
        let (mut created, mut failed) = (Vec::new(), None);
        for outcome in inserted {
            match outcome {
                Ok(InsertResult::Created(tasks)) => created.extend(tasks),
                Ok(InsertResult::Existing(_)) => {}
                Err(error) => failed = Some(error),
            }
        }
        self.send(hints(created.iter(), now)).await;
        failed.map_or(Ok(()), Err)
    }

    /// Applies an event to a task: reads the task, computes the change and writes it. Starts again if another
    /// process changed the task in between.
    ///
    /// `known` is a copy of the task that the caller already has. This copy saves a read. Returns the task as
    /// written.
    pub async fn apply(
        &self,
        name: &TaskKey,
        known: Option<Task>,
        event: Event,
        now: Timestamp,
    ) -> Result<Task, ApplyError> {
        self.apply_event(name, known, event, None, None, now).await.map(Applied::into_task)
    }

    /// Applies an event for a client's request. The same write stores the audit entry.
    ///
    /// The task stores a request with an idempotency key, so that a repeated request changes nothing.
    pub async fn apply_on_record(
        &self,
        name: &TaskKey,
        known: Option<Task>,
        event: Event,
        entry: Entry,
        keyed: Option<KeyedRequest>,
        now: Timestamp,
    ) -> Result<Applied, ApplyError> {
        self.apply_event(name, known, event, Some(entry), keyed, now).await
    }

    /// Applies the completion by a receiver. The task stores `completion`, so that a repeated completion changes nothing.
    pub async fn apply_completion(
        &self,
        name: &TaskKey,
        known: Option<Task>,
        event: Event,
        completion: KeyedRequest,
        now: Timestamp,
    ) -> Result<Applied, ApplyError> {
        self.apply_event(name, known, event, None, Some(completion), now).await
    }

    async fn apply_event(
        &self,
        name: &TaskKey,
        mut known: Option<Task>,
        event: Event,
        entry: Option<Entry>,
        keyed: Option<KeyedRequest>,
        now: Timestamp,
    ) -> Result<Applied, ApplyError> {
        for _ in 0..MAX_CONFLICTS {
            let task = match known.take() {
                Some(task) => task,
                None => self.store.get(name, now).await?.ok_or(ApplyError::Missing)?,
            };
            match keyed.map(|request| (request, task.earlier(request))) {
                Some((request, Some(earlier))) if request == earlier => return Ok(Applied::Repeated(task)),
                Some((_, Some(_))) => return Err(TransitionError::KeyReused.into()),
                _ => {}
            }
            let mut change = Change { entry: entry.clone(), ..transition(task, event.clone(), now)? };
            if let Some(request) = keyed {
                change.task.remember(request);
            }
            let hints = hints([&change.task].into_iter().chain(&change.callback), now);
            let released = change.released.clone();
            if let CommitResult::Done(written) = self.store.commit(change, now).await? {
                self.send(hints).await;
                if !released.is_none() {
                    // The recursion ends in the next call: `give_back` applies only `Event::Lead`, which
                    // releases no reservation.
                    Box::pin(self.give_back(&written, released, now)).await;
                }
                return Ok(Applied::Done(*written));
            }
        }
        Err(StoreError::Unavailable(
            "other processes changed the task during every try to write the task; try again later".to_owned(),
        )
        .into())
    }

    /// Gives back a task's reservation and removes the task from its batch. If the task led the batch, the
    /// next member becomes the leader.
    ///
    /// A failure is only logged. Then the reservation stays taken until its time has passed, and the other
    /// batch members wait two seconds or more.
    pub async fn give_back(&self, task: &Task, reserved: Reservations, now: Timestamp) {
        let changes = changes(task, reserved);
        for (of, change) in changes {
            let name = LimiterKey { tenant: task.tenant.clone(), scope: of };
            match self.limiters.change(&name, change, now).await {
                Ok(successor) => self.lead(&task.tenant, successor, now).await,
                Err(error) => {
                    tracing::warn!(task = %task.id, limiter = %name.scope, %error, "a limiter was not updated after a task stopped waiting for it; other tasks of this limiter may start late");
                }
            }
        }
    }

    /// Makes the next member of a batch the leader. If the write fails, that member checks the batch by
    /// itself some seconds later.
    pub async fn lead(&self, tenant: &Tenant, successor: Option<Successor>, now: Timestamp) {
        let Some(Successor { id, at }) = successor else { return };
        let name = TaskKey { tenant: tenant.clone(), id };
        match self.apply(&name, None, Event::Lead { at }, now).await {
            Ok(_) | Err(ApplyError::Missing | ApplyError::Refused(_)) => {}
            Err(ApplyError::Store(error)) => {
                tracing::warn!(task = %id, %error, "the leader of a batch left, and no new leader could be set; the batch is sent some seconds late");
            }
        }
    }

    /// Wakes held tasks that match `query` and `is_meant`, and whose hold a client can end. Stops after about
    /// [`MAX_WOKEN`] tasks, newest first. Returns the number of woken tasks.
    ///
    /// Woken tasks try to start now or soon. The other held tasks try again at the time that is stored for
    /// them.
    pub async fn wake(
        &self,
        mut query: ListQuery,
        is_meant: impl Fn(&Task) -> bool,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let (mut woken, mut empty_pages) = (0, 0);
        for _ in 0..MAX_PAGES {
            let page = self.store.list(&query, now).await?;
            empty_pages += usize::from(page.tasks.is_empty());
            let is_held = |task: &&Task| {
                matches!(&task.state, State::Waiting(Waiting::Held(held)) if held.reason.is_operator_clearable())
                    && is_meant(task)
            };
            // Each task is read again, because tasks in a list can lack their payloads.
            let names: Vec<TaskKey> = page.tasks.iter().filter(is_held).map(Task::key).collect();
            let waking = names.into_iter().map(async |name| self.apply(&name, None, Event::Wake, now).await);
            let outcomes: Vec<_> = stream::iter(waking).buffer_unordered(MAX_IN_FLIGHT).collect().await;
            for outcome in outcomes {
                match outcome {
                    Ok(_) => woken += 1,
                    Err(ApplyError::Missing | ApplyError::Refused(_)) => {}
                    Err(ApplyError::Store(error)) => return Err(error),
                }
            }
            query.after = page.next;
            if query.after.is_none() || woken >= MAX_WOKEN || empty_pages >= MAX_EMPTY_PAGES {
                break;
            }
        }
        Ok(woken)
    }

    /// Checks that a write and a read succeed, and that the message queue responds.
    pub async fn ready(&self, now: Timestamp) -> Result<(), NotReady> {
        self.store.ready(now).await.map_err(|error| match error {
            StoreError::Overloaded => NotReady::StoreOverloaded,
            error => NotReady::StoreWriteFailed(error),
        })?;
        let read = self.config.find(&RecordName::from(&Tenant::default())).await;
        read.map_err(|error| match error {
            StoreError::Overloaded => NotReady::StoreOverloaded,
            error => NotReady::StoreReadFailed(error),
        })?;
        self.queue.ready().await.map_err(NotReady::QueueUnavailable)
    }

    async fn send(&self, hints: Vec<Hint>) {
        if hints.is_empty() {
            return;
        }
        if let Err(error) = self.queue.send(hints).await {
            tracing::warn!(%error, "hints were not sent; the sweeper sends them later");
        }
    }
}

/// Returns the hints for waiting tasks. Each hint becomes visible when its task is due.
fn hints<'a>(tasks: impl Iterator<Item = &'a Task>, now: Timestamp) -> Vec<Hint> {
    tasks
        .filter(|task| matches!(task.state, State::Waiting(_)))
        .map(|task| Hint::new(task.key(), delay(task, now)))
        .collect()
}

/// Returns the delay of a task's hint. If the task holds a reservation, the delay is rounded down to whole
/// seconds, and the worker that receives the hint waits for the rest. Otherwise a message queue that counts
/// whole seconds would deliver the hint too late.
fn delay(task: &Task, now: Timestamp) -> Duration {
    let delay = task.due_at.since(now);
    if task.hold.reservations.rate.is_some() { Duration::from_secs(delay.as_secs()) } else { delay }
}

/// Returns the limiter changes that give back a task's reservation and remove the task from its batch.
pub fn changes(task: &Task, reserved: Reservations) -> Vec<(LimitScope, LimiterChange)> {
    let scoped =
        reserved.rate.map(|scoped| (scoped.scope, LimiterChange::ReleaseReservation(scoped.reservation)));
    let batch = task.options.endpoint.clone().zip(reserved.batch).map(|(endpoint, batch)| {
        let bytes = u64::try_from(task.payload.get().len()).unwrap_or(u64::MAX);
        (LimitScope::Batch(endpoint, batch), LimiterChange::LeaveBatch { id: task.id, bytes })
    });
    scoped.into_iter().chain(batch).collect()
}
