//! What every sink is promised of its deliveries.

use std::ops::Range;

use hako_block::{Error, Result};

/// Checks a delivery to a disk of `size` bytes that has got everything below `position`: whole
/// units of `unit` bytes, but for the end of the disk, in ascending order. Returns what was
/// skipped before it.
pub(crate) fn skipped_before(
    position: u64,
    range: &Range<u64>,
    unit: u64,
    size: u64,
) -> Result<Range<u64>> {
    let ends_unit = range.end.is_multiple_of(unit) || range.end == size;
    let in_order = position <= range.start && range.end <= size;
    if !range.start.is_multiple_of(unit) || !ends_unit || !in_order {
        return Err(Error::invalid(format!(
            "delivery of {}..{} is not whole units in ascending order",
            range.start, range.end
        )));
    }
    Ok(position..range.start)
}
