//! Moves the content of disk images: extents are planned in order, read (and encoded, and hashed)
//! by parallel workers, and delivered in order. Copy, compare, hash and read-through are all this
//! one data path; [`deliver`] wraps a copy into flush, verify and rename.
//!
//! Memory is bounded by a fixed set of work slots, whatever the disk's size. No disk format is
//! known here.

#![forbid(unsafe_code)]

mod compare;
mod copy;
mod deliver;
mod fingerprint;
mod hash;
mod in_place;
mod ordered;
mod plan;
mod rate;
mod read_all;
#[cfg(test)]
mod testing;

pub use compare::{Comparison, Verdict, compare};
pub use copy::{CopyReport, copy};
pub use deliver::{DeliverReport, Delivery, MakeSink, Reopen, Target, deliver};
pub use fingerprint::{Fingerprint, fingerprint};
pub use hash::sha256;
pub use in_place::InPlace;
pub use read_all::read_all;

use hako_block::{Cancel, Progress};

/// How to move content.
#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// How many threads read (and encode) at once.
    pub threads: usize,
    /// Most data bytes per second, if limited.
    pub rate: Option<u64>,
    /// Told how far the work is.
    pub progress: &'a dyn Progress,
    /// Stops the work.
    pub cancel: &'a Cancel,
    /// Take the fingerprint of what is delivered.
    pub fingerprint: bool,
    /// Copy one layer: what it says nothing of is not delivered, so that it stays a hole.
    pub keep_holes: bool,
    /// Look for zeros in data and deliver them as zeros.
    pub detect_zeros: bool,
}

impl<'a> CopyOptions<'a> {
    /// Returns the usual options: as many threads as the machine runs at once, zeros detected.
    pub fn new(progress: &'a dyn Progress, cancel: &'a Cancel) -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            rate: None,
            progress,
            cancel,
            fingerprint: false,
            keep_holes: false,
            detect_zeros: true,
        }
    }

    /// Returns the same with so many threads, if the user said how many.
    pub fn with_threads(self, threads: Option<usize>) -> Self {
        Self {
            threads: threads.unwrap_or(self.threads),
            ..self
        }
    }
}
