//! What was read last: a small map that never grows past its bound.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use hako_block::Result;

/// Values by their keys, the `most` that were asked for last. Threads share it.
pub(crate) struct Cache<K, V> {
    most: usize,
    kept: Mutex<Kept<K, V>>,
}

struct Kept<K, V> {
    /// Goes up with each question.
    clock: u64,
    /// Each value with the clock's reading when it was asked for last.
    values: HashMap<K, (u64, Arc<V>)>,
}

impl<K: Copy + Eq + Hash, V> Cache<K, V> {
    /// Returns an empty one that keeps at most `most` values.
    pub(crate) fn new(most: usize) -> Self {
        let kept = Kept {
            clock: 0,
            values: HashMap::new(),
        };
        Self {
            most,
            kept: Mutex::new(kept),
        }
    }

    /// Returns the value of `key`, which `load` makes if it is not there. Nothing is locked while it
    /// does, so that two threads may load the same.
    pub(crate) fn get_or(&self, key: K, load: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        if let Some(value) = self.lookup(key) {
            return Ok(value);
        }
        let value = Arc::new(load()?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.values.len() >= self.most {
            let oldest = kept.values.iter().min_by_key(|(_, (asked, _))| *asked);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                kept.values.remove(&key);
            }
        }
        let clock = kept.clock;
        kept.values.insert(key, (clock, Arc::clone(&value)));
        Ok(value)
    }

    fn lookup(&self, key: K) -> Option<Arc<V>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let clock = kept.clock;
        let (asked, value) = kept.values.get_mut(&key)?;
        *asked = clock;
        Some(Arc::clone(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_longest_ago_goes_first() {
        let cache = Cache::new(2);
        let load = |key: u32| *cache.get_or(key, || Ok(key * 10)).unwrap();
        assert_eq!((load(1), load(2), load(1), load(3)), (10, 20, 10, 30));
        let kept = |key| cache.lookup(key).is_some();
        assert_eq!((kept(1), kept(2), kept(3)), (true, false, true));
    }

    #[test]
    fn a_value_that_cannot_be_loaded_is_not_kept() {
        let cache: Cache<u8, u8> = Cache::new(2);
        let failed = cache.get_or(1, || Err(hako_block::Error::invalid("no")));
        assert!(failed.is_err());
        assert_eq!(*cache.get_or(1, || Ok(7)).unwrap(), 7);
    }
}
