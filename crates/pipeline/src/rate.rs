//! A token bucket.

use std::time::{Duration, Instant};

use hako_block::{Cancel, Result};

/// Paces data to a number of bytes per second.
pub(crate) struct Bucket {
    bytes_per_second: u64,
    /// When everything taken so far is paid for.
    paid_at: Instant,
}

/// How long a wait goes on without a look at the cancel flag.
const NAP: Duration = Duration::from_millis(50);
/// Time that went by unused counts up to this much later.
const BURST: Duration = Duration::from_millis(250);

impl Bucket {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            paid_at: Instant::now(),
        }
    }

    /// Waits until what was taken before is paid for, then takes `len` bytes.
    pub(crate) fn take(&mut self, len: u64, cancel: &Cancel) -> Result<()> {
        loop {
            cancel.check()?;
            let left = self.paid_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(NAP));
        }
        let nanos = u128::from(len) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let earliest = Instant::now().checked_sub(BURST).unwrap_or(self.paid_at);
        let from = self.paid_at.max(earliest);
        self.paid_at = from.checked_add(cost).unwrap_or(from);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_at_once_when_cancelled() {
        let cancel = Cancel::default();
        let mut bucket = Bucket::new(1);
        bucket.take(1 << 40, &cancel).unwrap();
        cancel.cancel();
        bucket.take(1, &cancel).unwrap_err();
    }
}
