//! Queries for the sweeper and for pending quotas.

use aws_sdk_dynamodb::types::Select;
use futures_util::future::try_join_all;
use nobat_core::ports::StoreError;
use nobat_core::task::{State, Task};
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;

use crate::error::failed;
use crate::item::{self, Item, moment, text};
use crate::keys;
use crate::table::Table;

impl Table {
    /// Returns tasks whose sweep time has come, without the payloads and results that are in overflow items.
    ///
    /// The index may lag behind the table, so the tasks are read from the table before they are returned.
    pub(crate) async fn due(&self, limit: usize, now: Timestamp) -> Result<Vec<Task>, StoreError> {
        let mut marked: Vec<Item> =
            try_join_all((0..keys::SHARDS).map(|shard| self.marked(shard, limit, now))).await?.concat();
        marked.sort_by_key(item::sweep_at);
        marked.truncate(limit);
        let keys = marked.into_iter().map(|mut item| {
            item.retain(|name, _| name == "PK" || name == "SK");
            item
        });
        let found = self.read_many(keys.collect()).await?;
        let tasks = found
            .iter()
            .filter(|item| item::sweep_at(item).is_some_and(|mark| mark <= now))
            .filter_map(readable);
        Ok(tasks.filter(|task| !matches!(task.state, State::Ended(_))).collect())
    }

    /// Counts a tenant's tasks that have not ended, up to `at_most`. Running tasks are included.
    pub(crate) async fn waiting(&self, tenant: &Tenant, at_most: usize) -> Result<usize, StoreError> {
        let mut count = 0;
        for shard in 0..keys::SHARDS {
            let mut after = None;
            while count < at_most {
                let find =
                    self.client.query().table_name(&self.name).index_name(keys::SWEEP).select(Select::Count);
                let find = find
                    .key_condition_expression("#sweep = :due")
                    .filter_expression("begins_with(#PK, :tenant)");
                let find = find
                    .expression_attribute_names("#sweep", "sweep")
                    .expression_attribute_names("#PK", "PK");
                let find = find.expression_attribute_values(":due", text(keys::due(shard)));
                let find = find.expression_attribute_values(":tenant", text(keys::partitions(tenant)));
                let found = find.set_exclusive_start_key(after).send().await.map_err(failed)?;
                count += usize::try_from(found.count).unwrap_or(0);
                after = found.last_evaluated_key;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(count.min(at_most))
    }

    /// Returns the keys of the tasks whose sweep time has come, from one partition of the index, oldest
    /// first.
    async fn marked(&self, shard: u8, limit: usize, now: Timestamp) -> Result<Vec<Item>, StoreError> {
        let find = self.client.query().table_name(&self.name).index_name(keys::SWEEP);
        let find = find.key_condition_expression("#sweep = :due AND #sweep_at <= :now");
        let find = find
            .expression_attribute_names("#sweep", "sweep")
            .expression_attribute_names("#sweep_at", "sweep_at");
        let find = find
            .expression_attribute_values(":due", text(keys::due(shard)))
            .expression_attribute_values(":now", moment(now));
        let found = find.limit(i32::try_from(limit).unwrap_or(i32::MAX)).send().await.map_err(failed)?;
        Ok(found.items.unwrap_or_default())
    }
}

/// Returns the task of an item, or `None` if the item cannot be read. So an unreadable item does not block
/// the other tasks.
fn readable(item: &Item) -> Option<Task> {
    let read = item::read(item);
    if let Err(error) = &read {
        tracing::error!(%error, key = item.get("PK").and_then(|key| key.as_s().ok()), "the item of a task cannot be read; the sweeper skips the task");
    }
    read.ok().map(|read| read.task)
}
