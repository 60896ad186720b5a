//! Batches: tasks that wait for each other, to go in one request.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::backoff::hold_backoff;
use crate::limits::rate::MAX_RESERVATION_AHEAD;
use crate::types::id::{TaskId, digest};
use crate::types::intervals::LEASE;
use crate::types::jitter_sample::JitterSample;
use crate::types::time::Timestamp;

/// New leader of a batch, because the previous leader left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The task.
    pub id: TaskId,
    /// Time at which the batch is due.
    pub at: Timestamp,
}

/// Task that joins a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchMember {
    /// The task.
    pub id: TaskId,
    /// Size of the task's part of the request, in bytes.
    pub bytes: u64,
    /// Time from which the task must not start.
    pub deadline: Option<Timestamp>,
    /// Number of times in a row that the task was held.
    pub holds: u32,
    /// Random share for the jitter of the task's next try.
    pub jitter: JitterSample,
}

/// Limits of an endpoint's batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// The endpoint's batch settings.
    pub policy: BatchPolicy,
    /// Minimum time between two requests at the endpoint's rate. Zero if the endpoint has no rate.
    pub interval: Duration,
}

/// Decision about a task that joins a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchDecision {
    /// The batch is due, and the task is its leader. The worker acquires permits for the request, then takes
    /// all members ([`crate::limits::state::LimiterState::take_batch`]).
    Lead,
    /// The batch is not due, or has no room for the task. The task joins again at this time, unless a leader
    /// takes the task before.
    Wait(Timestamp),
}

/// Maximum total size of the items of a request, in bytes. Receivers can be expected to accept 1 MiB.
pub const MAX_BATCH_BYTES: u64 = 1024 * 1024;

/// Delay from the batch's due time until the third and later members join again, in case no leader sent the
/// batch.
const FALLBACK: Duration = LEASE;

/// Delay from the batch's due time until the second member joins again. The second member then leads, if the
/// first member was canceled or is held for another reason.
const SECOND: Duration = Duration::from_secs(2);

/// Time for which a full batch waits for a leader after its due time. After this time, the next task that
/// joins clears the batch.
const LATE: Duration = Duration::from_secs(10);

/// Margin before a task's deadline. At the latest this long before the deadline, the batch is due or the task
/// joins again.
const IN_TIME: Duration = Duration::from_secs(1);

/// Tasks that wait in a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchBuffer {
    members: Vec<TaskId>,
    bytes: u64,
    /// Time at which the members stop waiting for further tasks.
    flush_at: Timestamp,
    /// Time before which the batch is not due, because a limit held its leader.
    not_before: Timestamp,
    /// Number of tasks for which the batch had no room.
    turned_away: u32,
}

impl BatchBuffer {
    /// Adds a task, unless the task is a member already or the batch has no room. Returns the next step of
    /// the task.
    pub(crate) fn join(
        &mut self,
        batch_limits: BatchLimits,
        member: &BatchMember,
        now: Timestamp,
    ) -> BatchDecision {
        if self.due() + MAX_RESERVATION_AHEAD < now {
            // All members have ended or wait for something else. Otherwise they would have joined again by
            // now.
            *self = Self::default();
        }
        let most = usize::try_from(batch_limits.policy.max_items.get()).unwrap_or(usize::MAX);
        let is_in = self.members.contains(&member.id);
        let has_room = |this: &Self| {
            this.members.len() < most && this.bytes.saturating_add(member.bytes) <= MAX_BATCH_BYTES
        };
        if !is_in && !has_room(self) && self.due() + LATE < now {
            // The batch is full, and no leader sent it: its members may have ended. Members that still wait
            // join again.
            *self = Self::default();
        }
        let (is_first, has_room) = (self.members.is_empty(), has_room(self));
        if !is_in && !is_first && !has_room {
            // A batch with too little room for this task counts as full. It is due now, so that the next
            // batch can form.
            self.flush_at = self.flush_at.min(now);
            return BatchDecision::Wait(self.turn_away(batch_limits, member, now));
        }
        if self.members.is_empty() {
            self.flush_at = now + batch_limits.policy.max_wait;
        }
        if !is_in {
            self.members.push(member.id);
            self.bytes = self.bytes.saturating_add(member.bytes);
        }
        if self.members.len() >= most {
            self.flush_at = self.flush_at.min(now);
        }
        let place = self.members.iter().position(|id| *id == member.id);
        let pause = match place {
            Some(0) => Duration::ZERO,
            Some(1) => SECOND,
            _ => FALLBACK,
        };
        let is_in_a_hurry = member.deadline.is_some_and(|deadline| deadline <= self.due() + pause);
        if is_in_a_hurry {
            self.flush_at =
                self.flush_at.min(member.deadline.map_or(now, |deadline| (deadline - IN_TIME).max(now)));
        }
        match self.due() {
            due if due <= now => BatchDecision::Lead,
            due if is_in_a_hurry => BatchDecision::Wait(due),
            due => BatchDecision::Wait(due + pause),
        }
    }

