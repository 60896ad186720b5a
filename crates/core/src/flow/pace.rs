//! How often: a rate, as slots one after the other, each for one start.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// So many starts in any period, and so many at once after a pause: then there can be `burst - 1` more in the period that begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many starts there are in a period.
    pub rate: NonZeroU32,
    /// The period.
    pub period: Duration,
    /// How many of them may come at once.
    pub burst: NonZeroU32,
}

/// A slot that a task has been promised: it may start at that moment, or within its grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booking {
    /// In microseconds since the Unix epoch.
    pub slot: i64,
    /// How far apart slots were when it was given, in microseconds. At another pace it is worth nothing.
    pub interval: i64,
}

/// What part of a period a start may be late by: a fiftieth. As much of the rate is given up for it.
const TOLERATED: i64 = 50;

/// How far ahead slots are promised. What comes after that is told to ask again.
pub const HORIZON: Duration = Duration::from_mins(15);

/// Which slots were given out.
///
/// A slot can be used for a while after its moment. Slots are by so much further apart than the rate asks for as makes up for that: in no
/// period are there more starts than may be, whoever uses theirs late, and whoever does not at all. A burst is slots of the time before
/// that nobody had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timetable {
    /// The first that was not given out yet.
    next: i64,
    /// How far apart they are.
    interval: i64,
}

impl Pace {
    /// From one slot to the next, in microseconds, rounded up.
    fn interval(self) -> i64 {
        let (length, rate) = (self.period().saturating_add(self.lateness()), i64::from(self.rate.get()));
        (length / rate + i64::from(length % rate > 0)).max(1)
    }

    fn period(self) -> i64 {
        i64::try_from(self.period.as_micros()).unwrap_or(i64::MAX)
    }

    /// How late a start may be that was promised, in microseconds.
    fn lateness(self) -> i64 {
        self.period() / TOLERATED
    }

    /// How far back the slots reach that make a burst, in microseconds.
    fn reach(self) -> i64 {
        self.interval().saturating_mul(i64::from(self.burst.get()) - 1)
    }

    /// For how long after its moment a slot can be used, in microseconds.
    fn grace(self) -> i64 {
        self.reach().saturating_add(self.lateness())
    }

    /// Whether that promise can be made use of now.
    pub(crate) fn honours(self, booking: Booking, now: Timestamp) -> bool {
        let late = micros(now) - booking.slot;
        booking.interval == self.interval() && (0..self.grace()).contains(&late)
    }
}

impl Timetable {
    /// The next slot, if it is not too far ahead.
    pub(crate) fn book(&mut self, pace: Pace, now: Timestamp) -> Option<Booking> {
        let (now, interval) = (micros(now), pace.interval());
        let horizon = now + i64::try_from(HORIZON.as_micros()).unwrap_or(i64::MAX);
        // A pace that was changed begins anew, and so does one that a clock far ahead of this one has left behind.
        if self.interval != interval && self.interval != 0 || self.next > horizon.saturating_add(interval) {
            self.next = now;
        }
        self.interval = interval;
        let slot = self.next.max(now.saturating_sub(pace.reach()));
        if slot > horizon {
            return None;
        }
        self.next = slot.saturating_add(interval);
        Some(Booking { slot, interval })
    }

    /// Takes back a slot that nobody will use, if none was given out after it.
    pub(crate) fn take_back(&mut self, booking: Booking) {
        if self.interval == booking.interval && self.next == booking.slot.saturating_add(booking.interval) {
            self.next = booking.slot;
        }
    }

    /// Gives out no slot before that moment.
    pub(crate) fn pause(&mut self, until: Timestamp) {
        self.next = self.next.max(micros(until));
    }
}

impl Booking {
    /// When it can be used, at the earliest.
    pub fn at(self) -> Timestamp {
        Timestamp::from_millis(self.slot.saturating_add(999).div_euclid(1_000))
    }
}

