//! Monitor between all actors and the store. It sees every write and knows which are legal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::FutureExt;
use nobat_core::json::Json;
use nobat_core::ports::{
    ClaimResult, CommitResult, Delivery, Heartbeat, Hint, InsertResult, ListQuery, Page, Queue, Receipt,
    Settlement, StoreError, TaskStore,
};
use nobat_core::service::backend::Backend;
use nobat_core::task::lifecycle::{Change, Event, transition};
use nobat_core::task::{Held, Outcome, State, Task, TaskKey, Waiting};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;

use super::handlers::Done;
use super::ledger::{ExecutionEnd, Key, key};
use super::repeats::{Made, Repeats};
use crate::simulation::context::{Stage, short};
use crate::simulation::transition_checks::{callback_of, follows, is_untouched};

/// Monitor that reads the store before and after each call. No faults happen between it and the store.
pub struct Witness {
    pub(super) stage: Arc<Stage>,
    inner: Backend,
    seen: Mutex<Seen>,
    pub(super) repeats: Repeats,
}

/// Last seen content of the store.
#[derive(Default)]
struct Seen {
    tasks: BTreeMap<Key, Task>,
    unended: BTreeSet<Key>,
    granted: BTreeSet<(Key, u64)>,
    callbacks: BTreeMap<Key, BTreeSet<TaskId>>,
}

impl Witness {
    /// Creates a monitor of a backend whose store answers at once.
    pub fn new(stage: &Arc<Stage>, inner: Backend) -> Arc<Self> {
        Arc::new(Self { stage: stage.clone(), inner, seen: Mutex::default(), repeats: Repeats::default() })
    }

    /// Returns the monitored backend.
    pub fn backend(self: &Arc<Self>) -> Backend {
        Backend {
            store: self.clone(),
            queue: self.clone(),
            config: self.inner.config.clone(),
            limiters: self.inner.limiters.clone(),
        }
    }

    /// Returns the number of tasks that were not seen to end.
    pub fn unended(&self) -> usize {
        self.seen().unended.len()
    }

    /// Returns the tasks that have not ended. It reads them again, because a backend can end a task by
    /// itself.
    pub fn open_tasks(&self) -> Vec<Task> {
        let unended = self.seen().unended.clone();
        let found = unended.into_iter().filter_map(|(tenant, id)| self.look(&TaskKey { tenant, id }));
        found.filter(|task| !matches!(task.state, State::Ended(_))).collect()
    }

