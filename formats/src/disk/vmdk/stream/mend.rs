//! Makes the end of a streamOptimized file anew, from the markers of what is in it: tables, the
//! directory, the footer, the end-of-stream marker.
//!
//! Only where the marker of the directory is still there: before it the writer had written every
//! grain and table. A file that ends without it may lack any amount of its content, and must not
//! look whole.

use std::collections::BTreeMap;

use hako_block::{Error, ErrorKind, Result, SECTOR_BYTES, Storage, is_zero};

use super::StreamArgs;
use super::check::{check_end, first_damage};
use super::layout;
use super::load;
use super::marker;
use super::salvage::{self, Runs, Scan};
use super::tables::{TABLE_BYTES, TABLE_ENTRIES, Table, words};
use crate::disk::Findings;
use crate::disk::vmdk::header::{GD_AT_END, HEADER_BYTES, SparseHeader};

/// Hosted sparse header, field gdOffset: bytes in the header.
const GD_FIELD: std::ops::Range<usize> = 56..64;

/// Mends the file. Returns what was done, one sentence each.
pub fn repair(args: &StreamArgs) -> Result<Vec<String>> {
    match mend(args) {
        // The check that follows tells what is left.
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Vec::new()),
        result => result,
    }
}

fn mend(args: &StreamArgs) -> Result<Vec<String>> {
    layout::check_sizes(&args.header)?;
    if is_damaged(args)? {
        return rebuild(args);
    }
    let mut findings = Findings::default();
    let Some(end) = check_end(args.clone(), &mut findings)? else {
        return Ok(Vec::new());
    };
    let storage = &*args.storage;
    let end = end.next_multiple_of(SECTOR_BYTES);
    // A part of the marker may be there, but nothing else.
    let n_behind = storage.len_bytes()?.saturating_sub(end);
    let mut behind = vec![0; n_behind.min(SECTOR_BYTES) as usize];
    storage.read_at(end, &mut behind)?;
    if findings.n_corruptions > 0 || n_behind >= SECTOR_BYTES || !is_zero(&behind) {
        return Ok(Vec::new());
    }
    storage.write_at(end, &marker::encode_other(marker::END_OF_STREAM, 0))?;
    storage.sync()?;
    Ok(vec!["end-of-stream marker written".to_owned()])
}

/// Returns whether the tables cannot be found, or point at what is not there.
fn is_damaged(args: &StreamArgs) -> Result<bool> {
    let file_len = args.storage.len_bytes()?;
    match load(args, file_len, &mut Vec::new()) {
        Ok((header, tables)) => Ok(first_damage(&*args.storage, &header, &tables)?.is_some()),
        Err(error) if error.kind() == ErrorKind::Io => Err(error),
        Err(_) => Ok(true),
    }
}

/// Writes everything behind the grains that is not as the markers say.
fn rebuild(args: &StreamArgs) -> Result<Vec<String>> {
    let (storage, header) = (&*args.storage, &args.header);
    let scan = salvage::scan(storage, header, storage.len_bytes()?)?;
    let Some(marker_sector) = scan.directory else {
        return Ok(Vec::new());
    };
    let directory_sector = u64::from(marker_sector) + 1;
    if header.gd_sector != GD_AT_END && header.gd_sector != directory_sector {
        return Ok(Vec::new());
    }
    let Some(places) = table_places(&scan, header) else {
        return Ok(Vec::new());
    };
    let mut done = Vec::new();
    let n_mended = mend_tables(storage, &scan.runs, &places)?;
    if n_mended > 0 {
        done.push(format!(
            "{n_mended} grain tables restored from the grains' markers"
        ));
    }
    let n_sectors = (header.n_grain_tables() * 4).div_ceil(SECTOR_BYTES);
    let mut directory = vec![0; (n_sectors * SECTOR_BYTES) as usize];
    for (table, sector) in &places {
        let at = 4 * *table as usize;
        if let Some(entry) = directory.get_mut(at..at + 4) {
            entry.copy_from_slice(&sector.to_le_bytes());
        }
    }
    storage.write_at(directory_sector * SECTOR_BYTES, &directory)?;
    // The footer makes the directory count.
    storage.sync()?;
    let end = (directory_sector + n_sectors) * SECTOR_BYTES;
    write_end(storage, end, directory_sector)?;
    done.push(format!(
        "grain directory, footer and end-of-stream marker made anew at sector {marker_sector}"
    ));
    Ok(done)
}

/// Returns the sector of each table that has grains. `None`: not every one is there once.
fn table_places(scan: &Scan, header: &SparseHeader) -> Option<BTreeMap<u32, u32>> {
    let mut places = BTreeMap::new();
    for (table, sector) in &scan.tables {
        if places.insert(*table, *sector).is_some() {
            return None;
        }
    }
    let all = 0..u32::try_from(header.n_grain_tables()).ok()?;
    let has_place = |table: &u32| places.contains_key(table);
    all.filter(|table| !scan.runs.of_table(u64::from(*table)).is_empty())
        .all(|table| has_place(&table))
        .then_some(places)
}

/// Brings the tables up to what the markers say. Returns how many were not.
fn mend_tables(storage: &dyn Storage, runs: &Runs, places: &BTreeMap<u32, u32>) -> Result<u64> {
    let mut n_mended = 0;
    for (table, sector) in places {
        let byte = u64::from(*sector) * SECTOR_BYTES;
        let mut old = [0; TABLE_BYTES];
        storage.read_at(byte, &mut old)?;
        let found = Runs::table(storage, runs.of_table(u64::from(*table)))?;
        let new = merged(&old, &found)?;
        if new != old {
            storage.write_at(byte, &new)?;
            n_mended += 1;
        }
    }
    Ok(n_mended)
}

/// Returns a table's bytes with the entries of the grains found. Errors: it names a grain that is
/// not there.
fn merged(old: &[u8; TABLE_BYTES], found: &Table) -> Result<[u8; TABLE_BYTES]> {
    let mut new = *old;
    let olds = words(old);
    for (at, (old, found)) in olds.zip(found).enumerate().take(TABLE_ENTRIES) {
        match (old, *found) {
            (old, 0) if old > 1 => {
                let what = format!("entry {at}: sector {old}, where no grain of it is");
                return Err(Error::corrupt("grain table", what));
            }
            (_, 0) => {}
            (_, found) => new[4 * at..4 * at + 4].copy_from_slice(&found.to_le_bytes()),
        }
    }
    Ok(new)
}

/// Writes footer and end-of-stream marker and ends the file behind them.
fn write_end(storage: &dyn Storage, start: u64, directory_sector: u64) -> Result<()> {
    let mut footer = [0; HEADER_BYTES];
    storage.read_at(0, &mut footer)?;
    footer[GD_FIELD].copy_from_slice(&directory_sector.to_le_bytes());
    let mut bytes = marker::encode_other(marker::FOOTER, 1).to_vec();
    bytes.extend_from_slice(&footer);
    bytes.extend_from_slice(&marker::encode_other(marker::END_OF_STREAM, 0));
    storage.write_at(start, &bytes)?;
    storage.set_len(start + bytes.len() as u64)?;
    storage.sync()
}
