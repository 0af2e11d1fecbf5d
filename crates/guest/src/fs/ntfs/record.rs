//! Records that are written in several sectors, each ending in a number that is the same in all
//! (fixups); and those of the master file table: a header and attributes.

use hako_block::{Error, Result};

use crate::bytes::{array_at, le};

/// Kinds of attributes.
pub const STANDARD_INFORMATION: u32 = 0x10;
pub const ATTRIBUTE_LIST: u32 = 0x20;
pub const FILE_NAME: u32 = 0x30;
pub const VOLUME_NAME: u32 = 0x60;
pub const VOLUME_INFORMATION: u32 = 0x70;
pub const DATA: u32 = 0x80;
pub const INDEX_ROOT: u32 = 0x90;
pub const INDEX_ALLOCATION: u32 = 0xa0;
pub const REPARSE_POINT: u32 = 0xc0;

/// Stands for the end of the attributes.
const END: u32 = u32::MAX;

/// A file's number: 48 bits of the record, and 16 of how often that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference(pub u64);

impl Reference {
    /// Returns the number of the record.
    pub fn record(self) -> u64 {
        self.0 & 0xffff_ffff_ffff
    }

    /// Returns how often the record was used; 0 where that does not matter.
    pub fn sequence(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// Puts the last bytes of each sector back, after checking that all sectors were written together.
pub fn fix_up(bytes: &mut [u8], magic: &[u8; 4]) -> Result<()> {
    let bad = |what: &str| Err(Error::new(hako_block::ErrorKind::Corrupt, what));
    if array_at(bytes, 0) != *magic {
        return bad("no magic number");
    }
    let array = usize::from(le::u16_at(bytes, 4));
    let n_sectors = usize::from(le::u16_at(bytes, 6)).saturating_sub(1);
    let fits = n_sectors > 0 && bytes.len().is_multiple_of(n_sectors);
    let stride = if fits { bytes.len() / n_sectors } else { 0 };
    if stride < 256 || !stride.is_power_of_two() || array + 2 * (n_sectors + 1) > bytes.len() {
        return bad("sectors that do not add up");
    }
    let expected: [u8; 2] = array_at(bytes, array);
    for sector in 0..n_sectors {
        let saved: [u8; 2] = array_at(bytes, array + 2 * (sector + 1));
        let end = (sector + 1) * stride;
        match bytes.get_mut(end - 2..end) {
            Some(last) if *last == expected => last.copy_from_slice(&saved),
            _ => return bad("torn: its sectors were not written together"),
        }
    }
    Ok(())
}

/// A record of the master file table. Header: sequence 0x10, attributes 0x14, flags 0x16, used
/// bytes 0x18, base record 0x20.
#[derive(Debug)]
pub struct Record {
    bytes: Vec<u8>,
    /// Where each attribute begins and ends.
    attributes: Vec<(usize, usize)>,
}

impl Record {
    /// Decodes it, with its fixups in place.
    pub fn decode(mut bytes: Vec<u8>) -> Result<Self> {
        let bad = |what: String| Err(Error::new(hako_block::ErrorKind::Corrupt, what));
        fix_up(&mut bytes, b"FILE")?;
        let used = le::u32_at(&bytes, 0x18) as usize;
        if used > bytes.len() {
            return bad(format!("{used} bytes used of {}", bytes.len()));
        }
        let mut attributes = Vec::new();
        let mut at = usize::from(le::u16_at(&bytes, 0x14));
        loop {
            if at.saturating_add(4) > used {
                return bad(format!("attributes without end, at {at}"));
            }
            if le::u32_at(&bytes, at) == END {
                break;
            }
            let len = le::u32_at(&bytes, at.saturating_add(4)) as usize;
            let end = at.saturating_add(len);
            if len < 0x18 || end > used {
                return bad(format!("an attribute of {len} bytes, at {at}"));
            }
            attributes.push((at, end));
            at = end;
        }
        Ok(Self { bytes, attributes })
    }

    /// Returns whether it is of a file that is there.
    pub fn is_used(&self) -> bool {
        le::u16_at(&self.bytes, 0x16) & 1 != 0
    }

    /// Returns whether it is of a directory.
    pub fn is_directory(&self) -> bool {
        le::u16_at(&self.bytes, 0x16) & 2 != 0
    }

    /// Returns how often it was used.
    pub fn sequence(&self) -> u16 {
        le::u16_at(&self.bytes, 0x10)
    }

    /// Returns the record that this one holds more attributes of; zero in one that stands for
    /// itself.
    pub fn base(&self) -> Reference {
        Reference(le::u64_at(&self.bytes, 0x20))
    }

    /// Returns its attributes. Those whose parts do not fit are left out by none: they are errors.
    pub fn attributes(&self) -> impl Iterator<Item = Result<Attribute<'_>>> {
        self.attributes.iter().map(|(start, end)| {
            let bytes = self.bytes.get(*start..*end).unwrap_or_default();
            Attribute::decode(bytes)
        })
    }
}

/// An attribute: kind 0, length 4, form 8, length of its name 9, name 0x0a, flags 0x0c; resident:
/// length 0x10, value 0x14; else first VCN 0x10, last 0x18, runs 0x20, compression unit 0x22,
/// data's length 0x30, of which initialized 0x38.
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'a> {
    /// What it is.
    pub kind: u32,
    /// Its name in UTF-16, little-endian; mostly empty.
    pub name: &'a [u8],
    /// How it is stored.
    pub flags: u16,
    /// Its value, or where that is.
    pub form: Form<'a>,
}

