//! Whether there is room for what is about to be written.

use std::path::Path;

use hako_block::{BlockImage, Error, ErrorKind, Result, free_bytes};

/// Refuses to begin what cannot fit: `needed` bytes or more, and `why` is known so much. Errors:
/// [`ErrorKind::NoSpace`].
pub(crate) fn check_room(folder: &Path, needed: u64, why: &str) -> Result<()> {
    let free = free_bytes(folder)?;
    if free >= needed {
        return Ok(());
    }
    let what = format!("{free} bytes are free, and {why} {needed} or more");
    Err(Error::new(ErrorKind::NoSpace, what).in_file(folder))
}

/// Refuses to begin to write disks that have no room, as far as that is known: of compressed files
/// with so many bytes, which hold no zeros. However the new ones are compressed, half of that.
pub(crate) fn check_room_of_compressed(folder: &Path, bytes: u64) -> Result<()> {
    check_room(folder, bytes / 2, "the disks need")
}

/// Returns how many compressed bytes there are of a disk, if its file is compressed throughout.
pub(crate) fn compressed_bytes(image: &dyn BlockImage) -> Option<u64> {
    let info = image.info();
    let is_compressed = info.subformat.as_deref() == Some("streamOptimized");
    is_compressed.then_some(info.allocated_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        check_room(folder.path(), 1, "it takes").unwrap();
        let error = check_room(folder.path(), u64::MAX, "it takes").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    }
}
