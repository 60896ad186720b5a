//! Map that drops the least recently used entries.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Map of bounded size. It holds at most twice `half` entries, and always the `half` most recently used
/// entries.
///
/// The map has a young and an old part. A used entry moves to the young part. When the young part is full,
/// the young part becomes the old part, and the previous old part is dropped.
pub struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    /// Creates an empty map for at most `capacity` entries.
    pub fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: (capacity / 2).max(1) }
    }

    /// Returns the value of a key and marks it as used.
    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        // Most maps have no entries in the old part. Without this check, those maps would hash the key twice.
        if !self.old.is_empty()
            && let Some((key, value)) = self.old.remove_entry(key)
        {
            self.insert(key, value);
        }
        self.young.get(key)
    }

    /// Sets the value of a key and marks it as used.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Removes a key.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_in_use_outlasts_any_number_of_others() {
        let mut map = Recent::new(10);
        map.insert(0, "kept");
        for number in 1..1_000 {
            map.insert(number, "other");
            assert_eq!(map.get(&0), Some(&"kept"));
            assert!(map.young.len() + map.old.len() <= 10);
        }
        assert_eq!(map.get(&1), None);
        assert_eq!(map.get(&999), Some(&"other"));
    }

    #[test]
    fn removed_and_replaced_entries_do_not_come_back() {
        let mut map = Recent::new(2);
        map.insert(1, "old");
        map.insert(2, "other");
        map.insert(1, "new");
        assert_eq!(map.get(&1), Some(&"new"));
        map.remove(&1);
        assert_eq!(map.get(&1), None);
    }
}
