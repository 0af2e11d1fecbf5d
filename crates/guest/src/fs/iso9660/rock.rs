//! Rock Ridge (IEEE P1282) in the fields of SUSP: names, modes and links of POSIX.
//!
//! A field: two letters, its length, its version, content. `CE` tells where more of them are.

use hako_block::{Error, Result};

use super::record::short_date;
use crate::bytes::{array_at, le};
use crate::fs::{LONGEST_LINK, NodeKind, Time};
use crate::volume::{Volume, read_vec};

/// Areas of further fields that a record may lead to, one after the other.
const MOST_AREAS: usize = 32;
/// Bytes of such an area.
const LONGEST_AREA: u32 = 2048;

/// What the fields of a record say.
#[derive(Debug, Default, Clone)]
pub(super) struct Rock {
    pub(super) name: Option<Vec<u8>>,
    /// Mode, links, owner, group.
    pub(super) attributes: Option<[u32; 4]>,
    pub(super) device: Option<(u32, u32)>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) modified: Option<Time>,
    /// The directory was moved: it is at this block.
    pub(super) child: Option<u32>,
    /// It is here only because it was moved.
    pub(super) is_moved: bool,
    /// Its content is compressed (zisofs).
    pub(super) is_compressed: bool,
    /// The link's last component goes on in the next one.
    link_goes_on: bool,
}

/// Returns how many bytes stand before the fields of every record, if the first record of the root
/// says that there are fields at all.
pub(super) fn skip(system_use: &[u8]) -> Option<usize> {
    let is_susp = system_use.starts_with(b"SP\x07\x01\xbe\xef");
    // CD-XA puts 14 bytes of its own first.
    let behind = system_use.get(14..).unwrap_or_default();
    match (is_susp, behind.starts_with(b"SP\x07\x01\xbe\xef")) {
        (true, _) => Some(usize::from(array_at::<1>(system_use, 6)[0])),
        (_, true) => Some(usize::from(array_at::<1>(behind, 6)[0])),
        _ => None,
    }
}

impl Rock {
    /// Reads the fields of a record.
    pub(super) fn read(volume: &dyn Volume, fields: &[u8], block_bytes: u32) -> Result<Self> {
        let mut rock = Self::default();
        let mut next = rock.take_in(fields);
        for _ in 0..MOST_AREAS {
            let Some([block, offset, len]) = next else {
                return Ok(rock);
            };
            if len > LONGEST_AREA {
                return Err(Error::corrupt("Rock Ridge", "an area is too long"));
            }
            let at = u64::from(block) * u64::from(block_bytes) + u64::from(offset);
            next = rock.take_in(&read_vec(volume, at, len as usize)?);
        }
        Err(Error::corrupt("Rock Ridge", "its areas go in a circle"))
    }

    /// Takes in the fields of an area. Returns where the next one is.
    fn take_in(&mut self, mut area: &[u8]) -> Option<[u32; 3]> {
        let mut next = None;
        while let Some(field) = area.get(2).and_then(|len| area.get(..usize::from(*len))) {
            if field.len() < 4 {
                break;
            }
            match array_at::<2>(field, 0) {
                [b'S', b'T'] => break,
                [b'C', b'E'] => next = Some([4, 12, 20].map(|place| le::u32_at(field, place))),
                _ => self.field(field),
            }
            area = area.get(field.len()..).unwrap_or_default();
        }
        next
    }

    fn field(&mut self, field: &[u8]) {
        let content = field.get(5..).unwrap_or_default();
        match array_at::<2>(field, 0) {
            // Flags: 2 and 4 are `.` and `..`.
            [b'N', b'M'] if array_at::<1>(field, 4)[0] & 6 == 0 => {
                self.name.get_or_insert_default().extend(content);
            }
            [b'P', b'X'] => {
                self.attributes = Some([4, 12, 20, 28].map(|place| le::u32_at(field, place)));
            }
            [b'P', b'N'] => {
                let (high, low) = (le::u32_at(field, 4), le::u32_at(field, 12));
                // Old writers put both into one number, eight bits each.
                self.device = Some(match high {
                    0 => (low >> 8, low & 0xff),
                    major => (major, low),
                });
            }
            [b'S', b'L'] => self.link_part(field),
            [b'T', b'F'] => self.times(field),
            [b'C', b'L'] => self.child = Some(le::u32_at(field, 4)),
            [b'R', b'E'] => self.is_moved = true,
            [b'Z', b'F'] => self.is_compressed = true,
            _ => {}
        }
    }

    /// A time stamp for each flag that is set: creation, modification, …
    fn times(&mut self, field: &[u8]) {
        let [flags] = array_at::<1>(field, 4);
        const CREATION: u8 = 1;
        const MODIFICATION: u8 = 2;
        const LONG: u8 = 0x80;
        if flags & MODIFICATION != 0 && flags & LONG == 0 {
            let place = 5 + 7 * usize::from(flags & CREATION);
            self.modified = Some(short_date(&array_at(field, place)));
        }
    }

    /// Components of a link: flags, length, name.
    fn link_part(&mut self, field: &[u8]) {
        let link = self.link.get_or_insert_default();
        let mut rest = field.get(5..).unwrap_or_default();
        while let [flags, len, tail @ ..] = rest {
            let (flags, len) = (*flags, usize::from(*len));
            let Some(name) = tail.get(..len) else {
                break;
            };
            let joins = self.link_goes_on || link.is_empty() || link.ends_with(b"/");
            if !joins && link.len() < LONGEST_LINK {
                link.push(b'/');
            }
            let part: &[u8] = match flags & 14 {
                2 => b".",
                4 => b"..",
                8 => b"/",
                _ => name,
            };
            link.extend(part.iter().take(LONGEST_LINK.saturating_sub(link.len())));
            self.link_goes_on = flags & 1 != 0;
            rest = tail.get(len..).unwrap_or_default();
        }
    }

    /// Returns what its mode says that it is.
    pub(super) fn kind(&self) -> Option<NodeKind> {
        let [mode, ..] = self.attributes?;
        Some(match mode & 0o170_000 {
            0o100_000 => NodeKind::File,
            0o040_000 => NodeKind::Directory,
            0o120_000 => NodeKind::Link,
            0o020_000 => NodeKind::CharDevice,
            0o060_000 => NodeKind::BlockDevice,
            0o010_000 => NodeKind::Fifo,
            0o140_000 => NodeKind::Socket,
            _ => return None,
        })
    }
}
