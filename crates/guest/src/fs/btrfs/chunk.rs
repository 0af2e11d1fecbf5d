//! Chunks: which logical addresses lie where on which devices.

use std::collections::BTreeSet;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};

use super::node::Key;
use crate::bytes::le;

/// The kind of a chunk's key; its object is [`CHUNKS_OBJECT`], its offset the logical address.
pub const CHUNK_ITEM: u8 = 228;
/// `BTRFS_FIRST_CHUNK_TREE_OBJECTID`.
pub const CHUNKS_OBJECT: u64 = 256;

/// Chunk: length 0, owner 8, stripe_len 0x10, type 0x18, io_align 0x20, io_width 0x24, sector_size
/// 0x28, num_stripes 0x2c, sub_stripes 0x2e; then stripes of devid, offset and the device's uuid.
const HEAD_BYTES: usize = 0x30;
const STRIPE_BYTES: usize = 0x20;

/// A run of logical addresses and how it is laid out.
#[derive(Debug, Clone)]
pub struct Chunk {
    start: u64,
    len: u64,
    layout: Layout,
    stripes: Vec<Stripe>,
}

#[derive(Debug, Clone, Copy)]
struct Stripe {
    device: u64,
    offset: u64,
}

#[derive(Debug, Clone, Copy)]
enum Layout {
    /// Every stripe holds all: single, DUP, RAID1, RAID1C3, RAID1C4.
    Copies,
    /// Pieces of `piece_bytes` go round groups of `copies` stripes that hold the same: RAID0 (1
    /// copy), RAID10.
    Striped { piece_bytes: u64, copies: usize },
}

/// Where a copy of some bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The device's number.
    pub device: u64,
    /// The offset on it in bytes.
    pub offset: u64,
    /// How many bytes there follow each other.
    pub len: u64,
}

impl Chunk {
    /// Decodes the chunk at logical address `start`, and how many bytes its item has.
    pub fn decode(bytes: &[u8], start: u64) -> Result<(Self, usize)> {
        let place = || format!("btrfs chunk {start}");
        let bad = |what: String| Error::corrupt(place(), what);
        let len = le::u64_at(bytes, 0);
        let n_stripes = usize::from(le::u16_at(bytes, 0x2c));
        let n_bytes = HEAD_BYTES + n_stripes * STRIPE_BYTES;
        if bytes.len() < n_bytes || n_stripes == 0 {
            return Err(bad(format!("{n_stripes} stripes in {} bytes", bytes.len())));
        }
        if len == 0 || start.checked_add(len).is_none() {
            return Err(bad(format!("{len} bytes long")));
        }
        let stripes = (0..n_stripes).map(|index| {
            let at = HEAD_BYTES + index * STRIPE_BYTES;
            Stripe {
                device: le::u64_at(bytes, at),
                offset: le::u64_at(bytes, at + 8),
            }
        });
        let chunk = Self {
            start,
            len,
            layout: layout(bytes, n_stripes).map_err(|error| error.place(place()))?,
            stripes: stripes.collect(),
        };
        Ok((chunk, n_bytes))
    }

