//! The footer: the last sector of every VHD, and of a dynamic one also its first (Virtual Hard
//! Disk Image Format Specification 1.0, "Hard Disk Footer Format"). Big-endian.
//!
//! | byte | field |
//! |---|---|
//! | 0 | cookie "conectix" |
//! | 8, 12 | features, version |
//! | 16 | file offset of the dynamic header, all ones in a fixed disk |
//! | 24 | time, seconds since 2000 |
//! | 28, 32, 36 | creator, its version, its system |
//! | 40, 48 | original size, current size |
//! | 56 | cylinders, heads, sectors |
//! | 60 | type: 2 fixed, 3 dynamic, 4 differencing |
//! | 64 | checksum |
//! | 68 | unique ID |
//! | 84 | saved state |
//! | 85 | reserved; hako: a resize that is under way |

use std::time::{SystemTime, UNIX_EPOCH};

use hako_block::{Error, Result, SECTOR_BYTES, Uuid};

pub(crate) use crate::disk::bytes::{array_at, put};

/// Hard disk footer, field Cookie.
pub const COOKIE: &[u8; 8] = b"conectix";
/// Bytes of a footer.
pub const FOOTER_BYTES: u64 = 512;
/// Bytes of the footer that Virtual PC wrote before 2004.
pub const OLD_FOOTER_BYTES: u64 = 511;
/// Largest disk: what qemu, Virtual PC and Hyper-V take.
pub const MAX_DISK_BYTES: u64 = 2040 << 30;
/// Seconds from 1970 to 2000, where the format's time begins.
const EPOCH: u64 = 946_684_800;
/// Hard disk footer, field Features: the bit that is always set.
const FEATURES: u32 = 2;
/// Hard disk footer, field File Format Version.
const VERSION: u32 = 0x0001_0000;
/// Data offset of a fixed disk.
const NO_HEADER: u64 = u64::MAX;
/// Most sectors that the geometry expresses.
const MAX_CHS_SECTORS: u64 = 65535 * 16 * 255;
/// Begins the note of a resize in the reserved bytes.
const RESIZE_MARK: &[u8; 8] = b"hakosize";

/// What a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskType {
    /// Every byte is there, in order.
    Fixed,
    /// Blocks are allocated when written.
    Dynamic,
    /// As dynamic, and what is not there is the parent's.
    Differencing,
}

impl DiskType {
    /// Returns the name of the subformat.
    pub fn name(self) -> &'static str {
        match self {
            DiskType::Fixed => "fixed",
            DiskType::Dynamic => "dynamic",
            DiskType::Differencing => "differencing",
        }
    }
}

/// Cylinders, heads, sectors per track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chs {
    /// Cylinders.
    pub cylinders: u16,
    /// Heads.
    pub heads: u8,
    /// Sectors per track.
    pub sectors: u8,
}

impl Chs {
    /// Returns the geometry of a disk of that size, by the algorithm of the specification's
    /// appendix. It covers the disk but for less than a cylinder, up to 127 GiB.
    pub fn of_size(virtual_size: u64) -> Self {
        let total = (virtual_size / SECTOR_BYTES).min(MAX_CHS_SECTORS);
        if total >= 65535 * 16 * 63 {
            return Self::with(total / 255, 16, 255);
        }
        let mut tracks = total / 17;
        let heads = tracks.div_ceil(1024).max(4);
        if tracks < heads * 1024 && heads <= 16 {
            return Self::with(tracks, heads as u8, 17);
        }
        tracks = total / 31;
        if tracks < 16 * 1024 {
            return Self::with(tracks, 16, 31);
        }
        Self::with(total / 63, 16, 63)
    }

    fn with(tracks: u64, heads: u8, sectors: u8) -> Self {
        Self {
            // At most 65535: the total is.
            cylinders: u16::try_from(tracks / u64::from(heads)).unwrap_or(u16::MAX),
            heads,
            sectors,
        }
    }

    /// Returns the bytes that it addresses.
    pub fn bytes(self) -> u64 {
        u64::from(self.cylinders) * u64::from(self.heads) * u64::from(self.sectors) * SECTOR_BYTES
    }
}

/// A resize of a fixed disk that is under way: such an image is refused until it is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resizing {
    /// Virtual size in bytes before it.
    pub from: u64,
    /// Virtual size in bytes after it.
    pub to: u64,
}

