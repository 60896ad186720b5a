//! Insertion of new tasks.

use futures_util::future::try_join_all;
use nobat_core::ports::{InsertResult, StoreError};
use nobat_core::task::Task;
use nobat_core::types::time::Timestamp;

use crate::expression::Expression;
use crate::item::{self, Item, Read, moment, op, payload_apart};
use crate::store::new_op;
use crate::table::{Table, WriteOutcome};

impl Table {
    /// Inserts tasks with one conditional write or one transaction. The condition that no task has the same
    /// id prevents duplicates.
    pub(crate) async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<InsertResult, StoreError> {
        try_join_all(tasks.iter().map(|task| self.write_payload(task))).await?;
        let own = new_op();
        let items: Vec<Item> = tasks.iter().map(|task| item::whole(task, &own, now)).collect();
        let existing = match <[Item; 1]>::try_from(items) {
            Ok([item]) => match self.put(item, self.absent(now)).await? {
                WriteOutcome::Done(_) => None,
                WriteOutcome::Refused(found) => Some(vec![found]),
            },
            Err(items) => self.insert_all(items, &tasks, &own, now).await?,
        };
        match existing {
            None => Ok(InsertResult::Created(tasks)),
            Some(found) => self.existing(&tasks, found, now).await.map(InsertResult::Existing),
        }
    }

    /// Inserts all tasks, or no task if one of them exists already. Returns the existing items.
    async fn insert_all(
        &self,
        items: Vec<Item>,
        tasks: &[Task],
        own: &str,
        now: Timestamp,
    ) -> Result<Option<Vec<Item>>, StoreError> {
        let condition = self.absent(now);
        let writes =
            items.into_iter().map(|item| self.put_write(item, &condition)).collect::<Result<_, _>>()?;
        if self.transact(writes, own).await?.is_ok() {
            return Ok(None);
        }
        // The refusal contains only some of the existing items. Reads all, since another batch with the same
        // idempotency key may have inserted the same tasks.
        let found = self.read_many(tasks.iter().map(|task| item::key(&task.key()).into()).collect()).await?;
        // An earlier try of this transaction made the writes, and its response was lost.
        if found.iter().any(|found| op(found) == Some(own)) {
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// Returns the condition that no task has this id, or only a task whose retention has passed.
    pub(crate) fn absent(&self, now: Timestamp) -> Expression {
        Expression::default()
            .when("attribute_not_exists(#PK) OR #ended_at <= :kept")
            .value("kept", moment(now - self.retention))
    }

    /// Returns the existing tasks. Sets the expiry of payloads that this insertion wrote and no task refers
    /// to.
    async fn existing(
        &self,
        tasks: &[Task],
        found: Vec<Item>,
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        let existing: Vec<Read> = found.iter().map(item::read).collect::<Result<_, _>>()?;
        let existing: Vec<Read> = existing.into_iter().filter(|read| self.is_kept(&read.task, now)).collect();
        if existing.is_empty() {
            return Err(StoreError::Unavailable(
                "the write was refused, because a task with the same id was stored already; that task was deleted before it could be read".to_owned(),
            ));
        }
        let is_named = |task: &Task| {
            existing.iter().any(|read| read.task.id == task.id && read.payload == payload_apart(task))
        };
        try_join_all(tasks.iter().filter(|task| !is_named(task)).map(|task| self.orphan_payload(task, now)))
            .await?;
        try_join_all(existing.into_iter().map(|read| self.complete(read))).await
    }
}
