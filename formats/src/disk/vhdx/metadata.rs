//! The metadata region (MS-VHDX, section 2.6): a table of items and the items.

use std::ops::Range;

use hako_block::{Error, ErrorKind, Result, Storage, Uuid};

use super::bytes::{guid_at, put, u16_at, u32_at, u64_at};
use super::layout::{BLOCK_BYTES, Layout, MAX_VIRTUAL_BYTES};
use super::locator::Locator;
use super::region::guid;

/// Bytes of the metadata table, at the region's beginning; the items follow.
pub const TABLE_BYTES: u64 = 64 << 10;
const SIGNATURE: &[u8; 8] = b"metadata";
/// Most entries that the specification allows.
const MAX_ENTRIES: u16 = 2047;
const ENTRY_BYTES: usize = 32;
const HEADER_BYTES: usize = 32;
/// Longest item that the specification allows.
const MAX_ITEM_BYTES: u32 = 1 << 20;

const FILE_PARAMETERS: &str = "caa16737-fa36-4d43-b3b6-33f0aa44e76b";
const VIRTUAL_DISK_SIZE: &str = "2fa54224-cd1b-4876-b211-5dbed83bf4b8";
const VIRTUAL_DISK_ID: &str = "beca12ab-b2e6-4523-93ef-c309e000c746";
const LOGICAL_SECTOR_SIZE: &str = "8141bf1d-a96f-4709-ba47-f233a8faab5f";
const PHYSICAL_SECTOR_SIZE: &str = "cda348c7-445d-4471-9cc9-e9885251c556";
const PARENT_LOCATOR: &str = "a8d35f2d-b30b-454d-abf7-d3d84834ab0c";

/// File parameters, bits of the second word.
const LEAVE_ALLOCATED: u32 = 1;
const HAS_PARENT: u32 = 2;

/// Flags of a table entry.
const IS_USER: u32 = 1;
const IS_VIRTUAL_DISK: u32 = 2;
const IS_REQUIRED: u32 = 4;

/// A change of the file: an offset and the bytes that shall be there.
pub type Patch = (u64, Vec<u8>);

/// What the metadata say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Sizes.
    pub layout: Layout,
    /// Whether blocks are never given up: a fixed disk.
    pub leave_allocated: bool,
    /// Bytes of a physical sector, if it says so.
    pub physical_sector: Option<u32>,
    /// What the disk is known by (page 83 of its SCSI inquiry), if it says so.
    pub disk_id: Option<Uuid>,
    /// Where the parent is, for an overlay.
    pub locator: Option<Locator>,
    /// The region.
    region: Range<u64>,
    items: Vec<Item>,
}

/// An entry of the metadata table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    guid: Uuid,
    flags: u32,
    /// From the region's beginning; 0 for an empty item.
    offset: u32,
    len: u32,
}

impl Item {
    fn decode(bytes: &[u8]) -> Self {
        Self {
            guid: guid_at(bytes, 0),
            offset: u32_at(bytes, 16),
            len: u32_at(bytes, 20),
            flags: u32_at(bytes, 24),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; ENTRY_BYTES];
        put(&mut bytes, 0, &self.guid.to_mixed_endian());
        put(&mut bytes, 16, &self.offset.to_le_bytes());
        put(&mut bytes, 20, &self.len.to_le_bytes());
        put(&mut bytes, 24, &self.flags.to_le_bytes());
        bytes
    }

    fn check(&self, region: &Range<u64>) -> Result<()> {
        let known = [
            FILE_PARAMETERS,
            VIRTUAL_DISK_SIZE,
            VIRTUAL_DISK_ID,
            LOGICAL_SECTOR_SIZE,
            PHYSICAL_SECTOR_SIZE,
            PARENT_LOCATOR,
        ];
        let is_known =
            known.iter().any(|text| guid(text) == self.guid) && self.flags & IS_USER == 0;
        if self.flags & IS_REQUIRED != 0 && !is_known {
            return Err(Error::unsupported(format!(
                "needs the metadata item {}, which hako does not know",
                self.guid
            )));
        }
        let end = u64::from(self.offset) + u64::from(self.len);
        let is_inside = u64::from(self.offset) >= TABLE_BYTES
            && self.len <= MAX_ITEM_BYTES
            && end <= region.end - region.start;
        if self.len != 0 && !is_inside {
            return Err(corrupt(format!(
                "item {} of {} bytes at {:#x} of the region",
                self.guid, self.len, self.offset
            )));
        }
        Ok(())
    }
}

