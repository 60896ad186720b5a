//! How many at once: slots, that are leases.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flow::pace::HORIZON;
use crate::ports::LEASE;
use crate::time::Timestamp;

/// Whoever takes slots: one process, by a number that it drew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Holder(pub u64);

/// Who holds how many slots, and when those who find none had better ask again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slots {
    held: Vec<Held>,
    /// How long a slot is held, lately and on the average, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    average: u64,
    /// When the last of those who found none was told to ask again, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "is_zero")]
    last_turn: u64,
}

/// The slots of one holder, who must say from time to time that it is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    by: Holder,
    count: u32,
    until: Timestamp,
}

/// The average before anything was measured, in milliseconds.
const GUESS: u64 = 100;
/// How far ahead anybody is told to ask again on no more than a guess, in milliseconds.
const GUESSED_AHEAD: u64 = 1_000;
/// One more in so many turns than there is room for, so that no slot stays free when one of those who were told to come does not.
const OVERBOOKING: u64 = 8;

impl Slots {
    /// How many are held.
    pub(crate) fn in_use(&self, now: Timestamp) -> u32 {
        self.held.iter().filter(|held| now < held.until).map(|held| held.count).sum()
    }

    /// Takes one, if fewer than `most` are held.
    pub(crate) fn take(&mut self, most: NonZeroU32, by: Holder, now: Timestamp) -> bool {
        // Whoever was not heard of for so long is gone, and so are the attempts.
        self.held.retain(|held| now < held.until);
        if self.in_use(now) >= most.get() {
            return false;
        }
        match self.held.iter_mut().find(|held| held.by == by) {
            Some(held) => *held = Held { by, count: held.count + 1, until: held.until.max(now + LEASE) },
            None => self.held.push(Held { by, count: 1, until: now + LEASE }),
        }
        true
    }

    /// Gives one back that was taken and not used.
    pub(crate) fn give_back(&mut self, by: Holder) {
        if let Some(held) = self.held.iter_mut().find(|held| held.by == by) {
            held.count = held.count.saturating_sub(1);
        }
        self.held.retain(|held| held.count > 0);
    }

    /// Gives one back that was used for so long.
    pub(crate) fn release(&mut self, by: Holder, after: Duration) {
        self.give_back(by);
        let took = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).clamp(1, 3_600_000);
        self.average = if self.average == 0 { took } else { (self.average * 7 + took).div_ceil(8) };
    }

    /// Says that a holder is alive, and how many it really holds.
    pub(crate) fn recount(&mut self, by: Holder, count: u32, now: Timestamp) {
        let known = self.held.iter().find(|held| held.by == by);
        // What was heard of a moment ago need not be written again.
        if known.map_or(0, |held| held.count) == count && known.is_none_or(|held| now + LEASE / 2 < held.until) {
            return;
        }
        self.held.retain(|held| held.by != by);
        if count > 0 {
            self.held.push(Held { by, count, until: now + LEASE });
        }
    }

    /// When one who found no slot had better ask again: as many are told to come as slots become free. `None` if that is too far ahead.
    pub(crate) fn turn(&mut self, most: NonZeroU32, now: Timestamp) -> Option<Timestamp> {
        let average = if self.average == 0 { GUESS } else { self.average };
        let step = (average * (OVERBOOKING - 1) / OVERBOOKING / u64::from(most.get())).max(1);
        let present = u64::try_from(now.millis()).unwrap_or(0);
        let mut turn = self.last_turn.max(present) + step;
        if self.average == 0 && turn > present + GUESSED_AHEAD {
            turn = present + step;
            self.last_turn = present;
        }
        let horizon = present + u64::try_from(HORIZON.as_millis()).unwrap_or(u64::MAX);
        if turn > horizon {
            // A clock far ahead of this one may have left that behind.
            self.last_turn = self.last_turn.min(horizon);
            return None;
        }
        self.last_turn = turn;
        Some(Timestamp::from_millis(i64::try_from(turn).unwrap_or(i64::MAX)))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Holder = Holder(1);
    const OTHER: Holder = Holder(2);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000) + Duration::from_millis(millis)
    }

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    #[test]
    fn so_many_are_held_and_no_more() {
        let mut slots = Slots::default();
        let taken = [ONE, OTHER, ONE].map(|holder| slots.take(count(2), holder, at(0)));
        assert_eq!((taken, slots.in_use(at(0))), ([true, true, false], 2));
        slots.release(ONE, Duration::from_secs(1));
        assert!(slots.take(count(2), OTHER, at(0)));
        assert!(!slots.take(count(2), ONE, at(0)));
        assert!(!slots.take(count(1), ONE, at(0)), "a limit that was lowered holds from now on");
    }

    #[test]
    fn slots_of_one_who_died_come_back_by_themselves() {
        let mut slots = Slots::default();
        assert!(slots.take(count(1), ONE, at(0)));
        slots.recount(ONE, 1, at(30_000));
        assert!(!slots.take(count(1), OTHER, at(89_999)));
        assert!(slots.take(count(1), OTHER, at(90_000)));
        slots.release(ONE, Duration::ZERO);
        assert_eq!(slots.in_use(at(90_000)), 1, "what the dead give back is not theirs any more");
    }

    #[test]
    fn a_holder_knows_best_how_many_it_holds() {
        let mut slots = Slots::default();
        assert!(slots.take(count(3), ONE, at(0)) && slots.take(count(3), OTHER, at(0)));
        slots.recount(ONE, 2, at(1));
        assert_eq!(slots.in_use(at(1)), 3);
        slots.recount(ONE, 0, at(1));
        assert_eq!(slots.in_use(at(1)), 1);
        let before = slots.clone();
        slots.recount(OTHER, 1, at(29_999));
        assert_eq!(slots, before, "there is nothing to write");
        slots.recount(OTHER, 1, at(30_000));
        assert_eq!((slots.in_use(at(89_999)), slots.in_use(at(90_000))), (1, 0));
    }

    #[test]
    fn turns_come_as_slots_become_free() {
        let mut slots = Slots::default();
        assert!(slots.take(count(4), ONE, at(0)));
        slots.release(ONE, Duration::from_secs(8));
        let turns: Vec<Timestamp> = (0..3).map(|_| slots.turn(count(4), at(0)).unwrap()).collect();
        assert_eq!(turns, [at(1_750), at(3_500), at(5_250)]);
        assert_eq!(slots.turn(count(4), at(60_000)), Some(at(61_750)), "turns that passed are no one's");
        let rest = std::iter::from_fn(|| slots.turn(count(4), at(60_000))).count();
        assert_eq!(rest, 513, "and none is further ahead than the horizon");
    }

    #[test]
    fn nobody_is_told_to_come_late_on_a_guess() {
        let mut slots = Slots::default();
        let turns: Vec<Timestamp> = (0..100).map(|_| slots.turn(count(1), at(0)).unwrap()).collect();
        assert_eq!((turns[0], turns[10], turns[11]), (at(87), at(957), at(87)));
    }

    #[test]
    fn a_clock_far_ahead_spoils_no_turn_for_good() {
        let mut slots = Slots { average: 100, ..Slots::default() };
        slots.turn(count(1), at(36_000_000)).unwrap();
        assert_eq!(slots.turn(count(1), at(0)), None);
        assert!(slots.turn(count(1), at(1_000)).is_some());
    }
}
