//! A store, its queue and its registry, and the few things that are always done with more than one of them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use crate::audit::Entry;
use crate::flow::{FlowChange, FlowName, FlowOf, Flows, Reserved, Successor};
use crate::lifecycle::{Change, Event, Refused, transition};
use crate::name::Tenant;
use crate::ports::{Committed, Hint, Inserted, ListQuery, Queue, Store, StoreError, TaskName};
use crate::registry::{RecordName, Registry};
use crate::task::{KeyedRequest, State, Task, Waiting};
use crate::time::Timestamp;

/// A store, and what goes with it.
#[derive(Clone)]
pub struct Backend {
    /// Keeps the tasks.
    pub store: Arc<dyn Store>,
    /// Carries the hints.
    pub queue: Arc<dyn Queue>,
    /// Keeps keys, settings, and the audit trail.
    pub registry: Arc<dyn Registry>,
    /// Keeps what is known of flows.
    pub flows: Arc<dyn Flows>,
}

/// Why an event was not brought about.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// There is no such task.
    #[error("there is no such task")]
    Missing,
    /// The lifecycle does not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store did not do it, or its answer was lost.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Outcome of a client's request to change a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// The task as it was written.
    Done(Task),
    /// The same request, by its idempotency key, was carried out before. The task as it stands now.
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
    /// A write failed: the disk is full or read-only, the table is away.
    #[error("a write failed: {0}")]
    StoreWriteFailed(StoreError),
    /// A read failed, though a write was made.
    #[error("a read failed: {0}")]
    StoreReadFailed(StoreError),
    /// A queue in front of the store is full.
    #[error("the store has more to do than it can take on")]
    StoreOverloaded,
    /// The queue does not answer. Tasks are accepted, and run late.
    #[error("the queue does not answer: {0}")]
    QueueUnavailable(StoreError),
}

/// The task was changed by somebody else so often that giving up is better than going on.
const MAX_CONFLICTS: usize = 10;

/// How many are woken at a time, about.
pub const MAX_WOKEN: usize = 1_000;
/// Most pages of held tasks that are looked through for them.
const MAX_PAGES: usize = 50;
/// Most pages without a held task. A store without an index of held tasks looks at [`ListQuery::MAX_SCANNED`] tasks for each.
const MAX_EMPTY_PAGES: usize = 10;
/// How many of them are written at the same time.
const SIDE_BY_SIDE: usize = 32;

impl Backend {
    /// Stores new tasks, then hints those that are due soon.
    ///
    /// Once they are stored they are accepted, whether the hints arrive or not.
    pub async fn accept(&self, tasks: Vec<Task>, now: Timestamp) -> Result<Inserted, StoreError> {
        let inserted = self.store.insert(tasks, now).await?;
        if let Inserted::Created(tasks) = &inserted {
            self.send(hints(tasks.iter(), now)).await;
        }
        Ok(inserted)
    }

    /// Brings an event about: reads the task, decides, writes, and begins again if somebody else wrote in between.
    ///
    /// Starts from `known` if the caller has a copy of the task already. Returns the task as it was written.
    pub async fn apply(&self, name: &TaskName, known: Option<Task>, event: Event, now: Timestamp) -> Result<Task, ApplyError> {
        self.bring_about(name, known, event, None, None, now).await.map(Applied::into_task)
    }

    /// The same for a client's request, which is put on record in the same write.
    ///
    /// A request with an idempotency key is remembered with the task, and not carried out a second time.
    pub async fn apply_on_record(
        &self,
        name: &TaskName,
        known: Option<Task>,
        event: Event,
        entry: Entry,
        keyed: Option<KeyedRequest>,
        now: Timestamp,
    ) -> Result<Applied, ApplyError> {
        self.bring_about(name, known, event, Some(entry), keyed, now).await
    }

