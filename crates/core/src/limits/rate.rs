//! Rate limit: a sequence of slots, each for one start.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::free_slots::FreeSlots;
use crate::types::time::Timestamp;

/// Maximum number of starts in any period, and in a burst after a pause. The period that begins with a burst
/// can have `burst - 1` more starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Number of starts in a period.
    pub rate: NonZeroU32,
    /// Length of the period.
    pub period: Duration,
    /// Number of starts that may come at once.
    pub burst: NonZeroU32,
}

/// Slot that a task holds. The task waits until the time of the slot before it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Time of the slot, in microseconds since the Unix epoch.
    pub slot: i64,
    /// Time between slots when the reservation was made, in microseconds. If the rate limit has changed since
    /// then, the reservation is void.
    pub interval: i64,
}

/// Divisor of the period: a start may be late by one fiftieth of the period. In return, slots are one
/// fiftieth further apart.
const TOLERATED: i64 = 50;

/// Maximum time ahead for reservations. A task that finds no slot within this time tries again later.
pub const MAX_RESERVATION_AHEAD: Duration = Duration::from_mins(15);

/// Slots that were given out, and the theoretical arrival time that enforces the rate.
///
/// A slot tells a waiting task when to try again. The rate itself is checked at each actual start (generic
/// cell rate algorithm, ITU-T I.371). So the rate holds even if tasks come late or not at all, and while
/// processes use different rates. A late task starts as soon as the rate has room.
///
/// A start may come a little early after a start that was a little late. To make up for that, slots are
/// further apart than the rate requires. A burst uses past slots that no task held.
///
/// Guarantees:
/// - The rate holds, even if slots are lost or given out twice.
/// - A task starts no later than its slot, with two exceptions: other tasks start late, or other tasks start
///   here without a reservation because their reservation at another limiter is due.
/// - The next task that asks for a slot gets the earliest slot that was given back. That task may be newer
///   than a task that waits for a later slot, because nobat does not tell waiting tasks of free slots. A
///   waiting task that tries again before its slot gets the earliest free slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GcraState {
    /// First slot that was never given out, in microseconds since the Unix epoch.
    next: i64,
    /// Slots before `next` that were given back.
    #[serde(default, skip_serializing_if = "FreeSlots::is_empty")]
    free: FreeSlots,
    /// Distance between slots, in microseconds.
    interval: i64,
    /// Theoretical arrival time of the algorithm, in microseconds since the Unix epoch. Each start moves this
    /// time one interval ahead.
    #[serde(default)]
    due: i64,
}

impl RateLimit {
    /// Returns the distance between slots in microseconds, rounded up.
    fn interval(self) -> i64 {
        let (length, rate) = (self.period().saturating_add(self.lateness()), i64::from(self.rate.get()));
        (length / rate + i64::from(length % rate > 0)).max(1)
    }

    fn period(self) -> i64 {
        i64::try_from(self.period.as_micros()).unwrap_or(i64::MAX)
    }

    /// Returns how late a start with a reservation may be, in microseconds.
    fn lateness(self) -> i64 {
        self.period() / TOLERATED
    }

    /// Returns the age of the oldest past slot that a burst can use, in microseconds.
    fn reach(self) -> i64 {
        self.interval().saturating_mul(i64::from(self.burst.get()) - 1)
    }

    /// Returns how much earlier than [`GcraState::due`] a start may be, in microseconds.
    fn grace(self) -> i64 {
        self.reach().saturating_add(self.lateness())
    }

    /// Returns true if the reservation was made under this rate limit. Any other reservation is void.
    pub(crate) fn is_valid(self, reservation: Reservation) -> bool {
        reservation.interval == self.interval()
    }
}

/// Maximum number of other starts for which a late task waits. If more starts are ahead, the task gets a new
/// reservation. Otherwise all late tasks would try again at the same time.
const KEPT: i64 = 10;

