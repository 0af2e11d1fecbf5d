//! What the items of the log change: pieces of buffers, and inodes. Numbers are little-endian, as the
//! machine that wrote them has them.

use std::collections::{BTreeMap, HashMap, HashSet};

use hako_block::{Error, Result};

use super::transactions::Item;
use crate::bytes::le::{u16_at, u32_at, u64_at};
use crate::fs::xfs::inode::{CORE_BYTES, FLAG2_BIGTIME, FLAG2_NREXT64};
use crate::fs::xfs::store::{PIECE_BYTES, Piece};

/// Bytes of pieces and inodes that are kept.
const MOST_BYTES: usize = 256 << 20;

const INODE: u16 = 0x123b;
const BUFFER: u16 = 0x123c;
/// An intention to map blocks, and that it is done; to exchange blocks, and that it is done.
const INTENTIONS: [u16; 2] = [0x1244, 0x1248];
const DONE: [u16; 2] = [0x1245, 0x1249];

/// blf_flags: only the list of inodes without names is in it.
const BUFFER_OF_INODES: u16 = 0x1;
/// blf_flags: the buffer is no more.
const BUFFER_CANCELLED: u16 = 0x2;
const BUFFER_MAP_AT: usize = 20;
const SECTOR_BYTES: u64 = 512;

/// ilf_fields: the content, extents or root of their tree follow the fields.
const FIELDS_DATA: u32 = 0x2 | 0x4;
const FIELDS_ROOT: u32 = 0x8;
const FIELDS_DEVICE: u32 = 0x10;
/// Bytes of the description of an inode, of 64-bit machines.
const INODE_BYTES: usize = 56;
/// Bytes before the keys of a root in memory, version 4 and 5.
const ROOT_HEADER_BYTES: [usize; 2] = [24, 72];

/// What the log says of inodes, by their numbers.
pub(crate) type Patches = HashMap<u64, Patch>;

/// What the log says of an inode.
#[derive(Debug, Default)]
pub(crate) struct Patch {
    /// Its fields as they are on the disk.
    core: Vec<u8>,
    fork: Option<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Content, or extents.
    Data(Vec<u8>),
    /// Level, then keys and pointers of the root of the tree.
    Root(u16, Vec<u8>, Vec<u8>),
    Device(u32),
}

/// What the items that were taken in change.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) pieces: BTreeMap<u64, Piece>,
    pub(super) inodes: Patches,
    /// Intentions that were not carried out.
    pub(super) intended: HashSet<(u16, u64)>,
    n_bytes: usize,
}

impl Changes {
    /// Takes in the items of a transaction.
    pub(super) fn take(&mut self, items: Vec<Item>) -> Result<()> {
        for item in &items {
            let kind = item.kind();
            // The number of the intention.
            let id = u64_at(item.region(0), 8);
            match kind {
                BUFFER => self.buffer(item)?,
                INODE => self.inode(item)?,
                kind if INTENTIONS.contains(&kind) => {
                    self.intended.insert((kind, id));
                }
                kind if DONE.contains(&kind) => {
                    self.intended.remove(&(kind - 1, id));
                }
                _ => {}
            }
            if self.n_bytes + self.pieces.len() * PIECE_BYTES as usize > MOST_BYTES {
                return Err(Error::unsupported(format!(
                    "its log changes more than {MOST_BYTES} bytes"
                )));
            }
        }
        Ok(())
    }

    /// A buffer: for each run of bits in its map a region with so many pieces.
    fn buffer(&mut self, item: &Item) -> Result<()> {
        let about = item.region(0);
        let flags = u16_at(about, 4);
        let start = u64_at(about, 8).checked_mul(SECTOR_BYTES);
        let len = u64::from(u16_at(about, 6)) * SECTOR_BYTES;
        let end = start.and_then(|start| start.checked_add(len));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(damaged(format!("a buffer at sector {}", u64_at(about, 8))));
        };
        let (first, end) = (start / PIECE_BYTES, end / PIECE_BYTES);
        if flags & BUFFER_CANCELLED != 0 {
            let gone: Vec<u64> = self
                .pieces
                .range(first..end)
                .map(|(piece, _)| *piece)
                .collect();
            for piece in gone {
                self.pieces.remove(&piece);
            }
            return Ok(());
        }
        if flags & BUFFER_OF_INODES != 0 {
            return Ok(());
        }
        let n_words = usize::try_from(u32_at(about, 16)).unwrap_or(usize::MAX);
        let map = about.get(BUFFER_MAP_AT..).unwrap_or(&[]);
        let words = map
            .chunks_exact(4)
            .take(n_words)
            .map(|word| u32_at(word, 0));
        let bits = words.zip(0_u64..).flat_map(|(word, n)| {
            (0..32)
                .filter(move |bit| word >> bit & 1 != 0)
                .map(move |bit| n * 32 + bit)
        });
        let mut pieces: Box<dyn Iterator<Item = &[u8]>> = Box::new(std::iter::empty());
        let mut next = None;
        let mut region = 0;
        for bit in bits {
            if next != Some(bit) {
                region += 1;
                pieces = Box::new(item.region(region).chunks_exact(PIECE_BYTES as usize));
            }
            next = Some(bit + 1);
            // Linux takes a region that is too short for what it has.
            let piece = pieces.next().and_then(|piece| Piece::try_from(piece).ok());
            if let Some(piece) = piece.filter(|_| first + bit < end) {
                self.pieces.insert(first + bit, piece);
            }
        }
        Ok(())
    }

    fn inode(&mut self, item: &Item) -> Result<()> {
        let about = item.region(0);
        let fields = u32_at(about, 4);
        // On 32-bit machines the numbers follow without a gap.
        let gap = if about.len() >= INODE_BYTES { 4 } else { 0 };
        let number = u64_at(about, 12 + gap);
        let core = stored_core(item.region(1))
            .ok_or_else(|| damaged(format!("of inode {number} its fields are missing")))?;
        let version = usize::from(core.get(4) == Some(&3));
        let fork = match fields {
            fields if fields & FIELDS_DATA != 0 => Some(Part::Data(item.region(2).to_vec())),
            fields if fields & FIELDS_ROOT != 0 => {
                let root = root(item.region(2), ROOT_HEADER_BYTES[version]);
                Some(root.ok_or_else(|| damaged(format!("a root of inode {number}")))?)
            }
            fields if fields & FIELDS_DEVICE != 0 => Some(Part::Device(u32_at(about, 20 + gap))),
            _ => None,
        };
        self.n_bytes += item.regions.iter().map(Vec::len).sum::<usize>();
        let patch = self.inodes.entry(number).or_default();
        patch.core = core;
        if fork.is_some() {
            patch.fork = fork;
        }
        Ok(())
    }
}

