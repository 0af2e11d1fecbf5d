//! Keys, and the nodes of the trees: a header, then either keys with pointers to nodes one level
//! lower, or items (level 0), whose data lies at the end of the node.

use std::sync::Arc;

use hako_block::{Error, Result};

use crate::bytes::{array_at, le};

/// Trees are at most so high (`BTRFS_MAX_LEVEL`).
pub const MAX_LEVEL: u8 = 7;

/// Header: checksum 0, fsid 0x20, bytenr 0x30, flags 0x38, chunk tree's uuid 0x40, generation 0x50,
/// owner 0x58, nritems 0x60, level 0x64.
const HEADER_BYTES: usize = 0x65;

/// A key and the place of a node: key, blockptr, generation.
const POINTER_BYTES: usize = Key::BYTES + 16;

/// A key and the place of its data: key, offset, size.
const ITEM_BYTES: usize = Key::BYTES + 8;

/// What items are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What it is about: an inode, a tree.
    pub object: u64,
    /// What kind of item it is.
    pub kind: u8,
    /// Depends on the kind: a position, a hash, a number.
    pub offset: u64,
}

impl Key {
    /// Its length on the disk.
    pub const BYTES: usize = 17;

    /// Returns a key.
    pub fn new(object: u64, kind: u8, offset: u64) -> Self {
        Self {
            object,
            kind,
            offset,
        }
    }

    /// Decodes the key at `at`.
    pub fn decode(bytes: &[u8], at: usize) -> Self {
        let [kind] = array_at(bytes, at.saturating_add(8));
        Self {
            object: le::u64_at(bytes, at),
            kind,
            offset: le::u64_at(bytes, at.saturating_add(9)),
        }
    }

    /// Returns whether both are about the same thing in the same way.
    pub fn is_like(&self, other: Key) -> bool {
        self.object == other.object && self.kind == other.kind
    }
}

/// Where a node is, and what it must say of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeAt {
    /// Its logical address.
    pub logical: u64,
    /// The transaction that wrote it.
    pub generation: u64,
    /// How far it is above the leaves.
    pub level: u8,
    /// Its first key, if a node above told.
    pub first: Option<Key>,
}

/// A node whose header, order of keys and bounds of items are checked.
#[derive(Debug)]
pub struct Node {
    bytes: Vec<u8>,
    level: u8,
    n_items: usize,
}

impl Node {
    /// Decodes the node that should be at `at`, of the file system whose nodes carry `fsid`. The
    /// checksum has been checked.
    pub fn decode(bytes: Vec<u8>, at: &NodeAt, fsid: &[u8; 16]) -> Result<Self> {
        let bad = |what: String| Err(Error::corrupt(place(at.logical), what));
        if array_at::<16>(&bytes, 0x20) != *fsid {
            return bad("of another file system".to_owned());
        }
        let logical = le::u64_at(&bytes, 0x30);
        if logical != at.logical {
            return bad(format!("says that it is at {logical}"));
        }
        let generation = le::u64_at(&bytes, 0x50);
        if generation != at.generation {
            let wanted = at.generation;
            return bad(format!("generation {generation}, should be {wanted}"));
        }
        let [level] = array_at(&bytes, 0x64);
        if level != at.level || level > MAX_LEVEL {
            return bad(format!("level {level}, should be {}", at.level));
        }
        let n_items = le::u32_at(&bytes, 0x60) as usize;
        let each = if level == 0 {
            ITEM_BYTES
        } else {
            POINTER_BYTES
        };
        if n_items > bytes.len().saturating_sub(HEADER_BYTES) / each || (n_items == 0 && level > 0)
        {
            return bad(format!("{n_items} items"));
        }
        let node = Self {
            bytes,
            level,
            n_items,
        };
        node.check_items(at)?;
        Ok(node)
    }

    /// Refuses a node that was found before and is not what is wanted now.
    pub fn agrees(&self, at: &NodeAt) -> Result<()> {
        let generation = le::u64_at(&self.bytes, 0x50);
        let is_same = self.level == at.level
            && generation == at.generation
            && at.first.is_none_or(|first| self.key(0) == Some(first));
        match is_same {
            true => Ok(()),
            false => Err(Error::corrupt(
                place(at.logical),
                "two pointers to it disagree",
            )),
        }
    }

