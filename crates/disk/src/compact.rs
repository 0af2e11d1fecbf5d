//! Giving space back to the host.

use hako_block::{Cancel, Progress, Result};
use hako_formats::Task;

use crate::change::Subject;

/// What was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactReport {
    /// Bytes that the host had allocated for the image's files before.
    pub allocated_before: u64,
    /// Bytes that it has allocated now.
    pub allocated_after: u64,
}

/// Gives back to the host what the image's own file stores without need. Its parents are left
/// alone.
pub fn compact(
    subject: &Subject,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CompactReport> {
    let allocated_before = allocated(subject)?;
    let top = subject.open_top()?;
    progress.phase("compact");
    top.format
        .compact(top.args, Task { progress, cancel })
        .map_err(|error| error.in_file(&subject.path))?;
    Ok(CompactReport {
        allocated_before,
        allocated_after: allocated(subject)?,
    })
}

fn allocated(subject: &Subject) -> Result<u64> {
    Ok(subject.open_layer()?.image.info().allocated_size)
}