/// A checked footer. What is not decoded is kept as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    bytes: [u8; FOOTER_BYTES as usize],
    /// What the disk is.
    pub disk_type: DiskType,
    /// File offset of the dynamic header; all ones in a fixed disk.
    pub data_offset: u64,
    /// The program that made it.
    pub creator: [u8; 4],
    /// Size when it was created, in bytes.
    pub original_size: u64,
    /// Size now, in bytes.
    pub current_size: u64,
    /// The geometry.
    pub chs: Chs,
    /// What the disk is known by.
    pub uuid: Uuid,
    /// Whether the checksum is right.
    pub checksum_ok: bool,
    /// A resize that is under way.
    pub resizing: Option<Resizing>,
}

impl Footer {
    /// Returns the footer of a new disk. `data_offset` is none for a fixed one.
    pub fn new(disk_type: DiskType, virtual_size: u64, data_offset: Option<u64>) -> Self {
        let mut bytes = [0; FOOTER_BYTES as usize];
        put(&mut bytes, 0, COOKIE);
        put(&mut bytes, 8, &FEATURES.to_be_bytes());
        put(&mut bytes, 12, &VERSION.to_be_bytes());
        put(&mut bytes, 24, &now().to_be_bytes());
        // The version of Windows 2012 R2.
        put(&mut bytes, 32, &0x0006_0003_u32.to_be_bytes());
        put(&mut bytes, 36, b"Wi2k");
        let mut footer = Self {
            bytes,
            disk_type,
            data_offset: data_offset.unwrap_or(NO_HEADER),
            creator: *b"win ",
            original_size: virtual_size,
            current_size: 0,
            chs: Chs::of_size(0),
            uuid: Uuid::random(),
            checksum_ok: true,
            resizing: None,
        };
        footer.set_size(virtual_size);
        footer
    }

    /// Changes the virtual size. The creator becomes Hyper-V's: of those that every reader knows
    /// it is the one whose disks are as large as they say; of others some readers take the size
    /// from the geometry, which is less.
    pub fn set_size(&mut self, virtual_size: u64) {
        self.creator = *b"win ";
        self.current_size = virtual_size;
        self.chs = Chs::of_size(virtual_size);
    }

    /// Decodes a footer of 512 bytes, or an old one of 511. Errors: it is none, or a field has a
    /// value that the format does not know. A wrong checksum is only noted.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut whole = [0; FOOTER_BYTES as usize];
        match whole.get_mut(..bytes.len()) {
            Some(part) if bytes.len() as u64 >= OLD_FOOTER_BYTES => part.copy_from_slice(bytes),
            _ => return Err(damaged("is too short", 0)),
        }
        let bytes = whole;
        if !bytes.starts_with(COOKIE) {
            return Err(damaged("has no cookie \"conectix\"", 0));
        }
        let version = u32_at(&bytes, 12);
        if version >> 16 != VERSION >> 16 {
            return Err(Error::unsupported(format!("version {version:#x}"))
                .place("footer")
                .at_byte(12));
        }
        let disk_type = match u32_at(&bytes, 60) {
            2 => DiskType::Fixed,
            3 => DiskType::Dynamic,
            4 => DiskType::Differencing,
            other => return Err(damaged(format!("unknown disk type {other}"), 60)),
        };
        let mark = bytes.get(85..109).unwrap_or(&[]);
        let resizing = mark.starts_with(RESIZE_MARK).then(|| Resizing {
            from: u64_at(&bytes, 93),
            to: u64_at(&bytes, 101),
        });
        Ok(Self {
            disk_type,
            data_offset: u64_at(&bytes, 16),
            creator: array_at(&bytes, 28),
            original_size: u64_at(&bytes, 40),
            current_size: u64_at(&bytes, 48),
            chs: Chs {
                cylinders: u16::from_be_bytes(array_at(&bytes, 56)),
                heads: bytes[58],
                sectors: bytes[59],
            },
            uuid: Uuid(array_at(&bytes, 68)),
            checksum_ok: u32_at(&bytes, 64) == checksum(&bytes, 64),
            resizing,
            bytes,
        })
    }

    /// Returns the footer as it is stored, with its checksum.
    pub fn encode(&self) -> [u8; FOOTER_BYTES as usize] {
        let mut bytes = self.bytes;
        let disk_type: u32 = match self.disk_type {
            DiskType::Fixed => 2,
            DiskType::Dynamic => 3,
            DiskType::Differencing => 4,
        };
        put(&mut bytes, 16, &self.data_offset.to_be_bytes());
        put(&mut bytes, 28, &self.creator);
        put(&mut bytes, 40, &self.original_size.to_be_bytes());
        put(&mut bytes, 48, &self.current_size.to_be_bytes());
        put(&mut bytes, 56, &self.chs.cylinders.to_be_bytes());
        bytes[58] = self.chs.heads;
        bytes[59] = self.chs.sectors;
        put(&mut bytes, 60, &disk_type.to_be_bytes());
        put(&mut bytes, 68, &self.uuid.0);
        if self.resizing.is_some() || bytes.get(85..93) == Some(RESIZE_MARK.as_slice()) {
            let mut mark = [0; 24];
            if let Some(Resizing { from, to }) = self.resizing {
                put(&mut mark, 0, RESIZE_MARK);
                put(&mut mark, 8, &from.to_be_bytes());
                put(&mut mark, 16, &to.to_be_bytes());
            }
            put(&mut bytes, 85, &mark);
        }
        let sum = checksum(&bytes, 64);
        put(&mut bytes, 64, &sum.to_be_bytes());
        bytes
    }

    /// Returns the virtual size in bytes. Virtual PC, and qemu as long as it was like it, make
    /// disks as large as their geometry; all others mean the current size. The geometry ends at
    /// 127 GiB: one that says so much says nothing.
    pub fn virtual_size(&self) -> u64 {
        let by_geometry = self.chs.bytes();
        let is_like_virtual_pc = matches!(&self.creator, b"vpc " | b"qemu");
        if is_like_virtual_pc && by_geometry > 0 && by_geometry < MAX_CHS_SECTORS * SECTOR_BYTES {
            by_geometry.min(self.current_size)
        } else {
            self.current_size
        }
    }

    /// Returns the time of creation, in seconds since 1970.
    pub fn unix_time(&self) -> u64 {
        u64::from(u32_at(&self.bytes, 24)) + EPOCH
    }

    /// Returns whether the virtual machine was saved while it ran.
    pub fn saved_state(&self) -> bool {
        self.bytes[84] != 0
    }

    /// Returns the creator as text.
    pub fn creator_text(&self) -> String {
        String::from_utf8_lossy(&self.creator)
            .trim_end_matches(['\0', ' '])
            .to_owned()
    }
}