impl Metadata {
    /// Reads the region. Errors: damage, a required item that hako does not know.
    pub fn read(storage: &dyn Storage, region: Range<u64>) -> Result<Self> {
        let file_len = storage.len_bytes()?;
        if region.end > file_len {
            return Err(corrupt(format!(
                "the region ends at {:#x}, the file at {file_len:#x}",
                region.end
            )));
        }
        let items = read_table(storage, &region)?;
        let reader = Reader {
            storage,
            region: &region,
            items: &items,
        };
        let parameters = reader.item(FILE_PARAMETERS, "file parameters", 8)?;
        let flags = u32_at(&parameters, 4);
        let has_parent = flags & HAS_PARENT != 0;
        let size = reader.item(VIRTUAL_DISK_SIZE, "virtual disk size", 8)?;
        let sector = reader.item(LOGICAL_SECTOR_SIZE, "logical sector size", 4)?;
        let physical = reader.optional(PHYSICAL_SECTOR_SIZE, 4)?;
        let disk_id = reader.optional(VIRTUAL_DISK_ID, 16)?;
        let locator = if has_parent {
            let bytes = reader.item(PARENT_LOCATOR, "parent locator", 20)?;
            Some(Locator::decode(&bytes).map_err(|error| error.place("parent locator"))?)
        } else {
            None
        };
        Ok(Self {
            layout: layout(
                u64_at(&size, 0),
                u64::from(u32_at(&parameters, 0)),
                u64::from(u32_at(&sector, 0)),
                has_parent,
            )?,
            leave_allocated: flags & LEAVE_ALLOCATED != 0 && !has_parent,
            physical_sector: physical.map(|bytes| u32_at(&bytes, 0)),
            disk_id: disk_id.map(|bytes| guid_at(&bytes, 0)),
            locator,
            region,
            items,
        })
    }

    /// Returns what to change for another virtual size.
    pub fn set_virtual_size(&self, virtual_size: u64) -> Result<Vec<Patch>> {
        let at = self.place(VIRTUAL_DISK_SIZE)?;
        Ok(vec![(at, virtual_size.to_le_bytes().to_vec())])
    }

    /// Returns what to change for another identity. Errors: the image has none to change.
    pub fn set_disk_id(&self, id: Uuid) -> Result<Vec<Patch>> {
        let at = self.place(VIRTUAL_DISK_ID)?;
        Ok(vec![(at, id.to_mixed_endian().to_vec())])
    }

    /// Returns what to change for another parent, or none. Errors: no room for its name.
    pub fn set_locator(&self, locator: Option<&Locator>) -> Result<Vec<Patch>> {
        let layout = &self.layout;
        let parameters = file_parameters(
            layout.block_bytes(),
            self.leave_allocated && locator.is_none(),
            locator.is_some(),
        );
        let mut patches = vec![(self.place(FILE_PARAMETERS)?, parameters)];
        let mut items = self.items.clone();
        items.retain(|item| item.guid != guid(PARENT_LOCATOR));
        if let Some(locator) = locator {
            let bytes = locator.encode();
            let offset = self.room(&items, bytes.len() as u32)?;
            items.push(Item {
                guid: guid(PARENT_LOCATOR),
                flags: IS_REQUIRED,
                offset,
                len: bytes.len() as u32,
            });
            patches.push((self.region.start + u64::from(offset), bytes));
        }
        if items != self.items {
            let mut table = encode_table(&items)?;
            // The entry that went, if one did.
            table.resize(table.len() + ENTRY_BYTES, 0);
            table.truncate(TABLE_BYTES as usize);
            patches.push((self.region.start, table));
        }
        Ok(patches)
    }

    /// Returns a place in the region that no item of `items` is in.
    fn room(&self, items: &[Item], len: u32) -> Result<u32> {
        let mut taken: Vec<(u32, u32)> = items
            .iter()
            .filter(|item| item.len > 0)
            .map(|item| (item.offset, item.offset + item.len))
            .collect();
        taken.sort_unstable();
        let mut start = TABLE_BYTES as u32;
        for (from, to) in taken {
            if start + len <= from {
                break;
            }
            start = start.max(to).next_multiple_of(8);
        }
        if u64::from(start) + u64::from(len) > self.region.end - self.region.start {
            return Err(Error::new(
                ErrorKind::NoSpace,
                "the metadata region has no room for the parent's name",
            ));
        }
        Ok(start)
    }

    fn place(&self, text: &str) -> Result<u64> {
        let item = self.items.iter().find(|item| item.guid == guid(text));
        item.map(|item| self.region.start + u64::from(item.offset))
            .ok_or_else(|| Error::unsupported("the image does not record this"))
    }
}

struct Reader<'a> {
    storage: &'a dyn Storage,
    region: &'a Range<u64>,
    items: &'a [Item],
}

impl Reader<'_> {
    fn optional(&self, text: &str, min_len: u32) -> Result<Option<Vec<u8>>> {
        let Some(item) = self.items.iter().find(|item| item.guid == guid(text)) else {
            return Ok(None);
        };
        if item.len < min_len {
            return Err(corrupt(format!(
                "item {} of {} bytes, {min_len} are needed",
                item.guid, item.len
            )));
        }
        let mut bytes = vec![0; item.len as usize];
        let at = self.region.start + u64::from(item.offset);
        self.storage.read_at(at, &mut bytes)?;
        Ok(Some(bytes))
    }

    fn item(&self, text: &str, name: &str, min_len: u32) -> Result<Vec<u8>> {
        self.optional(text, min_len)?
            .ok_or_else(|| corrupt(format!("there is no item with the {name}")))
    }
}

