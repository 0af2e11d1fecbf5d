//! ext2, ext3 and ext4, written by the kernel's documentation ("ext4 Data Structures and Algorithms").
//!
//! Of what a file system can have, this writer knows what installed systems use, and refuses the rest
//! before it changes anything: bigalloc, quotas, a journal that was not replayed, inline data. New
//! content goes into blocks that are free, and what was freed is used again only by the guest.

mod content;
mod dir;
mod group;
mod inode;
mod label;
mod layout;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};
use hako_guest::volume::{Volume, read_vec};

use self::content::Content;
use self::group::Run;
use self::inode::{FLAG_EXTENTS, Inode, Kind};
use self::layout::{INCOMPAT_EXTENTS, Layout, SUPERBLOCK_AT, SUPERBLOCK_BYTES};
use crate::{Look, Staged};

/// The longest path of a link that is made: it is in the inode.
const SHORT_LINK: usize = 59;
/// Links of a directory from which on Linux does not count any more.
const MOST_LINKS: u16 = 65_000;

/// A file system that is changed in memory. Files and folders go by the numbers of their inodes.
pub struct Ext {
    volume: Arc<Staged>,
    layout: Layout,
    /// What will be free in the end, and nobody's until then.
    later_free: Vec<Run>,
    /// What is to be counted in the superblock.
    free_blocks: i64,
    free_inodes: i64,
    /// Bytes in use that were written to.
    touched: Vec<Range<u64>>,
    /// Names that came (true) and went, by their directory.
    names: BTreeMap<u32, BTreeMap<Vec<u8>, bool>>,
}

/// What was written, for [`crate::check`].
pub struct Traces {
    /// Bytes that were in use and may have changed.
    pub(crate) touched: Vec<Range<u64>>,
    /// Names that came (true) and went, by the inode of their directory.
    pub(crate) names: BTreeMap<u32, BTreeMap<Vec<u8>, bool>>,
    /// The unit of allocation.
    pub(crate) block_bytes: u64,
}

impl Ext {
    /// Opens it. Errors: [`ErrorKind::Unsupported`] for features and states that this writer does not
    /// know, [`ErrorKind::Corrupt`].
    pub fn open(volume: Arc<Staged>) -> Result<Self> {
        let raw = read_vec(&*volume, SUPERBLOCK_AT, SUPERBLOCK_BYTES)?;
        let layout = Layout::decode(raw)?;
        let len = layout.n_blocks.checked_mul(layout.block_bytes);
        if len.is_none_or(|len| len > volume.len_bytes()) {
            return Err(Error::corrupt("superblock", "it is longer than its volume"));
        }
        Ok(Self {
            volume,
            layout,
            later_free: Vec::new(),
            free_blocks: 0,
            free_inodes: 0,
            touched: Vec::new(),
            names: BTreeMap::new(),
        })
    }

    /// Gives a file another content. It keeps its inode, and so its owner, its mode and its labels.
    pub fn replace(&mut self, file: u32, bytes: &[u8], time: u32) -> Result<()> {
        let mut inode = self.inode(file)?;
        inode.expect(Kind::File)?;
        let mut content = self.content(&inode)?;
        let before = content.n_blocks() + content.tables.len() as u64;
        self.later_free.extend(content.cut(0));
        self.add_content(&mut inode, &mut content, 0, bytes, before)?;
        inode.set_len(bytes.len() as u64);
        inode.set_changed(time);
        self.store(&mut inode)
    }

    /// Appends to a file, which must have `len` bytes.
    pub fn append(&mut self, file: u32, len: u64, bytes: &[u8], time: u32) -> Result<()> {
        let mut inode = self.inode(file)?;
        inode.expect(Kind::File)?;
        if inode.len_bytes() != len {
            return Err(inode.corrupt(format!("has {} bytes, not {len}", inode.len_bytes())));
        }
        let mut content = self.content(&inode)?;
        let before = content.n_blocks() + content.tables.len() as u64;
        let block_bytes = self.layout.block_bytes;
        let logical = len.div_ceil(block_bytes);
        let last = content.extents.last();
        if last.is_some_and(|last| last.logical + last.run.len > logical) {
            return Err(Error::unsupported(
                "a file with blocks past its end is not changed",
            ));
        }
        let room = (block_bytes - len % block_bytes) % block_bytes;
        let room = usize::try_from(room).unwrap_or(0).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        if !first.is_empty() {
            let block = content.block(logical.saturating_sub(1));
            let block = block.ok_or_else(|| Error::unsupported("a file that ends in a hole"))?;
            let at = block * block_bytes + len % block_bytes;
            self.touch_bytes(at..at + first.len() as u64);
            self.volume.write_at(at, first)?;
        }
        self.add_content(&mut inode, &mut content, logical, rest, before)?;
        inode.set_len(len + bytes.len() as u64);
        inode.set_changed(time);
        self.store(&mut inode)
    }

