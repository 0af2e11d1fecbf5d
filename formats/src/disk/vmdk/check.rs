//! The check of a whole VMDK: the descriptor, how the extents fit it, and each extent.

use hako_block::{BlockImage, Result};

use super::image::VmdkImage;
use crate::disk::{CheckArgs, Findings, Severity};

/// Checks one layer.
pub fn check(args: &CheckArgs) -> Result<Findings> {
    let mut findings = Findings::default();
    let file = args.storage.name();
    match VmdkImage::open(args) {
        Ok(image) => {
            for oddity in &image.info().oddities {
                findings.add(Severity::Oddity, file, oddity, None);
            }
        }
        Err(error) => findings.add_error(file, &error),
    }
    Ok(findings)
}
