//! Volume descriptors: which tree of directories to read (ECMA-119, clause 8; Joliet).
//!
//! | descriptor (2048 bytes, from sector 16 on) | |
//! |---|---|
//! | 0 | type: 1 primary, 2 supplementary (Joliet: escape `%/@`, `%/C` or `%/E` at 88), 255 the last |
//! | 1 | `CD001`, 40 volume name, 80 number of blocks, 128 bytes of a block |
//! | 156 | record of the root directory, 813 when it was made, 830 when it was changed |

use hako_block::{Error, Result};

use super::record::Record;
use crate::bytes::{array_at, le};
use crate::volume::{Volume, check_range, read_vec};

const SECTOR: u64 = 2048;
/// Where descriptors begin, and how many are looked at.
const FIRST: u64 = 16;
const MOST: u64 = 64;

/// A tree of directories.
#[derive(Debug, Clone)]
pub(super) struct Descriptor {
    pub(super) is_joliet: bool,
    pub(super) label: String,
    pub(super) uuid: String,
    pub(super) len_bytes: u64,
    pub(super) block_bytes: u32,
    pub(super) root: Record,
}

/// Returns whether the volume has descriptors.
pub(super) fn probe(volume: &dyn Volume) -> Result<bool> {
    Ok(sector(volume, FIRST)?.is_some_and(|bytes| array_at::<5>(&bytes, 1) == *b"CD001"))
}

/// Reads a sector; none past the end.
fn sector(volume: &dyn Volume, number: u64) -> Result<Option<Vec<u8>>> {
    let at = number * SECTOR;
    match check_range(at, 2048, volume.len_bytes()) {
        Ok(()) => read_vec(volume, at, 2048).map(Some),
        Err(_) => Ok(None),
    }
}

/// Reads the primary descriptor and the one of Joliet.
pub(super) fn read(volume: &dyn Volume) -> Result<(Descriptor, Option<Descriptor>)> {
    let (mut primary, mut joliet) = (None, None);
    for number in FIRST..FIRST + MOST {
        let Some(bytes) = sector(volume, number)? else {
            break;
        };
        if array_at::<5>(&bytes, 1) != *b"CD001" {
            break;
        }
        let escape = array_at::<3>(&bytes, 88);
        match array_at::<1>(&bytes, 0) {
            [1] if primary.is_none() => primary = Some(Descriptor::decode(&bytes, false)?),
            [2] if joliet.is_none() && matches!(&escape, b"%/@" | b"%/C" | b"%/E") => {
                joliet = Some(Descriptor::decode(&bytes, true)?);
            }
            [255] => break,
            _ => {}
        }
    }
    let primary = primary.ok_or_else(|| Error::corrupt("volume descriptor", "no primary one"))?;
    Ok((primary, joliet))
}

impl Descriptor {
    fn decode(bytes: &[u8], is_joliet: bool) -> Result<Self> {
        let corrupt = |what: &str| Error::corrupt("volume descriptor", what);
        let block_bytes = u32::from(le::u16_at(bytes, 128));
        if !matches!(block_bytes, 512 | 1024 | 2048) {
            return Err(corrupt("blocks of a size that no image has"));
        }
        let root = bytes.get(156..190).and_then(Record::decode);
        let name = array_at::<32>(bytes, 40);
        let label = match is_joliet {
            true => super::record::utf16(&name),
            false => String::from_utf8_lossy(&name).into_owned(),
        };
        Ok(Self {
            is_joliet,
            label: label.trim_end_matches([' ', '\0']).to_owned(),
            uuid: date_text(bytes),
            len_bytes: u64::from(le::u32_at(bytes, 80)) * u64::from(block_bytes),
            block_bytes,
            root: root.ok_or_else(|| corrupt("no root directory"))?,
        })
    }
}

/// The time of the last change, else of making, as blkid writes it for a UUID:
/// `2024-02-29-12-34-56-00`.
fn date_text(bytes: &[u8]) -> String {
    for place in [830, 813] {
        let digits = array_at::<16>(bytes, place);
        let is_date = digits.iter().all(u8::is_ascii_digit);
        if !is_date || digits.iter().all(|digit| *digit == b'0') {
            continue;
        }
        let text = String::from_utf8_lossy(&digits).into_owned();
        let ends = [4, 6, 8, 10, 12, 14, 16];
        let starts = [0, 4, 6, 8, 10, 12, 14];
        let parts = starts
            .iter()
            .zip(ends)
            .filter_map(|(start, end)| text.get(*start..end));
        return parts.collect::<Vec<_>>().join("-");
    }
    String::new()
}