impl GcraState {
    /// Reserves the earliest free slot. Returns `None` if that slot is more than [`MAX_RESERVATION_AHEAD`]
    /// ahead.
    pub(crate) fn reserve(&mut self, rate_limit: RateLimit, now: Timestamp) -> Option<Reservation> {
        let (now, interval) = (micros(now), rate_limit.interval());
        self.adopt(rate_limit, now);
        let slot = self.earliest(rate_limit, now);
        if slot > horizon(now) {
            return None;
        }
        if self.free.is_empty() {
            self.next = slot.saturating_add(interval);
        } else {
            self.free.take_earliest();
        }
        Some(Reservation { slot, interval })
    }

    /// Moves a reservation to an earlier slot, if an earlier slot is free. Returns the reservation that the
    /// task holds afterwards.
    pub(crate) fn advance(
        &mut self,
        rate_limit: RateLimit,
        reservation: Reservation,
        now: Timestamp,
    ) -> Reservation {
        self.adopt(rate_limit, micros(now));
        let is_earlier = reservation.at() > now && self.earliest(rate_limit, micros(now)) < reservation.slot;
        match is_earlier.then(|| self.reserve(rate_limit, now)).flatten() {
            Some(earlier) => {
                self.release(reservation);
                earlier
            }
            None => reservation,
        }
    }

    /// Returns the earliest free slot, in microseconds since the Unix epoch. Forgets free slots whose time
    /// has passed.
    fn earliest(&mut self, rate_limit: RateLimit, now: i64) -> i64 {
        let oldest = now.saturating_sub(rate_limit.reach());
        self.free.forget_beyond(self.position(oldest));
        self.free.earliest().map_or(self.next.max(oldest), |position| {
            self.next - i64::from(position).saturating_mul(self.interval)
        })
    }

    /// Returns the number of slots from `moment` up to [`GcraState::next`].
    fn position(&self, moment: i64) -> u32 {
        let slots = self.next.saturating_sub(moment).checked_div_euclid(self.interval).unwrap_or(0);
        u32::try_from(slots.max(0)).unwrap_or(u32::MAX)
    }

