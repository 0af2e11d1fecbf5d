//! A new file growing at its end: clusters in ascending order, compressed bytes packed, refcount
//! blocks as they fill up, small writes gathered.

use std::collections::VecDeque;
use std::sync::Arc;

use hako_block::{Error, Result, Storage};

use super::header::MAX_REFCOUNT_TABLE_BYTES;
use super::layout::Layout;

const BUFFER_BYTES: usize = 1 << 20;
/// Bytes of a refcount in files that hako makes.
const COUNT_BYTES: usize = 2;

/// Appends to a new file. Every cluster given out has a refcount of one; packed bytes add theirs.
pub struct Appender {
    storage: Arc<dyn Storage>,
    layout: Layout,
    /// The next free cluster.
    next: u64,
    /// Where packed bytes go on.
    tail: Option<Tail>,
    /// Refcount blocks not yet written: clusters from `first_block` on.
    blocks: VecDeque<Vec<u8>>,
    first_block: u64,
    /// File offsets of the blocks written, big-endian: the refcount table.
    table: Vec<u8>,
    buffer: Vec<u8>,
    buffer_offset: u64,
}

/// A cluster of packed bytes that has room.
#[derive(Clone, Copy)]
struct Tail {
    cluster: u64,
    used: u64,
}

/// Where the refcount table ended up.
pub struct RefcountTable {
    /// File offset.
    pub offset: u64,
    /// Its clusters.
    pub n_clusters: u64,
}

impl Appender {
    /// Begins at the start of the file.
    pub fn new(storage: Arc<dyn Storage>, layout: Layout) -> Self {
        Self {
            storage,
            layout,
            next: 0,
            tail: None,
            blocks: VecDeque::new(),
            first_block: 0,
            table: Vec::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            buffer_offset: 0,
        }
    }

    /// Returns how many clusters a file of this layout can count.
    pub fn max_clusters(layout: &Layout) -> u64 {
        (MAX_REFCOUNT_TABLE_BYTES / 8) << layout.block_shift()
    }

    /// Returns the file offset of `n` new clusters in a row.
    pub fn allocate(&mut self, n: u64) -> Result<u64> {
        let offset = self.take(n);
        self.write_full_blocks()?;
        Ok(offset)
    }

    /// Returns the file offset of `len` new packed bytes, fewer than a cluster.
    pub fn pack(&mut self, len: u64) -> Result<u64> {
        let cluster_bytes = self.layout.cluster_bytes();
        let goes_on = self
            .tail
            .filter(|tail| tail.used + len <= cluster_bytes || tail.cluster + 1 == self.next);
        let (offset, mut end) = match goes_on {
            Some(tail) => {
                self.count(tail.cluster);
                (
                    (tail.cluster << self.layout.cluster_shift) + tail.used,
                    tail.used + len,
                )
            }
            None => (self.take(1), len),
        };
        let mut cluster = offset >> self.layout.cluster_shift;
        if end > cluster_bytes {
            cluster = self.take(1) >> self.layout.cluster_shift;
            end -= cluster_bytes;
        }
        self.tail = (end < cluster_bytes).then_some(Tail { cluster, used: end });
        self.write_full_blocks()?;
        Ok(offset)
    }

    /// Writes bytes, gathering what follows one another.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let follows = offset == self.buffer_offset + self.buffer.len() as u64;
        if !follows || self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.write_buffer()?;
        }
        if bytes.len() > BUFFER_BYTES / 2 && self.buffer.is_empty() {
            return self.storage.write_at(offset, bytes);
        }
        if self.buffer.is_empty() {
            self.buffer_offset = offset;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes zeros from `offset` to the end of its cluster.
    pub fn pad(&mut self, offset: u64) -> Result<()> {
        let used = self.layout.in_cluster(offset);
        if used == 0 {
            return Ok(());
        }
        self.write(
            offset,
            &vec![0; (self.layout.cluster_bytes() - used) as usize],
        )
    }

    /// Writes the remaining refcount blocks and the refcount table; returns where the table is.
    pub fn finish(&mut self) -> Result<RefcountTable> {
        let cluster_bytes = self.layout.cluster_bytes();
        let used = self.next;
        let (mut n_blocks, mut n_table) = (0, 0);
        loop {
            let n_clusters = used + n_blocks + n_table;
            let n_all_blocks = n_clusters.div_ceil(1 << self.layout.block_shift());
            let next = (
                n_all_blocks - self.first_block,
                (n_all_blocks * 8).div_ceil(cluster_bytes),
            );
            if next == (n_blocks, n_table) {
                break;
            }
            (n_blocks, n_table) = next;
        }
        let mut block_offset = self.take(n_blocks);
        let offset = self.take(n_table);
        while let Some(block) = self.blocks.pop_front() {
            self.write(block_offset, &block)?;
            self.table.extend(block_offset.to_be_bytes());
            block_offset += cluster_bytes;
        }
        let mut table = std::mem::take(&mut self.table);
        table.resize((n_table * cluster_bytes) as usize, 0);
        self.refuse_long_table(table.len())?;
        self.write(offset, &table)?;
        self.write_buffer()?;
        Ok(RefcountTable {
            offset,
            n_clusters: n_table,
        })
    }

    /// Returns the length of the file.
    pub fn len_bytes(&self) -> u64 {
        self.next << self.layout.cluster_shift
    }

    /// Writes what was gathered.
    fn write_buffer(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.storage.write_at(self.buffer_offset, &self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn take(&mut self, n: u64) -> u64 {
        let first = self.next;
        self.next += n;
        for cluster in first..self.next {
            self.count(cluster);
        }
        first << self.layout.cluster_shift
    }

    /// Adds one to the refcount of a cluster whose block is not written yet.
    fn count(&mut self, cluster: u64) {
        let shift = self.layout.block_shift();
        let block = ((cluster >> shift) - self.first_block) as usize;
        while self.blocks.len() <= block {
            self.blocks
                .push_back(vec![0; self.layout.cluster_bytes() as usize]);
        }
        let at = (cluster & ((1 << shift) - 1)) as usize * COUNT_BYTES;
        let count = &mut self.blocks[block][at..at + COUNT_BYTES];
        let more = u16::from_be_bytes([count[0], count[1]]).saturating_add(1);
        count.copy_from_slice(&more.to_be_bytes());
    }

    /// Writes the refcount blocks whose clusters are all given out, at the end of the file.
    fn write_full_blocks(&mut self) -> Result<()> {
        while (self.first_block + 1) << self.layout.block_shift() <= self.next {
            let offset = self.take(1);
            let Some(block) = self.blocks.pop_front() else {
                break;
            };
            self.first_block += 1;
            let first_cluster = self.first_block << self.layout.block_shift();
            self.tail = self.tail.filter(|tail| tail.cluster >= first_cluster);
            self.write(offset, &block)?;
            self.table.extend(offset.to_be_bytes());
            self.refuse_long_table(self.table.len())?;
        }
        Ok(())
    }

    fn refuse_long_table(&self, len: usize) -> Result<()> {
        if len as u64 <= MAX_REFCOUNT_TABLE_BYTES {
            return Ok(());
        }
        Err(
            Error::invalid("the file grows beyond what its refcount table can count")
                .hint("choose larger clusters"),
        )
    }
}
