//! The task store.

use async_trait::async_trait;
use nobat_core::json::Json;
use nobat_core::ports::{
    ClaimResult, CommitResult, Heartbeat, InsertResult, ListQuery, Page, QueueLoad, StoreError, TaskStore,
};
use nobat_core::task::lifecycle::{Change, Event, transition};
use nobat_core::task::{CancelRequest, State, Task, TaskKey, Waiting};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;

use crate::expression::Expression;
use crate::item::{Item, expiry, moment, number, result_apart, text};
use crate::keys::SweepIndex;
use crate::table::{Table, WriteOutcome};
use crate::{item, keys};

/// Returns a unique id for one write.
pub(crate) fn new_op() -> String {
    format!("{:016x}", rand::random::<u64>())
}

#[async_trait]
impl TaskStore for Table {
    async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<InsertResult, StoreError> {
        Table::insert(self, tasks, now).await
    }

    async fn get(&self, name: &TaskKey, now: Timestamp) -> Result<Option<Task>, StoreError> {
        let Some(found) = self.read(item::key(name)).await? else { return Ok(None) };
        let read = item::read(&found)?;
        if self.is_kept(&read.task, now) { self.complete(read).await.map(Some) } else { Ok(None) }
    }

    /// Claims a task in one conditional write. The condition repeats the claim rule of
    /// `lifecycle::transition`. The conformance suite checks that the condition and the rule agree.
    async fn claim(
        &self,
        name: &TaskKey,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<ClaimResult, StoreError> {
        let own = new_op();
        let claim = Expression::default()
            .set("status", text("running"))
            .set("lease_until", moment(until))
            .set("started_at", moment(now))
            .set("op", text(&own))
            .count("token")
            .count("attempt")
            .count("version")
            .remove("held")
            .when(
                "#status IN (:scheduled, :retrying, :held) AND (#due_at <= :now OR #held = :batching) \
                 AND (attribute_not_exists(#deadline) OR #deadline > :now)",
            )
            .value("scheduled", text("scheduled"))
            .value("retrying", text("retrying"))
            .value("held", text("held"))
            .value("batching", text(HeldReason::Batching.as_str()))
            .value("now", moment(now));
        match self.update(item::key(name), claim, Some(&own)).await? {
            WriteOutcome::Done(item) => self.granted(&item, until, now).await.map(ClaimResult::Granted),
            WriteOutcome::Refused(item) if item.is_empty() => Ok(ClaimResult::Missing),
            WriteOutcome::Refused(item) => self.refused(item::read(&item)?.task, until, now),
        }
    }

    async fn commit(&self, change: Change, now: Timestamp) -> Result<CommitResult, StoreError> {
        self.write_bodies(&change, now).await?;
        let own = new_op();
        let update = self.change(&change, &own, now);
        let is_written = if change.callback.is_none() && change.entry.is_none() {
            matches!(
                self.update(item::key(&change.task.key()), update, Some(&own)).await?,
                WriteOutcome::Done(_)
            )
        } else {
            self.commit_all(&change, &update, &own, now).await?
        };
        if !is_written {
            if let Some(follow_up) = &change.callback {
                self.orphan_payload(follow_up, now).await?;
            }
            return Ok(CommitResult::Conflict);
        }
        if matches!(change.task.state, State::Ended(_))
            && let Err(error) = self.end_payload(&change.task, now).await
        {
            // If the expiry is not set, the payload stays in the table. This has no other effect.
            tracing::warn!(task = %change.task.id, %error, "the expiry of a payload was not set; the payload stays in the table after its task is deleted");
        }
        Ok(CommitResult::Done(Box::new(change.task)))
    }

    async fn heartbeat(
        &self,
        name: &TaskKey,
        token: u64,
        until: Timestamp,
        progress: Option<Json>,
    ) -> Result<Heartbeat, StoreError> {
        let beat = Expression::default().set("lease_until", moment(until)).count("version");
        let beat = progress.iter().fold(beat, |beat, progress| beat.set("progress", text(progress.get())));
        let beat = beat
            .when("#token = :token AND #status = :running")
            .value("token", number(token))
            .value("running", text("running"));
        // A repeated heartbeat does no harm, so it needs no id.
        match self.update(item::key(name), beat, None).await? {
            WriteOutcome::Refused(_) => Ok(Heartbeat::Lost),
            WriteOutcome::Done(item) if item.contains_key("cancel") => {
                Ok(Heartbeat::Renewed { cancel: CancelRequest::Requested })
            }
            WriteOutcome::Done(_) => Ok(Heartbeat::Renewed { cancel: CancelRequest::None }),
        }
    }

    async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError> {
        let _turn = self.list_turns.turn(&query.tenant).await?;
        Table::list(self, query, now).await
    }

    /// Reads the index entries of all tenants, so callers must call this function rarely.
    async fn waiting(&self, tenant: &Tenant, at_most: usize) -> Result<usize, StoreError> {
        Table::waiting(self, tenant, at_most).await
    }

    async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError> {
        Table::due(self, limit, now).await
    }

    async fn postpone(&self, task: &Task, until: Timestamp) -> Result<(), StoreError> {
        let change = Expression::default().set("sweep_at", moment(until));
        let change = change
            .when("#version = :version AND attribute_exists(#sweep_at)")
            .value("version", number(task.version));
        self.update(item::key(&task.key()), change, None).await.map(drop)
    }

    /// Does nothing: TTL removes items with `expires_at`.
    async fn prune(&self, _limit: usize, _now: Timestamp) -> Result<usize, StoreError> {
        Ok(0)
    }

    /// Never resolves: the table does not report writes.
    async fn changed(&self, _name: &TaskKey) {
        std::future::pending::<()>().await;
    }

    async fn ready(&self, now: Timestamp) -> Result<(), StoreError> {
        Table::ready(self, now).await
    }

    fn load(&self) -> Vec<QueueLoad> {
        vec![self.list_turns.load()]
    }
}

impl Table {
    /// Returns true if the task is within its retention. TTL deletes expired tasks up to days late, so reads
    /// hide them.
    pub(crate) fn is_kept(&self, task: &Task, now: Timestamp) -> bool {
        task.finished_at().is_none_or(|ended| ended + self.retention > now)
    }

