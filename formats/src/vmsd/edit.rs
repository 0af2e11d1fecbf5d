//! Changes of the list of snapshots, such that VMware's products read it: entries numbered without
//! gaps, as many as it says, uids that never come back.

use std::collections::{BTreeMap, BTreeSet};

use hako_block::{Error, Result};

use super::{
    MAX_SNAPSHOTS, Snapshot, SnapshotDisk, Vmsd, config_key, firmware_key, format_key, indices,
    number_of,
};
use crate::dictionary::Dictionary;

impl Vmsd {
    /// Returns a list of no snapshots.
    #[allow(clippy::new_without_default, reason = "an empty file is another thing")]
    pub fn new() -> Self {
        Self {
            dictionary: Dictionary::new(),
            oddities: Vec::new(),
        }
    }

    /// Returns the uid that the next snapshot gets: one that none ever had. Errors:
    /// [`hako_block::ErrorKind::Corrupt`] if there is no such number left.
    pub fn next_uid(&self) -> Result<u32> {
        let wrong = || Error::corrupt("snapshot.lastUID", "no number is left for a snapshot");
        self.highest_uid().checked_add(1).ok_or_else(wrong)
    }

    /// Adds a snapshot behind the others; the machine's present state comes from it from now on.
    /// Its index is chosen here. Errors: [`hako_block::ErrorKind::Invalid`] for a uid that was
    /// given before, and what [`Dictionary::set`] refuses.
    pub fn add(&mut self, snapshot: &Snapshot) -> Result<()> {
        if snapshot.uid <= self.highest_uid() {
            let what = format!("the uid {} was given to a snapshot before", snapshot.uid);
            return Err(Error::invalid(what));
        }
        self.edit(|list| {
            let index = list.number_entries();
            if index >= MAX_SNAPSHOTS {
                return Err(Error::invalid(format!("{index} snapshots are too many")));
            }
            let uid = snapshot.uid.to_string();
            list.dictionary.set("snapshot.lastUID", &uid)?;
            list.dictionary.set("snapshot.current", &uid)?;
            list.put_count(index + 1)?;
            write(&mut list.dictionary, index, snapshot)
        })
    }

    /// Removes these snapshots; one that stood on a removed one then stands on what that stood on,
    /// and so does the machine's present state. Uids that are not there are no error.
    pub fn remove(&mut self, uids: &BTreeSet<u32>) -> Result<()> {
        let snapshots = self.snapshots();
        let parents = snapshots.iter().map(|one| (one.uid, one.parent)).collect();
        let kept = |from: Option<u32>| kept_ancestor(&parents, uids, from);
        self.edit(|list| {
            for snapshot in &snapshots {
                if uids.contains(&snapshot.uid) {
                    let device = format!("snapshot{}", snapshot.index);
                    list.dictionary.remove_tree(&device);
                    let own = format!("hako.uid{}", snapshot.uid);
                    list.dictionary.remove_tree(&own);
                } else if kept(snapshot.parent) != snapshot.parent {
                    list.put_parent(snapshot.index, kept(snapshot.parent))?;
                }
            }
            let current = list.current();
            if kept(current) != current {
                list.put_current(kept(current))?;
            }
            let count = list.number_entries();
            list.put_count(count)
        })
    }

    /// Says which snapshot the machine's present state comes from.
    pub fn set_current(&mut self, uid: Option<u32>) -> Result<()> {
        self.edit(|list| list.put_current(uid))
    }

