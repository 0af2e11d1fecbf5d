//! What of a device is in use: the extents that the tree of extents has, by the chunks that lie on the
//! device; superblocks, and what boot loaders keep before the first chunk.
//!
//! Everything else is a copy on write, so that there is one state; but what was synced since the last
//! commit is in trees of the log alone, which the tree of extents does not know yet.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use hako_block::{Error, ErrorKind, Result};

use super::chunk::Part;
use super::item::{EXTENT_DATA, EXTENT_ITEM, EXTENT_TREE, METADATA_ITEM, ROOT_ITEM, Root};
use super::node::{Item, Key, NodeAt};
use super::root_of_tree;
use super::store::Store;
use super::superblock::PLACES;
use crate::bytes::le;
use crate::used::Ranges;

/// What comes before the first chunk (`BTRFS_DEVICE_RANGE_RESERVED`).
const RESERVED_BYTES: u64 = 1 << 20;
/// What is kept for each superblock (`BTRFS_STRIPE_LEN`).
const SUPERBLOCK_BYTES: u64 = 64 << 10;
/// Chunks of a file system, and extents in its log, at most: those of a petabyte, and of half a minute.
const MOST_CHUNKS: usize = 1 << 20;
const MOST_LOGGED: usize = 1 << 20;
/// Chunks in a window at most: none is shorter than 1 MiB.
const MOST_TOUCHING: usize = 1024;
/// Items that are looked at to find the extent before an address: other ones about one extent lie
/// between, and one about each group of blocks.
const MOST_BACK: usize = 64;
/// The object of trees of the log in the tree of them, `BTRFS_TREE_LOG_OBJECTID`.
const LOG_OBJECT: u64 = -6_i64 as u64;

/// What was found out once and is kept.
#[derive(Default)]
pub struct Used(Mutex<Option<Arc<Known>>>);

struct Known {
    /// For each device the parts of chunks on it, by their places.
    devices: BTreeMap<u64, Vec<Part>>,
    /// The tree of extents.
    extents: NodeAt,
    /// Logical addresses that only the log knows to be in use.
    logged: Ranges,
}

impl Used {
    /// Returns what of a window of a device is in use.
    pub fn find(&self, store: &Store, device: u64, window: &Range<u64>) -> Result<Ranges> {
        let known = self.known(store)?;
        let mut used = Ranges::of(0..RESERVED_BYTES);
        for place in PLACES {
            used.add(place..place.saturating_add(SUPERBLOCK_BYTES));
        }
        let parts = known.devices.get(&device).map(Vec::as_slice);
        let parts = parts.unwrap_or_default();
        let touching = parts.iter().filter(|part| {
            part.start < window.end && part.start.saturating_add(part.len) > window.start
        });
        for (n, part) in touching.enumerate() {
            if n > MOST_TOUCHING {
                return Err(Error::corrupt("btrfs chunks", "very many at one place"));
            }
            add_part(store, &known, part, window, &mut used)?;
        }
        Ok(used)
    }

    fn known(&self, store: &Store) -> Result<Arc<Known>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*kept {
            return Ok(Arc::clone(known));
        }
        let known = Arc::new(Known {
            devices: devices(store)?,
            extents: root_of_tree(store, EXTENT_TREE)?.node,
            logged: logged(store)?,
        });
        *kept = Some(Arc::clone(&known));
        Ok(known)
    }
}

/// Returns the parts of all chunks by device.
fn devices(store: &Store) -> Result<BTreeMap<u64, Vec<Part>>> {
    let mut devices: BTreeMap<u64, Vec<Part>> = BTreeMap::new();
    let mut n_parts = 0;
    store.each_chunk(|chunk| {
        let chunk = Arc::new(chunk);
        for device in chunk.devices() {
            let parts = chunk.parts(device);
            n_parts += parts.len();
            devices.entry(device).or_default().extend(parts);
        }
        match n_parts > MOST_CHUNKS {
            true => Err(Error::unsupported("btrfs of more chunks than are read")),
            false => Ok(()),
        }
    })?;
    for parts in devices.values_mut() {
        parts.sort_by_key(|part| part.start);
    }
    Ok(devices)
}

/// Adds what is in use of the part of a chunk that lies in a window.
fn add_part(
    store: &Store,
    known: &Known,
    part: &Part,
    window: &Range<u64>,
    used: &mut Ranges,
) -> Result<()> {
    let end = part.start.saturating_add(part.len).min(window.end);
    let mut at = part.start.max(window.start);
    while at < end {
        let Some((logical, len)) = part.logical(at - part.start) else {
            return Err(Error::corrupt("btrfs chunk", "no address is there"));
        };
        let len = len.min(end - at);
        let asked = logical..logical.saturating_add(len);
        let mut extents = known.logged.within(&asked);
        add_extents(store, &known.extents, &asked, &mut extents)?;
        for extent in extents.within(&asked).iter() {
            used.add(at + (extent.start - logical)..at + (extent.end - logical));
        }
        at += len;
    }
    Ok(())
}