    /// Decodes the keys and chunks of the superblock.
    pub fn decode_array(mut bytes: &[u8]) -> Result<Vec<Self>> {
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let key = Key::decode(bytes, 0);
            let body = bytes.get(Key::BYTES..).unwrap_or_default();
            if key.kind != CHUNK_ITEM {
                let what = format!("an item of kind {} among the chunks", key.kind);
                return Err(Error::corrupt("btrfs superblock", what));
            }
            let (chunk, len) = Self::decode(body, key.offset)?;
            chunks.push(chunk);
            bytes = body.get(len..).unwrap_or_default();
        }
        Ok(chunks)
    }

    /// Returns whether it holds that address.
    pub fn holds(&self, logical: u64) -> bool {
        logical >= self.start && logical - self.start < self.len
    }

    /// Returns the devices that it lies on, each once.
    pub fn devices(&self) -> BTreeSet<u64> {
        self.stripes.iter().map(|stripe| stripe.device).collect()
    }

    /// Returns the parts of it that lie on a device.
    pub fn parts(self: &Arc<Self>, device: u64) -> Vec<Part> {
        let n_rows = match self.layout {
            Layout::Copies => 1,
            Layout::Striped { copies, .. } => (self.stripes.len() / copies.max(1)).max(1) as u64,
        };
        let piece = match self.layout {
            Layout::Copies => 1,
            Layout::Striped { piece_bytes, .. } => piece_bytes,
        };
        let len = self.len.div_ceil(n_rows).checked_next_multiple_of(piece);
        let stripes = self.stripes.iter().enumerate();
        let own = stripes.filter(|(_, stripe)| stripe.device == device);
        own.map(|(index, stripe)| Part {
            start: stripe.offset,
            len: len.unwrap_or(u64::MAX),
            chunk: Arc::clone(self),
            index,
        })
        .collect()
    }

    /// Returns how many copies of everything it has.
    pub fn n_copies(&self) -> usize {
        match self.layout {
            Layout::Copies => self.stripes.len(),
            Layout::Striped { copies, .. } => copies,
        }
    }

    /// Returns where copy number `copy` of what is at `logical` begins; none if it has none.
    pub fn place(&self, logical: u64, copy: usize) -> Option<Place> {
        let offset = logical.checked_sub(self.start)?;
        let left = self.len.checked_sub(offset).filter(|left| *left > 0)?;
        if copy >= self.n_copies() {
            return None;
        }
        let (index, inside, len) = match self.layout {
            Layout::Copies => (copy, offset, left),
            Layout::Striped {
                piece_bytes,
                copies,
            } => {
                let n_groups = (self.stripes.len() / copies) as u64;
                let (piece, rest) = (offset / piece_bytes, offset % piece_bytes);
                let group = usize::try_from(piece % n_groups).ok()?;
                let inside = (piece / n_groups) * piece_bytes + rest;
                (group * copies + copy, inside, left.min(piece_bytes - rest))
            }
        };
        let stripe = self.stripes.get(index)?;
        Some(Place {
            device: stripe.device,
            offset: stripe.offset.checked_add(inside)?,
            len,
        })
    }
}

/// What of a chunk lies in one piece on a device.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where it begins on the device.
    pub start: u64,
    /// Its length there.
    pub len: u64,
    chunk: Arc<Chunk>,
    index: usize,
}

impl Part {
    /// Returns the logical address of what is `inside` bytes from its beginning, and how many bytes
    /// follow it there as they do on the device.
    pub fn logical(&self, inside: u64) -> Option<(u64, u64)> {
        let left = self.len.checked_sub(inside).filter(|left| *left > 0)?;
        let (offset, len) = match self.chunk.layout {
            Layout::Copies => (inside, left),
            Layout::Striped {
                piece_bytes,
                copies,
            } => {
                let n_groups = (self.chunk.stripes.len() / copies) as u64;
                let group = (self.index / copies) as u64;
                let (row, rest) = (inside / piece_bytes, inside % piece_bytes);
                let piece = row.checked_mul(n_groups)?.checked_add(group)?;
                let offset = piece.checked_mul(piece_bytes)?.checked_add(rest)?;
                (offset, left.min(piece_bytes - rest))
            }
        };
        Some((self.chunk.start.checked_add(offset)?, len))
    }
}

/// Returns how a chunk of so many stripes is laid out, by field `type`.
fn layout(bytes: &[u8], n_stripes: usize) -> Result<Layout> {
    const PROFILES: u64 = 0x7f8;
    let piece_bytes = le::u64_at(bytes, 0x10);
    let copies = usize::from(le::u16_at(bytes, 0x2e)).max(1);
    let profile = le::u64_at(bytes, 0x18) & PROFILES;
    // Always 64 KiB so far; a sector is the least that makes sense.
    let is_piece = piece_bytes.is_power_of_two() && piece_bytes >= 4096;
    let is_sound = match profile {
        0 => n_stripes == 1,
        0x8 => is_piece,
        0x10 | 0x20 => n_stripes == 2,
        0x40 => is_piece && copies == 2 && n_stripes.is_multiple_of(copies),
        0x200 => n_stripes == 3,
        0x400 => n_stripes == 4,
        0x80 => return Err(Error::unsupported("the profile RAID5")),
        0x100 => return Err(Error::unsupported("the profile RAID6")),
        _ => return Err(Error::unsupported(format!("the profile {profile:#x}"))),
    };
    match (is_sound, profile) {
        (false, _) => Err(Error::new(
            ErrorKind::Corrupt,
            format!("{n_stripes} stripes with the profile {profile:#x}"),
        )),
        (true, 0x8) => Ok(Layout::Striped {
            piece_bytes,
            copies: 1,
        }),
        (true, 0x40) => Ok(Layout::Striped {
            piece_bytes,
            copies,
        }),
        (true, _) => Ok(Layout::Copies),
    }
}
