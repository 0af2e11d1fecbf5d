//! Fixed disks change their size by moving their footer. The footer says so while that lasts: the
//! disk is refused then, and repairing it finishes what was begun.

use hako_block::{Error, Result, Storage};

use super::super::footer::{FOOTER_BYTES, Footer, Resizing};
use super::super::open::Found;

/// Changes the virtual size.
pub fn resize(storage: &dyn Storage, found: &Found, to: u64) -> Result<()> {
    found.check_fixed()?;
    let Some(from) = found.tail else {
        return Err(Error::corrupt("footer", "not at the end of the file"));
    };
    let old_size = found.footer.virtual_size();
    if to > old_size && old_size < from {
        // What lies between disk and footer would be seen.
        storage.punch_hole(old_size..from)?;
        storage.sync()?;
    }
    let mut footer = found.footer.clone();
    footer.set_size(to);
    if to == from {
        return write(storage, from, &footer);
    }
    let mut marked = footer.clone();
    marked.resizing = Some(Resizing { from, to });
    write(storage, from.max(to), &marked)?;
    finish(storage, from.max(to), footer, Resizing { from, to })
}

/// Finishes a resize whose mark is in the footer at `tail`.
pub fn finish(storage: &dyn Storage, tail: u64, footer: Footer, resizing: Resizing) -> Result<()> {
    let Resizing { from, to } = resizing;
    if tail != from.max(to) || footer.current_size != to {
        return Err(Error::corrupt(
            "footer",
            format!("a resize from {from} to {to} bytes does not fit the file"),
        ));
    }
    let mut footer = footer;
    footer.resizing = None;
    if to > from {
        // The old footer is the guest's now.
        let end = to.min(from + FOOTER_BYTES);
        storage.write_at(from, &vec![0; (end - from) as usize])?;
        storage.sync()?;
    }
    write(storage, to, &footer)?;
    storage.set_len(to + FOOTER_BYTES)?;
    storage.sync()
}

/// Writes the footer. Returns once it is on disk.
pub fn write(storage: &dyn Storage, at: u64, footer: &Footer) -> Result<()> {
    storage.write_at(at, &footer.encode())?;
    storage.sync()
}