/// Adds the extents that touch a range of logical addresses.
fn add_extents(
    store: &Store,
    tree: &NodeAt,
    asked: &Range<u64>,
    extents: &mut Ranges,
) -> Result<()> {
    let first = first_extent(store, tree, asked.start)?;
    let mut items = store.from(tree, Key::new(first, 0, 0));
    while let Some(item) = items.next()? {
        let Key {
            object,
            kind,
            offset,
        } = item.key;
        if object >= asked.end {
            break;
        }
        let len = match kind {
            EXTENT_ITEM => offset,
            METADATA_ITEM => u64::from(store.superblock().node_bytes),
            _ => continue,
        };
        extents.add(object..object.saturating_add(len));
    }
    Ok(())
}

/// Returns where the extent begins that may hold an address: the last one that does not begin behind
/// it.
fn first_extent(store: &Store, tree: &NodeAt, logical: u64) -> Result<u64> {
    let mut key = Key::new(logical, METADATA_ITEM, u64::MAX);
    for _ in 0..MOST_BACK {
        let Some(item) = store.floor(tree, key)? else {
            return Ok(logical);
        };
        if matches!(item.key.kind, EXTENT_ITEM | METADATA_ITEM) {
            return Ok(item.key.object);
        }
        key = match item.key.kind {
            kind if kind > METADATA_ITEM => Key::new(item.key.object, METADATA_ITEM, u64::MAX),
            _ => match item.key.object.checked_sub(1) {
                Some(before) => Key::new(before, u8::MAX, u64::MAX),
                None => return Ok(logical),
            },
        };
    }
    Err(Error::corrupt(
        "btrfs tree of extents",
        format!("no extent before {logical}"),
    ))
}

/// Returns the logical addresses that the log alone knows: its own nodes, and the data they name.
fn logged(store: &Store) -> Result<Ranges> {
    let mut places = Vec::new();
    if let Some(log) = store.superblock().log {
        add_tree(store, &log, &mut places, &mut |item, places| {
            let is_root = item.key.object == LOG_OBJECT && item.key.kind == ROOT_ITEM;
            if is_root {
                let root = Root::decode(item)?.node;
                add_tree(store, &root, places, &mut add_data)?;
            }
            Ok(())
        })
        .map_err(|error| match error.kind() {
            ErrorKind::Corrupt => error.place("log"),
            _ => error,
        })?;
    }
    places.sort_unstable_by_key(|place: &Range<u64>| place.start);
    let mut logged = Ranges::default();
    places.into_iter().for_each(|place| logged.add(place));
    Ok(logged)
}

type Places = Vec<Range<u64>>;

/// Adds the nodes of a tree, and has `each` look at its items.
fn add_tree(
    store: &Store,
    root: &NodeAt,
    places: &mut Places,
    each: &mut dyn FnMut(&Item, &mut Places) -> Result<()>,
) -> Result<()> {
    let node_bytes = u64::from(store.superblock().node_bytes);
    let mut todo = vec![*root];
    while let Some(at) = todo.pop() {
        if places.len() + todo.len() > MOST_LOGGED {
            return Err(Error::unsupported("btrfs with a log that is too long"));
        }
        let node = store.node(&at)?;
        places.push(at.logical..at.logical.saturating_add(node_bytes));
        for index in 0..node.len() {
            match node.level() {
                0 => {
                    if let Some(item) = Item::of(&node, index) {
                        each(&item, places)?;
                    }
                }
                _ => todo.extend(node.child(index)),
            }
        }
    }
    Ok(())
}

/// Adds the data that an item of a file names: kind 0x14 (0: in the item itself), then the extent's
/// address 0x15 and length 0x1d.
fn add_data(item: &Item, places: &mut Places) -> Result<()> {
    let bytes = item.data();
    let is_inline = bytes.get(0x14).is_none_or(|kind| *kind == 0);
    if item.key.kind == EXTENT_DATA && !is_inline {
        let (start, len) = (le::u64_at(bytes, 0x15), le::u64_at(bytes, 0x1d));
        if start != 0 && places.len() < MOST_LOGGED {
            places.push(start..start.saturating_add(len));
        } else if start != 0 {
            return Err(Error::unsupported("btrfs with a log that is too long"));
        }
    }
    Ok(())
}
