//! What a disk says of itself and of its parent.

use hako_block::{Error, ParentLink, Result, SECTOR_BYTES, Uuid};

use super::super::check::each_entry;
use super::super::footer::DiskType;
use super::super::header::{Locator, N_LOCATORS};
use super::super::image::{bit_run, check_slot};
use super::super::parent::NewNames;
use super::{Disk, fixed, is_fixed, open};
use crate::disk::{OpenArgs, Settings};

/// Changes the unique ID. Overlays know the disk by it.
pub fn set(args: &OpenArgs, settings: &Settings) -> Result<()> {
    let Some(uuid) = settings.uuid else {
        return Ok(());
    };
    let found = open(args)?;
    let mut footer = found.footer.clone();
    footer.uuid = uuid;
    match (is_fixed(&found), found.tail) {
        (true, Some(tail)) => fixed::write(&*args.storage, tail, &footer),
        (true, None) => Err(Error::corrupt("footer", "not at the end of the file")),
        (false, _) => {
            let (mut disk, _) = Disk::settle(&*args.storage, found, false)?;
            disk.write_footer(footer)
        }
    }
}

/// Makes the disk an overlay on another parent, or on none.
pub fn relink(args: &OpenArgs, parent: Option<&ParentLink>) -> Result<()> {
    let found = open(args)?;
    if is_fixed(&found) {
        return match parent {
            Some(_) => Err(Error::unsupported("a fixed VHD cannot be an overlay")),
            None => Ok(()),
        };
    }
    let names = parent.map(NewNames::of).transpose()?;
    let (mut disk, _) = Disk::settle(&*args.storage, found, false)?;
    let mut footer = disk.dynamic.found.footer.clone();
    let mut header = disk.dynamic.header.clone();
    header.locators = [Locator::default(); N_LOCATORS];
    match &names {
        Some(names) => {
            if footer.disk_type == DiskType::Dynamic {
                disk.each_bitmap(Disk::set_all_bits)?;
            }
            footer.disk_type = DiskType::Differencing;
            header.parent_name.clone_from(&names.plain);
            header.parent_uuid = parent.and_then(|it| it.identity).unwrap_or_default();
            header.locators[0] = names.locator(disk.append(&names.sectors())?);
        }
        None => {
            if footer.disk_type == DiskType::Differencing {
                disk.each_bitmap(Disk::clear_unset)?;
            }
            footer.disk_type = DiskType::Dynamic;
            header.parent_name.clear();
            header.parent_uuid = Uuid::default();
        }
    }
    disk.switch(footer, header)
}

impl Disk<'_> {
    /// Calls `each` with the file offset and the bitmap of every stored block that has clear bits.
    /// Returns once what it changed is on disk.
    fn each_bitmap(&self, each: impl Fn(&Self, u64, &[u8]) -> Result<()>) -> Result<()> {
        let layout = self.dynamic.layout;
        let mut slots = Vec::new();
        let mut failed = Ok(());
        each_entry(self.storage, &layout, |block, entry| {
            match check_slot(&layout, block, entry, self.tail) {
                Ok(slot) => slots.push(slot / SECTOR_BYTES),
                Err(error) => failed = Err(error),
            }
        })?;
        failed?;
        let mut bitmap = vec![0; layout.bitmap_bytes() as usize];
        for slot in slots {
            let slot = slot * SECTOR_BYTES;
            self.storage.read_at(slot, &mut bitmap)?;
            if bitmap.iter().any(|byte| *byte != 0xff) {
                each(self, slot, &bitmap)?;
            }
        }
        self.storage.sync()
    }

    /// Everything stored in a dynamic disk counts, whatever its bits say; in an overlay they do.
    fn set_all_bits(&self, slot: u64, bitmap: &[u8]) -> Result<()> {
        self.storage.write_at(slot, &vec![0xff; bitmap.len()])
    }

    /// What is stored where bits are clear was never seen; without a parent it would be.
    fn clear_unset(&self, slot: u64, bitmap: &[u8]) -> Result<()> {
        let layout = self.dynamic.layout;
        let data = slot + layout.bitmap_bytes();
        let end = (data + layout.block_bytes()).min(self.tail);
        let mut sector = 0;
        while sector < layout.block_bytes() / SECTOR_BYTES {
            let (is_set, len) = bit_run(bitmap, sector);
            let start = data + sector * SECTOR_BYTES;
            sector += len;
            let run_end = (data + sector * SECTOR_BYTES).min(end);
            if !is_set && start < run_end {
                self.storage.punch_hole(start..run_end)?;
            }
        }
        Ok(())
    }
}
