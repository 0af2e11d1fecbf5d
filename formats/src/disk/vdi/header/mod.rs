//! The header of a VDI: its first 472 bytes, in one sector, so that a change of it is atomic.

mod fields;
#[cfg(test)]
mod tests;

use hako_block::{ContentId, Error, ParentLink, Result, SECTOR_BYTES, Storage, Uuid};

pub use fields::COMMENT_BYTES;
use fields::*;

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