    /// Cuts a file to `len` bytes, which it must have.
    pub fn cut(&mut self, file: u32, len: u64, time: u32) -> Result<()> {
        let mut inode = self.inode(file)?;
        inode.expect(Kind::File)?;
        if inode.len_bytes() < len {
            return Err(inode.corrupt("is shorter already"));
        }
        let mut content = self.content(&inode)?;
        let before = content.n_blocks() + content.tables.len() as u64;
        let block_bytes = self.layout.block_bytes;
        self.later_free
            .extend(content.cut(len.div_ceil(block_bytes)));
        let within = len % block_bytes;
        if within > 0
            && let Some(block) = content.block(len / block_bytes)
        {
            let at = block * block_bytes + within;
            let zeros = vec![0; (block_bytes - within) as usize];
            self.touch_bytes(at..at + zeros.len() as u64);
            self.volume.write_at(at, &zeros)?;
        }
        self.add_content(&mut inode, &mut content, 0, &[], before)?;
        inode.set_len(len);
        inode.set_changed(time);
        self.store(&mut inode)
    }

    /// Makes a file in a folder. Returns its inode. Errors: [`ErrorKind::Exists`].
    pub fn create(&mut self, folder: u32, name: &[u8], bytes: &[u8], look: Look) -> Result<u32> {
        let mut inode = self.make(folder, name, Kind::File, look)?;
        let mut content = Content::default();
        self.add_content(&mut inode, &mut content, 0, bytes, 0)?;
        inode.set_len(bytes.len() as u64);
        self.store(&mut inode)?;
        self.enter(folder, name, &inode, look.time)?;
        Ok(inode.number)
    }

    /// Makes a folder in a folder. Returns its inode.
    pub fn make_folder(&mut self, folder: u32, name: &[u8], look: Look) -> Result<u32> {
        let mut inode = self.make(folder, name, Kind::Directory, look)?;
        inode.set_links(2);
        let names = self.first_names(inode.number, folder);
        let mut content = Content::default();
        self.add_content(&mut inode, &mut content, 0, &names, 0)?;
        inode.set_len(self.layout.block_bytes);
        self.store(&mut inode)?;
        let block = content.block(0).unwrap_or(0);
        self.write_names(&inode, block, names)?;
        self.enter(folder, name, &inode, look.time)?;
        Ok(inode.number)
    }

    /// Makes a link to a path of at most 59 bytes in a folder.
    pub fn link(&mut self, folder: u32, name: &[u8], target: &[u8], look: Look) -> Result<u32> {
        if target.is_empty() || target.len() > SHORT_LINK {
            return Err(Error::unsupported("a link to so long a path is not made"));
        }
        let look = Look {
            mode: 0o777,
            ..look
        };
        let mut inode = self.make(folder, name, Kind::Link, look)?;
        inode.set_flags(inode.flags() & !FLAG_EXTENTS);
        inode.set_map(target);
        inode.set_len(target.len() as u64);
        self.store(&mut inode)?;
        self.enter(folder, name, &inode, look.time)?;
        Ok(inode.number)
    }

    /// Takes a name out of a folder, and removes what it named: a file or link when that was its last
    /// name, a folder that is empty.
    pub fn remove(&mut self, folder: u32, name: &[u8], time: u32) -> Result<()> {
        let mut above = self.inode(folder)?;
        above.expect(Kind::Directory)?;
        let Some(number) = self.look_up(&above, name)? else {
            return Err(Error::new(ErrorKind::NotFound, "there is no such name"));
        };
        let mut inode = self.inode(number)?;
        let kind = inode
            .kind()
            .ok_or_else(|| Error::unsupported("a device is not removed"))?;
        inode.expect(kind)?;
        let is_folder = kind == Kind::Directory;
        if is_folder && !self.is_empty(&inode)? {
            return Err(Error::invalid("a folder that is not empty is not removed"));
        }
        let is_last = is_folder || inode.links() == 1;
        if is_last && inode.attribute_block() != 0 {
            return Err(Error::unsupported(
                "a file with long attributes is not removed",
            ));
        }
        self.take_out(&above, name)?;
        above.set_changed(time);
        if is_folder && above.links() > 2 {
            above.set_links(above.links() - 1);
        }
        self.store(&mut above)?;
        self.names
            .entry(folder)
            .or_default()
            .insert(name.to_vec(), false);
        match is_last {
            true => self.bury(&mut inode, kind, time),
            false => {
                inode.set_links(inode.links() - 1);
                self.store(&mut inode)
            }
        }
    }

