//! Keys of the table's items, and sweep times: the times at which the sweeper must check tasks.

use std::time::Duration;

use nobat_core::auth::audit::Entry;
use nobat_core::config::record::{RecordKind, RecordName};
use nobat_core::limits::LimitScope;
use nobat_core::task::{Outcome, State, Task, TaskKey};
use nobat_core::types::id::TaskId;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;

/// Sort key of a task's own item.
pub(crate) const TASK: &str = "task";

/// Index of the tasks that have not ended, by sweep time, and of failed tasks.
pub(crate) const SWEEP: &str = "sweep";

/// Index of all tasks, by creation time.
pub(crate) const RECENT: &str = "recent";

/// Number of partitions of each index. One partition of an index takes about 1,000 writes per second.
pub(crate) const SHARDS: u8 = 16;

/// Maximum delay of a message, the limit of `DelaySeconds` in Amazon SQS. The sweeper sends the hints of
/// tasks that are due later.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_mins(15);

/// Time between a task's due time and its sweep time. If no hint was sent, the sweeper sends a hint this long
/// before the due time. If a hint was sent, the sweeper checks the task this long after the due time.
const MARGIN: Duration = Duration::from_mins(2);

/// Returns the partition key of all items of a task.
pub(crate) fn partition(name: &TaskKey) -> String {
    format!("T#{}#{}", name.tenant, name.id)
}

/// Returns the common prefix of the partition keys of a tenant's tasks.
pub(crate) fn partitions(tenant: &Tenant) -> String {
    format!("T#{tenant}#")
}

/// Partition key of the records of the whole installation.
pub(crate) const RECORDS: &str = "C#";

/// Returns the partition key of a tenant's records, or of the installation's records if `tenant` is `None`.
/// The keys differ, because no tenant has an empty name.
pub(crate) fn records(tenant: Option<&Tenant>) -> String {
    format!("{RECORDS}{}", tenant.map_or("", Tenant::as_str))
}

/// Sort key of the encrypted master key, among the records.
pub(crate) const DATA_KEY: &str = "data_key";

/// Partition key and sort key of the item that the readiness check writes.
pub(crate) const READY: &str = "ready";

/// Returns the sort key of a record.
pub(crate) fn record(name: &RecordName) -> String {
    format!("{}#{}", name.kind.as_str(), name.name)
}

/// Returns the range of sort keys of the records of one kind after a name. `!` sorts before all characters of
/// a name, and `$` directly after `#`.
pub(crate) fn records_after(kind: RecordKind, after: Option<&Name>) -> (String, String) {
    let kind = kind.as_str();
    (after.map_or_else(|| format!("{kind}#"), |after| format!("{kind}#{after}!")), format!("{kind}$"))
}

/// Returns the partition key of a tenant's audit trail.
pub(crate) fn audit(tenant: &Tenant) -> String {
    format!("A#{tenant}")
}

/// Returns the sort key of an audit entry, which begins with its time.
pub(crate) fn entry(entry: &Entry) -> String {
    format!("{}#{:016x}", moment(entry.at), entry.mark)
}

/// Returns the partition key of a tenant's limiters and of its token bucket.
pub(crate) fn limiter(tenant: &Tenant) -> String {
    format!("F#{tenant}")
}

/// Sort key of a tenant's token bucket.
pub(crate) const REQUESTS: &str = "requests";

/// Returns the sort key of a limiter, in the partition [`limiter`].
pub(crate) fn limiter_sort_key(of: &LimitScope) -> String {
    format!("limiter#{of}")
}

/// Parses the result of [`partition`].
pub(crate) fn name(partition: &str) -> Option<TaskKey> {
    let (tenant, id) = partition.strip_prefix("T#")?.split_once('#')?;
    Some(TaskKey { tenant: Tenant::new(tenant).ok()?, id: id.parse().ok()? })
}

/// Returns the sort key of a payload's overflow item: the creation time of the task, and the payload's
/// SHA-256 in hex.
///
/// The time distinguishes tasks with the same id: a client can use an idempotency key again after the task of
/// that key was deleted.
pub(crate) fn payload(created_at: Timestamp, sha256: &str) -> String {
    format!("payload#{}#{sha256}", created_at.millis())
}

