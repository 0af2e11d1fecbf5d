//! The devices of a file system as one space of logical addresses, and the nodes in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hako_block::{Error, Result};

use super::checksum::FIELD_BYTES;
use super::chunk::{CHUNK_ITEM, CHUNKS_OBJECT, Chunk};
use super::node::{Item, Key, Node, NodeAt};
use super::superblock::Superblock;
use crate::fs::cache::Cache;
use crate::volume::Volume;

/// Bytes of nodes that are kept.
const KEPT_BYTES: usize = 8 << 20;

/// Reads logical addresses: bytes of a chosen copy, and nodes, which are checked and kept.
pub struct Store {
    superblock: Superblock,
    devices: BTreeMap<u64, Arc<dyn Volume>>,
    system_chunks: Vec<Chunk>,
    kept: Cache<u64, Node>,
}

impl Store {
    /// Returns the space that these devices make, by their numbers.
    pub fn new(superblock: Superblock, devices: BTreeMap<u64, Arc<dyn Volume>>) -> Result<Self> {
        let most_kept = KEPT_BYTES / superblock.node_bytes as usize;
        Ok(Self {
            system_chunks: Chunk::decode_array(&superblock.system_chunks)?,
            superblock,
            devices,
            kept: Cache::new(most_kept),
        })
    }

    /// Returns the superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Returns how many copies there are of what is at `logical`.
    pub fn n_copies(&self, logical: u64) -> Result<usize> {
        Ok(self.chunk(logical)?.n_copies())
    }