    /// Returns a claimed task with its payload. If the payload cannot be read, gives the claim back.
    async fn granted(&self, item: &Item, until: Timestamp, now: Timestamp) -> Result<Task, StoreError> {
        let read = item::read(item)?;
        let task = read.task.clone();
        match self.complete(read).await {
            Ok(task) => {
                self.draw_in(item, &task, until).await;
                Ok(task)
            }
            Err(error) => {
                self.release(task, now).await;
                Err(error)
            }
        }
    }

    /// Sets an earlier sweep time if the present sweep time is late. Otherwise the sweeper could notice a
    /// worker's death up to an hour late.
    async fn draw_in(&self, item: &Item, task: &Task, until: Timestamp) {
        let latest = keys::mark_of_a_lease(until);
        if item::sweep_at(item).is_some_and(|mark| mark > latest)
            && let Err(error) = self.postpone(task, latest).await
        {
            tracing::warn!(task = %task.id, %error, "the sweep time of a running task could not be set to an earlier time; if the worker dies, the task is retried late");
        }
    }

    /// Gives back the claim of a task whose payload could not be read, so that the claim costs no attempt. If
    /// this write fails too, the lease expires.
    async fn release(&self, task: Task, now: Timestamp) {
        let (name, token) = (task.key(), task.token);
        let Ok(change) = transition(task, Event::Release { token }, now) else { return };
        let own = new_op();
        if let Err(error) = self.update(item::key(&name), self.change(&change, &own, now), Some(&own)).await {
            tracing::warn!(task = %name.id, %error, "the claim of a task could not be released; the task starts after the lease has expired");
        }
    }

    /// Returns the lifecycle's reason for a refused claim.
    fn refused(&self, task: Task, until: Timestamp, now: Timestamp) -> Result<ClaimResult, StoreError> {
        if !self.is_kept(&task, now) {
            return Ok(ClaimResult::Missing);
        }
        match transition(task.clone(), Event::Claim { until }, now) {
            Err(refused) => Ok(ClaimResult::Refused(refused, task)),
            // Only reached if the condition of `claim` and the lifecycle disagree.
            Ok(_) => {
                Err(StoreError::Corrupt("the table refused a claim that the lifecycle allows".to_owned()))
            }
        }
    }

    /// Writes the overflow items that the change refers to.
    async fn write_bodies(&self, change: &Change, now: Timestamp) -> Result<(), StoreError> {
        if let (Some(apart), Some(result)) = (result_apart(&change.task), &change.task.result) {
            self.write_result(&change.task.key(), &apart, result, now).await?;
        }
        if let Some(follow_up) = &change.callback {
            self.write_payload(follow_up).await?;
        }
        if is_replay(&change.task) {
            self.keep_payload(&change.task).await?;
        }
        Ok(())
    }

    /// Returns the update of the task's item. The update's condition is that the item still has the version
    /// that was read.
    fn change(&self, change: &Change, own: &str, now: Timestamp) -> Expression {
        let task = &change.task;
        let apart = result_apart(task);
        let inline = task.result.as_ref().filter(|_| apart.is_none()).map(|result| text(result.get()));
        let expires_at = task.finished_at().map(|ended| number(expiry(ended + self.retention)));
        let mut update = Expression::default().write(item::changing(task, own));
        for (name, value) in [
            ("result", inline),
            ("result_key", apart.map(|apart| text(apart.key))),
            ("expires_at", expires_at),
        ] {
            update = match value {
                Some(value) => update.set(name, value),
                None => update.remove(name),
            };
        }
        update = match keys::sweep(task, now) {
            SweepIndex::Left => update,
            SweepIndex::Removed => update.remove("sweep").remove("sweep_at"),
            SweepIndex::At(partition, mark) => {
                update.set("sweep", text(partition)).set("sweep_at", moment(mark))
            }
        };
        update.when("#version = :read_version").value("read_version", number(change.read_version))
    }

    /// Writes a change with its callback and audit entry in one transaction.
    async fn commit_all(
        &self,
        change: &Change,
        update: &Expression,
        own: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let absent = Expression::default().when("attribute_not_exists(#PK)");
        let mut writes = vec![self.update_write(item::key(&change.task.key()), update)?];
        if let Some(follow_up) = &change.callback {
            writes.push(self.put_write(item::whole(follow_up, own, now), &absent)?);
        }
        if let Some(entry) = &change.entry {
            writes.push(self.put_write(self.entry_item(entry, own), &absent)?);
        }
        match self.transact(writes, own).await? {
            Ok(()) => Ok(true),
            // An earlier try of this transaction made the writes, and its response was lost.
            Err(refused) => Ok(refused.iter().any(|found| item::op(found) == Some(own))),
        }
    }
}

/// Returns true if this write is a replay. The payload of the ended task has an expiry, which must be
/// removed.
fn is_replay(task: &Task) -> bool {
    matches!(task.state, State::Waiting(Waiting::Scheduled))
        && task.generation > 1
        && task.attempt == 0
        && task.due_at == task.generation_at
}
