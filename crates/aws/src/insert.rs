//! Tasks come in.

use futures_util::future::try_join_all;
use nobat_core::ports::{Inserted, StoreError};
use nobat_core::task::Task;
use nobat_core::time::Timestamp;

use crate::expression::Expression;
use crate::item::{self, Item, moment, op, payload_apart};
use crate::store::new_op;
use crate::table::{Table, Written};

impl Table {
    /// One conditional write, or one transaction of them: that nothing is there under these ids is the whole of the deduplication.
    pub(crate) async fn insert(&self, tasks: Vec<Task>, now: Timestamp) -> Result<Inserted, StoreError> {
        try_join_all(tasks.iter().map(|task| self.write_payload(task, now))).await?;
        let own = new_op();
        let items: Vec<Item> = tasks.iter().map(|task| item::whole(task, &own, now)).collect();
        let refused = match <[Item; 1]>::try_from(items) {
            Ok([item]) => match self.put(item, self.absent(now)).await? {
                Written::Done(_) => Vec::new(),
                Written::Refused(found) => vec![found],
            },
            Err(items) => self.insert_all(items, &own, now).await?,
        };
        if refused.is_empty() {
            return Ok(Inserted::Created(tasks));
        }
        self.existing(&tasks, refused, now).await.map(Inserted::Existing)
    }

    async fn insert_all(&self, items: Vec<Item>, own: &str, now: Timestamp) -> Result<Vec<Item>, StoreError> {
        let condition = self.absent(now);
        let writes = items.into_iter().map(|item| self.put_write(item, &condition)).collect::<Result<_, _>>()?;
        let refused = self.transact(writes, own).await?.err().unwrap_or_default();
        // Written by this transaction, whose answer was lost.
        Ok(if refused.iter().any(|found| op(found) == Some(own)) { Vec::new() } else { refused })
    }

    /// There is no task, or one that was ended longer ago than tasks are kept.
    fn absent(&self, now: Timestamp) -> Expression {
        Expression::default().when("attribute_not_exists(#PK) OR #ended_at <= :kept").value("kept", moment(now - self.retention))
    }

    /// The tasks that are there already. What was written for those that were not to be, goes.
    async fn existing(&self, tasks: &[Task], found: Vec<Item>, now: Timestamp) -> Result<Vec<Task>, StoreError> {
        let existing: Vec<_> = found.iter().map(item::read).collect::<Result<_, _>>()?;
        let is_named = |task: &&Task| {
            let named = existing.iter().find(|read| read.task.id == task.id);
            named.is_some_and(|read| read.payload == payload_apart(task))
        };
        let orphans = tasks.iter().filter(|task| payload_apart(task).is_some() && !is_named(task));
        try_join_all(orphans.map(|task| self.orphan_payload(task, now))).await?;
        try_join_all(existing.into_iter().map(|read| self.complete(read))).await
    }
}
