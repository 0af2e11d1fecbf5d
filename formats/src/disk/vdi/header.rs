//! The header of a VDI: its first 472 bytes, in one sector, so that a change of it is atomic.
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

use hako_block::{ContentId, Error, ParentLink, Result, SECTOR_BYTES, Storage, Uuid};

/// VDIPREHEADER, field u32Signature.
const SIGNATURE: u32 = 0xbeda_107f;
const SIGNATURE_OFFSET: usize = 0x40;
/// VDIPREHEADER, field u32Version: of before VirtualBox 1.0, and what everybody writes.
const OLD_VERSION: u32 = 2;
const VERSION: u32 = 0x0001_0001;
/// VDIPREHEADER, field szFileInfo.
const TEXT: &[u8] = b"<<< Oracle VM VirtualBox Disk Image >>>\n";
/// Where VDIHEADER0 and VDIHEADER1 begin.
const HEADER_OFFSET: u64 = 0x48;
/// Bytes of VDIHEADER0, VDIHEADER1 and VDIHEADER1PLUS.
const OLD_LEN: u64 = 0x15c;
const MIN_LEN: u64 = 0x180;
const LEN: u64 = 0x190;
/// VDIHEADER1PLUS, field szComment: bytes with the zero at its end.
pub const COMMENT_BYTES: usize = 256;
/// VDIHEADER1PLUS, field LCHSGeometry.cbSector.
const LCHS_SECTOR_OFFSET: usize = 0x1d4;

/// Largest block that is handled: a copy-up keeps one in memory.
pub const MAX_BLOCK: u64 = 32 << 20;
/// Most blocks: what is in use is kept track of with one bit each, 32 MiB. 256 TiB in usual blocks.
pub const MAX_BLOCKS: u64 = 1 << 28;

/// VDIHEADER1PLUS, field u32Type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Grows as it is written.
    Dynamic,
    /// Every block has its place from the beginning.
    Fixed,
    /// An overlay that is thrown away or merged: VirtualBox no longer makes them.
    Undo,
    /// An overlay.
    Diff,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Dynamic, Kind::Fixed, Kind::Undo, Kind::Diff];

    /// Returns the name of the variant.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Dynamic => "dynamic",
            Kind::Fixed => "fixed",
            Kind::Undo => "undo",
            Kind::Diff => "diff",
        }
    }

    /// Returns whether such an image has a parent.
    pub fn is_overlay(self) -> bool {
        matches!(self, Kind::Undo | Kind::Diff)
    }

    fn number(self) -> u32 {
        1 + Self::ALL.iter().position(|kind| *kind == self).unwrap_or(0) as u32
    }
}

/// A checked header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The bytes it was decoded from; those of fields that are not below stay as they are.
    bytes: Vec<u8>,
    /// The type.
    pub kind: Kind,
    /// Flags; bit 0 lets VirtualBox fill new blocks with zeros.
    pub flags: u32,
    /// The comment, to its first zero.
    pub comment: Vec<u8>,
    /// File offset of the block map, in bytes.
    pub map_offset: u64,
    /// File offset of the first place for a block, in bytes.
    pub data_offset: u64,
    /// The disk's size in bytes, as recorded: no multiple of 512 in images of one VirtualBox.
    pub disk_size: u64,
    /// Bytes in a block: a power of two.
    pub block: u64,
    /// Bytes of other data before each block.
    pub extra: u64,
    /// Number of blocks, and entries in the map.
    pub n_blocks: u64,
    /// Number of blocks stored: VirtualBox stores the next one behind so many.
    pub n_stored: u64,
    /// UUID of the image.
    pub uuid: Uuid,
    /// UUID of its last modification.
    pub modification: Uuid,
    /// UUID of the parent image; nil if there is none.
    pub parent: Uuid,
    /// UUID of the parent's last modification; nil if not known.
    pub parent_modification: Uuid,
}

/// Where the fields are that both versions have.
struct Layout {
    kind: usize,
    flags: usize,
    comment: usize,
    disk_size: usize,
    block: usize,
    n_blocks: usize,
    n_stored: usize,
    uuids: usize,
}

