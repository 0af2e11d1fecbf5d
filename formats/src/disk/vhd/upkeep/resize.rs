//! Changing the virtual size of a dynamic or differencing disk. A BAT that is too short is
//! written anew behind everything; the switch of the header brings it into use.

use hako_block::{Error, Result, SECTOR_BYTES};

use super::super::check::each_entry;
use super::super::footer::MAX_DISK_BYTES;
use super::super::image::check_slot;
use super::super::layout::UNUSED;
use super::{Disk, fixed, is_fixed, open, used_end};
use crate::disk::OpenArgs;

/// Changes the virtual size. Errors: more than a VHD can have.
pub fn resize(args: &OpenArgs, virtual_size: u64) -> Result<()> {
    if virtual_size > MAX_DISK_BYTES || !virtual_size.is_multiple_of(SECTOR_BYTES) {
        return Err(Error::invalid(format!(
            "a VHD of {virtual_size} bytes: whole sectors up to {MAX_DISK_BYTES} (2040 GiB) can be"
        )));
    }
    let storage = &*args.storage;
    let found = open(args)?;
    if is_fixed(&found) {
        return fixed::resize(storage, &found, virtual_size);
    }
    let (mut disk, _) = Disk::settle(storage, found, false)?;
    if virtual_size > disk.dynamic.layout.virtual_size {
        disk.grow(virtual_size)
    } else {
        disk.shrink(virtual_size)
    }
}

impl Disk<'_> {
    fn grow(&mut self, virtual_size: u64) -> Result<()> {
        self.clear_beyond()?;
        let layout = self.dynamic.layout;
        let mut footer = self.dynamic.found.footer.clone();
        footer.set_size(virtual_size);
        let n_blocks = virtual_size.div_ceil(layout.block_bytes());
        if n_blocks <= layout.n_entries {
            return self.write_footer(footer);
        }
        let mut header = self.dynamic.header.clone();
        header.n_entries =
            u32::try_from(n_blocks).map_err(|_| Error::invalid("too many blocks for a VHD"))?;
        if layout.bat_offset + n_blocks * 4 > layout.bat_end() {
            header.bat_offset = self.tail + SECTOR_BYTES;
            self.copy_bat(header.bat_offset, header.bat_bytes())?;
        } else {
            // In what is left of the BAT's last sector there may be anything.
            self.write_entries((layout.n_entries..n_blocks).map(|block| (block, UNUSED)))?;
        }
        let old_bat = layout.bat_offset..layout.bat_end();
        let has_moved = header.bat_offset != layout.bat_offset;
        self.switch(footer, header)?;
        if has_moved {
            self.storage.punch_hole(old_bat)?;
            self.storage.sync()?;
        }
        Ok(())
    }

    /// Makes what lies beyond the disk's end zeros: it will be seen.
    fn clear_beyond(&self) -> Result<()> {
        let layout = self.dynamic.layout;
        let within = layout.virtual_size % layout.block_bytes();
        let mut beyond = Vec::new();
        let mut last = None;
        each_entry(self.storage, &layout, |block, entry| {
            if block >= layout.n_blocks {
                beyond.push((block, UNUSED));
            } else if within != 0 && block + 1 == layout.n_blocks {
                last = Some((block, entry));
            }
        })?;
        if !beyond.is_empty() {
            self.write_entries(beyond)?;
        }
        let Some((block, entry)) = last else {
            return Ok(());
        };
        let slot = check_slot(&layout, block, entry, self.tail)?;
        let end = slot + layout.slot_bytes();
        if end > self.tail {
            return Err(Error::unsupported(
                "the last block is cut off where the disk ends: it cannot grow in place",
            )
            .hint("convert it to a new image"));
        }
        let rest = slot + layout.bitmap_bytes() + within;
        self.storage.punch_hole(rest..end)?;
        self.storage.sync()
    }

    fn shrink(&mut self, virtual_size: u64) -> Result<()> {
        let mut footer = self.dynamic.found.footer.clone();
        footer.set_size(virtual_size);
        self.write_footer(footer)?;
        let layout = self.dynamic.layout;
        let n_blocks = virtual_size.div_ceil(layout.block_bytes());
        let mut lost = Vec::new();
        each_entry(self.storage, &layout, |block, entry| {
            if block >= n_blocks {
                lost.push((block, entry));
            }
        })?;
        self.write_entries(lost.iter().map(|(block, _)| (*block, UNUSED)))?;
        // Now that nothing refers to it.
        for (block, entry) in lost {
            if let Ok(slot) = check_slot(&layout, block, entry, self.tail) {
                let end = (slot + layout.slot_bytes()).min(self.tail);
                self.storage.punch_hole(slot..end)?;
            }
        }
        self.storage.sync()?;
        let end = used_end(self.storage, &self.dynamic)?;
        if end < self.tail {
            self.end_at(end)?;
        }
        Ok(())
    }
}
