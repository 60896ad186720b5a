//! Free slots: slots of reservations that were given back. The next tasks get these slots.

use serde::{Deserialize, Serialize};

/// Slots that tasks gave back, as run lengths.
///
/// A slot's position is its distance from the first slot that was never given out. Position 1 is the slot
/// right before that slot, and higher positions are earlier slots. Each run is a number of slots in use, and
/// the number of free slots right before them. The first run begins at position 1.
///
/// At most [`MAX_RUNS`] runs are kept, so that a limiter's record stays small. If there are more runs, the
/// two runs whose free slots are closest to each other become one. The number of free slots stays exact, but
/// some free slots are recorded as earlier than they are. Two tasks may then get the same slot, and the rate
/// limit delays one of the two tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct FreeSlots(Vec<Run>);

/// Number of slots in use, and number of free slots right before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run(u32, u32);

/// Maximum number of runs.
const MAX_RUNS: usize = 32;

impl FreeSlots {
    /// Returns true if no slot is free.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Marks the slot at `position` as free. If joined runs record that slot as free already, marks the
    /// nearest later slot that is in use instead.
    ///
    /// Removes the free slots from position 1 on, up to the first slot in use. Returns their number. The
    /// first slot that was never given out is then earlier by this number of slots, and the caller must
    /// record that.
    pub(super) fn insert(&mut self, position: u32) -> u32 {
        let mut end = 0_u32;
        let mut place = 0;
        // Find the first run that reaches the position.
        while let Some(Run(used, free)) = self.0.get(place) {
            let reach = end.saturating_add(*used).saturating_add(*free);
            if position <= reach {
                break;
            }
            end = reach;
            place += 1;
        }
        let ahead = position.saturating_sub(end).saturating_sub(1);
        match self.0.get_mut(place) {
            // The slot is free already: the nearest later slot in use becomes free.
            Some(Run(used, free)) if ahead >= *used => {
                *used = used.saturating_sub(1);
                *free = free.saturating_add(1);
            }
            // The slot is in use: it splits the run.
            Some(Run(used, _)) => {
                *used -= ahead + 1;
                self.0.insert(place, Run(ahead, 1));
            }
            None => self.0.push(Run(ahead, 1)),
        }
        self.join(place);
        if self.0.len() > MAX_RUNS {
            self.shorten();
        }
        self.take_end()
    }

    /// Joins the runs around `place` if no slot is in use between them.
    fn join(&mut self, place: usize) {
        for later in [place, place.saturating_sub(1)] {
            if let Some(Run(0, more)) = self.0.get(later + 1).copied() {
                self.0.remove(later + 1);
                self.0[later].1 = self.0[later].1.saturating_add(more);
            }
        }
    }

    /// Joins the two runs with the fewest slots in use between them. The free slots of the later run are then
    /// recorded as earlier than they are.
    fn shorten(&mut self) {
        let between = |place: &usize| self.0[*place].0;
        if let Some(place) = (1..self.0.len()).min_by_key(between) {
            let Run(used, free) = self.0.remove(place);
            let later = &mut self.0[place - 1];
            *later = Run(later.0.saturating_add(used), later.1.saturating_add(free));
        }
    }

    fn take_end(&mut self) -> u32 {
        match self.0.first() {
            Some(Run(0, free)) => {
                let free = *free;
                self.0.remove(0);
                free
            }
            _ => 0,
        }
    }

    /// Returns the position of the earliest free slot.
    pub(super) fn earliest(&self) -> Option<u32> {
        (!self.is_empty()).then(|| self.reach())
    }

    /// Marks the earliest free slot as in use.
    pub(super) fn take_earliest(&mut self) {
        if let Some(Run(_, free)) = self.0.last_mut() {
            *free = free.saturating_sub(1);
        }
        self.0.pop_if(|Run(_, free)| *free == 0);
    }

    /// Forgets the free slots before the slot at `position`, because their time has passed.
    pub(super) fn forget_beyond(&mut self, position: u32) {
        while let Some(excess) = self.reach().checked_sub(position).filter(|excess| *excess > 0) {
            let Some(Run(_, free)) = self.0.last_mut() else { return };
            *free = free.saturating_sub(excess);
            if *free > 0 {
                return;
            }
            self.0.pop();
        }
    }

