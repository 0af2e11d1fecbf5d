//! Directory records (ECMA-119, clause 9.1).
//!
//! | byte | |
//! |---|---|
//! | 0 | length of the record, 1 blocks of extended attributes before the content |
//! | 2 | first block, 10 bytes, 18 date, 25 flags, 26 interleaving |
//! | 32 | length of the name, 33 the name, then a byte if that length is even, then what SUSP adds |

use crate::bytes::{array_at, le};
use crate::date::Date;
use crate::fs::Time;

/// Bytes of a record without a name.
const FIXED_BYTES: usize = 33;

const DIRECTORY: u8 = 2;
const GOES_ON: u8 = 0x80;

/// A record, checked against its own length.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) block: u64,
    pub(super) len_bytes: u32,
    pub(super) modified: Time,
    pub(super) is_directory: bool,
    /// Whether the file's next piece is in the record that follows.
    pub(super) goes_on: bool,
    pub(super) is_interleaved: bool,
    pub(super) name: Vec<u8>,
    /// What the System Use Sharing Protocol adds.
    pub(super) system_use: Vec<u8>,
}

impl Record {
    /// Decodes a record, which begins the bytes; none if it is none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let len = usize::from(*bytes.first()?);
        let record = bytes.get(..len)?;
        let name_len = usize::from(*record.get(32)?);
        let name = record.get(FIXED_BYTES..FIXED_BYTES + name_len)?;
        let system_use_at = FIXED_BYTES + name_len + usize::from(name_len.is_multiple_of(2));
        let [flags, unit, gap] = array_at::<3>(record, 25);
        Some(Self {
            block: u64::from(le::u32_at(record, 2)) + u64::from(*record.get(1)?),
            len_bytes: le::u32_at(record, 10),
            modified: short_date(&array_at(record, 18)),
            is_directory: flags & DIRECTORY != 0,
            goes_on: flags & GOES_ON != 0,
            is_interleaved: unit != 0 || gap != 0,
            name: name.to_vec(),
            system_use: record.get(system_use_at..).unwrap_or_default().to_vec(),
        })
    }

    /// Returns whether it is the directory's own or its parent's.
    pub(super) fn is_dot(&self) -> bool {
        matches!(self.name.as_slice(), [0] | [1])
    }

    /// Returns the name of ISO 9660: without version, in lower case, as Linux shows it.
    pub(super) fn plain_name(&self) -> Vec<u8> {
        without_version(&String::from_utf8_lossy(&self.name).to_lowercase())
    }

    /// Returns the name of Joliet.
    pub(super) fn joliet_name(&self) -> Vec<u8> {
        without_version(&utf16(&self.name))
    }
}

fn without_version(name: &str) -> Vec<u8> {
    let name = name.split(';').next().unwrap_or(name);
    let name = match name.strip_suffix('.') {
        Some(stem) if !stem.is_empty() => stem,
        _ => name,
    };
    name.replace(['/', '\0'], "\u{fffd}").into_bytes()
}

/// A text in UTF-16, big-endian.
pub(super) fn utf16(bytes: &[u8]) -> String {
    let units = bytes
        .chunks_exact(2)
        .map(|unit| u16::from_be_bytes(array_at(unit, 0)));
    String::from_utf16_lossy(&units.collect::<Vec<_>>())
}

/// A date of seven bytes: year since 1900, month, day, hour, minute, second, quarters of an hour east.
pub(super) fn short_date(bytes: &[u8; 7]) -> Time {
    let [year, month, day, hour, minute, second, zone] = *bytes;
    let date = Date {
        year: 1900 + u16::from(year),
        month,
        day,
        hour,
        minute,
        second,
    };
    let east = i64::from(zone.cast_signed()) * 15 * 60;
    Time {
        seconds: date.seconds().map_or(0, |seconds| seconds - east),
        nanoseconds: 0,
    }
}