fn micros(moment: Timestamp) -> i64 {
    moment.millis().saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_800_000_000_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(NOW + millis)
    }

    fn pace(rate: u32, burst: u32) -> Pace {
        let count = |count| NonZeroU32::new(count).unwrap();
        Pace { rate: count(rate), period: Duration::from_secs(1), burst: count(burst) }
    }

    #[test]
    fn a_burst_starts_at_once_and_the_rest_at_the_pace() {
        let (mut times, pace) = (Timetable::default(), pace(10, 3));
        let booked: Vec<Booking> = (0..5).map(|_| times.book(pace, at(0)).unwrap()).collect();
        let startable: Vec<bool> = booked.iter().map(|booking| pace.honours(*booking, at(0))).collect();
        assert_eq!(startable, [true, true, true, false, false]);
        assert_eq!((booked[3].at(), booked[4].at()), (at(102), at(204)), "a fiftieth is given up for those who are late");
        assert!(pace.honours(booked[4], at(204)) && pace.honours(booked[4], at(427)) && !pace.honours(booked[4], at(428)));
    }

    #[test]
    fn nothing_is_promised_further_ahead_than_the_horizon() {
        let (mut times, pace) = (Timetable::default(), pace(1, 1));
        let booked = std::iter::from_fn(|| times.book(pace, at(0))).count();
        assert_eq!(booked, 883, "a second and a fiftieth apart");
        assert!(times.book(pace, at(2_000)).is_some(), "time makes room");
    }

    #[test]
    fn another_pace_begins_anew_and_voids_what_was_promised() {
        let (mut times, old, new) = (Timetable::default(), pace(1, 1), pace(100, 1));
        let booked: Vec<Booking> = (0..100).map(|_| times.book(old, at(0)).unwrap()).collect();
        let first = times.book(new, at(500)).unwrap();
        assert_eq!(first.at(), at(500));
        assert!(!new.honours(booked[1], booked[1].at()));
    }

    #[test]
    fn a_clock_far_ahead_spoils_nothing_for_good() {
        let (mut times, pace) = (Timetable::default(), pace(1, 1));
        times.book(pace, at(3_600_000));
        assert_eq!(times.book(pace, at(0)).unwrap().at(), at(0));
    }

    #[test]
    fn the_last_slot_can_be_taken_back_and_no_other() {
        let (mut times, pace) = (Timetable::default(), pace(1, 1));
        let booked: Vec<Booking> = (0..3).map(|_| times.book(pace, at(0)).unwrap()).collect();
        times.take_back(booked[1]);
        times.take_back(booked[2]);
        assert_eq!(times.book(pace, at(0)), Some(booked[2]));
    }

    proptest! {
        /// Whoever asks at any time and starts as late as their grace allows: in no period are there more starts than may be.
        #[test]
        fn in_no_period_are_there_more_starts_than_may_be(
            rate in 1_u32..200, burst in 1_u32..20, asks in proptest::collection::vec((0_i64..100, 0.0_f64..1.0), 2..300)
        ) {
            let (mut times, pace) = (Timetable::default(), pace(rate, burst));
            let (mut clock, mut starts) = (0, Vec::new());
            for (pause, lateness) in asks {
                clock += pause;
                let booking = times.book(pace, at(clock)).unwrap();
                let earliest = booking.at().max(at(clock)).millis();
                let latest = (booking.slot + pace.grace() - 1).div_euclid(1_000);
                #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers")]
                let start = earliest + ((latest - earliest).max(0) as f64 * lateness) as i64;
                if pace.honours(booking, Timestamp::from_millis(start)) {
                    starts.push(start);
                }
            }
            starts.sort_unstable();
            for first in &starts {
                let within = starts.iter().filter(|start| (0..1_000).contains(&(*start - first))).count();
                prop_assert!(within < (rate + burst) as usize, "{within} starts from {first} on");
            }
        }
    }
}