    /// Frees what is to be free, and counts. Returns what was written.
    pub fn finish(mut self, time: u32) -> Result<Traces> {
        for run in std::mem::take(&mut self.later_free) {
            self.mark(run, false)?;
        }
        let (blocks, inodes) = (self.free_blocks, self.free_inodes);
        let raw = self.layout.count(blocks, inodes, time)?.to_vec();
        self.touch_bytes(SUPERBLOCK_AT..SUPERBLOCK_AT + raw.len() as u64);
        self.volume.write_at(SUPERBLOCK_AT, &raw)?;
        Ok(Traces {
            touched: self.touched,
            names: self.names,
            block_bytes: self.layout.block_bytes,
        })
    }

    fn make(&mut self, folder: u32, name: &[u8], kind: Kind, look: Look) -> Result<Inode> {
        let above = self.inode(folder)?;
        above.expect(Kind::Directory)?;
        self.refuse_taken(&above, name)?;
        let mut inode = self.new_inode(kind, look, &above)?;
        if self.layout.incompat(INCOMPAT_EXTENTS) {
            inode.set_flags(FLAG_EXTENTS);
        }
        Ok(inode)
    }

    /// Gives a new inode its name.
    fn enter(&mut self, folder: u32, name: &[u8], inode: &Inode, time: u32) -> Result<()> {
        let mut above = self.inode(folder)?;
        let kind = inode.kind().unwrap_or(Kind::File);
        self.insert(&mut above, name, inode.number, kind)?;
        if kind == Kind::Directory && above.links() > 1 {
            let links = above.links() + 1;
            above.set_links(if links >= MOST_LINKS { 1 } else { links });
        }
        above.set_changed(time);
        self.store(&mut above)?;
        self.names
            .entry(folder)
            .or_default()
            .insert(name.to_vec(), true);
        Ok(())
    }

    /// Writes content into new blocks, from the file's block `logical` on, and says where all of it
    /// is. `before`: so many blocks the file had, tables too.
    fn add_content(
        &mut self,
        inode: &mut Inode,
        content: &mut Content,
        logical: u64,
        bytes: &[u8],
        before: u64,
    ) -> Result<()> {
        let block_bytes = self.layout.block_bytes;
        let n = (bytes.len() as u64).div_ceil(block_bytes);
        let runs = match n {
            0 => Vec::new(),
            _ => self.take_blocks(self.group_of(inode), n)?,
        };
        let mut rest = bytes;
        for run in &runs {
            let most = usize::try_from(run.len * block_bytes).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(most.min(rest.len()));
            let mut whole = now.to_vec();
            whole.resize(now.len().next_multiple_of(block_bytes as usize), 0);
            self.volume.write_at(run.start * block_bytes, &whole)?;
            rest = later;
        }
        content.add(logical, &runs);
        let n_tables = self.set_content(inode, content)?;
        let now = content.n_blocks() + n_tables;
        inode.add_blocks(now as i64 - before as i64, block_bytes)
    }

    /// Removes an inode that has no name any more.
    fn bury(&mut self, inode: &mut Inode, kind: Kind, time: u32) -> Result<()> {
        let is_short_link = kind == Kind::Link && !inode.has(FLAG_EXTENTS);
        if !is_short_link {
            let mut content = self.content(inode)?;
            let before = content.n_blocks() + content.tables.len() as u64;
            self.later_free.extend(content.cut(0));
            self.add_content(inode, &mut content, 0, &[], before)?;
        }
        inode.set_links(0);
        inode.set_len(0);
        inode.set_changed(time);
        // i_dtime: when it was deleted.
        put(&mut inode.raw, 0x14, &time.max(1).to_le_bytes());
        self.store(inode)?;
        self.free_inode(inode.number, kind == Kind::Directory)
    }

    fn group_of(&self, inode: &Inode) -> u64 {
        let index = u64::from(inode.number.saturating_sub(1));
        index / u64::from(self.layout.inodes_per_group)
    }

    fn write_block(&mut self, block: u64, bytes: &[u8]) -> Result<()> {
        self.touch(block);
        self.volume.write_at(block * self.layout.block_bytes, bytes)
    }

    fn touch(&mut self, block: u64) {
        let at = block * self.layout.block_bytes;
        self.touch_bytes(at..at + self.layout.block_bytes);
    }

    fn touch_bytes(&mut self, range: Range<u64>) {
        self.touched.push(range);
    }
}

/// Writes bytes into a record that was made large enough for them.
fn put(record: &mut [u8], at: usize, bytes: &[u8]) {
    let end = at.saturating_add(bytes.len());
    debug_assert!(end <= record.len(), "a record of {} bytes", record.len());
    if let Some(place) = record.get_mut(at..end) {
        place.copy_from_slice(bytes);
    }
}