    fn check_items(&self, at: &NodeAt) -> Result<()> {
        let bad = |index, what| {
            let place = format!("{}, item {index}", place(at.logical));
            Err(Error::corrupt(place, what))
        };
        if at.first.is_some_and(|first| self.key(0) != Some(first)) {
            return bad(0, "not the key that the node above has");
        }
        let items_end = self.n_items * ITEM_BYTES;
        for index in 0..self.n_items {
            if index > 0 && self.key(index - 1) >= self.key(index) {
                return bad(index, "keys out of order");
            }
            if self.level > 0 {
                continue;
            }
            let (offset, len) = self.span(index);
            let end = HEADER_BYTES.saturating_add(offset).saturating_add(len);
            if offset < items_end || end > self.bytes.len() {
                return bad(index, "its data lies outside the node");
            }
        }
        Ok(())
    }

    /// Returns how far it is above the leaves.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Returns how many items or pointers it has.
    pub fn len(&self) -> usize {
        self.n_items
    }

    /// Returns the key of an item or pointer.
    pub fn key(&self, index: usize) -> Option<Key> {
        (index < self.n_items).then(|| Key::decode(&self.bytes, self.start(index)))
    }

    /// Returns the index of the last key that is not above `key`.
    pub fn floor(&self, key: Key) -> Option<usize> {
        self.n_not_above(key).checked_sub(1)
    }

    /// Returns the index of the first key that is not below `key`, or the length.
    pub fn ceil(&self, key: Key) -> usize {
        match self.floor(key) {
            Some(index) if self.key(index) == Some(key) => index,
            Some(index) => index + 1,
            None => 0,
        }
    }

    /// Returns where a pointer leads.
    pub fn child(&self, index: usize) -> Option<NodeAt> {
        let start = self.start(index) + Key::BYTES;
        Some(NodeAt {
            logical: le::u64_at(&self.bytes, start),
            generation: le::u64_at(&self.bytes, start + 8),
            level: self.level.checked_sub(1)?,
            first: Some(self.key(index)?),
        })
    }

    /// Returns the data of an item.
    fn data(&self, index: usize) -> &[u8] {
        let (offset, len) = self.span(index);
        let start = HEADER_BYTES.saturating_add(offset);
        self.bytes
            .get(start..start.saturating_add(len))
            .unwrap_or_default()
    }

    /// Returns how many keys are not above `key`: they are sorted.
    fn n_not_above(&self, key: Key) -> usize {
        let (mut low, mut high) = (0, self.n_items);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle) <= Some(key) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    fn start(&self, index: usize) -> usize {
        let each = if self.level == 0 {
            ITEM_BYTES
        } else {
            POINTER_BYTES
        };
        HEADER_BYTES.saturating_add(index.saturating_mul(each))
    }

    /// Returns where the data of an item is after the header, and its length.
    fn span(&self, index: usize) -> (usize, usize) {
        let start = self.start(index) + Key::BYTES;
        let number = |at| le::u32_at(&self.bytes, at) as usize;
        (number(start), number(start + 4))
    }
}

/// An item of a leaf.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its key.
    pub key: Key,
    leaf: Arc<Node>,
    index: usize,
}

impl Item {
    /// Returns the item at `index` of a leaf, if it has so many.
    pub fn of(leaf: &Arc<Node>, index: usize) -> Option<Self> {
        Some(Self {
            key: leaf.key(index)?,
            leaf: Arc::clone(leaf),
            index,
        })
    }

    /// Returns its data.
    pub fn data(&self) -> &[u8] {
        self.leaf.data(self.index)
    }

    /// Returns the error for what is wrong in it.
    pub fn corrupt(&self, what: impl Into<String>) -> Error {
        let Key {
            object,
            kind,
            offset,
        } = self.key;
        Error::corrupt(format!("btrfs item ({object} {kind} {offset})"), what)
    }
}

fn place(logical: u64) -> String {
    format!("btrfs node {logical}")
}