    fn due(&self) -> Timestamp {
        self.flush_at.max(self.not_before)
    }

    /// Returns when a task for which the batch has no room joins again.
    ///
    /// With a rate, each group of `max_items` tasks joins one interval after the group before. Without a
    /// rate, each task has its own backoff, at most [`FALLBACK`] for each full batch of waiting tasks. A task
    /// with a deadline joins again before the deadline. Jitter spreads tasks with the same deadline over at
    /// most [`LATE`].
    fn turn_away(&mut self, batch_limits: BatchLimits, member: &BatchMember, now: Timestamp) -> Timestamp {
        let before = self.turned_away / batch_limits.policy.max_items;
        self.turned_away = self.turned_away.saturating_add(1);
        let pause = match batch_limits.interval.saturating_mul(before.saturating_add(1)) {
            Duration::ZERO => hold_backoff(member.holds, member.jitter)
                .min(FALLBACK.saturating_mul(before.saturating_add(1))),
            pause => pause,
        };
        let until = (self.due().max(now) + pause).min(now + MAX_RESERVATION_AHEAD);
        let in_time = member.deadline.map(|deadline| deadline - IN_TIME).filter(|in_time| *in_time > now);
        in_time.map_or(until, |in_time| until.min(in_time - member.jitter.of(in_time.since(now).min(LATE))))
    }

    /// Postpones the batch: it is not due before `until`.
    pub(crate) fn defer(&mut self, until: Timestamp) {
        self.not_before = self.not_before.max(until);
    }

    /// Removes and returns all members if `id` is among them. Otherwise another leader took that task, and
    /// the list is empty.
    pub(crate) fn take(&mut self, id: TaskId) -> Vec<TaskId> {
        if self.members.contains(&id) { std::mem::take(self).members } else { Vec::new() }
    }

    /// Removes a task that ended or waits for something else.
    ///
    /// If the removed task was the leader, returns the new leader. The new leader joins again when the batch
    /// is due, without the delay [`SECOND`] or [`FALLBACK`].
    pub(crate) fn leave(&mut self, id: TaskId, bytes: u64, now: Timestamp) -> Option<Successor> {
        let place = self.members.iter().position(|member| *member == id)?;
        self.members.remove(place);
        self.bytes = self.bytes.saturating_sub(bytes);
        let next = self.members.first().filter(|_| place == 0)?;
        Some(Successor { id: *next, at: self.due().max(now) })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// Settings for batches: several tasks in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Maximum number of tasks in one request.
    pub max_items: NonZeroU32,
    /// Maximum time for which the first task of a batch waits for other tasks.
    pub max_wait: Duration,
    /// True if the response reports the outcome of each item.
    pub per_item_results: bool,
}

impl BatchPolicy {
    /// Returns a hash of the properties that tasks must share to go in one request.
    pub fn batch_key<T: AsRef<str>>(parts: &[T]) -> u64 {
        u64::try_from(u128::from_be_bytes(digest(parts)) >> 64)
            .unwrap_or_else(|_| unreachable!("half of 128 bits"))
    }

    /// Returns the ID of a request, derived from the keys of its items: the same items give the same ID.
    pub fn id<T: AsRef<str>>(items: &[T]) -> String {
        format!("batch_{:032x}", u128::from_be_bytes(digest(items)))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + millis)
    }

    fn id(number: u8) -> TaskId {
        TaskId::from_bytes([number; 16])
    }

