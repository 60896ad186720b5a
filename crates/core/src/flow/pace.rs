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

/// A slot that a task has been promised: it is not to ask before that moment.
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

/// Which slots were given out, and what became of them.
///
/// Slots tell those who wait when to ask; what keeps the pace is how far apart starts really are (the generic cell rate algorithm, ITU-T
/// I.371). So it is kept whoever comes late, or not at all, and by processes that disagree about it for a while; and whoever comes late
/// starts as soon as there is room. A start may be a little early after one that was a little late: slots are by so much further apart
/// than the rate asks for as makes up for that. A burst is slots of the time before that nobody had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timetable {
    /// The first that was not given out yet.
    next: i64,
    /// How far apart they are.
    interval: i64,
    /// When the next start would be, if starts were as far apart as slots.
    #[serde(default)]
    due: i64,
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

    /// How much sooner than that a start may be, in microseconds.
    fn grace(self) -> i64 {
        self.reach().saturating_add(self.lateness())
    }

    /// Whether that promise was made at this pace. At another one it is worth nothing.
    pub(crate) fn knows(self, booking: Booking) -> bool {
        booking.interval == self.interval()
    }
}

/// How many starts somebody who came late may be behind, and keeps that place: with more of them, all would come at the same moment.
const KEPT: i64 = 10;

impl Timetable {
    /// The next slot, if it is not too far ahead.
    pub(crate) fn book(&mut self, pace: Pace, now: Timestamp) -> Option<Booking> {
        let (now, interval) = (micros(now), pace.interval());
        let horizon = horizon(now);
        self.adopt(pace, now);
        let slot = self.next.max(now.saturating_sub(pace.reach()));
        if slot > horizon {
            return None;
        }
        self.next = slot.saturating_add(interval);
        Some(Booking { slot, interval })
    }

    /// A pace that was changed begins anew, and so does one that a clock far ahead of this one has left behind.
    fn adopt(&mut self, pace: Pace, now: i64) {
        let (horizon, interval) = (horizon(now), pace.interval());
        if self.interval != interval && self.interval != 0 || self.next > horizon.saturating_add(interval) {
            self.next = now;
            // What the other pace put off is not put off for longer than by this one: whoever disagrees about it starts nothing sooner.
            self.due = self.due.min(now.saturating_add(interval).saturating_add(pace.grace()));
        }
        if self.due > horizon.saturating_add(interval).saturating_add(pace.grace()) {
            self.due = now;
        }
        self.interval = interval;
    }

    /// How many could start now whom nobody has promised anything.
    pub(crate) fn free(mut self, pace: Pace, now: Timestamp) -> u32 {
        let (now, interval) = (micros(now), pace.interval());
        self.adopt(pace, now);
        let slots = now.saturating_sub(self.next.max(now.saturating_sub(pace.reach()))).div_euclid(interval) + 1;
        let starts = pace.grace().saturating_sub(self.due.saturating_sub(now).max(0)).div_euclid(interval) + 1;
        u32::try_from(slots.min(starts).max(0)).unwrap_or(u32::MAX)
    }

    /// How many slots are given out that are for after `now`, and not for before `from`.
    pub(crate) fn promised(mut self, pace: Pace, from: Timestamp, now: Timestamp) -> u32 {
        self.adopt(pace, micros(now));
        let from = micros(from).max(micros(now).saturating_add(1));
        u32::try_from(self.next.saturating_sub(from).div_euclid(self.interval).max(0)).unwrap_or(u32::MAX)
    }

    /// When one may start who was promised that slot: that moment, or, if too many started of late, a later one.
    pub(crate) fn free_at(&self, pace: Pace, booking: Booking) -> Timestamp {
        Booking { slot: self.due.saturating_sub(pace.grace()).max(booking.slot), ..booking }.at()
    }

    /// When one may start whom nobody here has promised anything, but for those who start in between; `None`, if that is not soon.
    pub(crate) fn soon(&mut self, pace: Pace, now: Timestamp) -> Option<(Booking, Timestamp)> {
        self.adopt(pace, micros(now));
        let booking = Booking { slot: micros(now), interval: pace.interval() };
        Some((booking, self.kept(pace, booking, now)?))
    }

    /// The same for one who comes when its time has come. `None`, if so many started instead that another place is better.
    pub(crate) fn kept(&self, pace: Pace, booking: Booking, now: Timestamp) -> Option<Timestamp> {
        let free = self.free_at(pace, booking);
        let is_far = micros(free) - micros(now) > pace.interval().saturating_mul(KEPT) && free > booking.at();
        (!is_far).then_some(free)
    }

    /// Notes that one starts.
    pub(crate) fn start(&mut self, pace: Pace, now: Timestamp) {
        self.due = self.due.max(micros(now)).saturating_add(pace.interval());
    }

    /// Notes that one did not start after all.
    pub(crate) fn forget_start(&mut self, booking: Booking) {
        self.due = self.due.saturating_sub(booking.interval);
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

    /// Gives out slots from that moment on again. What really started keeps its distance all the same.
    pub(crate) fn lift(&mut self, now: Timestamp) {
        self.next = self.next.min(micros(now));
    }
}

impl Booking {
    /// When it can be used, at the earliest.
    pub fn at(self) -> Timestamp {
        Timestamp::from_millis(self.slot.saturating_add(999).div_euclid(1_000))
    }
}

/// How far ahead slots are promised at that moment, in microseconds.
fn horizon(now: i64) -> i64 {
    now.saturating_add(i64::try_from(HORIZON.as_micros()).unwrap_or(i64::MAX))
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
        let mut startable = Vec::new();
        for booking in &booked {
            startable.push(times.free_at(pace, *booking) <= at(0));
            times.start(pace, at(0));
        }
        assert_eq!(startable, [true, true, true, false, false]);
        assert_eq!((booked[3].at(), booked[4].at()), (at(102), at(204)), "a fiftieth is given up for those who are late");
    }