    /// Returns the callbacks of a task, one for each end with a callback.
    pub fn callbacks_of(&self, task: &Key) -> BTreeSet<TaskId> {
        self.seen().callbacks.get(task).cloned().unwrap_or_default()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the task and checks that its last seen state can have changed into this one.
    pub(super) fn look(&self, name: &TaskKey) -> Option<Task> {
        let found = at_once(self.inner.store.get(name, self.stage.time.now()))
            .unwrap_or_else(|error| panic!("{error}"));
        let mut seen = self.seen();
        let is_news = seen.tasks.get(&key(name)) != found.as_ref();
        match (seen.tasks.get(&key(name)), &found) {
            (Some(_), None) => self.stage.violate(format!("{} is missing", short(name))),
            (Some(before), Some(after)) => {
                if let Err(what) = follows(before, after) {
                    self.stage
                        .violate(format!("{}: {what}\nbefore: {before:?}\nafter:  {after:?}", short(name)));
                }
            }
            (None, _) => {}
        }
        if let Some(task) = &found {
            match task.state {
                State::Ended(_) => seen.unended.remove(&key(name)),
                State::Waiting(_) | State::Running(_) => seen.unended.insert(key(name)),
            };
            seen.tasks.insert(key(name), task.clone());
        }
        drop(seen);
        if let Some(callback) = found.as_ref().filter(|_| is_news).and_then(callback_of) {
            self.expect(self.look(&callback).is_some(), name, "an end was written without its callback");
            let is_new = self.seen().callbacks.entry(key(name)).or_default().insert(callback.id);
            self.expect(is_new, name, "two ends have the same callback");
        }
        found
    }

    pub(super) fn expect(&self, holds: bool, name: &TaskKey, what: &str) {
        if !holds {
            self.stage.violate(format!("{}: {what}", short(name)));
        }
    }

    /// Checks that a token is granted once, and not before the task is due. Companions of a batch may be
    /// claimed early.
    fn note_grant(&self, task: &Task, may_be_early: bool) {
        let is_new = self.seen().granted.insert((key(&task.key()), task.token));
        self.expect(is_new, &task.key(), "two workers were given the same token");
        let is_due = may_be_early || task.due_at <= self.stage.time.now() || !self.stage.plan.is_calm();
        self.expect(is_due, &task.key(), "the task was claimed before it was due");
    }

    fn check_commit(&self, change: &Change, before: Option<&Task>, after: Option<&Task>) {
        let name = change.task.key();
        self.check_dispatch_failed(&change.task);
        self.expect(
            before.map(|task| task.version) == Some(change.read_version),
            &name,
            "a change of a stale version was written",
        );
        self.expect(
            is_untouched(Some(&change.task), after),
            &name,
            "a change was reported as done, but is not stored",
        );
        let follow_up = change.callback.as_ref().map(Task::key);
        self.expect(
            follow_up == callback_of(&change.task),
            &name,
            "the change has an end without its callback, or a callback without an end",
        );
        if matches!(change.task.state, State::Ended(ended) if ended.end == Outcome::Succeeded) {
            self.check_result(&change.task);
        }
    }

    /// Checks that a result comes from a finished execution with the newest token.
    fn check_result(&self, task: &Task) {
        let done: Option<Done> = task.result.as_ref().and_then(|result| result.parse().ok());
        let ledger = self.stage.ledger();
        let execution = done.and_then(|done| ledger.executions.get(done.execution));
        let is_right = execution.is_some_and(|execution| {
            execution.task == key(&task.key())
                && execution.token == task.token
                && execution.end == Some(ExecutionEnd::Returned)
        });
        drop(ledger);
        self.expect(is_right, &task.key(), "the result is not from the run with the newest token");
    }
}

/// Returns the store's answer. The store never waits, so what is seen before and after a call belongs to one
/// write.
fn at_once<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().unwrap_or_else(|| panic!("the simulated store answers at once"))
}

#[async_trait]
impl TaskStore for Witness {
    async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<InsertResult, StoreError> {
        let before: Vec<Option<Task>> = tasks.iter().map(|task| self.look(&task.key())).collect();
        let call = self.stage.calls.announced();
        let made = self.made_before(call);
        let inserted = at_once(self.inner.store.insert(tasks.clone(), now))?;
        if made.is_none() && matches!(inserted, InsertResult::Created(_)) {
            self.note_made(call, Made::Tasks);
        }
        for (task, before) in tasks.iter().zip(&before) {
            let (name, after) = (task.key(), self.look(&task.key()));
            match &inserted {
                _ if made.is_some() => {
                    let is_known = matches!(inserted, InsertResult::Created(_));
                    self.check_repeated(is_known, before.as_ref(), after.as_ref(), Made::Tasks, &name);
                }
                InsertResult::Created(_) => {
                    self.expect(before.is_none(), &name, "an existing task was overwritten");
                    let is_there = after
                        .is_some_and(|after| after.payload == task.payload && after.options == task.options);
                    self.expect(is_there, &name, "an insert was reported as done, but is not stored");
                }
                InsertResult::Existing(existing) => {
                    self.expect(
                        after.is_some() == before.is_some(),
                        &name,
                        "part of a refused batch was written",
                    );
                    let is_shown = existing.iter().any(|existing| existing.id == task.id);
                    self.expect(
                        is_shown == before.is_some(),
                        &name,
                        "the tasks reported as existing are not the stored ones",
                    );
                }
            }
        }
        Ok(inserted)
    }

