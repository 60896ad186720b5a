//! What the engines need of the world: a store, a queue, and a clock.
//!
//! The store is the truth. A hint in the queue says "task X may be due" and carries no truth, so that it can be lost,
//! doubled, late or out of order without anything coming of it but time.

use std::time::Duration;

use async_trait::async_trait;

use crate::id::TaskId;
use crate::json::Json;
use crate::lifecycle::{Change, Refused};
use crate::name::{Name, Tenant};
use crate::task::{CancelRequest, Status, Task};
use crate::time::Timestamp;

/// Keeps the tasks.
///
/// A method that fails with [`StoreError`] may have done its work all the same; calling it again is safe, and finds
/// out. `now` is the caller's: stores have no clock of their own.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes all of these tasks, or none if any of them is there already. Their tenant is one and the same.
    ///
    /// Created tasks come back in the given order; existing ones in any.
    async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<Inserted, StoreError>;

    /// The task, if it is there and was not ended longer ago than tasks are kept.
    async fn get(&self, name: &TaskName, now: Timestamp) -> Result<Option<Task>, StoreError>;

    /// Grants a lease until `until` in one conditional write, if [`crate::lifecycle`] would.
    async fn claim(&self, name: &TaskName, until: Timestamp, now: Timestamp) -> Result<Claim, StoreError>;

    /// Makes the change in one write, callback and entry included, if the task is still at the version that was read.
    ///
    /// The change must be of a whole task, as [`Store::get`] and [`Store::claim`] give it.
    async fn commit(&self, change: Change, now: Timestamp) -> Result<Committed, StoreError>;

    /// Renews the lease of claim number `token` and notes the progress, if there is any to note.
    async fn beat(&self, name: &TaskName, token: u64, until: Timestamp, progress: Option<Json>) -> Result<Beat, StoreError>;

    /// One page of a tenant's tasks, the newest first.
    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError>;

    /// How many of a tenant's tasks wait to be run; where there are more than `at_most`, that number.
    async fn waiting(&self, tenant: &Tenant, at_most: usize) -> Result<usize, StoreError>;

    /// Up to `limit` tasks that the sweep must look at. Payloads may be left out of them (`null`).
    async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError>;

    /// Notes that the sweep has seen to a task and need not look at it again before `until`.
    async fn postpone(&self, task: &Task, until: Timestamp) -> Result<(), StoreError>;

    /// Removes up to `limit` tasks that were ended longer ago than tasks are kept, and says how many there were.
    ///
    /// Nothing is left to do where the database removes them by itself.
    async fn prune(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError>;

    /// Resolves when something may have been written about the task since the first poll; never, where the store cannot tell.
    async fn changed(&self, name: &TaskName);

    /// Proves that a write can be made: writes one small row or item that means nothing.
    async fn ready(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Load of the queues inside this process that operations wait in. A store without such queues returns none.
    fn load(&self) -> Vec<QueueLoad> {
        Vec::new()
    }
}

/// Load of a queue, or of another bounded resource, inside this process. Operations, unless the name says bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLoad {
    /// Stable name of the queue, such as `write`.
    pub name: &'static str,
    /// Number that waits or is under way now.
    pub length: usize,
    /// Maximum of `length`.
    pub limit: usize,
    /// Maximum of `length` for one tenant.
    pub tenant_limit: usize,
    /// Operations refused or given up after too long a wait, since the process started.
    pub refused: u64,
}

/// Carries hints from those who know that a task is due to those who can run it.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Sends hints, each to be seen after its delay; one whose delay is too long for the queue is left to the sweep.
    ///
    /// A failure loses nothing: the sweep hints again.
    async fn send(&self, hints: Vec<Hint>) -> Result<(), StoreError>;

    /// Waits until there is something to run, and takes up to `max` of it. Dropping the future loses nothing.
    ///
    /// An empty answer means that nothing came for a while.
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, StoreError>;

    /// Tells the queue what became of deliveries.
    async fn settle(&self, settlements: Vec<(Receipt, Settlement)>) -> Result<(), StoreError>;

    /// Whether it answers.
    async fn ready(&self) -> Result<(), StoreError>;
}

/// What time it is, and waiting for it to pass.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time.
    fn now(&self) -> Timestamp;

    /// Resolves after that long.
    async fn sleep(&self, duration: Duration);
}

/// Chance, to spread delays with.
pub trait Chance: Send + Sync {
    /// 64 random bits.
    fn bits(&self) -> u64;
}

