//! Superblocks of Linux MD, as `md_p.h` lays them out: 0.90 near the end of a member, 1.0 near its
//! end, 1.1 at its beginning, 1.2 4 KiB behind that.

use hako_block::{Result, Uuid};

use crate::bytes::{array_at, le};
use crate::volume::{Volume, check_range, read_vec};

const MAGIC: u32 = 0xa92b_4efc;
const SECTOR: u64 = 512;
/// Bytes of a superblock 0.90, and what its place is a multiple of.
const OLD_BYTES: usize = 4096;
const OLD_ALIGN: u64 = 65536;
/// Members that an array of version 1 has at most, as `mdadm` has it.
const MOST_ROLES: usize = 1920;

/// Feature bits of version 1 that matter here.
const RECOVERING: u32 = 2;
const RESHAPING: u32 = 4;
const HAS_BAD_BLOCKS: u32 = 8;

/// What a superblock says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// The array's identity, as blkid writes it.
    pub(super) array: String,
    /// The member's own; 0.90 has none.
    pub(super) device: String,
    /// How it is laid out: `1.2`.
    pub(super) metadata: &'static str,
    /// The name of version 1 ("host:data"); empty if it has none.
    pub(super) name: String,
    /// The number of the device node, which only 0.90 keeps.
    pub(super) minor: Option<u32>,
    pub(super) level: i32,
    pub(super) n_disks: u32,
    /// Which of the array's disks this is; none of a spare or a faulty one.
    pub(super) role: Option<u32>,
    pub(super) events: u64,
    /// Where the data of the member is.
    pub(super) data_at: u64,
    pub(super) data_bytes: u64,
    /// How many bytes of each member a mirror uses.
    pub(super) size_bytes: u64,
    pub(super) chunk_bytes: u64,
    pub(super) layout: u32,
    pub(super) is_recovering: bool,
    pub(super) is_reshaping: bool,
    pub(super) has_bad_blocks: bool,
}

impl Superblock {
    /// Returns the array's identity.
    pub(crate) fn array(&self) -> &str {
        &self.array
    }

