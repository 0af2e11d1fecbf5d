//! Where a copy is delivered.

use std::ops::Range;
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// The pure part of a compressing sink: one unit in, its stored form out. Called from many
/// threads at once.
pub trait Encode: Send + Sync {
    /// Appends the stored form of one unit of guest bytes to `out` (which the caller has
    /// cleared). `offset` is the unit's guest offset; `unit` is `unit_bytes` long, but for the
    /// disk's last unit.
    fn encode(&self, offset: u64, unit: &[u8], out: &mut Vec<u8>) -> Result<()>;
}

/// Where the pipeline delivers a disk, guest offsets ascending, without overlap. A delivery is a
/// whole number of units, but for the end of the disk. What is not delivered is a hole: it reads
/// as zeros, or as the parent where the new image has one.
pub trait Sink: Send {
    /// Returns the granularity of delivery in bytes: a power of two, at least 512.
    fn unit_bytes(&self) -> u64;

    /// Returns the encoder whose output [`Sink::encoded`] takes, for a sink that compresses. The
    /// pipeline runs it in its workers and then calls `encoded`, never `data`, for each unit.
    fn encoder(&self) -> Option<Arc<dyn Encode>> {
        None
    }

    /// Delivers bytes: one or more units.
    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Delivers the stored form of one unit, made by the encoder.
    fn encoded(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let _ = (offset, bytes);
        Err(Error::new(
            ErrorKind::Unsupported,
            "this target takes no encoded units",
        ))
    }

    /// Delivers zeros: any number of units.
    fn zero(&mut self, range: Range<u64>) -> Result<()>;

    /// Completes the image and returns once it is on stable storage.
    fn finish(self: Box<Self>) -> Result<()>;
}
