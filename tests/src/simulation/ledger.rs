//! Record of what clients were promised and what handlers did, outside of everything that can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nobat_core::json::Json;
use nobat_core::task::{AttemptOutcome, Task, TaskKey};
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;

/// Tenant and id of a task, in an order for maps.
pub type Key = (Tenant, TaskId);

/// Returns the key of a task.
pub fn key(name: &TaskKey) -> Key {
    (name.tenant.clone(), name.id)
}

/// Ledger of a run.
#[derive(Default)]
pub struct Ledger {
    /// Payloads of all tasks that a client tried to submit, whatever the answer.
    pub asked_for: BTreeMap<Key, Json>,
    /// Tasks whose acceptance a client saw.
    pub accepted: BTreeSet<Key>,
    /// Tasks whose end is not predictable, because a client canceled or replayed them or their partner failed
    /// them.
    pub meddled_with: BTreeSet<Key>,
    /// Number of deferrals of each task by its partner. A deferral is no attempt.
    put_off: BTreeMap<Key, usize>,
    /// Executions of handlers, in order.
    pub executions: Vec<Execution>,
    /// Tokens that an actor was given for a task, and the times. It keeps all of them, because a later answer
    /// can overtake an earlier one.
    in_hand: BTreeMap<(String, Key), BTreeMap<u64, Timestamp>>,
    /// Attempts on record.
    recorded: BTreeSet<(Key, u64)>,
    /// Actors whose handler crashed their process.
    pub killed: BTreeSet<String>,
    /// Number of messages that each function works on.
    pub batches: BTreeMap<String, usize>,
    /// Time of the last hint of a task, by the number of dead letters before it.
    hints: BTreeMap<Key, BTreeMap<u32, Timestamp>>,
    /// Time when a dead letter of a task was first opened, by the number of dead letters before it.
    letters: BTreeMap<Key, BTreeMap<u32, Timestamp>>,
}

/// Pauses after the first and the second dead letter of a task.
const PAUSES: [Duration; 2] = [Duration::from_mins(5), Duration::from_mins(15)];

/// Execution of a handler.
pub struct Execution {
    /// Task of the execution.
    pub task: Key,
    /// Token of the claim.
    pub token: u64,
    /// End of the execution, if it has ended.
    pub end: Option<ExecutionEnd>,
}

/// End of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionEnd {
    /// The handler returned a result.
    Returned,
    /// The handler returned an error or panicked.
    Failed,
}

impl Ledger {
    /// Records that an actor was given a task.
    pub fn given(&mut self, actor: &str, name: &TaskKey, token: u64, now: Timestamp) {
        self.in_hand.entry((actor.to_owned(), key(name))).or_default().insert(token, now);
    }

    /// Returns the time when an actor was given a task with this token.
    pub fn given_at(&self, actor: &str, name: &TaskKey, token: u64) -> Option<Timestamp> {
        self.in_hand.get(&(actor.to_owned(), key(name)))?.get(&token).copied()
    }

    /// Records that an actor has written a task. Returns true if the actor was entitled to record the task's
    /// last attempt.
    pub fn has_written(&mut self, actor: &str, task: &Task) -> bool {
        let key = key(&task.key());
        let Some(attempt) = task.attempts.last() else { return true };
        let is_new = self.recorded.insert((key.clone(), attempt.number));
        let was_given = self
            .in_hand
            .get(&(actor.to_owned(), key))
            .is_some_and(|tokens| tokens.contains_key(&attempt.number));
        // Every actor may record that a lease has expired.
        !is_new || attempt.outcome == AttemptOutcome::Crashed || was_given
    }

    /// Records that the partner deferred a task.
    pub fn puts_off(&mut self, name: &TaskKey) {
        *self.put_off.entry(key(name)).or_default() += 1;
    }

    /// Returns the number of deferrals of a task.
    pub fn put_off(&self, task: &Key) -> usize {
        self.put_off.get(task).copied().unwrap_or_default()
    }

    /// Records the start of an execution and returns its number.
    pub fn begins(&mut self, name: &TaskKey, token: u64) -> usize {
        self.executions.push(Execution { task: key(name), token, end: None });
        self.executions.len() - 1
    }

    /// Records the end of an execution.
    pub fn ends(&mut self, execution: usize, end: ExecutionEnd) {
        self.executions[execution].end = Some(end);
    }

    /// Records that a hint was sent, even if it is lost on its way.
    pub fn hinted(&mut self, task: Key, redrives: u32, now: Timestamp) {
        self.hints.entry(task).or_default().insert(redrives, now);
    }

    /// Returns the time of the last hint of a task.
    pub fn last_hint(&self, task: &Key) -> Option<Timestamp> {
        self.hints.get(task)?.values().max().copied()
    }

    /// Returns the time of the last hint of a task after `redrives` dead letters.
    pub fn last_hint_after(&self, task: &Key, redrives: u32) -> Option<Timestamp> {
        self.hints.get(task)?.get(&redrives).copied()
    }

    /// Records that a dead letter was opened.
    pub fn opened(&mut self, task: Key, redrives: u32, now: Timestamp) {
        self.letters.entry(task).or_default().entry(redrives).or_insert(now);
    }

    /// Returns true if a task had three dead letters with the required pauses between them.
    pub fn had_three_dead_letters(&self, task: &Key) -> bool {
        let Some(letters) = self.letters.get(task) else { return false };
        let first: Option<Vec<Timestamp>> = (0..3).map(|redrives| letters.get(&redrives).copied()).collect();
        first.is_some_and(|first| {
            first.windows(2).zip(PAUSES).all(|(pair, pause)| pair[1].since(pair[0]) >= pause)
        })
    }

    /// Returns the executions of one task.
    pub fn executions_of(&self, task: &Key) -> impl Iterator<Item = &Execution> {
        self.executions.iter().filter(move |execution| execution.task == *task)
    }
}