/// The value of an attribute.
#[derive(Debug, Clone, Copy)]
pub enum Form<'a> {
    /// It is in the record.
    Resident(&'a [u8]),
    /// It is in clusters.
    Clusters(Extent<'a>),
}

/// A part of an attribute that is in clusters. The lengths count for the first part.
#[derive(Debug, Clone, Copy)]
pub struct Extent<'a> {
    /// The first of its clusters, as the attribute counts them.
    pub first: u64,
    /// The runs, encoded.
    pub runs: &'a [u8],
    /// How many clusters are compressed together, as a power of two.
    pub unit_shift: u8,
    /// The length of the value in bytes.
    pub len: u64,
    /// The bytes of it that were ever written; then come zeros.
    pub initialized: u64,
}

impl<'a> Attribute<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self> {
        let kind = le::u32_at(bytes, 0);
        let bad = |what: &str| {
            let what = format!("attribute {kind:#x}: {what}");
            Error::new(hako_block::ErrorKind::Corrupt, what)
        };
        let part = |at: usize, len: usize| bytes.get(at..).and_then(|rest| rest.get(..len));
        let [form, name_len] = array_at(bytes, 8);
        let name = part(
            usize::from(le::u16_at(bytes, 0x0a)),
            2 * usize::from(name_len),
        );
        let name = match name_len {
            0 => &[],
            _ => name.ok_or_else(|| bad("its name lies outside"))?,
        };
        let form = match form {
            0 => {
                let at = usize::from(le::u16_at(bytes, 0x14));
                let value = part(at, le::u32_at(bytes, 0x10) as usize);
                Form::Resident(value.ok_or_else(|| bad("its value lies outside"))?)
            }
            1 => {
                let at = usize::from(le::u16_at(bytes, 0x20));
                let [unit_shift] = array_at(bytes, 0x22);
                Form::Clusters(Extent {
                    first: le::u64_at(bytes, 0x10),
                    runs: bytes.get(at..).ok_or_else(|| bad("its runs lie outside"))?,
                    unit_shift,
                    len: le::u64_at(bytes, 0x30),
                    initialized: le::u64_at(bytes, 0x38),
                })
            }
            form => return Err(bad(&format!("form {form}"))),
        };
        Ok(Self {
            kind,
            name,
            flags: le::u16_at(bytes, 0x0c),
            form,
        })
    }

    /// Returns whether it is of that kind and has that name.
    pub fn is(&self, kind: u32, name: &str) -> bool {
        self.kind == kind && is_name(self.name, name)
    }

    /// Returns its value, if that is in the record.
    pub fn resident(&self) -> Option<&'a [u8]> {
        match self.form {
            Form::Resident(value) => Some(value),
            Form::Clusters(_) => None,
        }
    }
}

/// Returns whether bytes of UTF-16 are `name`.
pub fn is_name(utf16: &[u8], name: &str) -> bool {
    let units = utf16.chunks_exact(2).map(|unit| le::u16_at(unit, 0));
    units.eq(name.encode_utf16())
}
