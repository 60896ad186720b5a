//! Index that lags behind its table.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use nobat_core::types::time::Timestamp;

use super::table::Key;
use crate::model::backend_quirks::{Habit, Habits};

/// Index entries of each item, present and past.
pub(super) struct Index<V> {
    /// Maximum lag of a read behind the table.
    lag: Duration,
    /// Habit under which the lag is decided and counted.
    habit: Habit,
    entries: BTreeMap<Key, VecDeque<Entry<V>>>,
}

struct Entry<V> {
    since: Timestamp,
    /// `None` if the item is not in the index.
    value: Option<V>,
}

impl<V: Clone + PartialEq> Index<V> {
    /// Creates an empty index.
    pub(super) fn new(lag: Duration, habit: Habit) -> Self {
        Self { lag, habit, entries: BTreeMap::new() }
    }

    /// Records the table's value from now on.
    pub(super) fn write(&mut self, key: Key, value: Option<V>, now: Timestamp) {
        let known = self.entries.entry(key).or_default();
        if known.back().map(|entry| &entry.value) == Some(&value) {
            return;
        }
        known.push_back(Entry { since: now, value });
        // The value at the beginning of the lag is the oldest that a read may still show.
        while known.get(1).is_some_and(|next| next.since + self.lag < now) {
            known.pop_front();
        }
    }

    /// Reads the index. Each item is shown as of some moment within the lag, because partitions of an index
    /// lag independently.
    pub(super) fn read(&self, now: Timestamp, habits: &dyn Habits) -> Vec<(&Key, &V)> {
        self.entries.iter().filter_map(|(key, known)| Some((key, self.shown(known, now, habits)?))).collect()
    }

    fn shown<'a>(&self, known: &'a VecDeque<Entry<V>>, now: Timestamp, habits: &dyn Habits) -> Option<&'a V> {
        let newest = known.back()?;
        if newest.since + self.lag <= now || !habits.shows(self.habit) {
            return newest.value.as_ref();
        }
        let then = now - habits.some_time(self.lag);
        let shown =
            known.iter().rev().find(|entry| entry.since <= then).and_then(|entry| entry.value.as_ref());
        if shown != newest.value.as_ref() {
            habits.note(self.habit);
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    /// Habits with the maximum lag.
    struct Slow;

    impl Habits for Slow {
        fn shows(&self, _habit: Habit) -> bool {
            true
        }

        fn some_time(&self, most: Duration) -> Duration {
            most
        }

        fn note(&self, _habit: Habit) {}
    }

    #[test]
    fn index_read_is_stale_for_at_most_the_lag() {
        const LAG: Duration = Duration::from_secs(10);
        let (key, start) = (("tenant".to_owned(), [0; 16]), sample::start());
        let mut index = Index::new(LAG, Habit::ShowsOldList);
        let read = |index: &Index<u8>, after: u64| {
            let shown = index.read(start + Duration::from_secs(after), &Slow);
            shown.first().map(|(_, value)| **value)
        };
        index.write(key.clone(), Some(1), start);
        assert_eq!((read(&index, 9), read(&index, 10)), (None, Some(1)));
        index.write(key.clone(), Some(2), start + Duration::from_secs(12));
        index.write(key.clone(), None, start + Duration::from_secs(15));
        let seen = [15, 21, 22, 24, 25].map(|after| read(&index, after));
        assert_eq!(seen, [Some(1), Some(1), Some(2), Some(2), None]);
    }
}
