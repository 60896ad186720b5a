//! Concurrency limit: slots that processes hold as leases.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::rate::MAX_RESERVATION_AHEAD;
use crate::types::intervals::LEASE;
use crate::types::time::Timestamp;

/// Process that holds slots, identified by a random number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HolderId(pub u64);

/// Concurrency slots that each process holds, and the times at which tasks without a slot try again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConcurrencySlots {
    held: Vec<HolderSlots>,
    /// Recent average time for which a slot is held, in milliseconds. 0 before the first measurement.
    #[serde(default, skip_serializing_if = "is_zero")]
    average: u64,
    /// Latest time at which a task that found no slot will try again, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "is_zero")]
    last_turn: u64,
}

/// Slots of one process. The process loses the slots at `until`, unless it reports before that it is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HolderSlots {
    by: HolderId,
    count: u32,
    until: Timestamp,
}

/// Assumed average time for which a slot is held, before the first measurement. Milliseconds.
const GUESS: u64 = 100;
/// Maximum time until a task without a slot tries again, as long as the average is only assumed.
/// Milliseconds.
const GUESSED_AHEAD: u64 = 1_000;
/// Number of tries for each surplus try: of 8 tasks that try again, about one finds no slot. Without surplus
/// tries, a slot would stay free whenever a task does not try again.
const OVERBOOKING: u64 = 8;

impl ConcurrencySlots {
    /// Returns the number of slots in use.
    pub(crate) fn running(&self, now: Timestamp) -> u32 {
        self.held.iter().filter(|held| now < held.until).map(|held| held.count).sum()
    }

    /// Takes a slot if fewer than `most` slots are in use. Returns true if it took a slot.
    pub(crate) fn take(&mut self, most: NonZeroU32, by: HolderId, now: Timestamp) -> bool {
        // A process whose lease has run out is gone, and so are its attempts.
        self.held.retain(|held| now < held.until);
        if self.running(now) >= most.get() {
            return false;
        }
        match self.held.iter_mut().find(|held| held.by == by) {
            Some(held) => {
                *held = HolderSlots { by, count: held.count + 1, until: held.until.max(now + LEASE) }
            }
            None => self.held.push(HolderSlots { by, count: 1, until: now + LEASE }),
        }
        true
    }

    /// Gives back a slot that was not used.
    pub(crate) fn cancel(&mut self, by: HolderId) {
        if let Some(held) = self.held.iter_mut().find(|held| held.by == by) {
            held.count = held.count.saturating_sub(1);
        }
        self.held.retain(|held| held.count > 0);
    }

