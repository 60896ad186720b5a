//! A table as `DynamoDB` is one: items, two indexes that follow it, and what expires.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nobat_core::ports::TaskName;
use nobat_core::task::{End, State, Task};
use nobat_core::time::Timestamp;

use super::calls::Call;
use super::habits::{Habit, Habits};
use super::index::Index;
use crate::time::Time;

/// The longest delay that a hint can be sent with; what is due later is left to the sweep.
pub const LONGEST_DELAY: Duration = Duration::from_mins(15);
/// How far the index of what needs attention can be behind: for longer than it takes until the next sweep.
pub const ATTENTION_LAG: Duration = Duration::from_secs(90);
/// How far the index of all tasks can be behind.
pub const RECENT_LAG: Duration = Duration::from_secs(10);
/// How long before a task is due the sweep sees to its hint, and how long after that it looks whether a hint was enough.
const MARGIN: Duration = Duration::from_mins(2);
/// For how long a transaction is known by its token.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
const TOKEN_LIFE: Duration = Duration::from_mins(10);

/// Tenant and id, in an order that can be kept in a map.
pub type Key = (String, [u8; 16]);

/// The key of a name.
pub fn key(name: &TaskName) -> Key {
    (name.tenant.to_string(), name.id.to_bytes())
}

/// One item.
#[derive(Clone)]
pub struct Item {
    /// The task.
    pub task: Task,
    /// The call that wrote it last, by its attribute `op`; beats and postponements do not say.
    pub op: Call,
    /// Where it stands in the index of what needs attention, if it does.
    pub attention: Option<Attention>,
}

/// A place in the index of what needs attention.
#[derive(Clone, Copy)]
pub enum Attention {
    /// The sweep must look at the task then.
    Due(Timestamp),
    /// The task has failed, and is listed with other dead ones.
    Failed,
}

/// The items and their indexes.
pub struct Table {
    items: BTreeMap<Key, Item>,
    attention: Index<Timestamp>,
    recent: Index<String>,
    transactions: BTreeMap<Call, Timestamp>,
    time: Arc<Time>,
}

impl Table {
    /// An empty one.
    pub fn new(time: Arc<Time>) -> Self {
        let (attention, recent) = (Index::new(ATTENTION_LAG, Habit::ShowsOldAttention), Index::new(RECENT_LAG, Habit::ShowsOldList));
        Self { items: BTreeMap::new(), attention, recent, transactions: BTreeMap::new(), time }
    }

    /// An item, as it stands after every write.
    pub fn get(&self, name: &TaskName) -> Option<&Item> {
        self.items.get(&key(name))
    }

    /// The same, by its key.
    pub fn by_key(&self, key: &Key) -> Option<&Item> {
        self.items.get(key)
    }

    /// Writes a task in the name of a call whose clock shows `now`.
    pub fn put(&mut self, task: Task, op: Call, now: Timestamp) {
        let before = self.get(&task.name()).and_then(|item| item.attention);
        let attention = attention(&task, before, now);
        self.write(Item { task, op, attention });
    }

    /// Changes an item without a word about who did.
    pub fn update(&mut self, name: &TaskName, change: impl FnOnce(&mut Item)) {
        if let Some(mut item) = self.get(name).cloned() {
            change(&mut item);
            self.write(item);
        }
    }

    fn write(&mut self, item: Item) {
        let (key, at) = (key(&item.task.name()), self.time.now());
        let mark = match item.attention {
            Some(Attention::Due(mark)) => Some(mark),
            Some(Attention::Failed) | None => None,
        };
        self.attention.write(key.clone(), mark, at);
        self.recent.write(key.clone(), Some(place(&item.task)), at);
        self.items.insert(key, item);
    }

    /// The keys whose mark has been reached, as far as the index knows, the oldest mark first.
    pub fn marked(&self, now: Timestamp, habits: &dyn Habits) -> Vec<Key> {
        let mut marked = self.attention.read(self.time.now(), habits);
        marked.retain(|(_, mark)| **mark <= now);
        marked.sort_by_key(|(_, mark)| **mark);
        marked.into_iter().map(|(key, _)| key.clone()).collect()
    }

    /// A tenant's places in the index of all tasks, as far as it knows, the newest first.
    pub fn places(&self, tenant: &str, habits: &dyn Habits) -> Vec<(String, Key)> {
        let all = self.recent.read(self.time.now(), habits);
        let own = all.into_iter().filter(|((of, _), _)| of == tenant);
        let mut places: Vec<_> = own.map(|(key, place)| (place.clone(), key.clone())).collect();
        places.sort_by(|one, other| other.cmp(one));
        places
    }

    /// Whether this transaction was made already, and not too long ago to be known by its token.
    pub fn has_made(&self, transaction: Call) -> bool {
        self.transactions.get(&transaction).is_some_and(|made| *made + TOKEN_LIFE > self.time.now())
    }

    /// Notes that a transaction was made.
    pub fn note_transaction(&mut self, transaction: Call) {
        self.transactions.insert(transaction, self.time.now());
    }

    /// Removes an item.
    pub fn remove(&mut self, key: &Key) {
        self.items.remove(key);
        self.attention.write(key.clone(), None, self.time.now());
        self.recent.write(key.clone(), None, self.time.now());
    }

    /// The keys of the items of which this is so.
    pub fn keys_of(&self, is_so: impl Fn(&Task) -> bool) -> Vec<Key> {
        self.items.iter().filter(|(_, item)| is_so(&item.task)).map(|(key, _)| key.clone()).collect()
    }
}

/// Where a task stands in the list of its tenant: by creation, then by id.
pub fn place(task: &Task) -> String {
    format!("{:015}{:032x}", task.created_at.millis(), u128::from_be_bytes(task.id.to_bytes()))
}

/// Where a task belongs when it is written like this.
fn attention(task: &Task, before: Option<Attention>, now: Timestamp) -> Option<Attention> {
    match &task.state {
        // A claim leaves the mark where it was: most tasks have ended before it is reached.
        State::Running(_) => before,
        State::Ended(ended) if ended.end == End::Failed => Some(Attention::Failed),
        State::Ended(_) => None,
        State::Waiting(_) => {
            let is_hinted = task.due_at.since(now) <= LONGEST_DELAY;
            let mark = if is_hinted { task.due_at + MARGIN } else { task.due_at - MARGIN };
            Some(Attention::Due(task.settings.expires_at.map_or(mark, |deadline| deadline.min(mark))))
        }
    }
}