    /// Reads copy number `copy` of what is at `logical`.
    pub fn read_copy(&self, logical: u64, buf: &mut [u8], copy: usize) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let logical = logical
                .checked_add(done as u64)
                .ok_or_else(|| unmapped(logical))?;
            let place = self.chunk(logical)?.place(logical, copy);
            let place = place.ok_or_else(|| unmapped(logical))?;
            let len = usize::try_from(place.len).unwrap_or(usize::MAX);
            let len = len.min(rest.len());
            let device = self.devices.get(&place.device).ok_or_else(|| {
                Error::unsupported(format!(
                    "btrfs: device {} of {} is not there",
                    place.device, self.superblock.n_devices
                ))
            })?;
            device.read_at(place.offset, rest.get_mut(..len).unwrap_or_default())?;
            done += len;
        }
        Ok(())
    }

    /// Returns the node at `at`, from whichever copy is whole. Errors: those of the first copy.
    pub fn node(&self, at: &NodeAt) -> Result<Arc<Node>> {
        let node = self.kept.get_or(at.logical, || {
            let mut first_error = None;
            for copy in 0..self.n_copies(at.logical)? {
                match self.read_node(at, copy) {
                    Ok(node) => return Ok(node),
                    Err(error) => first_error = first_error.or(Some(error)),
                }
            }
            Err(first_error.unwrap_or_else(|| unmapped(at.logical)))
        })?;
        node.agrees(at).map(|()| node)
    }

    /// Returns the item with the greatest key that is not above `key`.
    pub fn floor(&self, root: &NodeAt, key: Key) -> Result<Option<Item>> {
        let mut node = self.node(root)?;
        loop {
            let Some(index) = node.floor(key) else {
                return Ok(None);
            };
            if node.level() == 0 {
                return Ok(Item::of(&node, index));
            }
            node = self.child(&node, index)?;
        }
    }

    /// Returns the item with that very key.
    pub fn item(&self, root: &NodeAt, key: Key) -> Result<Option<Item>> {
        Ok(self.floor(root, key)?.filter(|item| item.key == key))
    }

    /// Returns the items from `key` on.
    pub fn from(&self, root: &NodeAt, key: Key) -> Cursor<'_> {
        Cursor {
            store: self,
            root: *root,
            leaf: None,
            next: Some(key),
        }
    }

    /// Returns the leaf in which the first item that is not below `key` may be, and the first key
    /// that is in a leaf behind it.
    fn leaf(&self, root: &NodeAt, key: Key) -> Result<(Arc<Node>, Option<Key>)> {
        let mut node = self.node(root)?;
        let mut behind = None;
        while node.level() > 0 {
            let index = node.floor(key).unwrap_or(0);
            behind = node.key(index + 1).or(behind);
            node = self.child(&node, index)?;
        }
        Ok((node, behind))
    }

    /// Returns the node that a pointer leads to. Its keys must lie below the next pointer's: so no
    /// leaf is met twice on the way through a tree, whatever its pointers say.
    fn child(&self, node: &Node, index: usize) -> Result<Arc<Node>> {
        let at = node.child(index).ok_or_else(|| unmapped(0))?;
        let child = self.node(&at)?;
        let last = child.len().checked_sub(1).and_then(|last| child.key(last));
        match (last, node.key(index + 1)) {
            (Some(last), Some(behind)) if last >= behind => Err(Error::corrupt(
                format!("btrfs node {}", at.logical),
                "keys that belong to the next node",
            )),
            (None, _) => Err(Error::corrupt(
                format!("btrfs node {}", at.logical),
                "no items",
            )),
            _ => Ok(child),
        }
    }

    fn read_node(&self, at: &NodeAt, copy: usize) -> Result<Node> {
        let mut bytes = vec![0; self.superblock.node_bytes as usize];
        self.read_copy(at.logical, &mut bytes, copy)?;
        let body = bytes.get(FIELD_BYTES..).unwrap_or_default();
        if !self.superblock.checksum.fits(body, &bytes) {
            let place = format!("btrfs node {}, copy {copy}", at.logical);
            return Err(Error::corrupt(place, "wrong checksum"));
        }
        Node::decode(bytes, at, &self.superblock.node_fsid)
    }

    /// Returns the chunk that holds `logical`: one of the superblock's, which hold the tree of
    /// chunks, else one of that tree.
    fn chunk(&self, logical: u64) -> Result<Chunk> {
        if let Some(chunk) = self.system_chunks.iter().find(|chunk| chunk.holds(logical)) {
            return Ok(chunk.clone());
        }
        let key = Key::new(CHUNKS_OBJECT, CHUNK_ITEM, logical);
        let item = self.system_floor(key)?.filter(|item| item.key.is_like(key));
        let item = item.ok_or_else(|| unmapped(logical))?;
        let (chunk, _) = Chunk::decode(item.data(), item.key.offset)?;
        match chunk.holds(logical) {
            true => Ok(chunk),
            false => Err(unmapped(logical)),
        }
    }

    /// Calls `each` with all chunks, those of the superblock first.
    pub fn each_chunk(&self, mut each: impl FnMut(Chunk) -> Result<()>) -> Result<()> {
        for chunk in &self.system_chunks {
            each(chunk.clone())?;
        }
        let first = Key::new(CHUNKS_OBJECT, CHUNK_ITEM, 0);
        let mut items = self.from(&self.superblock.chunks, first);
        while let Some(item) = items.next_like(first)? {
            each(Chunk::decode(item.data(), item.key.offset)?.0)?;
        }
        Ok(())
    }

    /// Like [`Store::floor`] of the tree of chunks, whose nodes must lie in the superblock's chunks.
    fn system_floor(&self, key: Key) -> Result<Option<Item>> {
        let mut at = self.superblock.chunks;
        loop {
            if !self
                .system_chunks
                .iter()
                .any(|chunk| chunk.holds(at.logical))
            {
                return Err(unmapped(at.logical));
            }
            let node = self.node(&at)?;
            let Some(index) = node.floor(key) else {
                return Ok(None);
            };
            match node.child(index) {
                Some(child) => at = child,
                None => return Ok(Item::of(&node, index)),
            }
        }
    }
}

/// Goes through the items of a tree in the order of their keys.
pub struct Cursor<'a> {
    store: &'a Store,
    root: NodeAt,
    leaf: Option<(Arc<Node>, usize)>,
    /// Where to go on behind the leaf.
    next: Option<Key>,
}

impl Cursor<'_> {
    /// Returns the next item.
    pub fn next(&mut self) -> Result<Option<Item>> {
        loop {
            if let Some((leaf, index)) = &mut self.leaf
                && let Some(item) = Item::of(leaf, *index)
            {
                *index += 1;
                return Ok(Some(item));
            }
            let Some(key) = self.next else {
                return Ok(None);
            };
            let (leaf, behind) = self.store.leaf(&self.root, key)?;
            let index = leaf.ceil(key);
            self.leaf = Some((leaf, index));
            self.next = behind;
        }
    }

    /// Returns the next item if it is about the same thing as `key`, in the same way.
    pub fn next_like(&mut self, key: Key) -> Result<Option<Item>> {
        Ok(self.next()?.filter(|item| item.key.is_like(key)))
    }
}

fn unmapped(logical: u64) -> Error {
    Error::corrupt("btrfs", format!("no chunk holds the address {logical}"))
}
