//! Table with the rules of `DynamoDB`: items, two lagging indexes, and expiry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nobat_core::task::{Outcome, State, Task, TaskKey};
use nobat_core::types::time::Timestamp;

use super::calls::Call;
use super::index::Index;
use crate::model::backend_quirks::{Habit, Habits};
use crate::time::Time;

/// Maximum delay of a hint. The sweep sends the hints of tasks that are due later.
pub const LONGEST_DELAY: Duration = Duration::from_mins(15);
/// Maximum lag of the sweep index: longer than the interval between two sweeps.
pub const ATTENTION_LAG: Duration = Duration::from_secs(90);
/// Maximum lag of the index of all tasks.
pub const RECENT_LAG: Duration = Duration::from_secs(10);
/// Distance of the mark from the due time. Before it, the sweep sends a hint. After it, the sweep checks that
/// a hint was enough.
const MARGIN: Duration = Duration::from_mins(2);
/// Time for which a transaction is recognized by its token.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
const TOKEN_LIFE: Duration = Duration::from_mins(10);

/// Tenant and id, in an order for maps.
pub type Key = (String, [u8; 16]);

/// Returns the key of a task.
pub fn key(name: &TaskKey) -> Key {
    (name.tenant.to_string(), name.id.to_bytes())
}

/// Item of a task.
#[derive(Clone)]
pub struct Item {
    /// Task.
    pub task: Task,
    /// Call that wrote the item last, as in its attribute `op`. Heartbeats and postponements do not set it.
    pub op: Call,
    /// Place in the sweep index.
    pub sweep: Option<SweepIndex>,
}

/// Place in the sweep index.
#[derive(Clone, Copy)]
pub enum SweepIndex {
    /// Time at which the sweep must look at the task.
    Due(Timestamp),
    /// The task has failed and is listed as a dead letter.
    Failed,
}

/// Items and their indexes.
pub struct Table {
    items: BTreeMap<Key, Item>,
    sweep: Index<Timestamp>,
    recent: Index<String>,
    transactions: BTreeMap<Call, Timestamp>,
    time: Arc<Time>,
}

impl Table {
    /// Creates an empty table.
    pub fn new(time: Arc<Time>) -> Self {
        let (sweep, recent) = (
            Index::new(ATTENTION_LAG, Habit::ShowsOldSweepIndex),
            Index::new(RECENT_LAG, Habit::ShowsOldList),
        );
        Self { items: BTreeMap::new(), sweep, recent, transactions: BTreeMap::new(), time }
    }

    /// Returns an item by a consistent read.
    pub fn get(&self, name: &TaskKey) -> Option<&Item> {
        self.items.get(&key(name))
    }

    /// Returns an item by its key, by a consistent read.
    pub fn by_key(&self, key: &Key) -> Option<&Item> {
        self.items.get(key)
    }

    /// Writes a task for the call `op`. `now` is the caller's clock.
    pub fn put(&mut self, task: Task, op: Call, now: Timestamp) {
        let before = self.get(&task.key()).and_then(|item| item.sweep);
        let sweep = sweep(&task, before, now);
        self.write(Item { task, op, sweep });
    }

    /// Changes an item without setting its `op`.
    pub fn update(&mut self, name: &TaskKey, change: impl FnOnce(&mut Item)) {
        if let Some(mut item) = self.get(name).cloned() {
            change(&mut item);
            self.write(item);
        }
    }

    fn write(&mut self, item: Item) {
        let (key, at) = (key(&item.task.key()), self.time.now());
        let mark = match item.sweep {
            Some(SweepIndex::Due(mark)) => Some(mark),
            Some(SweepIndex::Failed) | None => None,
        };
        self.sweep.write(key.clone(), mark, at);
        self.recent.write(key.clone(), Some(place(&item.task)), at);
        self.items.insert(key, item);
    }

    /// Returns the keys whose mark has been reached, the oldest mark first. The index may lag.
    pub fn marked(&self, now: Timestamp, habits: &dyn Habits) -> Vec<Key> {
        let mut marked = self.sweep.read(self.time.now(), habits);
        marked.retain(|(_, mark)| **mark <= now);
        marked.sort_by_key(|(_, mark)| **mark);
        marked.into_iter().map(|(key, _)| key.clone()).collect()
    }

    /// Returns a tenant's places in the index of all tasks, the newest first. The index may lag.
    pub fn places(&self, tenant: &str, habits: &dyn Habits) -> Vec<(String, Key)> {
        let all = self.recent.read(self.time.now(), habits);
        let own = all.into_iter().filter(|((of, _), _)| of == tenant);
        let mut places: Vec<_> = own.map(|(key, place)| (place.clone(), key.clone())).collect();
        places.sort_by(|one, other| other.cmp(one));
        places
    }

    /// Returns true if this transaction was made within the last 10 minutes, the life of its token.
    pub fn has_made(&self, transaction: Call) -> bool {
        self.transactions.get(&transaction).is_some_and(|made| *made + TOKEN_LIFE > self.time.now())
    }

    /// Records that a transaction was made.
    pub fn note_transaction(&mut self, transaction: Call) {
        self.transactions.insert(transaction, self.time.now());
    }

    /// Removes an item.
    pub fn remove(&mut self, key: &Key) {
        self.items.remove(key);
        self.sweep.write(key.clone(), None, self.time.now());
        self.recent.write(key.clone(), None, self.time.now());
    }

    /// Returns the keys of the items whose task `is_so` accepts.
    pub fn keys_of(&self, is_so: impl Fn(&Task) -> bool) -> Vec<Key> {
        self.items.iter().filter(|(_, item)| is_so(&item.task)).map(|(key, _)| key.clone()).collect()
    }
}

/// Returns the sort key of a task in its tenant's list: creation time, then id.
pub fn place(task: &Task) -> String {
    format!("{:015}{:032x}", task.created_at.millis(), u128::from_be_bytes(task.id.to_bytes()))
}

/// Returns the task's place in the sweep index after this write.
fn sweep(task: &Task, before: Option<SweepIndex>, now: Timestamp) -> Option<SweepIndex> {
    match &task.state {
        // A claim keeps the mark: most tasks end before it is reached.
        State::Running(_) => before,
        State::Ended(ended) if ended.end == Outcome::Failed => Some(SweepIndex::Failed),
        State::Ended(_) => None,
        State::Waiting(_) => {
            let is_hinted = task.due_at.since(now) <= LONGEST_DELAY;
            let mark = if is_hinted { task.due_at + MARGIN } else { task.due_at - MARGIN };
            Some(SweepIndex::Due(task.options.expires_at.map_or(mark, |deadline| deadline.min(mark))))
        }
    }
}