    /// Gives back a slot that was in use for the duration `after`.
    pub(crate) fn release(&mut self, by: HolderId, after: Duration) {
        self.cancel(by);
        let took = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).clamp(1, 3_600_000);
        self.average = if self.average == 0 { took } else { (self.average * 7 + took).div_ceil(8) };
    }

    /// Records that a process is alive, and how many slots it holds.
    pub(crate) fn recount(&mut self, by: HolderId, count: u32, now: Timestamp) {
        let known = self.held.iter().find(|held| held.by == by);
        // No write is needed if the count is known and the process reported within half a lease.
        if known.map_or(0, |held| held.count) == count
            && known.is_none_or(|held| now + LEASE / 2 < held.until)
        {
            return;
        }
        self.held.retain(|held| held.by != by);
        if count > 0 {
            self.held.push(HolderSlots { by, count, until: now + LEASE });
        }
    }

    /// Returns when a task that found no slot tries again. Spaces the tries of these tasks by the average
    /// interval at which slots become free. Returns `None` if the time is more than [`MAX_RESERVATION_AHEAD`]
    /// ahead.
    pub(crate) fn next_retry_time(&mut self, most: NonZeroU32, now: Timestamp) -> Option<Timestamp> {
        let average = if self.average == 0 { GUESS } else { self.average };
        let step = (average * (OVERBOOKING - 1) / OVERBOOKING / u64::from(most.get())).max(1);
        let present = u64::try_from(now.millis()).unwrap_or(0);
        let mut turn = self.last_turn.max(present) + step;
        if self.average == 0 && turn > present + GUESSED_AHEAD {
            turn = present + step;
            self.last_turn = present;
        }
        let horizon = present + u64::try_from(MAX_RESERVATION_AHEAD.as_millis()).unwrap_or(u64::MAX);
        if turn > horizon {
            // A process with a clock far ahead may have set `last_turn`.
            self.last_turn = self.last_turn.min(horizon);
            return None;
        }
        self.last_turn = turn;
        Some(Timestamp::from_millis(i64::try_from(turn).unwrap_or(i64::MAX)))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: HolderId = HolderId(1);
    const OTHER: HolderId = HolderId(2);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000) + Duration::from_millis(millis)
    }

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    #[test]
    fn slots_beyond_the_limit_are_refused() {
        let mut slots = ConcurrencySlots::default();
        let taken = [ONE, OTHER, ONE].map(|holder| slots.take(count(2), holder, at(0)));
        assert_eq!((taken, slots.running(at(0))), ([true, true, false], 2));
        slots.release(ONE, Duration::from_secs(1));
        assert!(slots.take(count(2), OTHER, at(0)));
        assert!(!slots.take(count(2), ONE, at(0)));
        assert!(!slots.take(count(1), ONE, at(0)), "a lowered limit applies at once");
    }

    #[test]
    fn slots_of_a_dead_holder_are_freed_after_a_minute() {
        let mut slots = ConcurrencySlots::default();
        assert!(slots.take(count(1), ONE, at(0)));
        slots.recount(ONE, 1, at(30_000));
        assert!(!slots.take(count(1), OTHER, at(89_999)));
        assert!(slots.take(count(1), OTHER, at(90_000)));
        slots.release(ONE, Duration::ZERO);
        assert_eq!(slots.running(at(90_000)), 1, "a release by a forgotten holder frees no slot");
    }

    #[test]
    fn recount_replaces_the_stored_count_of_a_holder() {
        let mut slots = ConcurrencySlots::default();
        assert!(slots.take(count(3), ONE, at(0)) && slots.take(count(3), OTHER, at(0)));
        slots.recount(ONE, 2, at(1));
        assert_eq!(slots.running(at(1)), 3);
        slots.recount(ONE, 0, at(1));
        assert_eq!(slots.running(at(1)), 1);
        let before = slots.clone();
        slots.recount(OTHER, 1, at(29_999));
        assert_eq!(slots, before, "an unchanged count needs no write");
        slots.recount(OTHER, 1, at(30_000));
        assert_eq!((slots.running(at(89_999)), slots.running(at(90_000))), (1, 0));
    }

    #[test]
    fn turns_are_spaced_by_the_average_duration() {
        let mut slots = ConcurrencySlots::default();
        assert!(slots.take(count(4), ONE, at(0)));
        slots.release(ONE, Duration::from_secs(8));
        let turns: Vec<Timestamp> = (0..3).map(|_| slots.next_retry_time(count(4), at(0)).unwrap()).collect();
        assert_eq!(turns, [at(1_750), at(3_500), at(5_250)]);
        assert_eq!(
            slots.next_retry_time(count(4), at(60_000)),
            Some(at(61_750)),
            "turns in the past are dropped"
        );
        let rest = std::iter::from_fn(|| slots.next_retry_time(count(4), at(60_000))).count();
        assert_eq!(rest, 513, "no turn lies beyond the horizon");
    }

    #[test]
    fn turns_without_an_average_stay_within_a_second() {
        let mut slots = ConcurrencySlots::default();
        let turns: Vec<Timestamp> =
            (0..100).map(|_| slots.next_retry_time(count(1), at(0)).unwrap()).collect();
        assert_eq!((turns[0], turns[10], turns[11]), (at(87), at(957), at(87)));
    }

    #[test]
    fn turns_recover_after_a_clock_far_ahead() {
        let mut slots = ConcurrencySlots { average: 100, ..ConcurrencySlots::default() };
        slots.next_retry_time(count(1), at(36_000_000)).unwrap();
        assert_eq!(slots.next_retry_time(count(1), at(0)), None);
        assert!(slots.next_retry_time(count(1), at(1_000)).is_some());
    }
}