impl Patch {
    /// Changes an inode as it is on the disk.
    pub(crate) fn apply(&self, raw: &mut [u8]) {
        let put = |raw: &mut [u8], at: usize, bytes: &[u8]| {
            raw.iter_mut()
                .skip(at)
                .zip(bytes)
                .for_each(|(to, from)| *to = *from);
        };
        put(raw, 0, &self.core);
        let at = self.core.len();
        match &self.fork {
            None => {}
            Some(Part::Data(bytes)) => put(raw, at, bytes),
            Some(Part::Device(device)) => put(raw, at, &device.to_be_bytes()),
            Some(Part::Root(level, keys, pointers)) => {
                let attributes_at = usize::from(self.core.get(82).copied().unwrap_or(0)) * 8;
                let room = match attributes_at {
                    0 => raw.len().saturating_sub(at),
                    room => room,
                };
                let n = (keys.len() / 8) as u16;
                put(raw, at, &level.to_be_bytes());
                put(raw, at + 2, &n.to_be_bytes());
                put(raw, at + 4, keys);
                put(raw, at + 4 + room.saturating_sub(4) / 16 * 8, pointers);
            }
        }
    }
}

/// Returns the root of a tree as it is in memory: a header, room for keys, room for pointers.
fn root(bytes: &[u8], header: usize) -> Option<Part> {
    let entries = bytes.get(header..)?;
    let room = entries.len() / 16;
    // The header is as it would be on the disk: big-endian.
    let level = crate::bytes::be::u16_at(bytes, 4);
    let n = usize::from(crate::bytes::be::u16_at(bytes, 6));
    let (keys, pointers) = entries.split_at_checked(room * 8)?;
    Some(Part::Root(
        level,
        keys.get(..n * 8)?.to_vec(),
        pointers.get(..n * 8)?.to_vec(),
    ))
}

/// Turns the fields of an inode in the log into those on the disk: big-endian.
fn stored_core(logged: &[u8]) -> Option<Vec<u8>> {
    /// Where the numbers are, and their bytes; what is not listed are single bytes.
    const NUMBERS: &[(usize, usize)] = &[
        (0, 2),
        (2, 2),
        (6, 2),
        (8, 4),
        (12, 4),
        (16, 4),
        (20, 2),
        (22, 2),
        (56, 8),
        (64, 8),
        (72, 4),
        (76, 4),
        (80, 2),
        (84, 4),
        (88, 2),
        (90, 2),
        (92, 4),
        (96, 4),
    ];
    const NUMBERS_OF_3: &[(usize, usize)] = &[(104, 8), (112, 8), (120, 8), (128, 4), (152, 8)];
    const TIMES: [usize; 4] = [32, 40, 48, 144];
    let is_3 = logged.get(4) == Some(&3);
    let mut core = logged.get(..CORE_BYTES[usize::from(is_3)])?.to_vec();
    let flags2 = if is_3 { u64_at(logged, 120) } else { 0 };
    let mut turn = |(at, bytes): (usize, usize)| {
        if let Some(number) = core.get_mut(at..at + bytes) {
            number.reverse();
        }
    };
    NUMBERS.iter().copied().for_each(&mut turn);
    if is_3 {
        NUMBERS_OF_3.iter().copied().for_each(&mut turn);
    }
    if flags2 & FLAG2_NREXT64 != 0 {
        turn((24, 8));
    }
    for at in TIMES {
        match flags2 & FLAG2_BIGTIME {
            0 => [at, at + 4].into_iter().for_each(|at| turn((at, 4))),
            _ => turn((at, 8)),
        }
    }
    Some(core)
}

fn damaged(what: String) -> Error {
    Error::corrupt("log", what)
}
