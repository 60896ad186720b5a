//! In-memory queue in which owners take turns.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

/// Items that wait, in order of arrival for each owner.
///
/// Owners with waiting items take turns in the order of their keys, one item each. So an owner waits for at
/// most one item of every other owner. There is no size limit, so the caller must limit the number of items.
#[derive(Debug)]
pub struct Turns<K, T> {
    waiting: BTreeMap<K, VecDeque<T>>,
    len: usize,
    /// Owner of the item that was taken last. The next item comes from the next owner in the order of keys.
    served: Option<K>,
}

impl<K, T> Default for Turns<K, T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), len: 0, served: None }
    }
}

impl<K: Ord + Clone, T> Turns<K, T> {
    /// Number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if there are no items.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of items of one owner.
    pub fn len_of(&self, owner: &K) -> usize {
        self.waiting.get(owner).map_or(0, VecDeque::len)
    }

    /// Adds an item behind the owner's other items.
    pub fn push(&mut self, owner: K, item: T) {
        self.waiting.entry(owner).or_default().push_back(item);
        self.len += 1;
    }

    /// Takes the next item: the oldest item of the next owner.
    pub fn pop(&mut self) -> Option<T> {
        self.pop_if(|_| true)
    }

    /// Takes the next item if `is_wanted` returns true for that item.
    pub fn pop_if(&mut self, is_wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let after =
            self.served.as_ref().and_then(|served| self.waiting.range((Excluded(served), Unbounded)).next());
        let owner = after.or_else(|| self.waiting.first_key_value())?.0.clone();
        let own = self.waiting.get_mut(&owner)?;
        if !is_wanted(own.front()?) {
            return None;
        }
        let item = own.pop_front()?;
        if own.is_empty() {
            self.waiting.remove(&owner);
        }
        self.len -= 1;
        self.served = Some(owner);
        Some(item)
    }

    /// Removes an owner's item by its key. The owner's items must be in ascending order of `key_of`. Returns
    /// `None` if there is no such item.
    pub fn remove<B: Ord>(&mut self, owner: &K, key: &B, key_of: impl FnMut(&T) -> B) -> Option<T> {
        let own = self.waiting.get_mut(owner)?;
        let index = own.binary_search_by_key(key, key_of).ok()?;
        let item = own.remove(index)?;
        if own.is_empty() {
            self.waiting.remove(owner);
        }
        self.len -= 1;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(items: &[(&'static str, u32)]) -> Turns<&'static str, u32> {
        let mut turns = Turns::default();
        for (owner, item) in items {
            turns.push(*owner, *item);
        }
        turns
    }

    fn pop_all(turns: &mut Turns<&'static str, u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.pop()).collect()
    }

    #[test]
    fn owners_take_turns_in_order_of_arrival() {
        let mut turns = turns(&[("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5)]);
        assert_eq!((turns.len(), turns.len_of(&"a")), (5, 3));
        assert_eq!(pop_all(&mut turns), [1, 4, 5, 2, 3]);
        assert!(turns.is_empty());
    }

    #[test]
    fn owner_that_arrives_later_waits_for_one_item() {
        let mut turns = turns(&[("a", 1), ("a", 2), ("a", 3)]);
        assert_eq!(turns.pop(), Some(1));
        turns.push("b", 4);
        assert_eq!(pop_all(&mut turns), [4, 2, 3]);
    }

    #[test]
    fn item_that_is_not_wanted_keeps_its_turn() {
        let mut turns = turns(&[("a", 1), ("b", 2)]);
        assert_eq!(turns.pop_if(|item| *item > 1), None);
        assert_eq!(pop_all(&mut turns), [1, 2]);
    }

    #[test]
    fn removed_item_is_not_taken() {
        let mut turns = turns(&[("a", 1), ("a", 2), ("b", 3)]);
        assert_eq!(turns.remove(&"a", &1, |item| *item), Some(1));
        assert_eq!(turns.remove(&"a", &1, |item| *item), None);
        assert_eq!(turns.remove(&"b", &3, |item| *item), Some(3));
        assert_eq!((turns.len(), turns.len_of(&"b")), (1, 0));
        assert_eq!(pop_all(&mut turns), [2]);
    }
}
