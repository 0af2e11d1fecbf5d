//! How long-running work reports and how it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// Receives progress, from any thread. Bytes are whatever the phase counts, usually guest bytes.
pub trait Progress: Sync {
    /// Sets how many bytes the phase has to do.
    fn total(&self, bytes: u64);
    /// Adds bytes done.
    fn advance(&self, bytes: u64);
    /// Begins a phase ("copy", "verify"); `total` follows.
    fn phase(&self, name: &str);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn total(&self, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn phase(&self, _name: &str) {}
}

/// A flag that stops work at the next unit. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the work to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns the flag itself, for a signal handler to set.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Returns [`crate::ErrorKind::Cancelled`] if the work was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            Err(Error::cancelled())
        } else {
            Ok(())
        }
    }
}
