//! Items: roots of trees, inodes, names in directories, extents of files.

use std::ops::Range;

use hako_block::{Error, Result};

use super::compress::Compression;
use super::node::{Item, Key, MAX_LEVEL, NodeAt};
use crate::bytes::{array_at, le};
use crate::fs::{NodeKind, Stat, Time};

/// Kinds of items.
pub const INODE_ITEM: u8 = 1;
pub const DIR_ITEM: u8 = 84;
pub const DIR_INDEX: u8 = 96;
pub const EXTENT_DATA: u8 = 108;
pub const EXTENT_CSUM: u8 = 128;
pub const ROOT_ITEM: u8 = 132;
pub const ROOT_REF: u8 = 156;
pub const EXTENT_ITEM: u8 = 168;
pub const METADATA_ITEM: u8 = 169;

/// Trees.
pub const EXTENT_TREE: u64 = 2;
pub const TOP_SUBVOLUME: u64 = 5;
pub const CSUM_TREE: u64 = 7;
pub const FIRST_SUBVOLUME: u64 = 256;
/// The object of all checksums, `BTRFS_EXTENT_CSUM_OBJECTID`.
pub const CSUM_OBJECT: u64 = -10_i64 as u64;

/// Returns whether a tree of that number holds files.
pub fn is_subvolume(tree: u64) -> bool {
    // The topmost 256 numbers are trees of btrfs's own.
    tree == TOP_SUBVOLUME || (FIRST_SUBVOLUME..=u64::MAX - 256).contains(&tree)
}

/// The root of a tree: inode 0, generation 0xa0, root_dirid 0xa8, bytenr 0xb0, refs 0xd8, level
/// 0xee.
pub struct Root {
    /// Its topmost node.
    pub node: NodeAt,
    /// Its topmost directory, of a subvolume.
    pub directory: u64,
}

impl Root {
    /// Decodes it.
    pub fn decode(item: &Item) -> Result<Self> {
        const BYTES: usize = 239;
        let bytes = item.data();
        let [level] = array_at(bytes, 0xee);
        if bytes.len() < BYTES || level > MAX_LEVEL {
            return Err(item.corrupt(format!("{} bytes, level {level}", bytes.len())));
        }
        Ok(Self {
            node: NodeAt {
                logical: le::u64_at(bytes, 0xb0),
                generation: le::u64_at(bytes, 0xa0),
                level,
                first: None,
            },
            directory: le::u64_at(bytes, 0xa8),
        })
    }
}

/// An inode: size 0x10, nlink 0x28, uid 0x2c, gid 0x30, mode 0x34, rdev 0x38, flags 0x40, mtime 0x88.
pub struct Inode {
    /// What is shown of it.
    pub stat: Stat,
    /// Whether its data has checksums.
    pub has_sums: bool,
}

impl Inode {
    /// Decodes it.
    pub fn decode(item: &Item) -> Result<Self> {
        const BYTES: usize = 160;
        const NODATASUM: u64 = 1;
        let bytes = item.data();
        if bytes.len() < BYTES {
            return Err(item.corrupt(format!("an inode of {} bytes", bytes.len())));
        }
        let mode = le::u32_at(bytes, 0x34);
        let kind = kind_of(mode).ok_or_else(|| item.corrupt(format!("mode {mode:o}")))?;
        let len_bytes = le::u64_at(bytes, 0x10);
        if i64::try_from(len_bytes).is_err() {
            return Err(item.corrupt(format!("{len_bytes} bytes long")));
        }
        Ok(Self {
            stat: Stat {
                kind,
                len_bytes,
                mode: mode & 0o7777,
                uid: le::u32_at(bytes, 0x2c),
                gid: le::u32_at(bytes, 0x30),
                links: le::u32_at(bytes, 0x28),
                modified: Time {
                    seconds: i64::from_le_bytes(array_at(bytes, 0x88)),
                    nanoseconds: le::u32_at(bytes, 0x90).min(999_999_999),
                },
                device: device(kind, le::u64_at(bytes, 0x38)),
            },
            has_sums: le::u64_at(bytes, 0x40) & NODATASUM == 0,
        })
    }
}

fn kind_of(mode: u32) -> Option<NodeKind> {
    match mode >> 12 {
        0o1 => Some(NodeKind::Fifo),
        0o2 => Some(NodeKind::CharDevice),
        0o4 => Some(NodeKind::Directory),
        0o6 => Some(NodeKind::BlockDevice),
        0o10 => Some(NodeKind::File),
        0o12 => Some(NodeKind::Link),
        0o14 => Some(NodeKind::Socket),
        _ => None,
    }
}

/// The number is that of the kernel: 12 bits of major above 20 bits of minor.
fn device(kind: NodeKind, number: u64) -> Option<(u32, u32)> {
    let number = (number & u64::from(u32::MAX)) as u32;
    matches!(kind, NodeKind::CharDevice | NodeKind::BlockDevice)
        .then_some((number >> 20, number & 0xf_ffff))
}

/// A name: location 0 (a key), transid 0x11, data_len 0x19, name_len 0x1b, type 0x1d, name 0x1e.
pub struct Name {
    /// The key of what it names: an inode of the same tree, or the root of another tree.
    pub location: Key,
    /// What that is, if it is known.
    pub kind: Option<NodeKind>,
    /// The name.
    pub name: Vec<u8>,
}

