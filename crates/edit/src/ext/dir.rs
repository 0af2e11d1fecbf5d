//! Directories (kernel documentation, ext4, "Directory Entries"). A name goes where there is room;
//! a directory with an index by hashes becomes one without: Linux reads both, and the blocks of the
//! index look like blocks without names.

use hako_block::{Error, ErrorKind, Result};
use hako_guest::bytes::le::{u16_at, u32_at};
use hako_guest::volume::read_vec;

use super::inode::{FLAG_INDEX, Inode, Kind};
use super::layout::{INCOMPAT_FILETYPE, sum};
use super::{Ext, put};

const HEAD_BYTES: usize = 8;
/// The entry without a name that ends a block with a sum.
const TAIL_BYTES: usize = 12;
/// Blocks of a directory that is changed: 16 MiB at least.
const MOST_BLOCKS: u64 = 1 << 14;

/// A place in a block of names.
struct Slot {
    at: usize,
    len: usize,
    number: u32,
    name: Vec<u8>,
}

impl Ext {
    /// Returns the inode that a directory has a name for.
    pub(super) fn look_up(&self, directory: &Inode, name: &[u8]) -> Result<Option<u32>> {
        for block in self.blocks_of_names(directory)? {
            let bytes = self.names(directory, block)?;
            let slots = self.slots(directory, &bytes)?;
            if let Some(slot) = slots
                .iter()
                .find(|slot| slot.number != 0 && slot.name == name)
            {
                return Ok(Some(slot.number));
            }
        }
        Ok(None)
    }

