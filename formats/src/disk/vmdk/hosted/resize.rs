//! Another capacity. What the header says changes in one write to its sector, after everything
//! that it will point at is on disk; what the old capacity does not show is cleared before.

use std::ops::Range;

use hako_block::{Access, Error, Result, SECTOR_BYTES, Storage};

use super::HostedArgs;
use super::copies::{Copies, Runs};
use super::directory::{Copy, Directory};
use super::geometry::{
    MAX_TABLES, N_ADDRESSABLE_SECTORS, TABLE_ENTRIES, TABLE_SECTORS, directory_sectors,
};
use super::image::HostedImage;
use super::table::Grain;
use crate::disk::vmdk::header::SparseHeader;
use crate::disk::vmdk::home::overwrite;

/// Hosted sparse header, fields capacity to gdOffset: all that another capacity changes.
const CHANGED: Range<usize> = 12..64;

/// Grows an extent of which the first `visible` bytes are shown, to `capacity` bytes. New space is
/// a hole. Cut anywhere, it shows what it showed, in a file that has the old capacity or the new.
pub fn grow(args: HostedArgs, visible: u64, capacity: u64) -> Result<()> {
    refuse_too_large(&args.header, capacity)?;
    let image = open_all(&args)?;
    clear_beyond(&image, visible)?;
    let mut header = args.header.clone();
    header.capacity_sectors = capacity / SECTOR_BYTES;
    let old = &image.tables.directories;
    if header.n_grain_tables() > image.geometry().n_tables {
        add_tables(&image, &mut header)?;
    }
    let storage = image.storage();
    change_header(storage, &header)?;
    // A directory among the grains is left behind; those in front have nothing to give back.
    let overhead = image.geometry().overhead;
    for area in old.copies.iter().map(Directory::area) {
        let is_old = area.start != header.gd_sector && area.start != header.rgd_sector;
        let bytes = area.start * SECTOR_BYTES..area.end * SECTOR_BYTES;
        if is_old && bytes.start >= overhead {
            storage.punch_hole(bytes)?;
        }
    }
    storage.sync()
}

/// Shrinks an extent to `capacity` bytes; nothing beyond is shown any more when this is called.
pub fn shrink(args: HostedArgs, capacity: u64) -> Result<()> {
    let image = open_all(&args)?;
    clear_beyond(&image, capacity)?;
    let mut header = args.header.clone();
    header.capacity_sectors = capacity / SECTOR_BYTES;
    change_header(image.storage(), &header)
}

/// Opens the extent with all its tables, as if it were no overlay: its holes are let be.
fn open_all(args: &HostedArgs) -> Result<HostedImage> {
    if args.storage.is_device() {
        return Err(Error::unsupported(
            "a sparse extent on a device cannot be resized",
        ));
    }
    HostedImage::open(HostedArgs {
        access: Access::ReadWrite,
        has_parent: false,
        ..args.clone()
    })
}

fn refuse_too_large(header: &SparseHeader, capacity: u64) -> Result<()> {
    let grown = SparseHeader {
        capacity_sectors: capacity / SECTOR_BYTES,
        ..header.clone()
    };
    let n_tables = grown.n_grain_tables();
    let n_added = n_tables.saturating_sub(header.n_grain_tables());
    let added = match n_added {
        0 => 0,
        _ => 2 * (directory_sectors(n_tables) + n_added * TABLE_SECTORS),
    };
    let grains = grown.n_grains().saturating_mul(header.grain_sectors);
    let full = grains.saturating_add(header.overhead_sectors + added);
    if n_tables > MAX_TABLES || full > N_ADDRESSABLE_SECTORS {
        return Err(Error::invalid(format!(
            "{capacity} bytes are more than one sparse extent can address when it is full (2 TiB with its tables)"
        ))
        .hint("convert it to a split or flat subformat, or another format"));
    }
    Ok(())
}

/// Makes everything from `visible` on holes, as far as the tables reach: what is there is nothing
/// that was ever shown, or is not shown any more.
fn clear_beyond(image: &HostedImage, visible: u64) -> Result<()> {
    let geometry = image.geometry();
    clear_tail(image, visible)?;
    let whole = visible.next_multiple_of(geometry.grain);
    if whole < geometry.capacity {
        image.trim(whole..geometry.capacity)?;
    }
    clear_past_capacity(image)?;
    image.flush_all()
}