    /// Says which image holds what a snapshot's disk held, by its node. Errors:
    /// [`hako_block::ErrorKind::NotFound`] for a snapshot or a disk that is not there.
    pub fn set_disk(&mut self, uid: u32, disk: &SnapshotDisk) -> Result<()> {
        let missing = || {
            let what = format!("no snapshot {uid} with a disk {}", disk.node);
            Error::new(hako_block::ErrorKind::NotFound, what)
        };
        let mut snapshots = self.snapshots().into_iter();
        let index = snapshots.find(|one| one.uid == uid).map(|one| one.index);
        let index = index.ok_or_else(missing)?;
        let node = disk.node.to_string();
        let keys = self.dictionary.entries();
        let is_its_node = |key: &str, value: &str| {
            let key = key.to_ascii_lowercase();
            key.starts_with(&format!("snapshot{index}.disk"))
                && key.ends_with(".node")
                && value.trim().eq_ignore_ascii_case(&node)
        };
        let found = keys.filter(|(key, value)| is_its_node(key, value));
        let keys: Vec<String> = found.map(|(key, _)| key.to_owned()).collect();
        let key = keys.first().ok_or_else(missing)?;
        let device = key[..key.len() - "node".len()].to_owned();
        self.edit(|list| {
            let dictionary = &mut list.dictionary;
            dictionary.set(&format!("{device}fileName"), &disk.file)?;
            put_format(dictionary, uid, disk)
        })
    }

    /// Says whether files of deleted snapshots are still to be merged.
    pub fn set_needs_consolidation(&mut self, is_needed: bool) -> Result<()> {
        const KEY: &str = "snapshot.needConsolidate";
        if is_needed == self.needs_consolidation() {
            return Ok(());
        }
        self.edit(|list| {
            let word = if is_needed { "TRUE" } else { "FALSE" };
            list.dictionary.set(KEY, word)
        })
    }

    /// Mends what the list says of itself: numbers without gaps, how many there are, the highest
    /// uid, parents and a present state that are there.
    pub fn settle(&mut self) -> Result<()> {
        let snapshots = self.snapshots();
        let known: BTreeSet<u32> = snapshots.iter().map(|one| one.uid).collect();
        let is_missing = |uid: &u32| !known.contains(uid);
        self.edit(|list| {
            for snapshot in &snapshots {
                if snapshot.parent.is_some_and(|uid| is_missing(&uid)) {
                    list.put_parent(snapshot.index, None)?;
                }
            }
            if list.current().is_some_and(|uid| is_missing(&uid)) {
                list.put_current(None)?;
            }
            let highest = list.highest_uid();
            if list.last_uid() != Some(highest) {
                let highest = highest.to_string();
                list.dictionary.set("snapshot.lastUID", &highest)?;
            }
            let count = list.number_entries();
            list.put_count(count)
        })
    }

    fn highest_uid(&self) -> u32 {
        let snapshots = self.snapshots();
        let uids = snapshots.iter().map(|one| one.uid);
        uids.chain(self.last_uid()).max().unwrap_or(0)
    }

    fn put_parent(&mut self, index: u32, parent: Option<u32>) -> Result<()> {
        let key = format!("snapshot{index}.parent");
        match parent {
            Some(uid) => self.dictionary.set(&key, &uid.to_string()),
            None => {
                self.dictionary.remove(&key);
                Ok(())
            }
        }
    }

    fn put_current(&mut self, uid: Option<u32>) -> Result<()> {
        let uid = uid.unwrap_or(0).to_string();
        self.dictionary.set("snapshot.current", &uid)
    }

    fn put_count(&mut self, count: usize) -> Result<()> {
        let count = count.to_string();
        self.dictionary.set("snapshot.numSnapshots", &count)
    }

    /// Numbers the entries from 0 on, those that are not understood last. Returns how many are.
    fn number_entries(&mut self) -> usize {
        let snapshots = self.snapshots();
        let n_snapshots = snapshots.len();
        let mut order: Vec<u32> = snapshots.iter().map(|one| one.index).collect();
        let others = indices(&self.dictionary).into_iter();
        let others: Vec<u32> = others.filter(|index| !order.contains(index)).collect();
        order.extend(others);
        let new: BTreeMap<u32, usize> = order.into_iter().zip(0..).collect();
        self.dictionary.rename_keys(|key| {
            let (device, rest) = key.split_once('.')?;
            let old = number_of(&device.to_ascii_lowercase(), "snapshot")?;
            let new = new
                .get(&old)
                .filter(|new| u32::try_from(**new) != Ok(old))?;
            Some(format!("snapshot{new}.{rest}"))
        });
        self.forget_used(&snapshots);
        n_snapshots
    }

