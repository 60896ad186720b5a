//! What clients were promised, and what handlers did: written down outside of everything that can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nobat_core::id::TaskId;
use nobat_core::json::Json;
use nobat_core::name::Tenant;
use nobat_core::ports::TaskName;
use nobat_core::task::{Outcome, Task};
use nobat_core::time::Timestamp;

/// A task's name, in an order.
pub type Key = (Tenant, TaskId);

/// The key of a name.
pub fn key(name: &TaskName) -> Key {
    (name.tenant.clone(), name.id)
}

/// The record.
#[derive(Default)]
pub struct Ledger {
    /// Every task that a client has asked for, whatever it was answered.
    pub asked_for: BTreeMap<Key, Json>,
    /// Those that a client was told are accepted.
    pub accepted: BTreeSet<Key>,
    /// Those that somebody has called off or wanted done again, or whose partner failed them, so that their end is not known beforehand.
    pub meddled_with: BTreeSet<Key>,
    /// How often each was put off by its partner, which counts as no attempt.
    put_off: BTreeMap<Key, usize>,
    /// Every run of a handler, in order.
    pub executions: Vec<Execution>,
    /// The tokens that an actor was given for a task, and when: an answer can be overtaken by a later one.
    in_hand: BTreeMap<(String, Key), BTreeMap<u64, Timestamp>>,
    /// The attempts that are on record.
    recorded: BTreeSet<(Key, u64)>,
    /// Actors whose handler has brought their process down.
    pub killed: BTreeSet<String>,
    /// How many messages each function works on.
    pub batches: BTreeMap<String, usize>,
    /// When a hint was last sent for a task, by how many dead letters came before it.
    hints: BTreeMap<Key, BTreeMap<u32, Timestamp>>,
    /// When a dead letter was first seen for a task, by how many came before it.
    letters: BTreeMap<Key, BTreeMap<u32, Timestamp>>,
}

/// How long a task is left alone after its first dead letter, and after its second.
const PAUSES: [Duration; 2] = [Duration::from_mins(5), Duration::from_mins(15)];

/// One run of a handler.
pub struct Execution {
    /// Of which task.
    pub task: Key,
    /// Under which claim.
    pub token: u64,
    /// How it ended, if it did.
    pub end: Option<ExecutionEnd>,
}

/// How a handler returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionEnd {
    /// With a result.
    Returned,
    /// With an error, or a panic.
    Failed,
}

impl Ledger {
    /// An actor was given a task.
    pub fn given(&mut self, actor: &str, name: &TaskName, token: u64, now: Timestamp) {
        self.in_hand.entry((actor.to_owned(), key(name))).or_default().insert(token, now);
    }

    /// When an actor was given a task under that token, if it was.
    pub fn given_at(&self, actor: &str, name: &TaskName, token: u64) -> Option<Timestamp> {
        self.in_hand.get(&(actor.to_owned(), key(name)))?.get(&token).copied()
    }

    /// An actor has written a task. Returns whether the attempt that it put on record, if it did, was its own to bring to an end.
    pub fn has_written(&mut self, actor: &str, task: &Task) -> bool {
        let key = key(&task.name());
        let Some(attempt) = task.attempts.last() else { return true };
        let is_new = self.recorded.insert((key.clone(), attempt.number));
        let was_given = self.in_hand.get(&(actor.to_owned(), key)).is_some_and(|tokens| tokens.contains_key(&attempt.number));
        // That a lease ran out is for anybody to say.
        !is_new || attempt.outcome == Outcome::Crashed || was_given
    }

    /// A partner puts a task off.
    pub fn puts_off(&mut self, name: &TaskName) {
        *self.put_off.entry(key(name)).or_default() += 1;
    }

    /// How often a task was put off.
    pub fn put_off(&self, task: &Key) -> usize {
        self.put_off.get(task).copied().unwrap_or_default()
    }

    /// A handler begins; returns the number of the execution.
    pub fn begins(&mut self, name: &TaskName, token: u64) -> usize {
        self.executions.push(Execution { task: key(name), token, end: None });
        self.executions.len() - 1
    }

    /// A handler returns.
    pub fn ends(&mut self, execution: usize, end: ExecutionEnd) {
        self.executions[execution].end = Some(end);
    }

    /// Somebody has sent a hint, whatever became of it on its way.
    pub fn hinted(&mut self, task: Key, redrives: u32, now: Timestamp) {
        self.hints.entry(task).or_default().insert(redrives, now);
    }

    /// When the last hint for a task was sent.
    pub fn last_hint(&self, task: &Key) -> Option<Timestamp> {
        self.hints.get(task)?.values().max().copied()
    }

    /// When the last hint for a task was sent that came after so many dead letters.
    pub fn last_hint_after(&self, task: &Key, redrives: u32) -> Option<Timestamp> {
        self.hints.get(task)?.get(&redrives).copied()
    }

    /// Somebody has opened a dead letter.
    pub fn opened(&mut self, task: Key, redrives: u32, now: Timestamp) {
        self.letters.entry(task).or_default().entry(redrives).or_insert(now);
    }

    /// Whether a task has had three dead letters, each with the pause before it that is due.
    pub fn was_given_every_chance(&self, task: &Key) -> bool {
        let Some(letters) = self.letters.get(task) else { return false };
        let first: Option<Vec<Timestamp>> = (0..3).map(|redrives| letters.get(&redrives).copied()).collect();
        first.is_some_and(|first| first.windows(2).zip(PAUSES).all(|(pair, pause)| pair[1].since(pair[0]) >= pause))
    }

    /// The runs of one task.
    pub fn executions_of(&self, task: &Key) -> impl Iterator<Item = &Execution> {
        self.executions.iter().filter(move |execution| execution.task == *task)
    }
}