    /// Forgets all reservations: the next tasks get slots from now on. The rate still limits the starts.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        self.next = self.next.min(micros(now));
        self.free = FreeSlots::default();
    }

    /// Discards all slots if the rate limit has changed, or if a process with a clock far ahead has moved the
    /// slots beyond [`horizon`].
    fn adopt(&mut self, rate_limit: RateLimit, now: i64) {
        let (horizon, interval) = (horizon(now), rate_limit.interval());
        if self.interval != interval && self.interval != 0 || self.next > horizon.saturating_add(interval) {
            self.next = now;
            self.free = FreeSlots::default();
            // The old rate must not delay a start for longer than the new rate does. Without any delay, tasks
            // would start too soon while processes use different rates.
            self.due = self.due.min(now.saturating_add(interval).saturating_add(rate_limit.grace()));
        }
        if self.due > horizon.saturating_add(interval).saturating_add(rate_limit.grace()) {
            self.due = now;
        }
        self.interval = interval;
    }

    /// Returns the number of tasks without a reservation that could start now.
    pub(crate) fn free(&self, rate_limit: RateLimit, now: Timestamp) -> u32 {
        let (mut this, now, interval) = (self.clone(), micros(now), rate_limit.interval());
        this.adopt(rate_limit, now);
        let oldest = now.saturating_sub(rate_limit.reach());
        let given_back =
            this.free.count(this.position(now.saturating_add(1)).saturating_add(1), this.position(oldest));
        let slots = (now.saturating_sub(this.next.max(oldest)).div_euclid(interval) + 1)
            .max(0)
            .saturating_add(i64::from(given_back));
        let starts =
            rate_limit.grace().saturating_sub(this.due.saturating_sub(now).max(0)).div_euclid(interval) + 1;
        u32::try_from(slots.min(starts).max(0)).unwrap_or(u32::MAX)
    }

    /// Returns the number of reserved slots that are after `now` and at or after `from`.
    pub(crate) fn reserved(&self, rate_limit: RateLimit, from: Timestamp, now: Timestamp) -> u32 {
        let mut this = self.clone();
        this.adopt(rate_limit, micros(now));
        let slots = this.position(micros(from).max(micros(now).saturating_add(1)));
        slots.saturating_sub(this.free.count(1, slots))
    }

    /// Returns when a task with this reservation may start: at its slot, or later if too many tasks started
    /// recently.
    pub(crate) fn free_at(&self, rate_limit: RateLimit, reservation: Reservation) -> Timestamp {
        Reservation { slot: self.due.saturating_sub(rate_limit.grace()).max(reservation.slot), ..reservation }
            .at()
    }

    /// Returns a slot at `now` for a task without a reservation at this limiter, and the time at which the
    /// task may start. Returns `None` if that time is more than [`KEPT`] intervals ahead.
    pub(crate) fn next_free(
        &mut self,
        rate_limit: RateLimit,
        now: Timestamp,
    ) -> Option<(Reservation, Timestamp)> {
        self.adopt(rate_limit, micros(now));
        let reservation = Reservation { slot: micros(now), interval: rate_limit.interval() };
        Some((reservation, self.due_time(rate_limit, reservation, now)?))
    }

    /// Returns when a task with this reservation may start. Returns `None` if so many other tasks started
    /// that a new reservation is better.
    pub(crate) fn due_time(
        &self,
        rate_limit: RateLimit,
        reservation: Reservation,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let free = self.free_at(rate_limit, reservation);
        let is_far = micros(free) - micros(now) > rate_limit.interval().saturating_mul(KEPT)
            && free > reservation.at();
        (!is_far).then_some(free)
    }

    /// Records a start.
    pub(crate) fn start(&mut self, rate_limit: RateLimit, now: Timestamp) {
        self.due = self.due.max(micros(now)).saturating_add(rate_limit.interval());
    }

    /// Removes the record of a start that did not happen.
    pub(crate) fn forget_start(&mut self, reservation: Reservation) {
        self.due = self.due.saturating_sub(reservation.interval);
    }

    /// Takes back a reservation that its task will not use. The next task gets the slot.
    pub(crate) fn release(&mut self, reservation: Reservation) {
        // After [`GcraState::restart`], slots have other times. An older reservation then matches no slot.
        let distance = self.next.saturating_sub(reservation.slot);
        let is_known =
            self.interval == reservation.interval && distance.checked_rem_euclid(self.interval) == Some(0);
        if let Some(position) = u32::try_from(distance.checked_div(self.interval).unwrap_or(0))
            .ok()
            .filter(|of| is_known && *of > 0)
        {
            self.next -= i64::from(self.free.insert(position)).saturating_mul(self.interval);
        }
    }

    /// Gives out no slot before `until`.
    pub(crate) fn pause(&mut self, until: Timestamp) {
        self.free.forget_beyond(self.position(micros(until)));
        self.next = self.next.max(micros(until));
    }
}

impl Reservation {
    /// Returns the earliest time at which the reservation can be used.
    pub fn at(self) -> Timestamp {
        Timestamp::from_millis(self.slot.saturating_add(999).div_euclid(1_000))
    }
}