fn read_table(storage: &dyn Storage, region: &Range<u64>) -> Result<Vec<Item>> {
    let mut bytes = vec![0; TABLE_BYTES as usize];
    storage.read_at(region.start, &mut bytes)?;
    let n = u16_at(&bytes, 10);
    if !bytes.starts_with(SIGNATURE) || n > MAX_ENTRIES {
        return Err(corrupt("the table is damaged".to_owned()).at_byte(region.start));
    }
    let entries = bytes
        .get(HEADER_BYTES..)
        .unwrap_or(&[])
        .chunks_exact(ENTRY_BYTES);
    let mut items: Vec<Item> = Vec::new();
    for entry in entries.take(usize::from(n)) {
        let item = Item::decode(entry);
        item.check(region)?;
        let same =
            |other: &&Item| other.guid == item.guid && (other.flags ^ item.flags) & IS_USER == 0;
        if items.iter().find(same).is_some() {
            return Err(corrupt(format!("item {} is there twice", item.guid)));
        }
        items.push(item);
    }
    // A user's item may have any GUID: it is none of the disk's.
    items.sort_by_key(|item| item.flags & IS_USER);
    Ok(items)
}

/// Checks sizes that a file, or a user, gives.
pub fn layout(
    virtual_size: u64,
    block_bytes: u64,
    sector_bytes: u64,
    has_parent: bool,
) -> Result<Layout> {
    if !matches!(sector_bytes, 512 | 4096) {
        return Err(corrupt(format!(
            "a logical sector of {sector_bytes} bytes; it has 512 or 4096"
        )));
    }
    if !BLOCK_BYTES.contains(&block_bytes) || !block_bytes.is_power_of_two() {
        return Err(corrupt(format!(
            "a block of {block_bytes} bytes; it is a power of two from 1 to 256 MiB"
        )));
    }
    if virtual_size == 0 || virtual_size > MAX_VIRTUAL_BYTES {
        return Err(corrupt(format!(
            "a virtual size of {virtual_size} bytes; it is up to 64 TiB"
        )));
    }
    if !virtual_size.is_multiple_of(sector_bytes) {
        return Err(corrupt(format!(
            "a virtual size of {virtual_size} bytes, which is no multiple of its sectors of \
             {sector_bytes} bytes"
        )));
    }
    Ok(Layout {
        virtual_size,
        block_shift: block_bytes.trailing_zeros(),
        sector_shift: sector_bytes.trailing_zeros(),
        has_parent,
    })
}

/// Returns the beginning of the metadata region of a new image.
pub fn encode(
    layout: &Layout,
    leave_allocated: bool,
    disk_id: Uuid,
    locator: Option<&Locator>,
) -> Result<Vec<u8>> {
    const IS_DISKS: u32 = IS_VIRTUAL_DISK | IS_REQUIRED;
    /// Physical sectors of every disk made in the last decade.
    const PHYSICAL: u32 = 4096;
    let sector = 1_u32 << layout.sector_shift;
    let mut content = vec![
        (
            FILE_PARAMETERS,
            IS_REQUIRED,
            file_parameters(layout.block_bytes(), leave_allocated, layout.has_parent),
        ),
        (
            VIRTUAL_DISK_SIZE,
            IS_DISKS,
            layout.virtual_size.to_le_bytes().to_vec(),
        ),
        (
            VIRTUAL_DISK_ID,
            IS_DISKS,
            disk_id.to_mixed_endian().to_vec(),
        ),
        (LOGICAL_SECTOR_SIZE, IS_DISKS, sector.to_le_bytes().to_vec()),
        (
            PHYSICAL_SECTOR_SIZE,
            IS_DISKS,
            PHYSICAL.to_le_bytes().to_vec(),
        ),
    ];
    content.extend(locator.map(|locator| (PARENT_LOCATOR, IS_REQUIRED, locator.encode())));
    let mut bytes = vec![0; TABLE_BYTES as usize];
    let mut items = Vec::new();
    for (text, flags, item) in content {
        items.push(Item {
            guid: guid(text),
            flags,
            offset: bytes.len() as u32,
            len: item.len() as u32,
        });
        bytes.extend(item);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    put(&mut bytes, 0, &encode_table(&items)?);
    Ok(bytes)
}

fn encode_table(items: &[Item]) -> Result<Vec<u8>> {
    let n = u16::try_from(items.len())
        .ok()
        .filter(|n| *n <= MAX_ENTRIES);
    let Some(n) = n else {
        return Err(Error::new(ErrorKind::NoSpace, "the metadata table is full"));
    };
    let mut bytes = vec![0; HEADER_BYTES];
    put(&mut bytes, 0, SIGNATURE);
    put(&mut bytes, 10, &n.to_le_bytes());
    for item in items {
        bytes.extend(item.encode());
    }
    Ok(bytes)
}

fn file_parameters(block_bytes: u64, leave_allocated: bool, has_parent: bool) -> Vec<u8> {
    let mut flags = 0;
    if leave_allocated {
        flags |= LEAVE_ALLOCATED;
    }
    if has_parent {
        flags |= HAS_PARENT;
    }
    let mut bytes = (block_bytes as u32).to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    bytes
}

fn corrupt(what: String) -> Error {
    Error::corrupt("metadata", what)
}