    /// Returns whether there is nothing in a directory but itself and the one above it.
    pub(super) fn is_empty(&self, directory: &Inode) -> Result<bool> {
        for block in self.blocks_of_names(directory)? {
            let bytes = self.names(directory, block)?;
            let slots = self.slots(directory, &bytes)?;
            let is_other =
                |slot: &Slot| slot.number != 0 && slot.name != b"." && slot.name != b"..";
            if slots.iter().any(is_other) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Refuses what is no name, or one that a directory has.
    pub(super) fn refuse_taken(&self, directory: &Inode, name: &[u8]) -> Result<()> {
        let is_name = (1..=255).contains(&name.len())
            && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
            && name != b"."
            && name != b"..";
        if !is_name {
            return Err(Error::invalid("no name for a file"));
        }
        match self.look_up(directory, name)? {
            None => Ok(()),
            Some(_) => Err(Error::new(ErrorKind::Exists, "the name is taken")),
        }
    }

    /// Gives `number` a name in a directory, which [`Ext::refuse_taken`] let pass.
    pub(super) fn insert(
        &mut self,
        directory: &mut Inode,
        name: &[u8],
        number: u32,
        kind: Kind,
    ) -> Result<()> {
        if directory.has(FLAG_INDEX) {
            self.drop_index(directory)?;
        }
        let entry = self.entry(name, number, kind);
        for block in self.blocks_of_names(directory)? {
            let mut bytes = self.names(directory, block)?;
            for slot in self.slots(directory, &bytes)? {
                let used = match slot.number {
                    0 => 0,
                    _ => (HEAD_BYTES + slot.name.len()).next_multiple_of(4),
                };
                let Some(room) = slot
                    .len
                    .checked_sub(used)
                    .filter(|room| *room >= entry.len())
                else {
                    continue;
                };
                if used > 0 {
                    put(&mut bytes, slot.at + 4, &(used as u16).to_le_bytes());
                }
                put(&mut bytes, slot.at + used, &entry);
                put(&mut bytes, slot.at + used + 4, &(room as u16).to_le_bytes());
                return self.write_names(directory, block, bytes);
            }
        }
        self.insert_behind(directory, entry)
    }

    /// Takes a name out of a directory.
    pub(super) fn take_out(&mut self, directory: &Inode, name: &[u8]) -> Result<()> {
        for block in self.blocks_of_names(directory)? {
            let mut bytes = self.names(directory, block)?;
            let slots = self.slots(directory, &bytes)?;
            let found = slots
                .iter()
                .position(|slot| slot.number != 0 && slot.name == name);
            let Some(index) = found else {
                continue;
            };
            let (before, slot) = (
                index.checked_sub(1).and_then(|at| slots.get(at)),
                &slots[index],
            );
            match before {
                Some(before) => {
                    let len = (before.len + slot.len) as u16;
                    put(&mut bytes, before.at + 4, &len.to_le_bytes());
                }
                None => put(&mut bytes, slot.at, &[0; 4]),
            }
            return self.write_names(directory, block, bytes);
        }
        Err(Error::new(ErrorKind::NotFound, "there is no such name"))
    }

    /// Returns the block of a new directory.
    pub(super) fn first_names(&self, own: u32, parent: u32) -> Vec<u8> {
        let mut bytes = vec![0; self.layout.block_bytes as usize];
        let end = self.names_end();
        for (at, len, name, number) in [(0, 12, &b"."[..], own), (12, end - 12, b"..", parent)] {
            put(&mut bytes, at, &self.entry(name, number, Kind::Directory));
            put(&mut bytes, at + 4, &(len as u16).to_le_bytes());
        }
        bytes
    }

    /// Writes a block of names with its sum.
    pub(super) fn write_names(
        &mut self,
        directory: &Inode,
        block: u64,
        mut bytes: Vec<u8>,
    ) -> Result<()> {
        let end = self.names_end();
        if let Some(seed) = self.layout.seed {
            let found = sum(
                directory.seed(seed),
                &[bytes.get(..end).unwrap_or_default()],
            );
            put(&mut bytes, end, &[0, 0, 0, 0, TAIL_BYTES as u8, 0, 0, 0xde]);
            put(&mut bytes, end + 8, &found.to_le_bytes());
        }
        self.write_block(block, &bytes)
    }

    /// Returns where in a block names end.
    fn names_end(&self) -> usize {
        let tail = if self.layout.seed.is_some() {
            TAIL_BYTES
        } else {
            0
        };
        self.layout.block_bytes as usize - tail
    }

    fn entry(&self, name: &[u8], number: u32, kind: Kind) -> Vec<u8> {
        let len = (HEAD_BYTES + name.len()).next_multiple_of(4);
        let mut entry = vec![0; len];
        put(&mut entry, 0, &number.to_le_bytes());
        put(&mut entry, 4, &(len as u16).to_le_bytes());
        put(&mut entry, 6, &[name.len() as u8]);
        if self.layout.incompat(INCOMPAT_FILETYPE) {
            put(&mut entry, 7, &[kind.in_entry()]);
        }
        put(&mut entry, HEAD_BYTES, name);
        entry
    }

    /// Puts an entry into a new block behind the others.
    fn insert_behind(&mut self, directory: &mut Inode, entry: Vec<u8>) -> Result<()> {
        let mut content = self.content(directory)?;
        let bytes = self.layout.block_bytes;
        let logical = directory.len_bytes() / bytes;
        let n_tables = content.tables.len() as i64;
        let runs = self.take_blocks(self.group_of(directory), 1)?;
        content.add(logical, &runs);
        let tables = self.set_content(directory, &content)? as i64;
        directory.add_blocks(1 + tables - n_tables, bytes)?;
        directory.set_len((logical + 1) * bytes);
        let mut block = entry;
        let end = self.names_end();
        put(&mut block, 4, &(end as u16).to_le_bytes());
        block.resize(bytes as usize, 0);
        let at = runs.first().map_or(0, |run| run.start);
        self.write_names(directory, at, block)
    }

    /// Makes a directory with an index one without.
    fn drop_index(&mut self, directory: &mut Inode) -> Result<()> {
        let blocks = self.blocks_of_names(directory)?;
        let end = self.names_end();
        for (logical, block) in blocks.into_iter().enumerate() {
            let bytes = self.names_unchecked(block)?;
            if logical == 0 {
                let parent = u32_at(&bytes, 12);
                let names = self.first_names(directory.number, parent);
                self.write_names(directory, block, names)?;
            } else if is_index(&bytes) {
                let mut empty = vec![0; bytes.len()];
                put(&mut empty, 4, &(end as u16).to_le_bytes());
                self.write_names(directory, block, empty)?;
            }
        }
        directory.set_flags(directory.flags() & !FLAG_INDEX);
        Ok(())
    }

    fn blocks_of_names(&self, directory: &Inode) -> Result<Vec<u64>> {
        let bytes = self.layout.block_bytes;
        let n = directory.len_bytes() / bytes;
        if n > MOST_BLOCKS || !directory.len_bytes().is_multiple_of(bytes) {
            return Err(Error::unsupported(
                "a directory of that length is not changed",
            ));
        }
        let content = self.content(directory)?;
        let blocks = (0..n).map(|logical| content.block(logical));
        let blocks: Option<Vec<u64>> = blocks.collect();
        blocks.ok_or_else(|| directory.corrupt("a directory with holes"))
    }

    fn names_unchecked(&self, block: u64) -> Result<Vec<u8>> {
        let bytes = self.layout.block_bytes;
        read_vec(&*self.volume, block * bytes, bytes as usize)
    }

    /// Reads a block of names. Errors: corrupt if its sum is wrong.
    fn names(&self, directory: &Inode, block: u64) -> Result<Vec<u8>> {
        let bytes = self.names_unchecked(block)?;
        let end = self.names_end();
        if let Some(seed) = self.layout.seed
            && !(directory.has(FLAG_INDEX) && is_index(&bytes))
        {
            let found = sum(
                directory.seed(seed),
                &[bytes.get(..end).unwrap_or_default()],
            );
            if u32_at(&bytes, end + 8) != found {
                return Err(directory.corrupt("the checksum of its names is wrong"));
            }
        }
        Ok(bytes)
    }

    /// Takes a block of names apart.
    fn slots(&self, directory: &Inode, bytes: &[u8]) -> Result<Vec<Slot>> {
        let mut slots = Vec::new();
        if directory.has(FLAG_INDEX) && is_index(bytes) {
            return Ok(slots);
        }
        let mut at = 0;
        while at < self.names_end() {
            let len = usize::from(u16_at(bytes, at + 4));
            let name_len = usize::from(bytes.get(at + 6).copied().unwrap_or(0));
            let number = u32_at(bytes, at);
            let is_sound = len >= HEAD_BYTES
                && len.is_multiple_of(4)
                && at + len <= self.names_end()
                && (number == 0 || HEAD_BYTES + name_len <= len);
            if !is_sound {
                return Err(directory.corrupt("its names are damaged"));
            }
            let name = bytes.get(at + HEAD_BYTES..at + HEAD_BYTES + name_len);
            slots.push(Slot {
                at,
                len,
                number,
                name: name.unwrap_or_default().to_vec(),
            });
            at += len;
        }
        Ok(slots)
    }
}

/// Whether a block of a directory with an index is a part of that: its only entries are empty, or
/// itself and the one above.
fn is_index(bytes: &[u8]) -> bool {
    let fills = |at: usize| usize::from(u16_at(bytes, at + 4)) + at == bytes.len();
    match u32_at(bytes, 0) {
        0 => fills(0),
        _ => u16_at(bytes, 4) == 12 && fills(12),
    }
}
