//! The superblock and its copies: where everything begins.

use hako_block::{Error, ErrorKind, Result};

use super::checksum::{Checksum, FIELD_BYTES};
use super::node::{MAX_LEVEL, NodeAt};
use crate::bytes::{array_at, le};
use crate::volume::{Volume, read_vec};

/// Where the copies are, in bytes; those past the device's end are not there.
pub const PLACES: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];

/// Its length in bytes.
const BYTES: usize = 4096;

/// Field `magic`, at 0x40.
const MAGIC: &[u8; 8] = b"_BHRfS_M";

/// Field `sys_chunk_array`: at most 2048 bytes of keys and chunks.
const SYSTEM_CHUNKS_AT: usize = 0x32b;
const SYSTEM_CHUNKS_MAX: usize = 2048;

/// Incompatible features that are read: mixed backrefs, default subvolume, mixed groups, LZO, zstd,
/// big metadata, extended inode references, RAID5/6 (their chunks are refused), skinny metadata, no
/// holes, metadata uuid, RAID1C3/4, simple quotas.
const KNOWN_INCOMPAT: u64 = 0xfff | 1 << 16;

/// Names of those that are not, by their bit.
const UNREAD_INCOMPAT: &[(u32, &str)] = &[
    (12, "zoned"),
    (13, "extent-tree-v2"),
    (14, "raid-stripe-tree"),
    (17, "remap-tree"),
];

/// Field `flags`: what makes the rest mean something else.
const UNREAD_FLAGS: &[(u32, &str)] = &[
    (33, "an image of metadata only (btrfs-image)"),
    (34, "an image of metadata only (btrfs-image)"),
    (35, "a change of its fsid that was cut short"),
    (38, "a conversion of its block groups that was cut short"),
    (39, "a conversion of its block groups that was cut short"),
    (40, "a conversion of its checksums that was cut short"),
];

/// What a superblock says.
#[derive(Debug, Clone)]
pub struct Superblock {
    /// The identity that is shown.
    pub fsid: [u8; 16],
    /// The identity that its nodes carry.
    pub node_fsid: [u8; 16],
    /// The last transaction.
    pub generation: u64,
    /// The tree of trees.
    pub roots: NodeAt,
    /// The tree of chunks.
    pub chunks: NodeAt,
    /// The tree of logs; none after a clean end.
    pub log: Option<NodeAt>,
    /// Bytes of all devices together.
    pub total_bytes: u64,
    /// How many devices there are.
    pub n_devices: u64,
    /// The directory that names the default subvolume.
    pub root_dir: u64,
    /// Bytes of a sector: the unit of data.
    pub sector_bytes: u32,
    /// Bytes of a node.
    pub node_bytes: u32,
    /// How nodes and data are checked.
    pub checksum: Checksum,
    /// The number of the device that this is.
    pub device: u64,
    /// The length of that device in bytes.
    pub device_bytes: u64,
    /// The label.
    pub label: String,
    /// Keys and chunks of the tree of chunks itself.
    pub system_chunks: Vec<u8>,
}

/// Returns whether the volume holds one in the first place.
pub fn probe(volume: &dyn Volume) -> Result<bool> {
    if volume.len_bytes() < PLACES[0] + BYTES as u64 {
        return Ok(false);
    }
    Ok(read_vec(volume, PLACES[0] + 0x40, MAGIC.len())? == MAGIC)
}