    async fn bring_about(
        &self,
        name: &TaskName,
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
                Some((_, Some(_))) => return Err(Refused::KeyReused.into()),
                _ => {}
            }
            let mut change = Change { entry: entry.clone(), ..transition(task, event.clone(), now)? };
            if let Some(request) = keyed {
                change.task.remember(request);
            }
            let hints = hints([&change.task].into_iter().chain(&change.follow_up), now);
            let released = change.released.clone();
            if let Committed::Done(written) = self.store.commit(change, now).await? {
                self.send(hints).await;
                if !released.is_none() {
                    // What it can bring about gives nothing back.
                    Box::pin(self.give_back(&written, released, now)).await;
                }
                return Ok(Applied::Done(*written));
            }
        }
        Err(StoreError::Unavailable("the task is being changed all the time".to_owned()).into())
    }

    /// Gives back what a task held of its flows: its reservation, so that the next task gets it, and its place in a batch, which the next member
    /// leads if the task did.
    ///
    /// A failure is logged: it costs the reservation until its time, and the others in the batch a wait of two seconds or more.
    pub async fn give_back(&self, task: &Task, reserved: Reserved, now: Timestamp) {
        let changes = changes(task, reserved);
        for (of, change) in changes {
            let name = FlowName { tenant: task.tenant.clone(), of };
            match self.flows.change(&name, change, now).await {
                Ok(successor) => self.lead(&task.tenant, successor, now).await,
                Err(error) => tracing::warn!(task = %task.id, flow = %name.of, %error, "could not give back what a task held of its flow"),
            }
        }
    }

    /// Makes the next member of a batch its leader. If the write fails, that member asks by itself some seconds later.
    pub async fn lead(&self, tenant: &Tenant, successor: Option<Successor>, now: Timestamp) {
        let Some(Successor { id, at }) = successor else { return };
        let name = TaskName { tenant: tenant.clone(), id };
        match self.apply(&name, None, Event::Lead { at }, now).await {
            Ok(_) | Err(ApplyError::Missing | ApplyError::Refused(_)) => {}
            Err(ApplyError::Store(error)) => tracing::warn!(task = %id, %error, "could not tell the next member of a batch that it leads"),
        }
    }

    /// Has those ask again now, or soon, who are held by what somebody has ended, as far as they are found by that query and meant: up to
    /// [`MAX_WOKEN`] of them, the newest first. The others ask by themselves, later. Says how many there were.
    pub async fn wake(&self, mut query: ListQuery, is_meant: impl Fn(&Task) -> bool, now: Timestamp) -> Result<usize, StoreError> {
        let (mut woken, mut empty_pages) = (0, 0);
        for _ in 0..MAX_PAGES {
            let page = self.store.list(&query, now).await?;
            empty_pages += usize::from(page.tasks.is_empty());
            let is_held = |task: &&Task| {
                matches!(&task.state, State::Waiting(Waiting::Held(held)) if held.reason.is_ended_by_hand()) && is_meant(task)
            };
            // Read anew: what lists show can be without its payload.
            let names: Vec<TaskName> = page.tasks.iter().filter(is_held).map(Task::name).collect();
            let waking = names.into_iter().map(async |name| self.apply(&name, None, Event::Wake, now).await);
            let outcomes: Vec<_> = stream::iter(waking).buffer_unordered(SIDE_BY_SIDE).collect().await;
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

    /// Proves that a write and a read can be made, and that the queue answers.
    pub async fn ready(&self, now: Timestamp) -> Result<(), NotReady> {
        self.store.ready(now).await.map_err(|error| match error {
            StoreError::Overloaded => NotReady::StoreOverloaded,
            error => NotReady::StoreWriteFailed(error),
        })?;
        let read = self.registry.find(&RecordName::from(&Tenant::default())).await;
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
            tracing::warn!(%error, "hints were not sent; the sweep will send them");
        }
    }
}

/// The hints that waiting tasks need, each to be seen when its task is due.
fn hints<'a>(tasks: impl Iterator<Item = &'a Task>, now: Timestamp) -> Vec<Hint> {
    tasks.filter(|task| matches!(task.state, State::Waiting(_))).map(|task| Hint::new(task.name(), delay(task, now))).collect()
}

/// Queues count in whole seconds, and what was promised a start is late after less: whoever takes its hint waits for the rest.
fn delay(task: &Task, now: Timestamp) -> Duration {
    let delay = task.due_at.since(now);
    if task.turn.reserved.promise.is_some() { Duration::from_secs(delay.as_secs()) } else { delay }
}

/// The changes that give back what a task held of its flows.
pub fn changes(task: &Task, reserved: Reserved) -> Vec<(FlowOf, FlowChange)> {
    let promise = reserved.promise.map(|promise| (promise.of, FlowChange::Return(promise.booking)));
    let batch = task.settings.endpoint.clone().zip(reserved.batch).map(|(endpoint, batch)| {
        let bytes = u64::try_from(task.payload.get().len()).unwrap_or(u64::MAX);
        (FlowOf::Batch(endpoint, batch), FlowChange::Withdraw { id: task.id, bytes })
    });
    promise.into_iter().chain(batch).collect()
}