    fn batch_limits(max_items: u32, apart: u64) -> BatchLimits {
        let batch = BatchPolicy {
            max_items: NonZeroU32::new(max_items).unwrap(),
            max_wait: Duration::from_secs(5),
            per_item_results: false,
        };
        BatchLimits { policy: batch, interval: Duration::from_millis(apart) }
    }

    fn member(number: u8) -> BatchMember {
        BatchMember {
            id: id(number),
            bytes: 100,
            deadline: None,
            holds: 0,
            jitter: JitterSample::from_bits(0),
        }
    }

    #[test]
    fn first_member_waits_and_leads_the_batch() {
        let (mut buffer, five) = (BatchBuffer::default(), batch_limits(5, 0));
        assert_eq!(buffer.join(five, &member(1), at(0)), BatchDecision::Wait(at(5_000)));
        assert_eq!(
            buffer.join(five, &member(2), at(3_000)),
            BatchDecision::Wait(at(7_000)),
            "the second member covers for a missing first"
        );
        assert_eq!(buffer.join(five, &member(3), at(3_000)), BatchDecision::Wait(at(65_000)));
        assert_eq!(
            buffer.join(five, &member(1), at(4_000)),
            BatchDecision::Wait(at(5_000)),
            "the first member is early"
        );
        assert_eq!(buffer.join(five, &member(1), at(5_000)), BatchDecision::Lead);
        assert_eq!(buffer.take(id(1)), [id(1), id(2), id(3)]);
        assert_eq!(buffer.take(id(2)), [], "the batch took the member");
        assert!(buffer.is_empty());
    }

    #[test]
    fn member_that_fills_the_batch_leads_it() {
        let (mut buffer, two) = (BatchBuffer::default(), batch_limits(2, 0));
        buffer.join(two, &member(1), at(0));
        assert_eq!(buffer.join(two, &member(2), at(1)), BatchDecision::Lead);
        assert_eq!(
            buffer.join(two, &member(3), at(1)),
            BatchDecision::Wait(at(501)),
            "the leader is about to take the members"
        );
        assert_eq!(buffer.take(id(2)), [id(1), id(2)]);
        assert_eq!(
            buffer.join(batch_limits(1, 0), &member(4), at(2)),
            BatchDecision::Lead,
            "a batch of one does not wait"
        );
    }

    #[test]
    fn second_member_leads_if_the_first_is_missing() {
        let (mut buffer, five) = (BatchBuffer::default(), batch_limits(5, 0));
        buffer.join(five, &member(1), at(0));
        buffer.join(five, &member(2), at(0));
        assert_eq!(buffer.join(five, &member(2), at(65_000)), BatchDecision::Lead);
        buffer.join(five, &member(2), at(65_000));
        assert_eq!(
            buffer.join(five, &member(3), at(2_000_000)),
            BatchDecision::Wait(at(2_005_000)),
            "members of an old batch are forgotten"
        );
        assert_eq!(buffer.members, [id(3)]);
    }

    #[test]
    fn members_beyond_a_full_batch_return_in_batch_sizes() {
        let (mut buffer, two) = (BatchBuffer::default(), batch_limits(2, 1_000));
        buffer.join(two, &member(1), at(0));
        assert_eq!(buffer.join(two, &member(2), at(0)), BatchDecision::Lead);
        buffer.defer(at(700));
        assert_eq!(buffer.join(two, &member(2), at(10)), BatchDecision::Wait(at(2_700)));
        assert_eq!(buffer.join(two, &member(1), at(10)), BatchDecision::Wait(at(700)));
        let turned_away = [3, 4, 5, 6, 7].map(|number| buffer.join(two, &member(number), at(10)));
        assert_eq!(
            turned_away,
            [1_700, 1_700, 2_700, 2_700, 3_700].map(|millis| BatchDecision::Wait(at(millis)))
        );
        assert_eq!(buffer.join(two, &member(2), at(700)), BatchDecision::Lead);
    }

