//! Delivering into an image that exists.

use std::ops::Range;

use hako_block::{BlockImage, Result, SECTOR_BYTES, Sink};

/// Writes what is delivered over the content of an image; what is not delivered stays.
pub struct InPlace<'a>(pub &'a dyn BlockImage);

impl Sink for InPlace<'_> {
    fn unit_bytes(&self) -> u64 {
        SECTOR_BYTES
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.0.write_zeroes(range)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.flush()
    }
}
