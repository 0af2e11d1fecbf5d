//! Where the fields of the header are.
//!
//! Source: VirtualBox, `src/VBox/Storage/VDICore.h` (VDIPREHEADER, VDIHEADER0, VDIHEADER1PLUS).
//! All numbers are little-endian.
//!
//! | version 1 | old version | bytes | field |
//! |---|---|---|---|
//! | 0x00 | 0x00 | 64 | text about the image |
//! | 0x40 | 0x40 | 4 | signature |
//! | 0x44 | 0x44 | 4 | version |
//! | 0x48 | – | 4 | length of the header from here |
//! | 0x4c | 0x48 | 4 | type |
//! | 0x50 | 0x4c | 4 | flags |
//! | 0x54 | 0x50 | 256 | comment |
//! | 0x154 | – | 4 | offset of the block map |
//! | 0x158 | – | 4 | offset of the data |
//! | 0x15c | 0x150 | 16 | geometry: cylinders, heads, sectors, bytes in a sector |
//! | 0x16c | – | 4 | unused |
//! | 0x170 | 0x160 | 8 | size of the disk in bytes |
//! | 0x178 | 0x168 | 4 | bytes in a block |
//! | 0x17c | – | 4 | bytes of other data before each block |
//! | 0x180 | 0x16c | 4 | number of blocks |
//! | 0x184 | 0x170 | 4 | number of blocks stored |
//! | 0x188 | 0x174 | 16 | UUID of the image |
//! | 0x198 | 0x184 | 16 | UUID of its last modification |
//! | 0x1a8 | 0x194 | 16 | UUID of the parent image |
//! | 0x1b8 | – | 16 | UUID of the parent's last modification |
//! | 0x1c8 | – | 16 | logical geometry, in headers of 400 bytes |

use crate::disk::bytes::array_at;
pub(crate) use crate::disk::bytes::{put, uuid_at};

/// VDIPREHEADER, field u32Signature.
pub const SIGNATURE: u32 = 0xbeda_107f;
/// Where the signature is.
pub const SIGNATURE_OFFSET: usize = 0x40;
/// VDIPREHEADER, field u32Version: of before VirtualBox 1.0.
pub const OLD_VERSION: u32 = 2;
/// The version that is written.
pub const VERSION: u32 = 0x0001_0001;
/// VDIPREHEADER, field szFileInfo.
pub const TEXT: &[u8] = b"<<< Oracle VM VirtualBox Disk Image >>>\n";
/// Where VDIHEADER0 and VDIHEADER1 begin.
pub const HEADER_OFFSET: u64 = 0x48;
/// Bytes of VDIHEADER0; below, of VDIHEADER1 and VDIHEADER1PLUS.
pub const OLD_LEN: u64 = 0x15c;
/// The least of version 1.
pub const MIN_LEN: u64 = 0x180;
/// What is written.
pub const LEN: u64 = 0x190;
/// VDIHEADER1PLUS, field szComment: bytes with the zero at its end.
pub const COMMENT_BYTES: usize = 256;
/// VDIHEADER1PLUS, field LCHSGeometry.cbSector.
pub const LCHS_SECTOR_OFFSET: usize = 0x1d4;

/// Where the fields are that both versions have.
pub struct Layout {
    pub kind: usize,
    pub flags: usize,
    pub comment: usize,
    pub disk_size: usize,
    pub block: usize,
    pub n_blocks: usize,
    pub n_stored: usize,
    pub uuids: usize,
}

/// Of the old version.
pub const OLD_LAYOUT: Layout = Layout {
    kind: 0x48,
    flags: 0x4c,
    comment: 0x50,
    disk_size: 0x160,
    block: 0x168,
    n_blocks: 0x16c,
    n_stored: 0x170,
    uuids: 0x174,
};

/// Of version 1.
pub const LAYOUT: Layout = Layout {
    kind: 0x4c,
    flags: 0x50,
    comment: 0x54,
    disk_size: 0x170,
    block: 0x178,
    n_blocks: 0x180,
    n_stored: 0x184,
    uuids: 0x188,
};

/// VDIHEADER1PLUS, fields cbHeader, offBlocks, offData, LegacyGeometry.cbSector, cbBlockExtra,
/// uuidParentModify.
pub const LEN_OFFSET: usize = 0x48;
pub const MAP_OFFSET: usize = 0x154;
pub const DATA_OFFSET: usize = 0x158;
pub const SECTOR_OFFSET: usize = 0x168;
pub const EXTRA_OFFSET: usize = 0x17c;
pub const PARENT_MODIFICATION_OFFSET: usize = 0x1b8;

/// Returns a number, 0 past the end.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// Returns a number, 0 past the end.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Sets a number, if it is inside.
pub fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_le_bytes());
}