/// Clears what follows `visible` in its grain, which is in the file as a whole afterwards.
fn clear_tail(image: &HostedImage, visible: u64) -> Result<()> {
    let geometry = image.geometry();
    let place = geometry.place(visible);
    if place.within == 0 || place.table >= geometry.n_tables {
        return Ok(());
    }
    let table = image.tables.get_or_new(place.table)?;
    let Grain::At(sector) = image.tables.grain(&table, place.entry)? else {
        return Ok(());
    };
    let start = u64::from(sector) * SECTOR_BYTES;
    let end = start + geometry.grain;
    let storage = image.storage();
    storage.punch_hole(start + place.within..end)?;
    if storage.len_bytes()? < end {
        storage.set_len(end)?;
    }
    Ok(())
}

/// Clears entries of the last table that no grain of the disk has.
pub fn clear_past_capacity(image: &HostedImage) -> Result<()> {
    let geometry = image.geometry();
    let n_grains = geometry.capacity.div_ceil(geometry.grain);
    let used = (n_grains % TABLE_ENTRIES as u64) as usize;
    let (Some(last), Some(writer)) = (geometry.n_tables.checked_sub(1), &image.writer) else {
        return Ok(());
    };
    if used == 0 {
        return Ok(());
    }
    let table = image.tables.get_or_new(last)?;
    let copies = Copies::read(&image.tables, &mut Runs::default(), last)?;
    let stale = (used..TABLE_ENTRIES).any(|entry| table.entry(entry) != 0)
        || copies.differences().any(|(entry, ..)| entry >= used);
    if stale {
        writer.forget(&image.tables, &table, used..TABLE_ENTRIES)?;
    }
    Ok(())
}

/// Writes new directories, with tables for the whole capacity of `header`, to the end of the file
/// and makes `header` name them. The new tables are empty and take no space of the host.
fn add_tables(image: &HostedImage, header: &mut SparseHeader) -> Result<()> {
    let (storage, old) = (image.storage(), &image.tables.directories);
    let n_tables = header.n_grain_tables();
    let too_far = || Error::invalid("the file is too long for more grain tables");
    let start = image.geometry().align_up(storage.len_bytes()?);
    let mut sector = start.ok_or_else(too_far)? / SECTOR_BYTES;
    let is_one_for_both = header.rgd_sector == header.gd_sector;
    let mut writes = Vec::new();
    for directory in &old.copies {
        match directory.copy {
            Copy::First => header.gd_sector = sector,
            Copy::Redundant => header.rgd_sector = sector,
        }
        let first_table = sector + directory_sectors(n_tables);
        let n_old = image.geometry().n_tables;
        let added = (0..n_tables - n_old).map(|n| first_table + n * TABLE_SECTORS);
        let mut bytes = Vec::with_capacity(4 * n_tables as usize);
        for entry in directory.sectors().map(u64::from).chain(added) {
            let entry = u32::try_from(entry).map_err(|_| too_far())?;
            bytes.extend_from_slice(&entry.to_le_bytes());
        }
        writes.push((sector * SECTOR_BYTES, bytes));
        sector = first_table + (n_tables - n_old) * TABLE_SECTORS;
    }
    if is_one_for_both {
        header.rgd_sector = header.gd_sector;
    }
    let end = image.geometry().align_up(sector * SECTOR_BYTES);
    storage.set_len(end.ok_or_else(too_far)?)?;
    for (offset, bytes) in writes {
        storage.write_at(offset, &bytes)?;
    }
    storage.sync()
}

/// Writes what another capacity changes of the header, and returns once that is on disk.
fn change_header(storage: &dyn Storage, header: &SparseHeader) -> Result<()> {
    let mut old = vec![0; CHANGED.len()];
    storage.read_at(CHANGED.start as u64, &mut old)?;
    let mut bytes = old.clone();
    let mut put = |field: usize, value: u64| {
        let at = field - CHANGED.start;
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    put(12, header.capacity_sectors);
    put(48, header.rgd_sector);
    put(56, header.gd_sector);
    overwrite(storage, CHANGED.start as u64, &old, &bytes)?;
    storage.sync()
}
