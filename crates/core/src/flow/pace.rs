//! How often: a rate, as slots one after the other, each for one start.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::free_slots::FreeSlots;
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
///
/// Guarantees:
/// - The rate holds, whatever becomes of slots.
/// - A task starts no later than its slot, but for tasks that start late, and for tasks that another limit of theirs lets start.
/// - A slot that is given back goes to the next task that asks, the earliest slot first. That task may be newer than one that waits for a later
///   slot: waiting tasks are not told of slots that become free. A waiting task that asks before its slot gets the earliest free one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timetable {
    /// The first slot that was never given out.
    next: i64,
    /// Slots before it that were given back.
    #[serde(default, skip_serializing_if = "FreeSlots::is_empty")]
    free: FreeSlots,
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
    /// The earliest free slot. `None` if that is further ahead than [`HORIZON`].
    pub(crate) fn book(&mut self, pace: Pace, now: Timestamp) -> Option<Booking> {
        let (now, interval) = (micros(now), pace.interval());
        self.adopt(pace, now);
        let slot = self.earliest(pace, now);
        if slot > horizon(now) {
            return None;
        }
        if self.free.is_empty() {
            self.next = slot.saturating_add(interval);
        } else {
            self.free.take_earliest();
        }
        Some(Booking { slot, interval })
    }

    /// Moves a reservation to an earlier slot, if one is free. Returns the reservation that holds then.
    pub(crate) fn advance(&mut self, pace: Pace, booking: Booking, now: Timestamp) -> Booking {
        self.adopt(pace, micros(now));
        let is_earlier = booking.at() > now && self.earliest(pace, micros(now)) < booking.slot;
        match is_earlier.then(|| self.book(pace, now)).flatten() {
            Some(earlier) => {
                self.take_back(booking);
                earlier
            }
            None => booking,
        }
    }

    /// The earliest free slot, in microseconds. Forgets free slots whose time has passed.
    fn earliest(&mut self, pace: Pace, now: i64) -> i64 {
        let oldest = now.saturating_sub(pace.reach());
        self.free.forget_beyond(self.position(oldest));
        self.free.earliest().map_or(self.next.max(oldest), |position| self.next - i64::from(position).saturating_mul(self.interval))
    }

    /// How many slots before [`Timetable::next`] are not before that moment.
    fn position(&self, moment: i64) -> u32 {
        let slots = self.next.saturating_sub(moment).checked_div_euclid(self.interval).unwrap_or(0);
        u32::try_from(slots.max(0)).unwrap_or(u32::MAX)
    }

    /// Forgets all reservations: tasks that ask from now on get slots from now on. The distance between starts stays.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        self.next = self.next.min(micros(now));
        self.free = FreeSlots::default();
    }

    /// A pace that was changed begins anew, and so does one that a clock far ahead of this one has left behind.
    fn adopt(&mut self, pace: Pace, now: i64) {
        let (horizon, interval) = (horizon(now), pace.interval());
        if self.interval != interval && self.interval != 0 || self.next > horizon.saturating_add(interval) {
            self.next = now;
            self.free = FreeSlots::default();
            // What the other pace put off is not put off for longer than by this one: whoever disagrees about it starts nothing sooner.
            self.due = self.due.min(now.saturating_add(interval).saturating_add(pace.grace()));
        }
        if self.due > horizon.saturating_add(interval).saturating_add(pace.grace()) {
            self.due = now;
        }
        self.interval = interval;
    }

    /// How many could start now whom nobody has promised anything.
    pub(crate) fn free(&self, pace: Pace, now: Timestamp) -> u32 {
        let (mut this, now, interval) = (self.clone(), micros(now), pace.interval());
        this.adopt(pace, now);
        let oldest = now.saturating_sub(pace.reach());
        let given_back = this.free.count(this.position(now.saturating_add(1)).saturating_add(1), this.position(oldest));
        let slots = (now.saturating_sub(this.next.max(oldest)).div_euclid(interval) + 1).max(0).saturating_add(i64::from(given_back));
        let starts = pace.grace().saturating_sub(this.due.saturating_sub(now).max(0)).div_euclid(interval) + 1;
        u32::try_from(slots.min(starts).max(0)).unwrap_or(u32::MAX)
    }

    /// Number of reservations for after `now`, and not for before `from`.
    pub(crate) fn promised(&self, pace: Pace, from: Timestamp, now: Timestamp) -> u32 {
        let mut this = self.clone();
        this.adopt(pace, micros(now));
        let slots = this.position(micros(from).max(micros(now).saturating_add(1)));
        slots.saturating_sub(this.free.count(1, slots))
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

    /// Takes back a reservation that nobody will use. The next task gets its slot.
    pub(crate) fn take_back(&mut self, booking: Booking) {
        // A reservation from before the reservations were restarted is on none of these slots.
        let distance = self.next.saturating_sub(booking.slot);
        let is_known = self.interval == booking.interval && distance.checked_rem_euclid(self.interval) == Some(0);
        if let Some(position) = u32::try_from(distance.checked_div(self.interval).unwrap_or(0)).ok().filter(|of| is_known && *of > 0) {
            self.next -= i64::from(self.free.insert(position)).saturating_mul(self.interval);
        }
    }

    /// Gives out no slot before that moment.
    pub(crate) fn pause(&mut self, until: Timestamp) {
        self.free.forget_beyond(self.position(micros(until)));
        self.next = self.next.max(micros(until));
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
        let told = |times: &Timetable, millis| (times.free(pace, at(millis)), times.promised(pace, at(0), at(millis)));
        assert_eq!(told(&times, 0), (3, 0));
        for _ in 0..5 {
            times.book(pace, at(0)).unwrap();
        }
        (0..3).for_each(|_| times.start(pace, at(0)));
        assert_eq!([0, 101, 102, 204].map(|millis| told(&times, millis)), [(0, 2), (0, 2), (0, 1), (0, 0)]);
        assert_eq!([306, 1_000, 100_000].map(|millis| told(&times, millis)), [(1, 0), (3, 0), (3, 0)]);
        times.pause(at(5_000));
        assert_eq!((told(&times, 1_000).0, times.promised(pace, at(5_000), at(1_000))), (0, 0), "nobody was promised the time of a pause");
        times.book(pace, at(1_000)).unwrap();
        assert_eq!(times.promised(pace, at(5_000), at(1_000)), 1);
        let before = times.clone();
        assert_eq!((times.free(slower, at(1_000)), times), (1, before), "at another pace it begins anew");
    }

    #[test]
    fn slots_that_are_given_back_go_to_the_next_the_earliest_first() {
        let (mut times, pace) = (Timetable::default(), pace(1, 1));
        let booked: Vec<Booking> = (0..6).map(|_| times.book(pace, at(0)).unwrap()).collect();
        for place in [1, 4, 2] {
            times.take_back(booked[place]);
        }
        assert_eq!(times.promised(pace, at(0), at(0)), 2);
        assert_eq!(times.advance(pace, booked[5], at(100)), booked[1], "a task that asks early gets an earlier slot");
        assert_eq!(times.advance(pace, booked[3], at(2_000)), booked[2], "and gives its own back");
        assert_eq!(times.advance(pace, booked[2], at(2_050)), booked[2], "its time has come");
        let later: Vec<Booking> = (0..3).map(|_| times.book(pace, at(2_050)).unwrap()).collect();
        assert_eq!(later, [3, 4, 5].map(|place: usize| booked[place]));
    }

    #[test]
    fn reservations_that_are_all_given_back_leave_nothing_behind() {
        let (mut times, pace) = (Timetable::default(), pace(1, 1));
        let first = times.book(pace, at(0)).unwrap();
        times.start(pace, at(0));
        let mut booked: Vec<Booking> = std::iter::from_fn(|| times.book(pace, at(0))).collect();
        // In no order.
        booked.sort_by_key(|booking| (booking.slot / booking.interval).wrapping_mul(7_919) % 883);
        for booking in booked {
            times.take_back(booking);
        }
        assert_eq!((times.promised(pace, at(0), at(500)), times.free.is_empty()), (0, true));
        let next = times.book(pace, at(500)).unwrap();
        assert_eq!((first.at(), next.at()), (at(0), at(1_020)));
    }

    #[test]
    fn restarted_reservations_begin_now_and_starts_keep_their_distance() {
        let (mut times, pace) = (Timetable::default(), pace(1, 1));
        let booked: Vec<Booking> = (0..60).map(|_| times.book(pace, at(0)).unwrap()).collect();
        times.start(pace, at(0));
        times.take_back(booked[20]);
        times.restart(at(500));
        assert_eq!(times.promised(pace, at(0), at(500)), 0);
        times.take_back(booked[30]);
        let earlier = times.advance(pace, booked[50], at(500));
        assert_eq!((earlier.at(), times.free_at(pace, earlier)), (at(500), at(1_000)));
        assert_eq!(times.promised(pace, at(0), at(0)), 1, "reservations from before are not counted");
    }

    proptest! {
        /// As many as are said to be free start, and not one more.
        #[test]
        fn as_many_start_as_are_free(rate in 1_u32..200, burst in 1_u32..20, starts in proptest::collection::vec(0_i64..300, 0..100)) {
            let (mut times, pace) = (Timetable::default(), pace(rate, burst));
            let mut clock = 0;
            for pause in starts {
                clock += pause;
                let mut copy = times.clone();
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

        /// No two tasks hold one slot, whichever reservations are given back or moved to an earlier slot; and a slot that is free is used before
        /// a later one.
        #[test]
        fn no_slot_is_given_out_twice(rate in 1_u32..200, burst in 1_u32..4, steps in proptest::collection::vec((0_u8..5, 0_usize..40, 0_i64..200), 0..150)) {
            let (mut times, pace) = (Timetable::default(), pace(rate, burst));
            let (mut clock, mut held, mut returned) = (0, Vec::<Booking>::new(), Vec::<i64>::new());
            for (step, place, pause) in steps {
                clock += pause / 8;
                let is_over = |slot: i64| slot < micros(at(clock)) - pace.reach();
                returned.retain(|slot| !is_over(*slot));
                match step {
                    0 if !held.is_empty() => {
                        let booking = held.swap_remove(place % held.len());
                        times.take_back(booking);
                        returned.extend(Some(booking.slot).filter(|slot| !is_over(*slot)));
                    }
                    1 if !held.is_empty() => {
                        let place = place % held.len();
                        let moved = times.advance(pace, held[place], at(clock));
                        prop_assert!(moved.slot <= held[place].slot);
                        if moved != held[place] {
                            returned.retain(|slot| *slot != moved.slot);
                            returned.push(held[place].slot);
                        }
                        held[place] = moved;
                    }
                    _ => {
                        let Some(booking) = times.book(pace, at(clock)) else { continue };
                        let earliest = returned.iter().min().copied();
                        // Slots at the end may begin anew from a later moment, less than an interval later.
                        let is_early = earliest.is_none_or(|earliest| booking.slot < earliest + pace.interval());
                        prop_assert!(is_early, "{booking:?}, {earliest:?} is free");
                        returned.retain(|slot| (slot - booking.slot).abs() >= pace.interval());
                        held.push(booking);
                    }
                }
                let mut slots: Vec<i64> = held.iter().map(|booking| booking.slot).collect();
                slots.sort_unstable();
                prop_assert!(slots.windows(2).all(|pair| pair[1] - pair[0] >= pace.interval()), "{slots:?}");
                let ahead = held.iter().filter(|booking| booking.slot > micros(at(clock))).count();
                prop_assert_eq!(times.promised(pace, at(clock), at(clock)) as usize, ahead);
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