    /// Returns the label that blkid gives a member.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Reads the superblock of a member; none if the volume is none. A checksum that is wrong makes it
/// none as well: that is how the kernel sees it.
pub(crate) fn read(volume: &dyn Volume) -> Result<Option<Superblock>> {
    let len = volume.len_bytes();
    // 16 sectors from the end, at a multiple of 8.
    let near_end = (len / SECTOR)
        .checked_sub(16)
        .map(|sector| (sector & !7) * SECTOR);
    for at in [Some(0), Some(8 * SECTOR), near_end].into_iter().flatten() {
        if let Some(found) = new(volume, at)? {
            return Ok(Some(found));
        }
    }
    match (len & !(OLD_ALIGN - 1)).checked_sub(OLD_ALIGN) {
        Some(at) => old(volume, at),
        None => Ok(None),
    }
}

/// Reads one of version 1.
fn new(volume: &dyn Volume, at: u64) -> Result<Option<Superblock>> {
    if check_range(at, 256, volume.len_bytes()).is_err() {
        return Ok(None);
    }
    let head = read_vec(volume, at, 256)?;
    let n_roles = usize::try_from(le::u32_at(&head, 220)).unwrap_or(usize::MAX);
    let is_one = le::u32_at(&head, 0) == MAGIC
        && le::u32_at(&head, 4) == 1
        && le::u64_at(&head, 144) == at / SECTOR
        && n_roles <= MOST_ROLES
        && check_range(at, 256 + 2 * n_roles, volume.len_bytes()).is_ok();
    if !is_one {
        return Ok(None);
    }
    let bytes = read_vec(volume, at, 256 + 2 * n_roles)?;
    if sum(&bytes, 216) != le::u32_at(&bytes, 216) {
        return Ok(None);
    }
    let sectors = |place: usize| le::u64_at(&bytes, place).saturating_mul(SECTOR);
    let number = usize::try_from(le::u32_at(&bytes, 160)).unwrap_or(usize::MAX);
    let role = (number < n_roles).then(|| u32::from(le::u16_at(&bytes, 256 + 2 * number)));
    let n_disks = le::u32_at(&bytes, 92);
    let features = le::u32_at(&bytes, 8);
    let name = array_at::<32>(&bytes, 32);
    let name_end = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    Ok(Some(Superblock {
        array: Uuid(array_at(&bytes, 16)).to_string(),
        device: Uuid(array_at(&bytes, 168)).to_string(),
        metadata: match at {
            0 => "1.1",
            4096 => "1.2",
            _ => "1.0",
        },
        name: String::from_utf8_lossy(name.get(..name_end).unwrap_or_default()).into_owned(),
        minor: None,
        level: i32::from_le_bytes(array_at(&bytes, 72)),
        n_disks,
        role: role.filter(|role| *role < n_disks && *role < 0xff00),
        events: le::u64_at(&bytes, 200),
        data_at: sectors(128),
        data_bytes: sectors(136),
        size_bytes: sectors(80),
        chunk_bytes: u64::from(le::u32_at(&bytes, 88)) * SECTOR,
        layout: le::u32_at(&bytes, 76),
        is_recovering: features & RECOVERING != 0,
        is_reshaping: features & RESHAPING != 0,
        has_bad_blocks: features & HAS_BAD_BLOCKS != 0,
    }))
}

/// Reads one of version 0.90, of a little-endian machine.
fn old(volume: &dyn Volume, at: u64) -> Result<Option<Superblock>> {
    let bytes = read_vec(volume, at, OLD_BYTES)?;
    let word = |index: usize| le::u32_at(&bytes, index * 4);
    if word(0) != MAGIC || word(1) != 0 || word(2) < 90 || sum(&bytes, 38 * 4) != word(38) {
        return Ok(None);
    }
    // The last partition of a disk may end where the disk does: then both see the superblock at the
    // same place, and it belongs to the one whose data ends just before it.
    let size_bytes = u64::from(word(8)) * 1024;
    if at.saturating_sub(size_bytes) >= OLD_ALIGN && is_of_partition(volume, at)? {
        return Ok(None);
    }
    // 27 records of disks, the last of them that of this one.
    let record = |index: usize| 128 + 32 * index;
    let this = usize::try_from(word(992)).unwrap_or(usize::MAX);
    let (role, state) = match this {
        0..27 => (word(record(this) + 3), word(record(this) + 4)),
        _ => (u32::MAX, 0),
    };
    const FAULTY: u32 = 1;
    const ACTIVE_AND_IN_SYNC: u32 = 6;
    let n_disks = word(10);
    let is_active = state & FAULTY == 0 && state & ACTIVE_AND_IN_SYNC == ACTIVE_AND_IN_SYNC;
    let uuid: Vec<u8> = [word(5), word(13), word(14), word(15)]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    Ok(Some(Superblock {
        array: Uuid(array_at(&uuid, 0)).to_string(),
        device: String::new(),
        metadata: "0.90",
        name: String::new(),
        minor: Some(word(11)),
        level: i32::from_le_bytes(array_at(&bytes, 28)),
        n_disks,
        role: Some(role).filter(|role| is_active && *role < n_disks),
        events: u64::from(word(40)) << 32 | u64::from(word(39)),
        data_at: 0,
        data_bytes: at,
        size_bytes,
        chunk_bytes: u64::from(word(65)),
        layout: word(64),
        is_recovering: false,
        is_reshaping: word(2) > 90,
        has_bad_blocks: false,
    }))
}

/// Returns whether a partition of the volume has its superblock 0.90 at that place.
fn is_of_partition(volume: &dyn Volume, at: u64) -> Result<bool> {
    let table = crate::partitions::read(volume)?;
    let partitions = table.map(|table| table.partitions).unwrap_or_default();
    Ok(partitions.iter().any(|part| {
        let inner = (part.len & !(OLD_ALIGN - 1)).checked_sub(OLD_ALIGN);
        inner.is_some_and(|inner| part.start + inner == at)
    }))
}

/// Returns the sum of all 32-bit numbers (and 16 bits, if that is left) but the one at `own`, its upper
/// half added to the lower.
fn sum(bytes: &[u8], own: usize) -> u32 {
    let words = (0..bytes.len() / 4)
        .map(|index| index * 4)
        .filter(|at| *at != own);
    let words: u64 = words.map(|at| u64::from(le::u32_at(bytes, at))).sum();
    let rest = match bytes.len() % 4 {
        2 => u64::from(le::u16_at(bytes, bytes.len() - 2)),
        _ => 0,
    };
    let sum = words + rest;
    (sum as u32).wrapping_add((sum >> 32) as u32)
}