    #[test]
    fn member_without_room_returns_in_time() {
        let mut buffer = BatchBuffer::default();
        let full = batch_limits(1, 0);
        assert_eq!(buffer.join(full, &member(0), at(0)), BatchDecision::Lead);
        let late = BatchMember { holds: 30, ..member(1) };
        let BatchDecision::Wait(until) = buffer.join(full, &late, at(0)) else { panic!("there is no room") };
        assert!(at(0) < until && until <= at(60_000), "{until}");
        let urgent = BatchMember { deadline: Some(at(5_000)), ..late };
        let BatchDecision::Wait(until) = buffer.join(full, &urgent, at(0)) else {
            panic!("there is no room")
        };
        assert!(at(0) < until && until <= at(4_000), "{until}");
        // With more full batches in front, a task tries again less often.
        for number in 2..40 {
            buffer.join(full, &member(number), at(0));
        }
        let BatchDecision::Wait(until) = buffer.join(full, &late, at(0)) else { panic!("there is no room") };
        assert!(at(60_000) < until, "{until}");
    }

    #[test]
    fn ended_members_do_not_block_a_batch() {
        let (mut buffer, two) = (BatchBuffer::default(), batch_limits(2, 0));
        buffer.join(two, &member(1), at(0));
        assert_eq!(buffer.join(two, &member(2), at(0)), BatchDecision::Lead);
        buffer.defer(at(30_000));
        assert_eq!(
            buffer.join(two, &member(3), at(39_000)),
            BatchDecision::Wait(at(39_500)),
            "the members can still come"
        );
        assert_eq!(buffer.join(two, &member(3), at(40_001)), BatchDecision::Wait(at(45_001)));
        assert_eq!(
            buffer.join(two, &member(2), at(40_002)),
            BatchDecision::Lead,
            "a returning member fills the next batch"
        );
        assert_eq!(buffer.take(id(2)), [id(3), id(2)]);
    }

    #[test]
    fn withdrawn_member_frees_its_place() {
        let (mut buffer, two) = (BatchBuffer::default(), batch_limits(2, 0));
        buffer.join(two, &member(1), at(0));
        assert_eq!(buffer.join(two, &member(2), at(0)), BatchDecision::Lead);
        let mut leading = buffer.clone();
        assert_eq!([2, 9].map(|number| buffer.leave(id(number), 100, at(0))), [None, None]);
        assert_eq!(buffer.bytes, 100);
        let successor = |millis| Some(Successor { id: id(2), at: at(millis) });
        assert_eq!(leading.clone().leave(id(1), 100, at(7)), successor(7), "the next member leads at once");
        leading.defer(at(700));
        assert_eq!(leading.leave(id(1), 100, at(7)), successor(700));
        assert_eq!(buffer.join(two, &member(3), at(10)), BatchDecision::Lead, "the batch is due");
        assert_eq!(buffer.take(id(3)), [id(1), id(3)]);
    }

    #[test]
    fn member_with_a_near_deadline_leads_before_it() {
        let (mut buffer, five) = (BatchBuffer::default(), batch_limits(5, 0));
        let until = |number, deadline| BatchMember { deadline: Some(at(deadline)), ..member(number) };
        assert_eq!(
            buffer.join(five, &until(1, 100_000), at(0)),
            BatchDecision::Wait(at(5_000)),
            "the deadline allows the full wait"
        );
        assert_eq!(buffer.join(five, &until(2, 4_000), at(10)), BatchDecision::Wait(at(3_000)));
        assert_eq!(buffer.join(five, &member(3), at(20)), BatchDecision::Wait(at(63_000)));
        assert_eq!(buffer.join(five, &until(2, 4_000), at(3_000)), BatchDecision::Lead);
        assert_eq!(
            BatchBuffer::default().join(five, &until(4, 900), at(0)),
            BatchDecision::Lead,
            "the deadline allows no wait"
        );
    }

    #[test]
    fn members_beyond_the_size_limit_go_separately() {
        let (mut buffer, five) = (BatchBuffer::default(), batch_limits(5, 0));
        let long = |number| BatchMember { bytes: MAX_BATCH_BYTES - 50, ..member(number) };
        assert_eq!(buffer.join(five, &long(1), at(0)), BatchDecision::Wait(at(5_000)));
        assert_eq!(buffer.join(five, &member(2), at(0)), BatchDecision::Wait(at(500)));
        assert_eq!(buffer.join(five, &long(1), at(1)), BatchDecision::Lead, "a full batch does not wait");
        let too_long = BatchMember { bytes: 2 * MAX_BATCH_BYTES, ..member(3) };
        assert_eq!(BatchBuffer::default().join(batch_limits(1, 0), &too_long, at(0)), BatchDecision::Lead);
    }
}