impl Name {
    /// Decodes all names of an item: several where their hashes are the same.
    pub fn decode_all(item: &Item) -> Result<Vec<Self>> {
        const HEAD_BYTES: usize = 0x1e;
        const LONGEST: usize = 255;
        let mut bytes = item.data();
        let mut names = Vec::new();
        while !bytes.is_empty() {
            let len = usize::from(le::u16_at(bytes, 0x1b));
            let data_len = usize::from(le::u16_at(bytes, 0x19));
            let name = bytes.get(HEAD_BYTES..HEAD_BYTES + len).unwrap_or_default();
            let is_name =
                !name.is_empty() && name.len() <= LONGEST && name != b"." && name != b"..";
            if !is_name || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
                let what = format!("no name: {} ({len} bytes)", name.escape_ascii());
                return Err(item.corrupt(what));
            }
            let [kind] = array_at(bytes, 0x1d);
            names.push(Self {
                location: Key::decode(bytes, 0),
                kind: kind_of_name(kind),
                name: name.to_vec(),
            });
            bytes = bytes.get(HEAD_BYTES + len + data_len..).unwrap_or_default();
        }
        Ok(names)
    }
}

fn kind_of_name(kind: u8) -> Option<NodeKind> {
    // The topmost bit says that the name is encrypted.
    match kind & 0x7f {
        1 => Some(NodeKind::File),
        2 => Some(NodeKind::Directory),
        3 => Some(NodeKind::CharDevice),
        4 => Some(NodeKind::BlockDevice),
        5 => Some(NodeKind::Fifo),
        6 => Some(NodeKind::Socket),
        7 => Some(NodeKind::Link),
        _ => None,
    }
}

/// A piece of a file: generation 0, ram_bytes 8, compression 0x10, encryption 0x11, other_encoding
/// 0x12, type 0x14; then inline data, or disk_bytenr 0x15, disk_num_bytes 0x1d, offset 0x25,
/// num_bytes 0x2d.
pub struct Extent {
    /// Its length in the file.
    pub len: u64,
    /// Where that is.
    pub source: Source,
}

/// Where the content of an extent is.
pub enum Source {
    /// Nowhere: zeros.
    Zeros,
    /// In the item, at these bytes of it.
    Inline {
        compression: Compression,
        bytes: Range<usize>,
    },
    /// On the disk, as it is.
    Plain { logical: u64 },
    /// On the disk, compressed as a whole; `offset` counts in what comes out.
    Packed {
        compression: Compression,
        logical: u64,
        packed_bytes: usize,
        plain_bytes: usize,
        offset: usize,
    },
}

/// What an extent is at most when it is compressed, packed or not (`BTRFS_MAX_COMPRESSED` is an
/// eighth of that).
const MOST_PACKED: usize = 1 << 20;

impl Extent {
    /// Decodes it.
    pub fn decode(item: &Item) -> Result<Self> {
        let bytes = item.data();
        let [compression, encryption] = array_at(bytes, 0x10);
        if encryption != 0 || le::u16_at(bytes, 0x12) != 0 {
            return Err(Error::unsupported("an encrypted file of btrfs"));
        }
        let compression = Compression::numbered(compression)?;
        match (array_at(bytes, 0x14), bytes.len()) {
            ([0], 0x15..) => Self::inline(item, compression),
            ([1], 0x35..) => Self::on_disk(item, compression),
            ([2], 0x35..) => Ok(Self {
                len: le::u64_at(bytes, 0x2d),
                source: Source::Zeros,
            }),
            ([kind], len) => Err(item.corrupt(format!("extent type {kind} of {len} bytes"))),
        }
    }

    fn inline(item: &Item, compression: Compression) -> Result<Self> {
        let bytes = 0x15..item.data().len();
        let plain_bytes = le::u64_at(item.data(), 8);
        let is_sound = match compression {
            Compression::None => plain_bytes == bytes.len() as u64,
            _ => plain_bytes <= MOST_PACKED as u64,
        };
        if !is_sound {
            let what = format!("{plain_bytes} bytes in {} inline", bytes.len());
            return Err(item.corrupt(what));
        }
        Ok(Self {
            len: plain_bytes,
            source: Source::Inline { compression, bytes },
        })
    }

    fn on_disk(item: &Item, compression: Compression) -> Result<Self> {
        let bytes = item.data();
        let bad = |what| Err(item.corrupt(what));
        let (plain, packed) = (le::u64_at(bytes, 8), le::u64_at(bytes, 0x1d));
        let (offset, len) = (le::u64_at(bytes, 0x25), le::u64_at(bytes, 0x2d));
        let logical = le::u64_at(bytes, 0x15);
        if logical == 0 {
            let source = Source::Zeros;
            return Ok(Self { len, source });
        }
        let whole = match compression {
            Compression::None => packed,
            _ => plain,
        };
        if offset.checked_add(len).is_none_or(|end| end > whole) {
            return bad(format!("{len} bytes from {offset} of {whole}"));
        }
        let Some(start) = logical.checked_add(offset) else {
            return bad(format!("at address {logical}"));
        };
        if compression == Compression::None {
            let source = Source::Plain { logical: start };
            return Ok(Self { len, source });
        }
        let small = |number| usize::try_from(number).ok().filter(|n| *n <= MOST_PACKED);
        let (Some(packed_bytes), Some(plain_bytes)) = (small(packed), small(plain)) else {
            return bad(format!("{plain} bytes in {packed} compressed"));
        };
        Ok(Self {
            len,
            source: Source::Packed {
                compression,
                logical,
                packed_bytes,
                plain_bytes,
                offset: small(offset).unwrap_or_default(),
            },
        })
    }
}
