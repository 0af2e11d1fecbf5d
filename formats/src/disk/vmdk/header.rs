//! The header of a hosted sparse extent file, "KDMV" (VMware Virtual Disk Format 5.0, "Hosted
//! Sparse Extent Header"). All of its numbers are checked here, once.
//!
//! | byte | size | field |
//! |---|---|---|
//! | 0 | 4 | magic "KDMV" |
//! | 4 | 4 | version: 1, 2 (zeroed grains), 3 (streamOptimized, change tracking) |
//! | 8 | 4 | flags |
//! | 12 | 8 | capacity, sectors |
//! | 20 | 8 | grain size, sectors: a power of two |
//! | 28 | 8 | descriptor offset, sectors; 0 none |
//! | 36 | 8 | descriptor size, sectors |
//! | 44 | 4 | entries in a grain table: 512 |
//! | 48 | 8 | redundant grain directory, sector |
//! | 56 | 8 | grain directory, sector; all ones: in the footer |
//! | 64 | 8 | overhead: sector of the first grain |
//! | 72 | 1 | unclean shutdown |
//! | 73 | 4 | newline bytes 0A 20 0D 0A: a transfer in text mode changes them |
//! | 77 | 2 | compression: 0 none, 1 deflate |

use hako_block::{Error, Result, SECTOR_BYTES};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 512;
/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"KDMV";
/// Flag: the newline bytes are there to be tested.
pub const FLAG_NEWLINE_TEST: u32 = 1;
/// Flag: the redundant grain directory is kept.
pub const FLAG_REDUNDANT_GD: u32 = 1 << 1;
/// Flag: a grain table entry of 1 says zeros, even over a parent.
pub const FLAG_ZEROED_GRAINS: u32 = 1 << 2;
/// Flag: grains are compressed.
pub const FLAG_COMPRESSED: u32 = 1 << 16;
/// Flag: markers precede grains and tables.
pub const FLAG_MARKERS: u32 = 1 << 17;
/// Value of the grain directory field when the footer has it.
pub const GD_AT_END: u64 = u64::MAX;
/// Entries of a grain table, always.
pub const N_GTES: u32 = 512;

const NEWLINE_BYTES: [u8; 4] = [0x0a, 0x20, 0x0d, 0x0a];
const KNOWN_INCOMPATIBLE: u32 = FLAG_COMPRESSED | FLAG_MARKERS;
/// Largest grain accepted: 64 MiB. VMware uses 64 KiB; a hostile header must not size a buffer.
const MAX_GRAIN_SECTORS: u64 = 1 << 17;

/// A checked header (or footer, which is a copy of it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseHeader {
    /// Version, 1 to 3.
    pub version: u32,
    /// Flags, `FLAG_*`.
    pub flags: u32,
    /// Capacity in sectors; 0 where the embedded descriptor names other extents.
    pub capacity_sectors: u64,
    /// Grain size in sectors, a power of two from 1 to 131072.
    pub grain_sectors: u64,
    /// Sector of the embedded descriptor; 0 none.
    pub descriptor_sector: u64,
    /// Sectors of the embedded descriptor.
    pub descriptor_sectors: u64,
    /// Sector of the redundant grain directory; 0 none.
    pub rgd_sector: u64,
    /// Sector of the grain directory, or [`GD_AT_END`].
    pub gd_sector: u64,
    /// Sector of the first grain.
    pub overhead_sectors: u64,
    /// Whether the file was not closed properly.
    pub unclean: bool,
    /// Whether grains are deflated (zlib streams).
    pub compressed: bool,
}

