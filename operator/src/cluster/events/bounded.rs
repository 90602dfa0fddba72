//! A map that never holds more than so many entries.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A map that forgets its oldest entry when a new one has no room.
#[derive(Debug)]
pub(super) struct BoundedMap<K, V> {
    entries: HashMap<K, V>,
    /// Keys in the order in which they came, among them some that were removed.
    order: VecDeque<K>,
    max: usize,
}

impl<K: Clone + Eq + Hash, V> BoundedMap<K, V> {
    /// Empty, for so many entries.
    pub(super) fn new(max: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), max }
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key)
    }

    /// The entry of a key, made if it is not there.
    pub(super) fn entry(&mut self, key: &K, make: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(key) {
            while self.entries.len() >= self.max
                && let Some(oldest) = self.order.pop_front()
            {
                self.entries.remove(&oldest);
            }
            self.order.push_back(key.clone());
            if self.order.len() > self.max * 2 {
                self.order.retain(|key| self.entries.contains_key(key));
                self.order.push_back(key.clone());
            }
        }
        self.entries.entry(key.clone()).or_insert_with(make)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let mut map = BoundedMap::new(2);
        for key in 0..3 {
            *map.entry(&key, || 0) += key;
        }
        let found: Vec<_> = (0..3).map(|key| map.get_mut(&key).copied()).collect();
        assert_eq!(found, [None, Some(1), Some(2)]);
    }

    #[test]
    fn what_comes_and_goes_leaves_nothing_behind() {
        let mut map = BoundedMap::new(2);
        for key in 0..1_000 {
            map.entry(&key, || key);
            map.remove(&key);
        }
        assert!(map.entries.is_empty() && map.order.len() <= 5, "{}", map.order.len());
    }
}