    /// Number of free slots from one position to another, both included.
    pub(super) fn count(&self, from: u32, to: u32) -> u32 {
        let (mut end, mut count) = (0_u32, 0_u32);
        for Run(used, free) in &self.0 {
            let first = end.saturating_add(*used);
            end = first.saturating_add(*free);
            // The run's free slots are at the positions after `first`, up to `end`.
            count = count.saturating_add(end.min(to).saturating_sub(first.max(from.saturating_sub(1))));
        }
        count
    }

    /// Position of the earliest slot of the list. 0 if the list is empty.
    fn reach(&self) -> u32 {
        self.0.iter().fold(0, |reach: u32, Run(used, free)| reach.saturating_add(*used).saturating_add(*free))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_at_the_end_are_returned_to_the_caller() {
        let mut free = FreeSlots::default();
        assert_eq!([3, 5, 4].map(|position| free.insert(position)), [0, 0, 0]);
        assert_eq!(free, FreeSlots(vec![Run(2, 3)]));
        assert_eq!(free.insert(2), 0);
        assert_eq!(free.insert(1), 5, "all free slots are at the end");
        assert!(free.is_empty());
    }

    #[test]
    fn earliest_slot_goes_first_and_past_ones_are_forgotten() {
        let mut free = FreeSlots::default();
        assert_eq!([4, 8, 9].map(|position| free.insert(position)), [0; 3]);
        assert_eq!(
            (free.earliest(), free.count(1, 4), free.count(5, 8), free.count(8, 99)),
            (Some(9), 1, 1, 2)
        );
        free.take_earliest();
        assert_eq!(free.earliest(), Some(8));
        free.forget_beyond(7);
        assert_eq!(free.earliest(), Some(4));
        free.forget_beyond(3);
        assert!(free.is_empty() && free.earliest().is_none());
    }

    #[test]
    fn too_many_runs_become_fewer_and_no_slot_is_lost() {
        let mut free = FreeSlots::default();
        (1..=100).for_each(|number| assert_eq!(free.insert(number * 3), 0));
        assert!(free.0.len() <= MAX_RUNS && free.count(1, u32::MAX) == 100, "{free:?}");
        assert!(serde_json::to_string(&free).unwrap().len() < 400);
        // Each returned slot moves the end back, so later positions are lower by the number of slots returned
        // so far.
        let rest = (1..=300).filter(|number| number % 3 > 0);
        let returned = rest.fold(0, |returned, number| returned + free.insert(number - returned));
        assert_eq!((returned, free.is_empty()), (300, true), "when all are free, all are at the end");
    }

    proptest! {
        /// With few runs, the list is exactly the set of free slots.
        #[test]
        fn list_is_the_set_of_free_slots(steps in proptest::collection::vec((0_u8..3, 1_u32..60), 0..60)) {
            let (mut free, mut set, mut end) = (FreeSlots::default(), BTreeSet::new(), 1_000_i64);
            let mut live: BTreeSet<i64> = (900..1_000).collect();
            for (step, number) in steps {
                let position = |slot: i64| u32::try_from(end - slot).unwrap();
                match step {
                    0 => {
                        prop_assert_eq!(free.earliest(), set.first().map(|slot| position(*slot)));
                        free.take_earliest();
                        live.extend(set.pop_first());
                    }
                    1 => {
                        let oldest = end - i64::from(number);
                        set.retain(|slot| *slot >= oldest);
                        free.forget_beyond(number);
                    }
                    _ => {
                        let slot = end - i64::from(number);
                        if live.remove(&slot) {
                            set.insert(slot);
                            end -= i64::from(free.insert(position(slot)));
                            set.retain(|slot| *slot < end);
                        }
                    }
                }
                prop_assert!(free.0.len() < MAX_RUNS);
                prop_assert_eq!(free.count(1, u32::MAX) as usize, set.len());
                prop_assert_eq!(free.count(10, 20) as usize, set.iter().filter(|slot| (10..=20).contains(&(end - **slot))).count());
            }
        }
    }
}
