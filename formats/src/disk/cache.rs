//! A bounded cache of tables read from an image.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hako_block::Result;

/// Keeps the most recently used values, up to a number fixed at the start. The lock is never held
/// while a value is loaded: two threads that miss the same key both load it.
pub(crate) struct Cache<T> {
    max: usize,
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    clock: u64,
    values: HashMap<u64, (u64, Arc<T>)>,
}

impl<T> Cache<T> {
    /// Returns an empty cache for up to `max` values.
    pub(crate) fn new(max: usize) -> Self {
        let inner = Inner {
            clock: 0,
            values: HashMap::new(),
        };
        Self {
            max: max.max(1),
            inner: Mutex::new(inner),
        }
    }

    /// Returns the value under `key` if it is kept.
    pub(crate) fn get(&self, key: u64) -> Option<Arc<T>> {
        let mut inner = self.lock();
        inner.clock += 1;
        let now = inner.clock;
        let (used, value) = inner.values.get_mut(&key)?;
        *used = now;
        Some(Arc::clone(value))
    }

    /// Keeps `value` under `key`.
    pub(crate) fn put(&self, key: u64, value: Arc<T>) {
        let mut inner = self.lock();
        if inner.values.len() >= self.max {
            inner.forget_older_half();
        }
        inner.clock += 1;
        let now = inner.clock;
        inner.values.insert(key, (now, value));
    }

    /// Returns the value under `key`, loading and keeping it if it is not there.
    pub(crate) fn get_or_load(&self, key: u64, load: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        if let Some(value) = self.get(key) {
            return Ok(value);
        }
        let value = Arc::new(load()?);
        self.put(key, Arc::clone(&value));
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Inner<T> {
    /// Half at once, so that the search for what is oldest costs next to nothing per value.
    fn forget_older_half(&mut self) {
        let mut used: Vec<u64> = self.values.values().map(|(used, _)| *used).collect();
        let middle = used.len() / 2;
        let (_, median, _) = used.select_nth_unstable(middle);
        let median = *median;
        self.values.retain(|_, (used, _)| *used > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_stays_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(8);
        for key in 0..1000 {
            cache.put(key, Arc::new(key));
            assert_eq!(*cache.get_or_load(0, || Ok(0)).unwrap(), 0);
            assert!(cache.lock().values.len() <= 8, "after {key}");
        }
        assert!(cache.get(999).is_some());
        assert!(cache.get(1).is_none());
    }
}
