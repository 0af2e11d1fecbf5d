//! GPT: two headers, each with a table of entries, each checked by CRC-32.
//!
//! | header | |
//! |---|---|
//! | 0 | `EFI PART` |
//! | 8 | revision, 12 bytes of header, 16 its CRC (taken with this field zero) |
//! | 24 | its own sector, 32 the other header's |
//! | 56 | the disk's GUID |
//! | 72 | first sector of the entries, 80 how many, 84 bytes of one, 88 their CRC |

use std::ops::RangeInclusive;

use hako_block::{Result, Uuid};

use super::{MOST_PARTITIONS, Partition, PartitionKind, Run, Table, TableKind};
use crate::bytes::{array_at, le};
use crate::crc32;
use crate::volume::{Volume, check_range, read_vec};

const MAGIC: &[u8; 8] = b"EFI PART";
/// Bytes that a header has at least.
const HEADER_BYTES: usize = 92;
/// Bytes of all entries together at most: MOST_PARTITIONS of the usual 128, or fewer large ones.
const MOST_ENTRY_BYTES: usize = MOST_PARTITIONS * 128;
/// Bytes of one entry.
const ENTRY_BYTES: RangeInclusive<usize> = 128..=4096;

/// A header that its checksum confirms.
struct Header {
    other: u64,
    disk: Uuid,
    entries_at: u64,
    n_entries: usize,
    entry_bytes: usize,
    entries_crc: u32,
}

/// Reads the GPT of a disk; none if there is neither header. `announced` says that an MBR speaks of
/// it; if none does, that is remarked on.
pub(super) fn read(disk: &dyn Volume, announced: bool) -> Result<Option<Table>> {
    let own = disk.sector_bytes();
    let other = if own == 512 { 4096 } else { 512 };
    for sector_bytes in [own, other] {
        if let Some(mut table) = with_sectors(disk, sector_bytes)? {
            if !announced {
                table
                    .remarks
                    .push("no protective MBR announces the GPT".to_owned());
            }
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// Reads it as one of sectors of that size: by the primary header, else by the backup.
fn with_sectors(disk: &dyn Volume, sector_bytes: u32) -> Result<Option<Table>> {
    let primary = attempt(disk, 1, sector_bytes)?;
    let last = (disk.len_bytes() / u64::from(sector_bytes)).saturating_sub(1);
    match primary {
        Attempt::Good(header, entries) => {
            let mut table = table(disk, &header, &entries, sector_bytes);
            // What the backup is good for is only looked at, not needed.
            if !matches!(
                attempt(disk, header.other, sector_bytes)?,
                Attempt::Good(..)
            ) {
                table
                    .remarks
                    .push("the backup GPT is missing or broken".to_owned());
            }
            Ok(Some(table))
        }
        bad => Ok(match attempt(disk, last, sector_bytes)? {
            Attempt::Good(header, entries) => {
                let mut table = table(disk, &header, &entries, sector_bytes);
                let what = match bad {
                    Attempt::Broken(what) => what,
                    _ => "missing",
                };
                table.remarks.push(format!(
                    "the primary GPT is not used: {what}; the backup at the end of the disk is"
                ));
                Some(table)
            }
            _ => None,
        }),
    }
}

/// What is at a place where a header should be.
enum Attempt {
    Good(Header, Vec<u8>),
    Broken(&'static str),
    Nothing,
}

fn attempt(disk: &dyn Volume, sector: u64, sector_bytes: u32) -> Result<Attempt> {
    let size = u64::from(sector_bytes);
    let len = disk.len_bytes();
    let at = match sector.checked_mul(size) {
        Some(at) if sector > 0 && at.checked_add(size).is_some_and(|end| end <= len) => at,
        _ => return Ok(Attempt::Nothing),
    };
    let bytes = read_vec(disk, at, sector_bytes as usize)?;
    if !bytes.starts_with(MAGIC) {
        return Ok(Attempt::Nothing);
    }
    let Some(header) = Header::decode(&bytes, sector) else {
        return Ok(Attempt::Broken("its header fails its checksum"));
    };
    let bytes_of_all = header.n_entries.saturating_mul(header.entry_bytes);
    let place = header.entries_at.checked_mul(size);
    let place = place.filter(|at| check_range(*at, bytes_of_all, len).is_ok());
    let (Some(place), true) = (place, bytes_of_all <= MOST_ENTRY_BYTES) else {
        return Ok(Attempt::Broken("its header describes no possible table"));
    };
    let entries = read_vec(disk, place, bytes_of_all)?;
    if crc32::sum(&entries) != header.entries_crc {
        return Ok(Attempt::Broken("its entries fail their checksum"));
    }
    Ok(Attempt::Good(header, entries))
}

impl Header {
    /// Decodes the header in a sector; none if it is not whole, or not of this sector.
    fn decode(sector: &[u8], at: u64) -> Option<Self> {
        let len = usize::try_from(le::u32_at(sector, 12)).ok()?;
        let mut header = sector.get(..len)?.to_vec();
        if len < HEADER_BYTES {
            return None;
        }
        header.get_mut(16..20)?.fill(0);
        let entry_bytes = usize::try_from(le::u32_at(sector, 84)).ok()?;
        let good = crc32::sum(&header) == le::u32_at(sector, 16)
            && le::u64_at(sector, 24) == at
            && ENTRY_BYTES.contains(&entry_bytes);
        good.then_some(Self {
            other: le::u64_at(sector, 32),
            disk: guid_at(sector, 56),
            entries_at: le::u64_at(sector, 72),
            n_entries: usize::try_from(le::u32_at(sector, 80)).ok()?,
            entry_bytes,
            entries_crc: le::u32_at(sector, 88),
        })
    }
}

fn table(disk: &dyn Volume, header: &Header, entries: &[u8], sector_bytes: u32) -> Table {
    let mut table = Table {
        kind: TableKind::Gpt,
        sector_bytes,
        uuid: header.disk.to_string(),
        partitions: Vec::new(),
        remarks: Vec::new(),
    };
    for (number, entry) in (1..).zip(entries.chunks_exact(header.entry_bytes)) {
        let kind = guid_at(entry, 0);
        if kind.is_nil() {
            continue;
        }
        let (first, last) = (le::u64_at(entry, 32), le::u64_at(entry, 40));
        let run = Run {
            first,
            sectors: last
                .saturating_sub(first)
                .saturating_add(u64::from(last >= first)),
        };
        let Some(place) = run.place_of(number, disk.len_bytes(), &mut table) else {
            continue;
        };
        table.partitions.push(Partition {
            number,
            start: place.start,
            len: place.len,
            kind: PartitionKind::Gpt(kind),
            uuid: guid_at(entry, 16).to_string(),
            label: label(entry),
            bootable: le::u64_at(entry, 48) & 4 != 0,
        });
    }
    table
}

/// The name of an entry: 36 UTF-16 units, up to the first zero.
fn label(entry: &[u8]) -> String {
    let units = (0..36).map(|unit| le::u16_at(entry, 56 + 2 * unit));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

fn guid_at(bytes: &[u8], at: usize) -> Uuid {
    Uuid::from_mixed_endian(array_at(bytes, at))
}
