//! What an image stores of a disk.

use hako_block::{BlockImage, ExtentKind, Result};

/// Returns how far the run at `offset` reaches, at most to `end`, and whether it is stored. Nothing
/// is beyond the image's own end.
pub fn stored_at(image: &dyn BlockImage, offset: u64, end: u64) -> Result<(u64, bool)> {
    if offset >= image.info().virtual_size {
        return Ok((end, false));
    }
    let extent = image.next_extent(offset)?.clipped(end);
    Ok((extent.end(), extent.kind == ExtentKind::Data))
}
