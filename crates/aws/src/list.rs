//! Lists of tasks, merged from the sixteen partitions of an index.

use std::collections::{HashMap, HashSet, VecDeque};

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::try_join_all;
use nobat_core::ports::{ListQuery, Page, Position, StoreError};
use nobat_core::task::Task;
use nobat_core::types::id::TaskId;
use nobat_core::types::time::Timestamp;

use crate::error::{Unreadable, failed};
use crate::item::{self, Item, text};
use crate::keys::{self, IndexKey};
use crate::table::Table;

/// Number of index keys that a page with filters reads at a time.
const READ_AT_ONCE: usize = 100;
/// Number of keys in the first query of an index partition. All 16 partitions together return enough keys for
/// most pages.
const FIRST_KEYS: usize = 16;
/// Number of keys in each further query of an index partition.
const MORE_KEYS: usize = 125;

/// Read position in one partition of the index.
struct Shard {
    number: u8,
    /// Keys that were read but not used yet.
    keys: VecDeque<Item>,
    /// Key after which the next query starts.
    after: Option<Item>,
    /// True if the partition was read to its end.
    is_done: bool,
}

impl Table {
    /// Returns one page: reads keys in order, then the tasks that pass the filters.
    ///
    /// The index lags behind the table, so a task that was just accepted can be missing.
    pub(crate) async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<Page, StoreError> {
        let mut shards: Vec<Shard> = (0..keys::SHARDS)
            .map(|number| Shard { number, keys: VecDeque::new(), after: None, is_done: false })
            .collect();
        let mut page = Page { tasks: Vec::new(), next: None };
        let mut looked_at = 0;
        loop {
            let wanted = if is_filtered(query) { READ_AT_ONCE } else { query.limit - page.tasks.len() };
            let room = wanted.min(ListQuery::MAX_SCANNED - looked_at);
            let keys = self.next_keys(&mut shards, query, room).await?;
            if keys.is_empty() {
                page.next = if room == 0 { page.next } else { None };
                return Ok(page);
            }
            for (position, task) in self.read_listed(&keys, query).await? {
                looked_at += 1;
                page.next = Some(position);
                page.tasks.extend(task.filter(|task| query.matches(task, now) && self.is_kept(task, now)));
                if page.tasks.len() == query.limit {
                    return Ok(page);
                }
            }
        }
    }

    /// Returns the next keys of all partitions, newest first.
    async fn next_keys(
        &self,
        shards: &mut [Shard],
        query: &ListQuery,
        count: usize,
    ) -> Result<Vec<String>, StoreError> {
        let mut next = Vec::new();
        while next.len() < count {
            let wanting = shards.iter_mut().filter(|shard| shard.keys.is_empty() && !shard.is_done);
            try_join_all(wanting.map(|shard| self.refill(shard, query))).await?;
            let place =
                |shard: &Shard| shard.keys.front().and_then(|key| key.get("place")?.as_s().ok().cloned());
            let Some(newest) =
                shards.iter_mut().max_by_key(|shard| place(shard)).filter(|shard| !shard.keys.is_empty())
            else {
                break;
            };
            next.extend(newest.keys.pop_front().and_then(|mut key| match key.remove("place") {
                Some(AttributeValue::S(place)) => Some(place),
                _ => None,
            }));
        }
        Ok(next)
    }

    async fn refill(&self, shard: &mut Shard, query: &ListQuery) -> Result<(), StoreError> {
        let limit = if shard.after.is_none() { FIRST_KEYS } else { MORE_KEYS };
        let (from, to) = bounds(query);
        if from >= to {
            shard.is_done = true;
            return Ok(());
        }
        let find =
            self.client.query().table_name(&self.name).index_name(keys::RECENT).scan_index_forward(false);
        let find = find.key_condition_expression("#recent = :recent AND #place BETWEEN :from AND :to");
        let find = find
            .expression_attribute_names("#recent", "recent")
            .expression_attribute_names("#place", "place");
        let find =
            find.expression_attribute_values(":recent", text(keys::recent(&query.tenant, shard.number)));
        let find = find
            .expression_attribute_values(":from", text(from))
            .expression_attribute_values(":to", text(to));
        let find =
            find.set_exclusive_start_key(shard.after.take()).limit(i32::try_from(limit).unwrap_or(i32::MAX));
        let found = find.send().await.map_err(failed)?;
        shard.keys.extend(found.items.unwrap_or_default());
        shard.is_done = found.last_evaluated_key.is_none();
        shard.after = found.last_evaluated_key;
        Ok(())
    }

    /// Returns the tasks of these index keys, in order. A task whose queue or kind does not match is not read
    /// and gives `None`.
    async fn read_listed(
        &self,
        places: &[String],
        query: &ListQuery,
    ) -> Result<Vec<(Position, Option<Task>)>, StoreError> {
        let places: Vec<IndexKey<'_>> = places.iter().filter_map(|place| IndexKey::read(place)).collect();
        let passing = places.iter().filter(|place| passes(place, query)).map(IndexKey::id);
        let passing: HashSet<TaskId> = passing.collect::<Result<_, _>>()?;
        let keys = passing
            .into_iter()
            .map(|id| item::key(&nobat_core::task::TaskKey { tenant: query.tenant.clone(), id }).into());
        let mut tasks: HashMap<TaskId, Task> = HashMap::new();
        for found in self.read_many(keys.collect()).await? {
            let task = item::read(&found)?.task;
            tasks.insert(task.id, task);
        }
        places
            .iter()
            .map(|place| Ok((Position(place.position.to_owned()), tasks.remove(&place.id()?))))
            .collect()
    }
}

impl IndexKey<'_> {
    fn id(&self) -> Result<TaskId, Unreadable> {
        self.position.get(keys::MOMENT_DIGITS..).and_then(|id| id.parse().ok()).ok_or(Unreadable("place"))
    }
}

/// Returns true if the query has filters, so that it can read more tasks than it returns.
fn is_filtered(query: &ListQuery) -> bool {
    query.status.is_some() || query.queue.is_some() || query.kind.is_some()
}

fn passes(place: &IndexKey<'_>, query: &ListQuery) -> bool {
    query.queue.as_ref().is_none_or(|queue| queue.as_str() == place.queue)
        && query.kind.as_ref().is_none_or(|kind| kind.as_str() == place.kind)
}

/// Returns the range of index keys to read, both ends included. The end is a position, without queue and
/// kind. The index key at that position is longer and sorts after the end, so the range does not include this
/// key.
fn bounds(query: &ListQuery) -> (String, String) {
    let from = query.created_after.map_or_else(String::new, keys::moment);
    // A tilde sorts after every character of an index key.
    let before = query.created_before.map_or_else(|| "~".to_owned(), keys::moment);
    let after = query.after.as_ref().map_or_else(|| "~".to_owned(), |position| position.0.clone());
    (if from.is_empty() { "0".to_owned() } else { from }, before.min(after))
}