    /// Takes snapshots that are gone out of the list of those last used, `snapshot.mruN.uid`.
    fn forget_used(&mut self, snapshots: &[Snapshot]) {
        let is_used = |key: &str| {
            let mut parts = key.split('.');
            let is_list = parts
                .next()
                .is_some_and(|part| part.eq_ignore_ascii_case("snapshot"));
            let number = parts.next().map(str::to_ascii_lowercase);
            is_list && number.is_some_and(|part| number_of(&part, "mru").is_some())
        };
        let used = self.dictionary.entries().filter(|(key, _)| is_used(key));
        let used: Vec<(String, String)> = used.map(|(key, uid)| (key.to_owned(), uid)).collect();
        let is_there = |uid: &str| {
            let uid = uid.trim().parse();
            snapshots.iter().any(|one| Ok(one.uid) == uid)
        };
        if used.iter().all(|(_, uid)| is_there(uid)) {
            return;
        }
        for (key, _) in &used {
            self.dictionary.remove(key);
        }
        let left = used.into_iter().map(|(_, uid)| uid);
        for (number, uid) in left.filter(|uid| is_there(uid)).enumerate() {
            // A number: nothing to refuse.
            let _ = self
                .dictionary
                .set(&format!("snapshot.mru{number}.uid"), uid.trim());
        }
    }

    /// Makes several changes, all or none.
    fn edit(&mut self, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.is_encrypted() {
            return Err(Error::unsupported("the list of snapshots is encrypted")
                .hint("remove the encryption with the product that encrypted it"));
        }
        let mut changed = self.clone();
        change(&mut changed)?;
        *self = changed;
        Ok(())
    }
}

/// Returns the nearest of a snapshot and its ancestors that stays.
fn kept_ancestor(
    parents: &BTreeMap<u32, Option<u32>>,
    removed: &BTreeSet<u32>,
    from: Option<u32>,
) -> Option<u32> {
    let mut next = from;
    // As many steps as there are snapshots: a damaged list may be a ring.
    for _ in 0..=parents.len() {
        let uid = next?;
        if !removed.contains(&uid) {
            return Some(uid);
        }
        next = parents.get(&uid).copied().flatten();
    }
    None
}

/// Writes an entry, in the order of VMware's products.
fn write(dictionary: &mut Dictionary, index: usize, snapshot: &Snapshot) -> Result<()> {
    let mut set = |name: &str, value: &str| {
        let key = format!("snapshot{index}.{name}");
        dictionary.set(&key, value)
    };
    set("uid", &snapshot.uid.to_string())?;
    if let Some(file) = &snapshot.state_file {
        set("filename", file)?;
    }
    if let Some(parent) = snapshot.parent {
        set("parent", &parent.to_string())?;
    }
    set("displayName", &snapshot.name)?;
    set("description", &snapshot.description)?;
    if let Some(time) = snapshot.created_us {
        // Both halves fit; each is written as a signed number.
        let half = |bits: u64| ((bits & 0xffff_ffff) as u32).cast_signed().to_string();
        set("createTimeHigh", &half(time >> 32))?;
        set("createTimeLow", &half(time))?;
    }
    set("numDisks", &snapshot.disks.len().to_string())?;
    for (number, disk) in snapshot.disks.iter().enumerate() {
        set(&format!("disk{number}.fileName"), &disk.file)?;
        set(&format!("disk{number}.node"), &disk.node.to_string())?;
    }
    if let Some(config) = &snapshot.config {
        dictionary.set(&config_key(snapshot.uid), config)?;
    }
    for kept in &snapshot.firmware {
        dictionary.set(&firmware_key(snapshot.uid, kept.key), &kept.file)?;
    }
    for disk in &snapshot.disks {
        put_format(dictionary, snapshot.uid, disk)?;
    }
    Ok(())
}

fn put_format(dictionary: &mut Dictionary, uid: u32, disk: &SnapshotDisk) -> Result<()> {
    let key = format_key(uid, disk.node);
    match disk.format.as_deref().filter(|format| *format != "vmdk") {
        Some(format) => dictionary.set(&key, format),
        None => {
            dictionary.remove(&key);
            Ok(())
        }
    }
}