/// How long a lease holds. It is renewed every third of that, so two beats may fail.
pub const LEASE: Duration = Duration::from_mins(1);

/// What a task is found by. As a message in a queue, it is a hint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskName {
    /// Whose task it is.
    pub tenant: Tenant,
    /// Its id.
    pub id: TaskId,
}

impl Task {
    /// What it is found by.
    pub fn name(&self) -> TaskName {
        TaskName { tenant: self.tenant.clone(), id: self.id }
    }
}

/// What became of an [`Store::insert`].
#[derive(Debug)]
pub enum Inserted {
    /// All were written; here they are as they stand now.
    Created(Vec<Task>),
    /// These were there already, and nothing was written.
    Existing(Vec<Task>),
}

/// What became of a [`Store::claim`].
#[derive(Debug)]
pub enum Claim {
    /// The lease is the caller's.
    Granted(Task),
    /// It cannot be claimed, for this reason; the task as it was found, perhaps without its payload and result.
    Refused(Refused, Task),
    /// There is no such task.
    Missing,
}

/// What became of a [`Store::commit`].
#[derive(Debug)]
pub enum Committed {
    /// It was written; here is the task as it stands now.
    Done(Box<Task>),
    /// The task was changed or removed since it was read, and nothing was written.
    Conflict,
}

/// What became of a [`Store::beat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The lease is renewed.
    Renewed {
        /// Whether the handler is to stop.
        cancel: CancelRequest,
    },
    /// The lease is somebody else's, or nobody's.
    Lost,
}

/// A message to a queue: this task may be due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Which task.
    pub name: TaskName,
    /// When it is to be seen.
    pub delay: Duration,
    /// How many hints in a row came to nothing before this one, because whoever took them died of it.
    pub redrives: u32,
}

impl Hint {
    /// A hint, as it is first sent.
    pub fn new(name: TaskName, delay: Duration) -> Self {
        Self { name, delay, redrives: 0 }
    }
}

/// One message of a queue.
#[derive(Debug)]
pub enum Delivery {
    /// A task may be due.
    Hint {
        /// Which one.
        name: TaskName,
        /// What the queue knows the message by.
        receipt: Receipt,
    },
    /// A queue that shares its disk with the store has claimed the task along the way.
    Claimed(Box<Task>),
}

/// What a queue knows a message by; opaque to everybody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt(pub String);

/// What is to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Its task's outcome is stored, whatever it was: forget the message.
    Acknowledge,
    /// The outcome could not be stored: deliver it again.
    Return,
}

/// Which tasks to list.
#[derive(Clone, Debug, PartialEq)]
pub struct ListQuery {
    /// Whose.
    pub tenant: Tenant,
    /// Only those of this status.
    pub status: Option<Status>,
    /// Only those of this queue.
    pub queue: Option<Name>,
    /// Only those of this kind.
    pub kind: Option<Name>,
    /// Only those accepted at or after this moment.
    pub created_after: Option<Timestamp>,
    /// Only those accepted before this moment.
    pub created_before: Option<Timestamp>,
    /// At most so many.
    pub limit: usize,
    /// Where the page before this one ended.
    pub after: Option<Position>,
}

impl ListQuery {
    /// How many tasks one page looks at. With a rare filter a page may be short, or empty, and still have a cursor.
    pub const MAX_SCANNED: usize = 1_000;

    /// Whether the task passes the filters.
    pub fn matches(&self, task: &Task, now: Timestamp) -> bool {
        task.tenant == self.tenant
            && self.status.is_none_or(|status| task.status(now) == status)
            && self.queue.as_ref().is_none_or(|queue| task.queue == *queue)
            && self.kind.as_ref().is_none_or(|kind| task.kind == *kind)
            && self.created_after.is_none_or(|moment| task.created_at >= moment)
            && self.created_before.is_none_or(|moment| task.created_at < moment)
    }
}

/// A place in a list, in the store's own terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(pub String);

/// One page of a list. Payloads and results may be left out of its tasks (`null`, absent).
#[derive(Debug)]
pub struct Page {
    /// The tasks, the newest first.
    pub tasks: Vec<Task>,
    /// Where the next page begins, if there may be one.
    pub next: Option<Position>,
}

/// A store or a queue did not do what it was asked, or the answer was lost.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there, or does not answer in time.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// It has more to do than it can take on.
    #[error("the store has too much to do")]
    Overloaded,
    /// Something is there that cannot be: a bug, or a damaged file.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
}
