//! What a physical volume says of itself: its label, its header, and copies of the metadata.
//!
//! | label (one of the first four sectors) | |
//! |---|---|
//! | 0 | `LABELONE`, 8 its sector, 16 CRC of what follows, 20 place of the header, 24 `LVM2 001` |
//!
//! The header: 32 letters of identity, length, then places (byte, length) of data areas and of
//! metadata areas, each list ended by zeros. A metadata area begins with a sector of its own:
//!
//! | metadata area | |
//! |---|---|
//! | 0 | CRC of what follows, 4 magic, 20 version, 24 its own place, 32 its length |
//! | 40 | where the text is: byte, length, CRC, flags; the rest of the area is a ring |

use hako_block::Result;

use super::text::Section;
use crate::bytes::{array_at, le};
use crate::crc32;
use crate::volume::{Volume, check_range, read_vec};

const SECTOR: u64 = 512;
/// What LVM begins its CRCs with.
const CRC_BEGIN: u32 = 0xf597_a6cf;
const AREA_MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";
/// Metadata areas that a volume may have; LVM makes two at most.
const MOST_AREAS: usize = 8;
/// Bytes of a text at most: thousands of volumes fit in.
const MOST_TEXT_BYTES: u64 = 16 << 20;
/// The flag of an area that is not in use.
const IGNORED: u32 = 1;

/// A physical volume.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    /// Its identity, 32 letters.
    pub(super) id: String,
    /// The texts of its metadata areas that are whole.
    pub(super) texts: Vec<Section>,
    /// What is wrong with it.
    pub(crate) remarks: Vec<String>,
}

impl Label {
    /// Returns its identity as LVM and blkid write it.
    pub(crate) fn uuid(&self) -> String {
        dashed(&self.id)
    }
}

/// Reads the label of a volume; none if it is no physical volume.
pub(crate) fn read(volume: &dyn Volume) -> Result<Option<Label>> {
    for number in 0..4 {
        let at = number * SECTOR;
        if check_range(at, 512, volume.len_bytes()).is_err() {
            break;
        }
        let sector = read_vec(volume, at, 512)?;
        let covered = sector.get(20..).unwrap_or_default();
        let is_label = sector.starts_with(b"LABELONE")
            && array_at::<8>(&sector, 24) == *b"LVM2 001"
            && le::u64_at(&sector, 8) == number
            && le::u32_at(&sector, 16) == crc32::run(CRC_BEGIN, covered);
        if is_label {
            return header(volume, &sector).map(Some);
        }
    }
    Ok(None)
}

fn header(volume: &dyn Volume, sector: &[u8]) -> Result<Label> {
    let place = usize::try_from(le::u32_at(sector, 20)).unwrap_or(usize::MAX);
    let header = sector.get(place..).unwrap_or_default();
    let mut label = Label {
        id: String::from_utf8_lossy(&array_at::<32>(header, 0)).into_owned(),
        texts: Vec::new(),
        remarks: Vec::new(),
    };
    let mut pairs = header
        .get(40..)
        .unwrap_or_default()
        .chunks_exact(16)
        .map(|pair| (le::u64_at(pair, 0), le::u64_at(pair, 8)));
    // The data areas come first.
    let _ = pairs.by_ref().take_while(|(at, _)| *at != 0).count();
    for (at, _) in pairs.take_while(|(at, _)| *at != 0).take(MOST_AREAS) {
        match area(volume, at) {
            Ok(Some(text)) => label.texts.push(text),
            Ok(None) => {}
            Err(error) if error.kind() == hako_block::ErrorKind::Corrupt => {
                label
                    .remarks
                    .push(format!("a copy of the metadata is not used: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(label)
}

/// Reads the text of a metadata area; none if it holds none, or is out of use.
fn area(volume: &dyn Volume, at: u64) -> Result<Option<Section>> {
    let corrupt = |what: &str| hako_block::Error::corrupt("metadata area", what).at_byte(at);
    let sector = read_vec(volume, at, 512)?;
    let covered = sector.get(4..).unwrap_or_default();
    let is_whole = le::u32_at(&sector, 0) == crc32::run(CRC_BEGIN, covered)
        && array_at::<16>(&sector, 4) == *AREA_MAGIC
        && le::u32_at(&sector, 20) == 1
        && le::u64_at(&sector, 24) == at;
    if !is_whole {
        return Err(corrupt("its header fails its checks"));
    }
    let area_bytes = le::u64_at(&sector, 32);
    let (start, len) = (le::u64_at(&sector, 40), le::u64_at(&sector, 48));
    let (sum, flags) = (le::u32_at(&sector, 56), le::u32_at(&sector, 60));
    if start == 0 || len == 0 || flags & IGNORED != 0 {
        return Ok(None);
    }
    let ring_bytes = area_bytes.saturating_sub(SECTOR);
    if start < SECTOR || start >= area_bytes || len > ring_bytes || len > MOST_TEXT_BYTES {
        return Err(corrupt("its text does not lie in it"));
    }
    // What does not fit before the end of the ring goes on behind the header.
    let first = len.min(area_bytes - start);
    let piece = |from: u64, len: u64| {
        let at = at.checked_add(from).ok_or_else(|| corrupt("too far"))?;
        let len = usize::try_from(len).map_err(|_| corrupt("too long"))?;
        read_vec(volume, at, len)
    };
    let mut text = piece(start, first)?;
    text.extend(piece(SECTOR, len - first)?);
    if crc32::run(CRC_BEGIN, &text) != sum {
        return Err(corrupt("its text fails its checksum"));
    }
    Section::parse(&text).map(Some)
}

/// An identity as LVM shows it: 6-4-4-4-4-4-6 letters.
fn dashed(id: &str) -> String {
    let mut text = String::new();
    for (index, letter) in id.chars().enumerate() {
        if matches!(index, 6 | 10 | 14 | 18 | 22 | 26) {
            text.push('-');
        }
        text.push(letter);
    }
    text
}