    #[test]
    fn whoever_comes_late_starts_as_soon_as_there_is_room() {
        let (mut times, pace) = (Timetable::default(), pace(10, 1));
        let booked: Vec<Booking> = (0..20).map(|_| times.book(pace, at(0)).unwrap()).collect();
        assert_eq!(times.kept(pace, booked[1], at(5_000)), Some(at(102)), "nobody else started");
        times.start(pace, at(5_000));
        assert_eq!(times.kept(pace, booked[2], at(5_000)), Some(at(5_082)), "an interval later, less what it may be early by");
        (0..12).for_each(|_| times.start(pace, at(5_000)));
        assert_eq!(times.kept(pace, booked[3], at(5_000)), None, "another place is better");
        times.forget_start(booked[3]);
        times.forget_start(booked[4]);
        assert!(times.kept(pace, booked[3], at(5_300)).is_some());
    }

    #[test]
    fn processes_that_disagree_about_a_pace_start_no_more_than_the_quicker_one_allows() {
        let (mut times, old, new) = (Timetable::default(), pace(100, 1), pace(1, 1));
        let mut starts = 0;
        for millis in 0..1_000 {
            let pace = if millis % 2 == 0 { old } else { new };
            let booking = times.book(pace, at(millis)).unwrap();
            if times.free_at(pace, booking) <= at(millis) {
                times.start(pace, at(millis));
                starts += 1;
            }
        }
        assert!(starts <= 100, "{starts}");
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
        assert!(!new.knows(booked[1]) && new.knows(first));
    }

    #[test]
    fn a_clock_far_ahead_spoils_nothing_for_good() {
        let (mut times, pace) = (Timetable::default(), pace(1, 1));
        times.book(pace, at(3_600_000));
        assert_eq!(times.book(pace, at(0)).unwrap().at(), at(0));
    }

    #[test]
    fn what_is_promised_and_what_is_free_can_be_told() {
        let (mut times, pace, slower) = (Timetable::default(), pace(10, 3), pace(5, 1));
        let told = |times: Timetable, millis| (times.free(pace, at(millis)), times.promised(pace, at(0), at(millis)));
        assert_eq!(told(times, 0), (3, 0));
        for _ in 0..5 {
            times.book(pace, at(0)).unwrap();
        }
        (0..3).for_each(|_| times.start(pace, at(0)));
        assert_eq!([0, 101, 102, 204].map(|millis| told(times, millis)), [(0, 2), (0, 2), (0, 1), (0, 0)]);
        assert_eq!([306, 1_000, 100_000].map(|millis| told(times, millis)), [(1, 0), (3, 0), (3, 0)]);
        times.pause(at(5_000));
        assert_eq!((told(times, 1_000).0, times.promised(pace, at(5_000), at(1_000))), (0, 0), "nobody was promised the time of a pause");
        times.book(pace, at(1_000)).unwrap();
        assert_eq!(times.promised(pace, at(5_000), at(1_000)), 1);
        let before = times;
        assert_eq!((times.free(slower, at(1_000)), times), (1, before), "at another pace it begins anew");
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
        /// As many as are said to be free start, and not one more.
        #[test]
        fn as_many_start_as_are_free(rate in 1_u32..200, burst in 1_u32..20, starts in proptest::collection::vec(0_i64..300, 0..100)) {
            let (mut times, pace) = (Timetable::default(), pace(rate, burst));
            let mut clock = 0;
            for pause in starts {
                clock += pause;
                let mut copy = times;
                let begins = |times: &mut Timetable| {
                    let begins = times.book(pace, at(clock)).is_some_and(|booking| times.free_at(pace, booking) <= at(clock));
                    if begins {
                        times.start(pace, at(clock));
                    }
                    begins
                };
                let free = times.free(pace, at(clock));
                prop_assert_eq!((0..=free).filter(|_| begins(&mut copy)).count(), free as usize);
                begins(&mut times);
            }
        }

        /// Whoever asks at any time and comes as late as they like: in no period are there more starts than may be.
        #[test]
        fn in_no_period_are_there_more_starts_than_may_be(
            rate in 1_u32..200, burst in 1_u32..20, asks in proptest::collection::vec((0_i64..100, 0_i64..300), 2..300)
        ) {
            let (mut times, pace) = (Timetable::default(), pace(rate, burst));
            let mut clock = 0;
            let come = |(pause, lateness): (i64, i64)| {
                clock += pause;
                let booking = times.book(pace, at(clock)).unwrap();
                (booking.at().max(at(clock)).millis() + lateness, booking)
            };
            let mut comers: Vec<(i64, Booking)> = asks.into_iter().map(come).collect();
            comers.sort_unstable_by_key(|(when, _)| *when);
            let mut starts = Vec::new();
            for (when, booking) in comers {
                let now = Timestamp::from_millis(when);
                if times.free_at(pace, booking) <= now {
                    times.start(pace, now);
                    starts.push(when);
                }
            }
            prop_assert!(!starts.is_empty());
            for first in &starts {
                let within = starts.iter().filter(|start| (0..1_000).contains(&(*start - first))).count();
                prop_assert!(within < (rate + burst) as usize, "{within} starts from {first} on");
            }
        }
    }
}