/// Returns the one's complement of the sum of all bytes, those of the checksum at `at` left out.
pub fn checksum(bytes: &[u8], at: usize) -> u32 {
    let sum = bytes
        .iter()
        .enumerate()
        .filter(|(index, _)| !(at..at + 4).contains(index))
        .fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)));
    !sum
}

/// Returns the time now as the format counts it.
fn now() -> u32 {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    u32::try_from(unix.saturating_sub(EPOCH)).unwrap_or(u32::MAX)
}

fn damaged(what: impl Into<String>, byte: u64) -> Error {
    Error::corrupt("footer", what).at_byte(byte)
}

/// Returns the number at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, at))
}

/// Returns the number at `at`.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_back() {
        let mut footer = Footer::new(DiskType::Dynamic, 5 << 30, Some(512));
        let again = Footer::decode(&footer.encode()).unwrap();
        assert!(again.checksum_ok);
        assert_eq!(again.encode(), footer.encode());
        assert_eq!(again.virtual_size(), 5 << 30);
        assert_eq!(again.uuid, footer.uuid);
        footer.resizing = Some(Resizing { from: 1, to: 2 });
        let mut again = Footer::decode(&footer.encode()).unwrap();
        assert_eq!(again.resizing, footer.resizing);
        again.resizing = None;
        assert_eq!(Footer::decode(&again.encode()).unwrap().resizing, None);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = Footer::new(DiskType::Fixed, 1 << 30, None).encode();
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] ^= 0x10;
            assert!(!Footer::decode(&bad).is_ok_and(|footer| footer.checksum_ok));
        }
    }

    #[test]
    fn geometry_is_that_of_the_specification() {
        let cases = [
            (10 << 20, (301, 4, 17)),
            (64 << 20, (963, 8, 17)),
            (1 << 30, (2080, 16, 63)),
            (2040 << 30, (65535, 16, 255)),
        ];
        for (size, (cylinders, heads, sectors)) in cases {
            let chs = Chs::of_size(size);
            assert_eq!(
                (chs.cylinders, chs.heads, chs.sectors),
                (cylinders, heads, sectors),
                "{size}"
            );
        }
        for size in (0..200).map(|n| n * 700_000_000) {
            assert!(Chs::of_size(size).bytes() <= size);
        }
    }

    #[test]
    fn size_goes_by_the_creator() {
        let mut footer = Footer::new(DiskType::Dynamic, 136_365_211_648, Some(512));
        assert_eq!(footer.virtual_size(), 136_365_211_648);
        footer.creator = *b"vpc ";
        footer.chs = Chs {
            cylinders: 65278,
            heads: 16,
            sectors: 255,
        };
        assert_eq!(footer.virtual_size(), 136_363_130_880);
        footer.chs.cylinders = 65535;
        assert_eq!(footer.virtual_size(), 136_365_211_648);
    }
}