const OLD_LAYOUT: Layout = Layout {
    kind: 0x48,
    flags: 0x4c,
    comment: 0x50,
    disk_size: 0x160,
    block: 0x168,
    n_blocks: 0x16c,
    n_stored: 0x170,
    uuids: 0x174,
};

const LAYOUT: Layout = Layout {
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
const LEN_OFFSET: usize = 0x48;
const MAP_OFFSET: usize = 0x154;
const DATA_OFFSET: usize = 0x158;
const SECTOR_OFFSET: usize = 0x168;
const EXTRA_OFFSET: usize = 0x17c;
const PARENT_MODIFICATION_OFFSET: usize = 0x1b8;

/// What a new image is to be.
pub struct NewHeader {
    /// The type.
    pub kind: Kind,
    /// The disk's size in bytes: a positive multiple of 512.
    pub disk_size: u64,
    /// Bytes in a block: a power of two.
    pub block: u64,
}

/// Returns whether a file begins like a VDI.
pub fn has_signature(head: &[u8]) -> bool {
    u32_at(head, SIGNATURE_OFFSET) == SIGNATURE && head.len() > SIGNATURE_OFFSET
}

impl Header {
    /// Reads and checks the header at the beginning of a file.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let file_len = storage.len_bytes()?;
        let mut bytes = vec![0; file_len.min(SECTOR_BYTES) as usize];
        storage.read_at(0, &mut bytes)?;
        Self::decode(&bytes)
    }

    /// Decodes the first sector of a file.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if !has_signature(bytes) {
            return Err(corrupt("the signature is missing", SIGNATURE_OFFSET));
        }
        let version = u32_at(bytes, 0x44);
        let is_old = version == OLD_VERSION;
        if !is_old && version >> 16 != VERSION >> 16 {
            return Err(Error::unsupported(format!(
                "VDI version {}.{}",
                version >> 16,
                version & 0xffff
            ))
            .at_byte(0x44));
        }
        let end = HEADER_OFFSET + if is_old { OLD_LEN } else { MIN_LEN };
        if (bytes.len() as u64) < end {
            return Err(corrupt("the file ends inside it", bytes.len()));
        }
        let layout = if is_old { &OLD_LAYOUT } else { &LAYOUT };
        let number = u32_at(bytes, layout.kind);
        let kind = Kind::ALL.into_iter().find(|kind| kind.number() == number);
        let kind =
            kind.ok_or_else(|| corrupt(format!("type {number} does not exist"), layout.kind))?;
        let comment = bytes.get(layout.comment..layout.comment + COMMENT_BYTES);
        let comment = comment.unwrap_or_default();
        let comment_len = comment.iter().position(|byte| *byte == 0);
        let n_blocks = u64::from(u32_at(bytes, layout.n_blocks));
        let (map_offset, data_offset) = if is_old {
            (end, end + 4 * n_blocks)
        } else {
            (
                u64::from(u32_at(bytes, MAP_OFFSET)),
                u64::from(u32_at(bytes, DATA_OFFSET)),
            )
        };
        let extra = if is_old {
            0
        } else {
            u32_at(bytes, EXTRA_OFFSET)
        };
        let parent_modification = if is_old {
            Uuid::default()
        } else {
            uuid_at(bytes, PARENT_MODIFICATION_OFFSET)
        };
        let header = Self {
            kind,
            flags: u32_at(bytes, layout.flags),
            comment: comment[..comment_len.unwrap_or(comment.len())].to_vec(),
            map_offset,
            data_offset,
            disk_size: u64_at(bytes, layout.disk_size),
            block: u64::from(u32_at(bytes, layout.block)),
            extra: u64::from(extra),
            n_blocks,
            n_stored: u64::from(u32_at(bytes, layout.n_stored)),
            uuid: uuid_at(bytes, layout.uuids),
            modification: uuid_at(bytes, layout.uuids + 16),
            parent: uuid_at(bytes, layout.uuids + 32),
            parent_modification,
            bytes: bytes.to_vec(),
        };
        header.check(end)?;
        Ok(header)
    }

    /// Checks the numbers against each other. `end` is where the header ends at least.
    fn check(&self, end: u64) -> Result<()> {
        let layout = self.layout();
        if !self.is_old() && u64::from(u32_at(&self.bytes, LEN_OFFSET)) < MIN_LEN {
            let len = u32_at(&self.bytes, LEN_OFFSET);
            return Err(corrupt(format!("its length is {len} bytes"), LEN_OFFSET));
        }
        if !self.block.is_power_of_two() || self.block < SECTOR_BYTES {
            let what = format!("blocks of {} bytes", self.block);
            return Err(corrupt(what, layout.block));
        }
        if self.block > MAX_BLOCK || self.n_blocks > MAX_BLOCKS {
            return Err(Error::unsupported(format!(
                "a VDI of {} blocks of {} bytes",
                self.n_blocks, self.block
            )));
        }
        if self.extra != 0 && !self.extra.is_power_of_two() {
            let what = format!("{} bytes of other data before each block", self.extra);
            return Err(corrupt(what, EXTRA_OFFSET));
        }
        if self.virtual_size() == 0 || self.disk_size > self.block * self.n_blocks {
            let what = format!(
                "a disk of {} bytes in {} blocks of {}",
                self.disk_size, self.n_blocks, self.block
            );
            return Err(corrupt(what, layout.disk_size));
        }
        if self.map_offset < end || self.data_offset < self.map_end() {
            let what = format!(
                "the map of {} blocks at {:#x} and the data at {:#x} overlap something",
                self.n_blocks, self.map_offset, self.data_offset
            );
            return Err(corrupt(what, MAP_OFFSET));
        }
        let sector = u32_at(&self.bytes, SECTOR_OFFSET);
        if !self.is_old() && sector != SECTOR_BYTES as u32 {
            return Err(Error::unsupported(format!("sectors of {sector} bytes"))
                .at_byte(SECTOR_OFFSET as u64));
        }
        Ok(())
    }

    /// Returns the header of a new image, its UUIDs new ones. The map begins at `align`, and so
    /// does the data behind it. Errors: a size that the format cannot have.
    pub fn new(new: &NewHeader, align: u64) -> Result<Self> {
        let n_blocks = new.disk_size.div_ceil(new.block);
        let data_offset = (align + 4 * n_blocks).next_multiple_of(align);
        if n_blocks > MAX_BLOCKS || data_offset > u64::from(u32::MAX) {
            return Err(Error::invalid(format!(
                "a VDI in blocks of {} bytes has at most {} bytes",
                new.block,
                new.block * MAX_BLOCKS
            )));
        }
        let mut bytes = vec![0; SECTOR_BYTES as usize];
        put(&mut bytes, 0, TEXT);
        put_u32(&mut bytes, SIGNATURE_OFFSET, SIGNATURE);
        put_u32(&mut bytes, 0x44, VERSION);
        put_u32(&mut bytes, LEN_OFFSET, LEN as u32);
        put_u32(&mut bytes, SECTOR_OFFSET, SECTOR_BYTES as u32);
        put_u32(&mut bytes, LCHS_SECTOR_OFFSET, SECTOR_BYTES as u32);
        Ok(Self {
            bytes,
            kind: new.kind,
            flags: 0,
            comment: Vec::new(),
            map_offset: align,
            data_offset,
            disk_size: new.disk_size,
            block: new.block,
            extra: 0,
            n_blocks,
            n_stored: 0,
            uuid: Uuid::random(),
            modification: Uuid::random(),
            parent: Uuid::default(),
            parent_modification: Uuid::default(),
        })
    }

    /// Returns the bytes to write at the beginning of the file: one sector at most, and nothing of
    /// the map.
    pub fn encode(&self) -> Vec<u8> {
        let layout = self.layout();
        let mut bytes = self.bytes.clone();
        put_u32(&mut bytes, layout.kind, self.kind.number());
        put_u32(&mut bytes, layout.flags, self.flags);
        put(&mut bytes, layout.comment, &[0; COMMENT_BYTES]);
        put(&mut bytes, layout.comment, &self.comment);
        put(&mut bytes, layout.disk_size, &self.disk_size.to_le_bytes());
        put_u32(&mut bytes, layout.block, self.block as u32);
        put_u32(&mut bytes, layout.n_blocks, self.n_blocks as u32);
        put_u32(&mut bytes, layout.n_stored, self.n_stored as u32);
        let uuids = [self.uuid, self.modification, self.parent];
        for (index, uuid) in uuids.into_iter().enumerate() {
            put(
                &mut bytes,
                layout.uuids + 16 * index,
                &uuid.to_mixed_endian(),
            );
        }
        if !self.is_old() {
            put_u32(&mut bytes, MAP_OFFSET, self.map_offset as u32);
            put_u32(&mut bytes, DATA_OFFSET, self.data_offset as u32);
            put_u32(&mut bytes, EXTRA_OFFSET, self.extra as u32);
            put(
                &mut bytes,
                PARENT_MODIFICATION_OFFSET,
                &self.parent_modification.to_mixed_endian(),
            );
        }
        bytes.truncate(self.map_offset.min(SECTOR_BYTES) as usize);
        bytes
    }

    /// Writes the header, which takes effect as a whole or not at all.
    pub fn write(&self, storage: &dyn Storage) -> Result<()> {
        storage.write_at(0, &self.encode())
    }

    /// Makes the image an overlay. Errors: a parent that a VDI cannot name, for it is known by its
    /// UUID and looked for in the overlay's folder.
    pub fn set_parent(&mut self, parent: &ParentLink) -> Result<()> {
        if parent.format.as_deref() != Some("vdi") {
            return Err(Error::unsupported("the parent of a VDI must be a VDI"));
        }
        if parent.name.contains('/') {
            return Err(Error::unsupported(format!(
                "a VDI records no path of its parent, so {:?} would not be found",
                parent.name
            ))
            .hint("put parent and overlay into one folder"));
        }
        if self.is_old() {
            return Err(Error::unsupported(format!(
                "a VDI of version {} cannot name a parent",
                self.version()
            )));
        }
        self.kind = Kind::Diff;
        self.parent = parent.identity.ok_or_else(|| {
            Error::unsupported("the parent has no UUID, by which a VDI knows its parent")
        })?;
        self.parent_modification = match parent.content_id {
            Some(ContentId::Uuid(modification)) => modification,
            _ => Uuid::default(),
        };
        Ok(())
    }

    /// Returns whether this is the old version, whose map cannot move.
    pub fn is_old(&self) -> bool {
        u32_at(&self.bytes, 0x44) == OLD_VERSION
    }

    /// Returns the version as text.
    pub fn version(&self) -> String {
        let version = u32_at(&self.bytes, 0x44);
        format!("{}.{}", version >> 16, version & 0xffff)
    }

    /// Returns the size of the disk that the guest sees: whole sectors, as VirtualBox has it.
    pub fn virtual_size(&self) -> u64 {
        self.disk_size / SECTOR_BYTES * SECTOR_BYTES
    }

    /// Returns the file offset behind the map.
    pub fn map_end(&self) -> u64 {
        self.map_offset + 4 * self.n_blocks
    }

    /// Returns the file offset of a block's entry in the map.
    pub fn entry_offset(&self, block: u64) -> u64 {
        self.map_offset + 4 * block
    }

    /// Returns the bytes from one place for a block to the next.
    pub fn stride(&self) -> u64 {
        self.block + self.extra
    }

    /// Returns the file offset of a place for a block, with the other data before it.
    pub fn place_offset(&self, place: u64) -> u64 {
        self.data_offset + place * self.stride()
    }

    /// Returns how many bytes of a block belong to the disk: fewer than a block in its last one.
    pub fn block_len(&self, block: u64) -> u64 {
        self.virtual_size()
            .saturating_sub(block * self.block)
            .min(self.block)
    }

    fn layout(&self) -> &'static Layout {
        if self.is_old() { &OLD_LAYOUT } else { &LAYOUT }
    }

    /// Returns what is odd about the header, though it can be worked with.
    pub fn oddities(&self) -> Vec<String> {
        let mut oddities = Vec::new();
        if !self.disk_size.is_multiple_of(SECTOR_BYTES) {
            oddities.push(format!(
                "size {} is no multiple of 512 bytes: the rest is not used",
                self.disk_size
            ));
        }
        for (uuid, what) in [(self.uuid, "image"), (self.modification, "modification")] {
            if uuid.is_nil() {
                oddities.push(format!("the {what} UUID is nil: VirtualBox refuses that"));
            }
        }
        if !self.kind.is_overlay() && !self.parent.is_nil() {
            oddities.push(format!(
                "names the parent {}, but its type is {}",
                self.parent,
                self.kind.name()
            ));
        }
        if self.n_stored > self.n_blocks {
            oddities.push(format!(
                "says that {} of {} blocks are stored",
                self.n_stored, self.n_blocks
            ));
        }
        oddities
    }
}

