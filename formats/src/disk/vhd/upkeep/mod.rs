//! Changing a disk that exists: its records are switched by the first sector of the file, the
//! copy of the footer that says where the header is.

mod bat;
mod blocks;
mod fixed;
mod repair;
mod resize;
mod settings;

pub use blocks::compact;
pub use repair::repair;
pub use resize::resize;
pub use settings::{relink, set};

use hako_block::{Error, Result, SECTOR_BYTES, Storage};

use super::check::{each_entry, tables};
use super::footer::{DiskType, FOOTER_BYTES, Footer};
use super::header::Header;
use super::open::{Dynamic, Found};
use crate::disk::OpenArgs;

/// Opens a disk for a change of its records. Errors: it is damaged, or on a block device.
fn open(args: &OpenArgs) -> Result<Found> {
    if args.storage.is_device() {
        return Err(Error::unsupported(
            "a VHD on a block device cannot be changed in place: its footer follows its end",
        ));
    }
    let found = Found::read(&*args.storage, false)?;
    found.refuse_resizing()?;
    Ok(found)
}

/// A dynamic or differencing disk whose footers are the same.
struct Disk<'a> {
    storage: &'a dyn Storage,
    dynamic: Dynamic,
    /// Where the footer at the end is; nothing follows it.
    tail: u64,
}

impl<'a> Disk<'a> {
    /// Reads the header, and makes both copies of the footer say what `found` does. Returns also
    /// whether that took a change.
    fn settle(storage: &'a dyn Storage, found: Found, salvage: bool) -> Result<(Self, bool)> {
        let dynamic = Dynamic::read(found, storage, salvage)?;
        let found = &dynamic.found;
        let bytes = found.footer.encode();
        let mut changed = false;
        if !found.front_ok {
            storage.write_at(0, &bytes)?;
            storage.sync()?;
            changed = true;
        }
        let tail = match found.tail.filter(|at| at + FOOTER_BYTES == found.file_len) {
            Some(tail) => tail,
            None => {
                let tail = place_of_footer(storage, &dynamic)?;
                storage.write_at(tail, &bytes)?;
                storage.sync()?;
                changed = true;
                tail
            }
        };
        let disk = Self {
            storage,
            dynamic,
            tail,
        };
        Ok((disk, changed))
    }

    /// Puts `bytes`, whole sectors, behind everything. Returns where they are, durably.
    fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let at = self.tail + FOOTER_BYTES;
        let end = at + bytes.len() as u64;
        self.storage.write_at(at, bytes)?;
        self.storage
            .write_at(end, &self.dynamic.found.footer.encode())?;
        self.storage.sync()?;
        self.tail = end;
        Ok(at)
    }

    /// Makes both copies of the footer this one, the one at the beginning first.
    fn write_footer(&mut self, footer: Footer) -> Result<()> {
        let bytes = footer.encode();
        for at in [0, self.tail] {
            self.storage.write_at(at, &bytes)?;
            self.storage.sync()?;
        }
        self.dynamic.found.footer = footer;
        Ok(())
    }

    /// Replaces header and footer. The header is two sectors and not replaced in one go: a copy of
    /// the new one behind everything takes its place meanwhile.
    fn switch(&mut self, footer: Footer, header: Header) -> Result<()> {
        let home = self.dynamic.found.footer.data_offset;
        let end = self.tail;
        let bytes = header.encode();
        let mut meanwhile = footer.clone();
        meanwhile.data_offset = self.append(&bytes)?;
        self.write_footer(meanwhile)?;
        self.storage.write_at(home, &bytes)?;
        self.storage.sync()?;
        let mut at_home = footer;
        at_home.data_offset = home;
        self.write_footer(at_home)?;
        self.dynamic.header = header;
        self.end_at(end)
    }

    /// Moves the footer to `end`, and ends the file behind it.
    fn end_at(&mut self, end: u64) -> Result<()> {
        if end == self.tail {
            return Ok(());
        }
        self.storage
            .write_at(end, &self.dynamic.found.footer.encode())?;
        self.storage.sync()?;
        self.storage.set_len(end + FOOTER_BYTES)?;
        self.storage.sync()?;
        self.tail = end;
        Ok(())
    }

    /// Writes BAT entries: block and entry. Returns once they are on disk.
    fn write_entries(&self, entries: impl IntoIterator<Item = (u64, u32)>) -> Result<()> {
        for (block, entry) in entries {
            let at = self.dynamic.layout.bat_offset + block * 4;
            self.storage.write_at(at, &entry.to_be_bytes())?;
        }
        self.storage.sync()
    }
}

/// Returns where the footer at the end belongs that is not there: over the damaged one, if no
/// block is there, else behind the file.
fn place_of_footer(storage: &dyn Storage, dynamic: &Dynamic) -> Result<u64> {
    let found = &dynamic.found;
    match found.damaged_tail {
        Some(at) if used_end(storage, dynamic)? <= at => Ok(at),
        _ => Ok(found.file_len.next_multiple_of(SECTOR_BYTES)),
    }
}

/// Returns the end of what the tables name, wherever it is.
fn used_end(storage: &dyn Storage, dynamic: &Dynamic) -> Result<u64> {
    let mut end = tables(dynamic).iter().map(|table| table.end).max();
    let layout = &dynamic.layout;
    each_entry(storage, layout, |_, entry| {
        end = end.max(Some(u64::from(entry) * SECTOR_BYTES + layout.slot_bytes()));
    })?;
    Ok(end.unwrap_or(0).next_multiple_of(SECTOR_BYTES))
}

/// Returns whether a disk is fixed.
fn is_fixed(found: &Found) -> bool {
    found.footer.disk_type == DiskType::Fixed
}