    async fn get(&self, name: &TaskKey, now: Timestamp) -> Result<Option<Task>, StoreError> {
        let seen = self.look(name);
        let found = at_once(self.inner.store.get(name, now))?;
        self.expect(is_untouched(seen.as_ref(), found.as_ref()), name, "two consecutive reads differ");
        Ok(found)
    }

    async fn claim(
        &self,
        name: &TaskKey,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<ClaimResult, StoreError> {
        let (before, call) = (self.look(name), self.stage.calls.announced());
        let made = self.made_before(call);
        let claim = at_once(self.inner.store.claim(name, until, now))?;
        let after = self.look(name);
        if let Some(Made::Claim(token)) = made
            && before == after
        {
            let is_known = matches!(&claim, ClaimResult::Granted(granted) if granted.token == token && before.as_ref() == Some(granted));
            if is_known || !matches!(claim, ClaimResult::Granted(_)) {
                self.check_repeated(is_known, before.as_ref(), after.as_ref(), Made::Claim(token), name);
                return Ok(claim);
            }
        }
        let expected = before
            .clone()
            .map(|task| transition(task, Event::Claim { until }, now).map(|change| change.task));
        match (&claim, expected) {
            (ClaimResult::Granted(granted), Some(Ok(expected))) => {
                self.expect(
                    *granted == expected && after.as_ref() == Some(granted),
                    name,
                    "a claim was granted, but is not stored",
                );
                let is_gathered = |held: &Held| held.reason == HeldReason::Batching;
                let was_gathered = matches!(before.map(|task| task.state), Some(State::Waiting(Waiting::Held(held))) if is_gathered(&held));
                self.note_grant(granted, was_gathered);
                self.note_made(call, Made::Claim(granted.token));
            }
            (ClaimResult::Refused(refused, found), Some(Err(expected))) => {
                let is_right = *refused == expected
                    && before.as_ref() == Some(found)
                    && is_untouched(before.as_ref(), after.as_ref());
                self.expect(
                    is_right,
                    name,
                    "a claim was refused for another reason than the lifecycle gives",
                );
            }
            (ClaimResult::Missing, None) => {}
            (ClaimResult::Granted(_), _) => {
                self.expect(false, name, "a claim was granted that the lifecycle refuses");
            }
            _ => self.expect(false, name, "a claim was refused that the lifecycle grants"),
        }
        Ok(claim)
    }

    async fn commit(&self, change: Change, now: Timestamp) -> Result<CommitResult, StoreError> {
        let name = change.task.key();
        let (before, call) = (self.look(&name), self.stage.calls.announced());
        let made = self.made_before(call);
        let committed = at_once(self.inner.store.commit(change.clone(), now))?;
        let after = self.look(&name);
        if let Some(made) = made {
            self.check_repeated(
                matches!(committed, CommitResult::Done(_)),
                before.as_ref(),
                after.as_ref(),
                made,
                &name,
            );
            return Ok(committed);
        }
        match &committed {
            CommitResult::Done(written) => {
                self.expect(
                    **written == change.task,
                    &name,
                    "the change reported as done is not the requested one",
                );
                self.check_commit(&change, before.as_ref(), after.as_ref());
                self.note_made(call, Made::Version(change.task.version));
            }
            CommitResult::Conflict => {
                // In memory, the read before can itself have handed over the task.
                let is_stale = [&before, &after]
                    .iter()
                    .any(|task| task.as_ref().map(|task| task.version) != Some(change.read_version));
                self.expect(
                    is_stale && is_untouched(before.as_ref(), after.as_ref()),
                    &name,
                    "a conflict was reported without one, or the refused change was written",
                );
            }
        }
        Ok(committed)
    }

    async fn heartbeat(
        &self,
        name: &TaskKey,
        token: u64,
        until: Timestamp,
        progress: Option<Json>,
    ) -> Result<Heartbeat, StoreError> {
        let before = self.look(name);
        let beat = at_once(self.inner.store.heartbeat(name, token, until, progress))?;
        let after = self.look(name);
        let cancel = before.as_ref().and_then(|task| match &task.state {
            State::Running(lease) if task.token == token => Some(lease.cancel),
            _ => None,
        });
        match (beat, cancel) {
            (Heartbeat::Renewed { cancel: told }, Some(cancel)) => {
                let is_renewed = after
                    .is_some_and(|task| matches!(task.state, State::Running(lease) if lease.until == until));
                self.expect(
                    told == cancel && is_renewed,
                    name,
                    "a lease was not renewed, or a cancellation not reported",
                );
            }
            (Heartbeat::Lost, None) => {
                self.expect(
                    is_untouched(before.as_ref(), after.as_ref()),
                    name,
                    "a heartbeat without a lease wrote something",
                );
            }
            (Heartbeat::Renewed { .. }, None) => {
                self.expect(false, name, "a lease was renewed with a stale token");
            }
            (Heartbeat::Lost, Some(_)) => self.expect(false, name, "a valid lease was reported as lost"),
        }
        Ok(beat)
    }

    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError> {
        let page = self.inner.store.list(query, now).await?;
        for task in &page.tasks {
            let is_so = self.look(&task.key()).is_some_and(|now| {
                let is_same = (now.version, &now.state) == (task.version, &task.state);
                // In memory, the call to `list` then hands over the due tasks.
                let is_handed_over =
                    matches!((&task.state, &now.state), (State::Waiting(_), State::Running(_)))
                        && now.version == task.version + 1
                        && now.token == task.token + 1;
                is_same || is_handed_over
            });
            self.expect(is_so, &task.key(), "a list shows a task in another state than stored");
        }
        Ok(page)
    }

    async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError> {
        let due = at_once(self.inner.store.due(limit, now))?;
        for task in &due {
            let is_so = is_untouched(Some(task), self.look(&task.key()).as_ref());
            self.expect(is_so, &task.key(), "the sweep got a task in another state than stored");
        }
        Ok(due)
    }

    async fn postpone(&self, task: &Task, until: Timestamp) -> Result<(), StoreError> {
        let before = self.look(&task.key());
        at_once(self.inner.store.postpone(task, until))?;
        let after = self.look(&task.key());
        self.expect(
            is_untouched(before.as_ref(), after.as_ref()),
            &task.key(),
            "a postponement changed the task",
        );
        Ok(())
    }

    async fn waiting(&self, tenant: &Tenant, at_most: usize) -> Result<usize, StoreError> {
        self.inner.store.waiting(tenant, at_most).await
    }

    async fn prune(&self, limit: usize, now: Timestamp) -> Result<usize, StoreError> {
        self.inner.store.prune(limit, now).await
    }

    async fn changed(&self, name: &TaskKey) {
        self.inner.store.changed(name).await;
    }

    async fn ready(&self, now: Timestamp) -> Result<(), StoreError> {
        self.inner.store.ready(now).await
    }
}

#[async_trait]
impl Queue for Witness {
    async fn send(&self, hints: Vec<Hint>) -> Result<(), StoreError> {
        self.inner.queue.send(hints).await
    }

    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, StoreError> {
        let deliveries = self.inner.queue.receive(max).await?;
        for delivery in &deliveries {
            if let Delivery::Claimed(task) = delivery {
                let current = self.look(&task.key());
                let is_claimed = current.is_some_and(|current| current.token >= task.token);
                self.expect(is_claimed, &task.key(), "the claim of a delivered task is not stored");
                self.note_grant(task, false);
            }
        }
        if deliveries.len() > max {
            self.stage
                .violate(format!("{} deliveries, although at most {max} were requested", deliveries.len()));
        }
        Ok(deliveries)
    }

    async fn settle(&self, settlements: Vec<(Receipt, Settlement)>) -> Result<(), StoreError> {
        self.inner.queue.settle(settlements).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.inner.queue.ready().await
    }
}