fn corrupt(what: impl Into<String>, at: usize) -> Error {
    Error::corrupt("header", what).at_byte(at as u64)
}

/// Returns a number, 0 past the end.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes
        .get(at..at + 4)
        .and_then(|field| field.try_into().ok());
    field.map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn uuid_at(bytes: &[u8], at: usize) -> Uuid {
    let field = bytes
        .get(at..at + 16)
        .and_then(|field| field.try_into().ok());
    Uuid::from_mixed_endian(field.unwrap_or_default())
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_le_bytes());
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at + value.len()) {
        field.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(kind: Kind) -> Header {
        let new = NewHeader {
            kind,
            disk_size: 10 << 20,
            block: 1 << 20,
        };
        Header::new(&new, 1 << 20).unwrap()
    }

    #[test]
    fn new_header_comes_back_as_it_was() {
        let mut header = new(Kind::Diff);
        header.parent = Uuid::random();
        header.parent_modification = Uuid::random();
        header.comment = b"a disk".to_vec();
        header.n_stored = 3;
        let again = Header::decode(&header.encode()).unwrap();
        assert_eq!(again.encode(), header.encode());
        assert_eq!(again.parent, header.parent);
        assert_eq!(again.comment, header.comment);
        assert_eq!((again.map_offset, again.data_offset), (1 << 20, 2 << 20));
        assert!(again.oddities().is_empty());
    }

    #[test]
    fn old_header_is_read_and_its_map_is_left_alone() {
        let mut bytes = vec![0; 512];
        put_u32(&mut bytes, SIGNATURE_OFFSET, SIGNATURE);
        put_u32(&mut bytes, 0x44, OLD_VERSION);
        put_u32(&mut bytes, OLD_LAYOUT.kind, 1);
        put(&mut bytes, OLD_LAYOUT.comment, b"old");
        put_u32(&mut bytes, OLD_LAYOUT.disk_size, 5 << 20);
        put_u32(&mut bytes, OLD_LAYOUT.block, 1 << 20);
        put_u32(&mut bytes, OLD_LAYOUT.n_blocks, 5);
        let header = Header::decode(&bytes).unwrap();
        assert_eq!(header.map_offset, 0x1a4);
        assert_eq!(header.data_offset, 0x1a4 + 20);
        assert_eq!(header.virtual_size(), 5 << 20);
        assert_eq!(header.comment, b"old");
        assert_eq!(header.encode(), bytes[..0x1a4]);
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let good = new(Kind::Dynamic).encode();
        for (at, value) in [
            (0x40, 1),
            (0x44, 0x0002_0000),
            (0x48, 0x17f),
            (0x4c, 0),
            (0x4c, 5),
            (0x154, 0x100),
            (0x158, 0x10_0000),
            (0x168, 4096),
            (0x174, 1),
            (0x178, 0),
            (0x178, 0x18_0000),
            (0x178, 1 << 31),
            (0x17c, 3),
            (0x180, 0),
            (0x180, 9),
            (0x180, u32::MAX),
        ] {
            let mut bytes = good.clone();
            put_u32(&mut bytes, at, value);
            assert!(Header::decode(&bytes).is_err(), "{value:#x} at {at:#x}");
        }
        for len in [0, 63, 0x48, 0x1c7] {
            assert!(Header::decode(&good[..len]).is_err(), "{len} bytes");
        }
    }
}
