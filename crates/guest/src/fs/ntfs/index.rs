//! Directories: sorted names in the record, and in blocks of their own where there are many.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use hako_block::{Error, Result};

use super::names::units;
use super::record::{INDEX_ALLOCATION, INDEX_ROOT, Reference, fix_up};
use super::stream::{File, Stream};
use super::table::Table;
use crate::bytes::{array_at, le};

/// The name of a directory's attributes.
const NAME: &str = "$I30";

/// Deeper than any directory can be.
const DEEPEST: usize = 24;

/// What a directory says of a name.
pub struct IndexName {
    /// What it names.
    pub reference: Reference,
    /// Its letters.
    pub letters: Vec<u16>,
    /// Whether it is but the short form of another name, for DOS.
    pub is_for_dos: bool,
    /// What the named is: flags of files.
    pub attributes: u32,
}

/// The names of a directory.
pub struct Index<'a> {
    table: &'a Table,
    root: Vec<u8>,
    blocks: Option<Stream>,
    block_bytes: u32,
}

/// Names that are sorted, and pointers to blocks with those between them.
struct Node {
    bytes: Vec<u8>,
    at: usize,
    end: usize,
    /// Whether the block before the name at `at` has been gone through.
    is_entered: bool,
}

impl<'a> Index<'a> {
    /// Opens the names of `file`. Root: kind of what is indexed 0, bytes of a block 8, header 0x10.
    pub fn open(table: &'a Table, file: &File) -> Result<Self> {
        let root = file.value(table, INDEX_ROOT, NAME)?;
        let root = root.ok_or_else(|| bad(file, "it has no index"))?;
        let block_bytes = le::u32_at(&root, 8);
        if !block_bytes.is_power_of_two() || !(256..=65536).contains(&block_bytes) {
            return Err(bad(file, format!("blocks of {block_bytes} bytes")));
        }
        Ok(Self {
            table,
            root,
            blocks: file.stream(table, INDEX_ALLOCATION, NAME)?,
            block_bytes,
        })
    }

    /// Calls `each` for the names that `order` says are the wanted ones (equal), in their order, until
    /// it breaks. `order` tells where another name is in relation to them.
    pub fn walk(
        &self,
        order: impl Fn(&[u16]) -> Ordering,
        each: &mut dyn FnMut(IndexName) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut n_blocks = 0;
        let mut stack = vec![Node::decode(self.root.clone(), 0x10)?];
        while let Some(node) = stack.last_mut() {
            let entry = node.entry()?;
            let name = entry.name()?;
            let here = name
                .as_ref()
                .map_or(Ordering::Greater, |name| order(&name.letters));
            if here == Ordering::Less {
                node.advance(entry.len);
                continue;
            }
            if let (Some(block), false) = (entry.block, node.is_entered) {
                node.is_entered = true;
                n_blocks += 1;
                let child = self.block(block, n_blocks)?;
                stack.push(child);
                if stack.len() > DEEPEST {
                    return Err(bad_index("deeper than any directory"));
                }
                continue;
            }
            match (name, here) {
                (None, _) => {
                    stack.pop();
                }
                (Some(name), Ordering::Equal) => {
                    node.advance(entry.len);
                    if each(name)?.is_break() {
                        return Ok(());
                    }
                }
                (Some(_), _) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Reads a block: magic number "INDX", its own number 0x10, header 0x18.
    fn block(&self, number: u64, n_blocks: u64) -> Result<Node> {
        let blocks = self.blocks.as_ref();
        let blocks = blocks.ok_or_else(|| bad_index("a pointer to a block, but no blocks"))?;
        if n_blocks > blocks.len / u64::from(self.block_bytes) {
            return Err(bad_index("blocks in a circle"));
        }
        // Blocks smaller than a cluster are counted in 512 bytes.
        let unit = match self.table.boot().cluster_bytes {
            cluster if cluster > u64::from(self.block_bytes) => 512,
            cluster => cluster,
        };
        let mut bytes = vec![0; self.block_bytes as usize];
        let offset = number.checked_mul(unit);
        let len = match offset {
            Some(offset) => blocks.read(self.table, offset, &mut bytes)?,
            None => 0,
        };
        let place = || format!("NTFS index block {number}");
        if len < bytes.len() {
            return Err(Error::corrupt(place(), "past the end of the index"));
        }
        fix_up(&mut bytes, b"INDX").map_err(|error| error.place(place()))?;
        if le::u64_at(&bytes, 0x10) != number {
            return Err(Error::corrupt(place(), "it is another block"));
        }
        Node::decode(bytes, 0x18).map_err(|error| error.place(place()))
    }
}

/// An entry: file 0, length 8, length of its name's record 0x0a, flags 0x0c, that record 0x10; at
/// its end the block with the names before it.
struct Entry<'a> {
    bytes: &'a [u8],
    len: usize,
    is_last: bool,
    block: Option<u64>,
}

impl Node {
    /// Decodes one whose header is at `header`: first entry 0, end of the entries 4, both counted
    /// from the header.
    fn decode(bytes: Vec<u8>, header: usize) -> Result<Self> {
        let at = header.saturating_add(le::u32_at(&bytes, header) as usize);
        let end = header.saturating_add(le::u32_at(&bytes, header + 4) as usize);
        if end > bytes.len() || at >= end {
            return Err(bad_index("its entries lie outside"));
        }
        Ok(Self {
            bytes,
            at,
            end,
            is_entered: false,
        })
    }

    fn advance(&mut self, len: usize) {
        self.at = self.at.saturating_add(len);
        self.is_entered = false;
    }

    fn entry(&self) -> Result<Entry<'_>> {
        const HEAD_BYTES: usize = 0x10;
        const HAS_BLOCK: u16 = 1;
        const IS_LAST: u16 = 2;
        let rest = self.bytes.get(self.at..self.end).unwrap_or_default();
        let len = usize::from(le::u16_at(rest, 8));
        let bytes = rest.get(..len).filter(|bytes| bytes.len() >= HEAD_BYTES);
        let bytes = bytes.ok_or_else(|| bad_index("entries without end"))?;
        let flags = le::u16_at(bytes, 0x0c);
        let block = (flags & HAS_BLOCK != 0).then(|| le::u64_at(bytes, len - 8));
        Ok(Entry {
            bytes,
            len,
            is_last: flags & IS_LAST != 0,
            block,
        })
    }
}

impl Entry<'_> {
    /// Decodes its name; the last entry has none. Record of a name: attributes 0x38, number of
    /// letters 0x40, for whom 0x41, letters 0x42.
    fn name(&self) -> Result<Option<IndexName>> {
        const DOS: u8 = 2;
        if self.is_last {
            return Ok(None);
        }
        let len = usize::from(le::u16_at(self.bytes, 0x0a));
        let record = self.bytes.get(0x10..).and_then(|rest| rest.get(..len));
        let record = record.unwrap_or_default();
        let [n_letters, namespace] = array_at(record, 0x40);
        let letters = record.get(0x42..0x42 + 2 * usize::from(n_letters));
        let letters = letters.filter(|letters| !letters.is_empty());
        Ok(Some(IndexName {
            reference: Reference(le::u64_at(self.bytes, 0)),
            letters: units(letters.ok_or_else(|| bad_index("a name lies outside"))?).collect(),
            is_for_dos: namespace == DOS,
            attributes: le::u32_at(record, 0x38),
        }))
    }
}

fn bad(file: &File, what: impl Into<String>) -> Error {
    Error::corrupt(format!("NTFS directory {}", file.reference.record()), what)
}

fn bad_index(what: &str) -> Error {
    super::bad(format!("a directory's index: {what}"))
}