/// Returns the latest moment for a reservation made at `now`, in microseconds since the Unix epoch.
fn horizon(now: i64) -> i64 {
    now.saturating_add(i64::try_from(MAX_RESERVATION_AHEAD.as_micros()).unwrap_or(i64::MAX))
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

    fn rate_limit(rate: u32, burst: u32) -> RateLimit {
        let count = |count| NonZeroU32::new(count).unwrap();
        RateLimit { rate: count(rate), period: Duration::from_secs(1), burst: count(burst) }
    }

    #[test]
    fn burst_starts_at_once_and_the_rest_at_the_rate() {
        let (mut times, rate_limit) = (GcraState::default(), rate_limit(10, 3));
        let booked: Vec<Reservation> = (0..5).map(|_| times.reserve(rate_limit, at(0)).unwrap()).collect();
        let mut startable = Vec::new();
        for reservation in &booked {
            startable.push(times.free_at(rate_limit, *reservation) <= at(0));
            times.start(rate_limit, at(0));
        }
        assert_eq!(startable, [true, true, true, false, false]);
        assert_eq!(
            (booked[3].at(), booked[4].at()),
            (at(102), at(204)),
            "reservations are a fiftieth further apart than the rate"
        );
    }

    #[test]
    fn late_task_starts_at_the_next_free_time() {
        let (mut times, rate_limit) = (GcraState::default(), rate_limit(10, 1));
        let booked: Vec<Reservation> = (0..20).map(|_| times.reserve(rate_limit, at(0)).unwrap()).collect();
        assert_eq!(times.due_time(rate_limit, booked[1], at(5_000)), Some(at(102)), "no other task started");
        times.start(rate_limit, at(5_000));
        assert_eq!(
            times.due_time(rate_limit, booked[2], at(5_000)),
            Some(at(5_082)),
            "an interval later, minus the allowed earliness"
        );
        (0..12).for_each(|_| times.start(rate_limit, at(5_000)));
        assert_eq!(times.due_time(rate_limit, booked[3], at(5_000)), None, "a new reservation is better");
        times.forget_start(booked[3]);
        times.forget_start(booked[4]);
        assert!(times.due_time(rate_limit, booked[3], at(5_300)).is_some());
    }

    #[test]
    fn processes_with_two_rates_stay_within_the_higher_rate() {
        let (mut times, old, new) = (GcraState::default(), rate_limit(100, 1), rate_limit(1, 1));
        let mut starts = 0;
        for millis in 0..1_000 {
            let rate_limit = if millis % 2 == 0 { old } else { new };
            let reservation = times.reserve(rate_limit, at(millis)).unwrap();
            if times.free_at(rate_limit, reservation) <= at(millis) {
                times.start(rate_limit, at(millis));
                starts += 1;
            }
        }
        assert!(starts <= 100, "{starts}");
    }

    #[test]
    fn reservation_beyond_the_horizon_is_refused() {
        let (mut times, rate_limit) = (GcraState::default(), rate_limit(1, 1));
        let booked = std::iter::from_fn(|| times.reserve(rate_limit, at(0))).count();
        assert_eq!(booked, 883, "reservations are a second and a fiftieth apart");
        assert!(times.reserve(rate_limit, at(2_000)).is_some(), "passing time frees a reservation");
    }

    #[test]
    fn changed_rate_voids_reservations() {
        let (mut times, old, new) = (GcraState::default(), rate_limit(1, 1), rate_limit(100, 1));
        let booked: Vec<Reservation> = (0..100).map(|_| times.reserve(old, at(0)).unwrap()).collect();
        let first = times.reserve(new, at(500)).unwrap();
        assert_eq!(first.at(), at(500));
        assert!(!new.is_valid(booked[1]) && new.is_valid(first));
    }

    #[test]
    fn reservations_recover_after_a_clock_far_ahead() {
        let (mut times, rate_limit) = (GcraState::default(), rate_limit(1, 1));
        times.reserve(rate_limit, at(3_600_000));
        assert_eq!(times.reserve(rate_limit, at(0)).unwrap().at(), at(0));
    }

    #[test]
    fn free_and_reserved_starts_are_counted() {
        let (mut times, rate_limit, slower) = (GcraState::default(), rate_limit(10, 3), rate_limit(5, 1));
        let told = |times: &GcraState, millis| {
            (times.free(rate_limit, at(millis)), times.reserved(rate_limit, at(0), at(millis)))
        };
        assert_eq!(told(&times, 0), (3, 0));
        for _ in 0..5 {
            times.reserve(rate_limit, at(0)).unwrap();
        }
        (0..3).for_each(|_| times.start(rate_limit, at(0)));
        assert_eq!([0, 101, 102, 204].map(|millis| told(&times, millis)), [(0, 2), (0, 2), (0, 1), (0, 0)]);
        assert_eq!([306, 1_000, 100_000].map(|millis| told(&times, millis)), [(1, 0), (3, 0), (3, 0)]);
        times.pause(at(5_000));
        assert_eq!(
            (told(&times, 1_000).0, times.reserved(rate_limit, at(5_000), at(1_000))),
            (0, 0),
            "no reservation lies within the pause"
        );
        times.reserve(rate_limit, at(1_000)).unwrap();
        assert_eq!(times.reserved(rate_limit, at(5_000), at(1_000)), 1);
        let before = times.clone();
        assert_eq!((times.free(slower, at(1_000)), times), (1, before), "another rate starts again");
    }

    #[test]
    fn returned_slots_are_reused_earliest_first() {
        let (mut times, rate_limit) = (GcraState::default(), rate_limit(1, 1));
        let booked: Vec<Reservation> = (0..6).map(|_| times.reserve(rate_limit, at(0)).unwrap()).collect();
        for place in [1, 4, 2] {
            times.release(booked[place]);
        }
        assert_eq!(times.reserved(rate_limit, at(0), at(0)), 2);
        assert_eq!(
            times.advance(rate_limit, booked[5], at(100)),
            booked[1],
            "a task that asks early gets an earlier slot"
        );
        assert_eq!(
            times.advance(rate_limit, booked[3], at(2_000)),
            booked[2],
            "the task gives its own slot back"
        );
        assert_eq!(times.advance(rate_limit, booked[2], at(2_050)), booked[2], "a due slot is kept");
        let later: Vec<Reservation> = (0..3).map(|_| times.reserve(rate_limit, at(2_050)).unwrap()).collect();
        assert_eq!(later, [3, 4, 5].map(|place: usize| booked[place]));
    }

    #[test]
    fn returning_all_reservations_frees_every_slot() {
        let (mut times, rate_limit) = (GcraState::default(), rate_limit(1, 1));
        let first = times.reserve(rate_limit, at(0)).unwrap();
        times.start(rate_limit, at(0));
        let mut booked: Vec<Reservation> = std::iter::from_fn(|| times.reserve(rate_limit, at(0))).collect();
        // Gives the reservations back in mixed order.
        booked.sort_by_key(|reservation| (reservation.slot / reservation.interval).wrapping_mul(7_919) % 883);
        for reservation in booked {
            times.release(reservation);
        }
        assert_eq!((times.reserved(rate_limit, at(0), at(500)), times.free.is_empty()), (0, true));
        let next = times.reserve(rate_limit, at(500)).unwrap();
        assert_eq!((first.at(), next.at()), (at(0), at(1_020)));
    }

    #[test]
    fn restarted_reservations_begin_now_and_keep_the_rate() {
        let (mut times, rate_limit) = (GcraState::default(), rate_limit(1, 1));
        let booked: Vec<Reservation> = (0..60).map(|_| times.reserve(rate_limit, at(0)).unwrap()).collect();
        times.start(rate_limit, at(0));
        times.release(booked[20]);
        times.restart(at(500));
        assert_eq!(times.reserved(rate_limit, at(0), at(500)), 0);
        times.release(booked[30]);
        let earlier = times.advance(rate_limit, booked[50], at(500));
        assert_eq!((earlier.at(), times.free_at(rate_limit, earlier)), (at(500), at(1_000)));
        assert_eq!(times.reserved(rate_limit, at(0), at(0)), 1, "reservations from before are not counted");
    }

    proptest! {
        /// Exactly as many tasks start as `free` returns.
        #[test]
        fn free_count_equals_the_possible_starts(rate in 1_u32..200, burst in 1_u32..20, starts in proptest::collection::vec(0_i64..300, 0..100)) {
            let (mut times, rate_limit) = (GcraState::default(), rate_limit(rate, burst));
            let mut clock = 0;
            for pause in starts {
                clock += pause;
                let mut copy = times.clone();
                let begins = |times: &mut GcraState| {
                    let begins = times.reserve(rate_limit, at(clock)).is_some_and(|reservation| times.free_at(rate_limit, reservation) <= at(clock));
                    if begins {
                        times.start(rate_limit, at(clock));
                    }
                    begins
                };
                let free = times.free(rate_limit, at(clock));
                prop_assert_eq!((0..=free).filter(|_| begins(&mut copy)).count(), free as usize);
                begins(&mut times);
            }
        }

        /// No two tasks hold the same slot, even if tasks give reservations back or move them to an earlier
        /// slot. A free slot is used before a later slot.
        #[test]
        fn no_slot_is_given_out_twice(rate in 1_u32..200, burst in 1_u32..4, steps in proptest::collection::vec((0_u8..5, 0_usize..40, 0_i64..200), 0..150)) {
            let (mut times, rate_limit) = (GcraState::default(), rate_limit(rate, burst));
            let (mut clock, mut held, mut returned) = (0, Vec::<Reservation>::new(), Vec::<i64>::new());
            for (step, place, pause) in steps {
                clock += pause / 8;
                let is_over = |slot: i64| slot < micros(at(clock)) - rate_limit.reach();
                returned.retain(|slot| !is_over(*slot));
                match step {
                    0 if !held.is_empty() => {
                        let reservation = held.swap_remove(place % held.len());
                        times.release(reservation);
                        returned.extend(Some(reservation.slot).filter(|slot| !is_over(*slot)));
                    }
                    1 if !held.is_empty() => {
                        let place = place % held.len();
                        let moved = times.advance(rate_limit, held[place], at(clock));
                        prop_assert!(moved.slot <= held[place].slot);
                        if moved != held[place] {
                            returned.retain(|slot| *slot != moved.slot);
                            returned.push(held[place].slot);
                        }
                        held[place] = moved;
                    }
                    _ => {
                        let Some(reservation) = times.reserve(rate_limit, at(clock)) else { continue };
                        let earliest = returned.iter().min().copied();
                        // Slots at the end may start again from a later moment, less than an interval later.
                        let is_early = earliest.is_none_or(|earliest| reservation.slot < earliest + rate_limit.interval());
                        prop_assert!(is_early, "{reservation:?}, {earliest:?} is free");
                        returned.retain(|slot| (slot - reservation.slot).abs() >= rate_limit.interval());
                        held.push(reservation);
                    }
                }
                let mut slots: Vec<i64> = held.iter().map(|reservation| reservation.slot).collect();
                slots.sort_unstable();
                prop_assert!(slots.windows(2).all(|pair| pair[1] - pair[0] >= rate_limit.interval()), "{slots:?}");
                let ahead = held.iter().filter(|reservation| reservation.slot > micros(at(clock))).count();
                prop_assert_eq!(times.reserved(rate_limit, at(clock), at(clock)) as usize, ahead);
            }
        }

        /// No period has more starts than allowed, even if tasks ask at any time and start late.
        #[test]
        fn no_period_exceeds_the_allowed_starts(
            rate in 1_u32..200, burst in 1_u32..20, asks in proptest::collection::vec((0_i64..100, 0_i64..300), 2..300)
        ) {
            let (mut times, rate_limit) = (GcraState::default(), rate_limit(rate, burst));
            let mut clock = 0;
            let come = |(pause, lateness): (i64, i64)| {
                clock += pause;
                let reservation = times.reserve(rate_limit, at(clock)).unwrap();
                (reservation.at().max(at(clock)).millis() + lateness, reservation)
            };
            let mut comers: Vec<(i64, Reservation)> = asks.into_iter().map(come).collect();
            comers.sort_unstable_by_key(|(when, _)| *when);
            let mut starts = Vec::new();
            for (when, reservation) in comers {
                let now = Timestamp::from_millis(when);
                if times.free_at(rate_limit, reservation) <= now {
                    times.start(rate_limit, now);
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
