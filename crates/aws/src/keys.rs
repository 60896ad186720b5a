//! Where things stand in the table, and when the sweep must look at them.

use std::time::Duration;

use nobat_core::audit::Entry;
use nobat_core::flow::FlowOf;
use nobat_core::id::TaskId;
use nobat_core::name::{Name, Tenant};
use nobat_core::ports::TaskName;
use nobat_core::registry::{RecordName, Sort};
use nobat_core::task::{End, State, Task};
use nobat_core::time::Timestamp;

/// The sort key of a task's own item.
pub(crate) const TASK: &str = "task";

/// The index of what the sweep must look at, and of dead letters.
pub(crate) const ATTENTION: &str = "attention";

/// The index of all tasks, by creation.
pub(crate) const RECENT: &str = "recent";

/// Over how many partitions each index is spread: one partition of an index takes some 1,000 writes a second.
pub(crate) const SHARDS: u8 = 16;

/// The longest delay of a message: `DelaySeconds` of Amazon SQS ends there. What is due later is left to the sweep.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_mins(15);

/// How long before a task is due the sweep sees to its hint, and how long after that it looks whether a hint was enough.
const MARGIN: Duration = Duration::from_mins(2);

/// The partition key of all that belongs to a task.
pub(crate) fn partition(name: &TaskName) -> String {
    format!("T#{}#{}", name.tenant, name.id)
}

/// How the partition keys of all of a tenant's tasks begin.
pub(crate) fn partitions(tenant: &Tenant) -> String {
    format!("T#{tenant}#")
}

/// The partition of the records of the whole installation.
pub(crate) const RECORDS: &str = "C#";

/// The partition of a tenant's records, or of the installation's: no tenant has a name without a character.
pub(crate) fn records(tenant: Option<&Tenant>) -> String {
    format!("{RECORDS}{}", tenant.map_or("", Tenant::as_str))
}

/// The sort key of the wrapped master key, among the records.
pub(crate) const DATA_KEY: &str = "data_key";

/// Both keys of the item that readiness writes to.
pub(crate) const READY: &str = "ready";

/// The sort key of a record.
pub(crate) fn record(name: &RecordName) -> String {
    format!("{}#{}", name.sort.as_str(), name.name)
}

/// Between which sort keys the records of one sort stand that come after a name: no name has characters below `-` in it.
pub(crate) fn records_after(sort: Sort, after: Option<&Name>) -> (String, String) {
    let sort = sort.as_str();
    (after.map_or_else(|| format!("{sort}#"), |after| format!("{sort}#{after}!")), format!("{sort}$"))
}

/// The partition of a tenant's audit trail.
pub(crate) fn trail(tenant: &Tenant) -> String {
    format!("A#{tenant}")
}

/// Where in its trail an entry stands: by its moment.
pub(crate) fn entry(entry: &Entry) -> String {
    format!("{}#{:016x}", moment(entry.at), entry.mark)
}

/// The partition of what a tenant uses up.
pub(crate) fn flow(tenant: &Tenant) -> String {
    format!("F#{tenant}")
}

/// The sort key of a tenant's bucket of requests.
pub(crate) const REQUESTS: &str = "requests";

/// The sort key of a flow, beside it.
pub(crate) fn flow_of(of: &FlowOf) -> String {
    format!("flow#{of}")
}

/// The opposite of [`partition`].
pub(crate) fn name(partition: &str) -> Option<TaskName> {
    let (tenant, id) = partition.strip_prefix("T#")?.split_once('#')?;
    Some(TaskName { tenant: Tenant::new(tenant).ok()?, id: id.parse().ok()? })
}

/// The sort key of a payload that stands apart: when its task was accepted, and its SHA-256 in hex.
///
/// The moment makes it the task's own. Its id alone does not: an idempotency key can be used again when its task is gone.
pub(crate) fn payload(created_at: Timestamp, sha256: &str) -> String {
    format!("payload#{}#{sha256}", created_at.millis())
}

/// The sort key of a result that stands apart, by the token of the claim that brought it.
pub(crate) fn result(token: u64) -> String {
    format!("result#{token}")
}

/// The last four bits: they are random in ids made from a moment, and a digest's in ids made from a key.
fn shard(id: TaskId) -> u8 {
    id.to_bytes()[15] % SHARDS
}

/// The partition of [`RECENT`] for one shard of a tenant's tasks.
pub(crate) fn recent(tenant: &Tenant, shard: u8) -> String {
    format!("R#{tenant}#{shard}")
}

/// The partition of [`RECENT`] in which a task stands.
pub(crate) fn recent_of(task: &Task) -> String {
    recent(&task.tenant, shard(task.id))
}

/// Where in its partition of [`RECENT`] a task stands: by creation, then by id, with what lists filter by behind that.
pub(crate) fn place(task: &Task) -> String {
    format!("{}#{}#{}", position(task.created_at, task.id), task.queue, task.kind)
}

/// The beginning of a [`place`]: the moment in milliseconds with leading zeros, and the id.
fn position(created_at: Timestamp, id: TaskId) -> String {
    format!("{}{id}", moment(created_at))
}

/// How many digits a moment has.
pub(crate) const MOMENT_DIGITS: usize = 15;

/// A moment, such that text and time have one order.
pub(crate) fn moment(at: Timestamp) -> String {
    format!("{:0MOMENT_DIGITS$}", at.millis())
}

/// A [`place`], taken apart.
pub(crate) struct Place<'a> {
    /// What stands before the queue and the kind; no two tasks have the same.
    pub(crate) position: &'a str,
    /// The queue's name.
    pub(crate) queue: &'a str,
    /// The kind's name.
    pub(crate) kind: &'a str,
}

impl<'a> Place<'a> {
    /// Reads what [`place`] wrote.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split('#');
        Some(Self { position: parts.next()?, queue: parts.next()?, kind: parts.next()? })
    }
}

/// The partition of [`ATTENTION`] for one shard of the tasks that have not ended.
pub(crate) fn due(shard: u8) -> String {
    format!("due#{shard}")
}

/// What a write does to a task's place in [`ATTENTION`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Attention {
    /// It stays where it was.
    Left,
    /// It has no place there any more.
    Removed,
    /// It stands in that partition, at that moment.
    At(String, Timestamp),
}

/// Where a task belongs in [`ATTENTION`] when it is written like this.
pub(crate) fn attention(task: &Task, now: Timestamp) -> Attention {
    match &task.state {
        // A claim leaves the mark where it was: most tasks have ended before it is reached.
        State::Running(_) => Attention::Left,
        State::Waiting(_) => Attention::At(due(shard(task.id)), mark(task, now)),
        State::Ended(ended) if ended.end == End::Failed => Attention::At(format!("failed#{}#{}", task.tenant, shard(task.id)), ended.at),
        State::Ended(_) => Attention::Removed,
    }
}

/// The latest mark that a task may have whose lease holds until then: a worker that dies is missed soon after.
pub(crate) fn mark_of_a_lease(until: Timestamp) -> Timestamp {
    until + MARGIN
}

/// When the sweep must look at a waiting task: some time after its hint must have come, or in time for sending one.
fn mark(task: &Task, now: Timestamp) -> Timestamp {
    let is_hinted = task.due_at.since(now) <= LONGEST_DELAY;
    let mark = if is_hinted { task.due_at + MARGIN } else { task.due_at - MARGIN };
    task.settings.expires_at.map_or(mark, |deadline| deadline.min(mark))
}