/// Returns the sort key of a result's overflow item, with the fencing token of the attempt.
pub(crate) fn result(token: u64) -> String {
    format!("result#{token}")
}

/// Returns the shard (number of an index partition) of a task: the last four bits of its id, which are random
/// or part of a hash.
fn shard(id: TaskId) -> u8 {
    id.to_bytes()[15] % SHARDS
}

/// Returns the partition key of [`RECENT`] for one shard of a tenant's tasks.
pub(crate) fn recent(tenant: &Tenant, shard: u8) -> String {
    format!("R#{tenant}#{shard}")
}

/// Returns the partition key of a task in [`RECENT`].
pub(crate) fn recent_of(task: &Task) -> String {
    recent(&task.tenant, shard(task.id))
}

/// Returns the sort key of a task in [`RECENT`]: creation time, id, queue and kind. Lists filter by queue and
/// kind.
pub(crate) fn place(task: &Task) -> String {
    format!("{}#{}#{}", position(task.created_at, task.id), task.queue, task.kind)
}

/// Returns the beginning of a [`place`]: the time in milliseconds with leading zeros, and the id.
fn position(created_at: Timestamp, id: TaskId) -> String {
    format!("{}{id}", moment(created_at))
}

/// Number of digits of a timestamp in a key.
pub(crate) const MOMENT_DIGITS: usize = 15;

/// Formats a timestamp so that text order is time order.
pub(crate) fn moment(at: Timestamp) -> String {
    format!("{:0MOMENT_DIGITS$}", at.millis())
}

/// A parsed [`place`].
pub(crate) struct IndexKey<'a> {
    /// Part of the index key before the queue and the kind. Unique for each task.
    pub(crate) position: &'a str,
    /// Name of the queue.
    pub(crate) queue: &'a str,
    /// Name of the kind.
    pub(crate) kind: &'a str,
}

impl<'a> IndexKey<'a> {
    /// Parses the result of [`place`].
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split('#');
        Some(Self { position: parts.next()?, queue: parts.next()?, kind: parts.next()? })
    }
}

/// Returns the partition key of [`SWEEP`] for one shard of the tasks that have not ended.
pub(crate) fn due(shard: u8) -> String {
    format!("due#{shard}")
}

/// Effect of a write on a task's entry in [`SWEEP`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SweepIndex {
    /// The entry stays unchanged.
    Left,
    /// The entry is removed.
    Removed,
    /// The entry gets this partition key and this sweep time.
    At(String, Timestamp),
}

/// Returns the effect on [`SWEEP`] of writing a task in this state.
pub(crate) fn sweep(task: &Task, now: Timestamp) -> SweepIndex {
    match &task.state {
        // A claim leaves the entry unchanged, which saves a write: most tasks end before their sweep time.
        State::Running(_) => SweepIndex::Left,
        State::Waiting(_) => SweepIndex::At(due(shard(task.id)), mark(task, now)),
        State::Ended(ended) if ended.end == Outcome::Failed => {
            SweepIndex::At(format!("failed#{}#{}", task.tenant, shard(task.id)), ended.at)
        }
        State::Ended(_) => SweepIndex::Removed,
    }
}

/// Returns the latest permitted sweep time of a task whose lease expires at `until`. A later sweep time would
/// delay the retry after a worker's death.
pub(crate) fn mark_of_a_lease(until: Timestamp) -> Timestamp {
    until + MARGIN
}

/// Returns the sweep time of a waiting task. If the hint was sent, the sweep time is [`MARGIN`] after the due
/// time. Otherwise it is [`MARGIN`] before the due time, and the sweeper then sends the hint. If the deadline
/// of the task is earlier, the deadline is the sweep time.
fn mark(task: &Task, now: Timestamp) -> Timestamp {
    let is_hinted = task.due_at.since(now) <= LONGEST_DELAY;
    let mark = if is_hinted { task.due_at + MARGIN } else { task.due_at - MARGIN };
    task.options.expires_at.map_or(mark, |deadline| deadline.min(mark))
}