impl SparseHeader {
    /// Decodes and checks a header. `place` names it in errors: "header" or "footer".
    pub fn decode(bytes: &[u8; HEADER_BYTES], place: &str) -> Result<Self> {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let bad = |byte: u64, what: String| Err(Error::corrupt(place, what).at_byte(byte));
        if bytes[..4] != MAGIC {
            return bad(0, format!("magic is {:02x?}, not \"KDMV\"", &bytes[..4]));
        }
        let header = Self {
            version: u32_at(4),
            flags: u32_at(8),
            capacity_sectors: u64_at(12),
            grain_sectors: u64_at(20),
            descriptor_sector: u64_at(28),
            descriptor_sectors: u64_at(36),
            rgd_sector: u64_at(48),
            gd_sector: u64_at(56),
            overhead_sectors: u64_at(64),
            unclean: bytes[72] != 0,
            compressed: u32_at(8) & FLAG_COMPRESSED != 0,
        };
        if !(1..=3).contains(&header.version) {
            return bad(4, format!("version {} (1 to 3 are known)", header.version));
        }
        let unknown = header.flags & 0xffff_0000 & !KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            return bad(8, format!("incompatible flags {unknown:#x} are not known"));
        }
        if header.flags & FLAG_NEWLINE_TEST != 0 && bytes[73..77] != NEWLINE_BYTES {
            return Err(Error::corrupt(
                place,
                format!("newline bytes are {:02x?}, not 0a 20 0d 0a", &bytes[73..77]),
            )
            .at_byte(73)
            .hint("the file was transferred in text mode: copy it again in binary mode"));
        }
        if !header.grain_sectors.is_power_of_two() || header.grain_sectors > MAX_GRAIN_SECTORS {
            return bad(
                20,
                format!(
                    "grain size of {} sectors is no power of two up to {MAX_GRAIN_SECTORS}",
                    header.grain_sectors
                ),
            );
        }
        if header.capacity_sectors > u64::MAX / SECTOR_BYTES / 4 {
            return bad(
                12,
                format!(
                    "capacity of {} sectors is too large",
                    header.capacity_sectors
                ),
            );
        }
        if u32_at(44) != N_GTES && header.capacity_sectors != 0 {
            return bad(
                44,
                format!("{} entries in a grain table, not {N_GTES}", u32_at(44)),
            );
        }
        let compression = u16::from_le_bytes([bytes[77], bytes[78]]);
        if compression > 1 || (header.compressed && compression != 1) {
            return bad(
                77,
                format!("compression method {compression} (1 is deflate)"),
            );
        }
        Ok(header)
    }

    /// Encodes the header: the inverse of [`SparseHeader::decode`].
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(4, &self.version.to_le_bytes());
        put(8, &self.flags.to_le_bytes());
        put(12, &self.capacity_sectors.to_le_bytes());
        put(20, &self.grain_sectors.to_le_bytes());
        put(28, &self.descriptor_sector.to_le_bytes());
        put(36, &self.descriptor_sectors.to_le_bytes());
        put(44, &N_GTES.to_le_bytes());
        put(48, &self.rgd_sector.to_le_bytes());
        put(56, &self.gd_sector.to_le_bytes());
        put(64, &self.overhead_sectors.to_le_bytes());
        put(72, &[u8::from(self.unclean)]);
        put(73, &NEWLINE_BYTES);
        put(77, &u16::from(self.compressed).to_le_bytes());
        bytes
    }

    /// Returns the grain size in bytes.
    pub fn grain_bytes(&self) -> u64 {
        self.grain_sectors * SECTOR_BYTES
    }

    /// Returns how many grains the capacity needs.
    pub fn n_grains(&self) -> u64 {
        self.capacity_sectors.div_ceil(self.grain_sectors)
    }

    /// Returns how many grain tables, that is grain directory entries, the capacity needs.
    pub fn n_grain_tables(&self) -> u64 {
        self.n_grains().div_ceil(u64::from(N_GTES))
    }

    /// Returns whether a grain table entry of 1 says zeros.
    pub fn has_zeroed_grains(&self) -> bool {
        self.flags & FLAG_ZEROED_GRAINS != 0
    }

    /// Returns whether markers precede grains: the streamOptimized layout.
    pub fn has_markers(&self) -> bool {
        self.flags & FLAG_MARKERS != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SparseHeader {
        SparseHeader {
            version: 3,
            flags: FLAG_NEWLINE_TEST | FLAG_COMPRESSED | FLAG_MARKERS,
            capacity_sectors: 20480,
            grain_sectors: 128,
            descriptor_sector: 1,
            descriptor_sectors: 20,
            rgd_sector: 0,
            gd_sector: GD_AT_END,
            overhead_sectors: 128,
            unclean: false,
            compressed: true,
        }
    }

    #[test]
    fn encode_and_decode_are_inverse() {
        let bytes = header().encode();
        assert_eq!(SparseHeader::decode(&bytes, "header").unwrap(), header());
        assert_eq!((header().n_grains(), header().n_grain_tables()), (160, 1));
    }

    #[test]
    fn hostile_fields_are_refused_with_their_place() {
        for (at, value, names) in [
            (0, 0x00, "magic"),
            (4, 9, "version"),
            (11, 0x80, "incompatible"),
            (19, 0xff, "capacity"),
            (20, 129, "grain size"),
            (44, 1, "grain table"),
            (74, 0x0a, "newline"),
            (77, 2, "compression"),
        ] {
            let mut bytes = header().encode();
            bytes[at] = value;
            let error = SparseHeader::decode(&bytes, "header")
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("header: ") && error.contains(names),
                "{error}"
            );
        }
    }
}