/// Reads the newest copy that is whole, and whether it is the first. Errors: those of the first copy
/// if there is none.
pub fn read(volume: &dyn Volume) -> Result<(Superblock, bool)> {
    let mut newest: Option<(Superblock, bool)> = None;
    let mut first_error = None;
    for place in PLACES {
        if volume.len_bytes() < place + BYTES as u64 {
            break;
        }
        let found = read_vec(volume, place, BYTES).and_then(|bytes| decode(&bytes, place));
        match found {
            // With the same generation the first is the newer one: the log is written to it alone.
            Ok(found)
                if newest
                    .as_ref()
                    .is_none_or(|(is, _)| is.generation < found.generation) =>
            {
                newest = Some((found, place == PLACES[0]));
            }
            Ok(_) => {}
            // Whether it can be read at all is not decided by a stale copy.
            Err(error) if place == PLACES[0] && error.kind() != ErrorKind::Corrupt => {
                return Err(error);
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    newest.ok_or_else(|| first_error.unwrap_or_else(|| bad("not there")))
}

/// Decodes the copy that was read at `place`.
fn decode(bytes: &[u8], place: u64) -> Result<Superblock> {
    if array_at(bytes, 0x40) != *MAGIC {
        return Err(bad("no magic number").at_byte(place));
    }
    let checksum = Checksum::numbered(le::u16_at(bytes, 0xc4))?;
    let body = bytes.get(FIELD_BYTES..).unwrap_or_default();
    if !checksum.fits(body, bytes) {
        return Err(bad("wrong checksum").at_byte(place));
    }
    let own_place = le::u64_at(bytes, 0x30);
    if own_place != place {
        return Err(bad(format!("says that it is at {own_place}")).at_byte(place));
    }
    let incompat = le::u64_at(bytes, 0xbc);
    check_features(le::u64_at(bytes, 0x38), incompat)?;
    let generation = le::u64_at(bytes, 0x48);
    let log = Some(node_at(bytes, 0x60, generation.wrapping_add(1), 0xc8)?);
    let fsid = array_at(bytes, 0x20);
    let has_other_uuid = incompat & 1 << 10 != 0;
    Ok(Superblock {
        fsid,
        node_fsid: match has_other_uuid {
            true => array_at(bytes, 0x23b),
            false => fsid,
        },
        generation,
        roots: node_at(bytes, 0x50, generation, 0xc6)?,
        chunks: node_at(bytes, 0x58, le::u64_at(bytes, 0xa4), 0xc7)?,
        log: log.filter(|log| log.logical != 0),
        total_bytes: le::u64_at(bytes, 0x70),
        n_devices: le::u64_at(bytes, 0x88),
        root_dir: le::u64_at(bytes, 0x80),
        sector_bytes: power_of_two(le::u32_at(bytes, 0x90), "sector size")?,
        node_bytes: power_of_two(le::u32_at(bytes, 0x94), "node size")?,
        checksum,
        device: le::u64_at(bytes, 0xc9),
        device_bytes: le::u64_at(bytes, 0xc9 + 8),
        label: label(bytes),
        system_chunks: system_chunks(bytes)?,
    })
}

fn check_features(flags: u64, incompat: u64) -> Result<()> {
    for (bit, name) in UNREAD_FLAGS {
        if flags & 1 << bit != 0 {
            return Err(Error::unsupported(format!("btrfs with {name}")));
        }
    }
    let unread = incompat & !KNOWN_INCOMPAT;
    if unread == 0 {
        return Ok(());
    }
    let bit = unread.trailing_zeros();
    let name = UNREAD_INCOMPAT.iter().find(|(unread, _)| *unread == bit);
    Err(Error::unsupported(match name {
        Some((_, name)) => format!("btrfs with the feature {name}"),
        None => format!("btrfs with an unknown feature (incompatible bit {bit})"),
    }))
}

fn node_at(bytes: &[u8], at: usize, generation: u64, level_at: usize) -> Result<NodeAt> {
    let [level] = array_at(bytes, level_at);
    if level > MAX_LEVEL {
        return Err(bad(format!("a tree of level {level}")));
    }
    Ok(NodeAt {
        logical: le::u64_at(bytes, at),
        generation,
        level,
        first: None,
    })
}

fn power_of_two(number: u32, what: &str) -> Result<u32> {
    match number.is_power_of_two() && (2048..=65536).contains(&number) {
        true => Ok(number),
        false => Err(bad(format!("{what} {number}"))),
    }
}

fn label(bytes: &[u8]) -> String {
    let label: [u8; 256] = array_at(bytes, 0x12b);
    let label = label.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(label).into_owned()
}

fn system_chunks(bytes: &[u8]) -> Result<Vec<u8>> {
    let len = le::u32_at(bytes, 0xa0) as usize;
    if len > SYSTEM_CHUNKS_MAX {
        return Err(bad(format!("{len} bytes of system chunks")));
    }
    let chunks = bytes.get(SYSTEM_CHUNKS_AT..SYSTEM_CHUNKS_AT + len);
    Ok(chunks.unwrap_or_default().to_vec())
}

fn bad(what: impl Into<String>) -> Error {
    Error::corrupt("btrfs superblock", what)
}
