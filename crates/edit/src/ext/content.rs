//! Where the content of a file is: extent trees, and block maps of ext2 and ext3 (kernel
//! documentation, ext4, "The Contents of inode.i_block").

use hako_block::{Error, Result};
use hako_guest::bytes::le::{u16_at, u32_at};
use hako_guest::volume::read_vec;

use super::group::Run;
use super::inode::{FLAG_EXTENTS, Inode};
use super::layout::sum;
use super::{Ext, put};

const MAGIC: u16 = 0xf30a;
const ENTRY_BYTES: usize = 12;
/// Entries in an inode.
const IN_INODE: usize = 4;
/// ee_len: longer ones are not written yet, and so much shorter.
const MOST_BLOCKS: u64 = 0x8000;
const DEEPEST: u16 = 5;
/// Extents, or blocks of a map, that are read of one file.
const MOST_EXTENTS: usize = 1 << 21;
/// Block numbers in an inode that are no tables.
const N_DIRECT: u64 = 12;

/// Blocks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first of them as the file counts.
    pub(super) logical: u64,
    pub(super) run: Run,
    pub(super) is_written: bool,
}

/// Where a file's content is.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Ascending; where there is none, there are zeros.
    pub(super) extents: Vec<Extent>,
    /// Blocks that say so.
    pub(super) tables: Vec<u64>,
}

impl Content {
    pub(super) fn n_blocks(&self) -> u64 {
        self.extents.iter().map(|extent| extent.run.len).sum()
    }

    /// Adds runs behind the others, from the file's block `logical` on.
    pub(super) fn add(&mut self, logical: u64, runs: &[Run]) {
        let mut logical = logical;
        for run in runs {
            let run = *run;
            match self.extents.last_mut() {
                Some(last)
                    if last.is_written
                        && last.logical + last.run.len == logical
                        && last.run.start + last.run.len == run.start =>
                {
                    last.run.len += run.len;
                }
                _ => self.extents.push(Extent {
                    logical,
                    run,
                    is_written: true,
                }),
            }
            logical += run.len;
        }
    }

    /// Takes away what lies from the file's block `logical` on. Returns the blocks.
    pub(super) fn cut(&mut self, logical: u64) -> Vec<Run> {
        let mut gone = Vec::new();
        for extent in &mut self.extents {
            let keep = logical.saturating_sub(extent.logical).min(extent.run.len);
            if keep < extent.run.len {
                gone.push(Run {
                    start: extent.run.start + keep,
                    len: extent.run.len - keep,
                });
                extent.run.len = keep;
            }
        }
        self.extents.retain(|extent| extent.run.len > 0);
        gone
    }

    /// Returns the block with the file's block `logical`, if that is stored.
    pub(super) fn block(&self, logical: u64) -> Option<u64> {
        let next = self
            .extents
            .partition_point(|extent| extent.logical <= logical);
        let extent = self.extents.get(next.checked_sub(1)?)?;
        let within = logical - extent.logical;
        (within < extent.run.len && extent.is_written).then(|| extent.run.start + within)
    }
}

impl Ext {
    /// Reads where the content of an inode is.
    pub(super) fn content(&self, inode: &Inode) -> Result<Content> {
        let mut content = Content::default();
        match inode.has(FLAG_EXTENTS) {
            true => self.read_node(inode, inode.map(), DEEPEST + 1, &mut content)?,
            false => self.read_map(inode, &mut content)?,
        }
        let mut from = 0;
        for extent in &content.extents {
            let end = extent.run.start.checked_add(extent.run.len);
            if extent.logical < from
                || extent.run.start <= self.layout.first_block
                || end.is_none_or(|end| end > self.layout.n_blocks)
            {
                return Err(inode.corrupt("its blocks overlap or lie outside"));
            }
            from = extent.logical + extent.run.len;
        }
        Ok(content)
    }

    /// Adds what a node of the extent tree says, which must lie below `level`.
    fn read_node(
        &self,
        inode: &Inode,
        node: &[u8],
        level: u16,
        content: &mut Content,
    ) -> Result<()> {
        let (n, depth) = (usize::from(u16_at(node, 2)), u16_at(node, 6));
        let room = (node.len() / ENTRY_BYTES).saturating_sub(1);
        if u16_at(node, 0) != MAGIC || n > room || depth >= level {
            return Err(inode.corrupt("a node of its extents is damaged"));
        }
        for entry in node.chunks_exact(ENTRY_BYTES).skip(1).take(n) {
            if content.extents.len() + content.tables.len() > MOST_EXTENTS {
                return Err(inode.corrupt("too many extents"));
            }
            if depth > 0 {
                let at = u64::from(u16_at(entry, 8)) << 32 | u64::from(u32_at(entry, 4));
                let below = self.table(at)?;
                self.check_node(inode, &below)?;
                content.tables.push(at);
                self.read_node(inode, &below, depth, content)?;
                continue;
            }
            let len = u64::from(u16_at(entry, 4));
            let is_written = len <= MOST_BLOCKS;
            content.extents.push(Extent {
                logical: u64::from(u32_at(entry, 0)),
                run: Run {
                    start: u64::from(u16_at(entry, 6)) << 32 | u64::from(u32_at(entry, 8)),
                    len: if is_written { len } else { len - MOST_BLOCKS },
                },
                is_written,
            });
        }
        Ok(())
    }

    fn check_node(&self, inode: &Inode, node: &[u8]) -> Result<()> {
        let at = (usize::from(u16_at(node, 4)) + 1) * ENTRY_BYTES;
        let covered = node.get(..at).unwrap_or_default();
        match self.layout.seed {
            Some(seed) if sum(inode.seed(seed), &[covered]) != u32_at(node, at) => {
                Err(inode.corrupt("the checksum of its extents is wrong"))
            }
            _ => Ok(()),
        }
    }

    fn table(&self, at: u64) -> Result<Vec<u8>> {
        if at <= self.layout.first_block || at >= self.layout.n_blocks {
            return Err(Error::corrupt("file", format!("block {at} lies outside")));
        }
        let bytes = self.layout.block_bytes;
        read_vec(&*self.volume, at * bytes, bytes as usize)
    }

    /// Reads a block map: 12 blocks, then tables of one and two levels. Three levels are refused.
    fn read_map(&self, inode: &Inode, content: &mut Content) -> Result<()> {
        let map = inode.map();
        let per_table = self.layout.block_bytes / 4;
        let add = |content: &mut Content, logical: u64, block: u32| {
            if block != 0 {
                let start = u64::from(block);
                content.add(logical, &[Run { start, len: 1 }]);
            }
        };
        for logical in 0..N_DIRECT {
            add(content, logical, u32_at(map, logical as usize * 4));
        }
        let mut tables = Vec::new();
        let single = u32_at(map, 48);
        tables.push((N_DIRECT, single));
        let double = u32_at(map, 52);
        if double != 0 {
            content.tables.push(double.into());
            let numbers = self.table(double.into())?;
            let firsts = (0..).map(|n| N_DIRECT + per_table + n * per_table);
            tables.extend(firsts.zip(numbers.chunks_exact(4).map(|number| u32_at(number, 0))));
        }
        for (first, table) in tables.into_iter().filter(|(_, table)| *table != 0) {
            content.tables.push(table.into());
            let numbers = self.table(table.into())?;
            for (logical, number) in (first..).zip(numbers.chunks_exact(4)) {
                add(content, logical, u32_at(number, 0));
            }
            if content.extents.len() > MOST_EXTENTS {
                return Err(inode.corrupt("too many blocks"));
            }
        }
        match u32_at(map, 56) {
            0 => Ok(()),
            _ => Err(Error::unsupported(
                "a file of three levels of tables is not written",
            )),
        }
    }

    /// Says anew where the content of an inode is; the tables that said so go. The count of its
    /// blocks is not changed. Returns how many tables there are now.
    pub(super) fn set_content(&mut self, inode: &mut Inode, content: &Content) -> Result<u64> {
        for table in &content.tables {
            self.later_free.push(Run {
                start: *table,
                len: 1,
            });
        }
        match inode.has(FLAG_EXTENTS) {
            true => self.write_tree(inode, &content.extents),
            false => self.write_map(inode, &content.extents),
        }
    }

    fn write_tree(&mut self, inode: &mut Inode, extents: &[Extent]) -> Result<u64> {
        let pieces: Vec<Extent> = extents.iter().flat_map(pieces).collect();
        let leaf = |entries: &[Extent], room: usize| {
            let mut node = header(entries.len(), room, 0);
            for extent in entries {
                let unwritten = if extent.is_written { 0 } else { MOST_BLOCKS };
                node.extend((extent.logical as u32).to_le_bytes());
                node.extend(((extent.run.len + unwritten) as u16).to_le_bytes());
                node.extend(((extent.run.start >> 32) as u16).to_le_bytes());
                node.extend((extent.run.start as u32).to_le_bytes());
            }
            node
        };
        if pieces.len() <= IN_INODE {
            inode.set_map(&leaf(&pieces, IN_INODE));
            return Ok(0);
        }
        let bytes = self.layout.block_bytes as usize;
        let room = bytes / ENTRY_BYTES - 1;
        let n_leaves = pieces.len().div_ceil(room);
        if n_leaves > IN_INODE {
            let what = format!("its content would lie in {} pieces", pieces.len());
            return Err(Error::unsupported(what));
        }
        let tables = self.take_blocks(self.group_of(inode), n_leaves as u64)?;
        let tables = tables.iter().flat_map(|run| run.start..run.start + run.len);
        let mut top = header(n_leaves, IN_INODE, 1);
        for (table, entries) in tables.zip(pieces.chunks(room)) {
            let mut node = leaf(entries, room);
            node.resize(bytes, 0);
            let covered = (room + 1) * ENTRY_BYTES;
            if let Some(seed) = self.layout.seed {
                let found = sum(inode.seed(seed), &[node.get(..covered).unwrap_or_default()]);
                put(&mut node, covered, &found.to_le_bytes());
            }
            self.write_block(table, &node)?;
            let first = entries.first().map_or(0, |extent| extent.logical);
            top.extend((first as u32).to_le_bytes());
            top.extend((table as u32).to_le_bytes());
            top.extend(((table >> 32) as u16).to_le_bytes());
            top.extend([0; 2]);
        }
        inode.set_map(&top);
        Ok(n_leaves as u64)
    }

    fn write_map(&mut self, inode: &mut Inode, extents: &[Extent]) -> Result<u64> {
        let per_table = self.layout.block_bytes / 4;
        let end = extents.last().map_or(0, |last| last.logical + last.run.len);
        let most = N_DIRECT + per_table + per_table * per_table;
        if end > most {
            let what = format!("a file of {end} blocks: more than {most} are not written");
            return Err(Error::unsupported(what));
        }
        let mut numbers = vec![0_u32; end as usize];
        for extent in extents {
            let places = numbers.iter_mut().skip(extent.logical as usize);
            for (place, block) in places.zip(extent.run.start..extent.run.start + extent.run.len) {
                *place = u32::try_from(block)
                    .map_err(|_| Error::unsupported("a block map of so large a disk"))?;
            }
        }
        let (direct, rest) = numbers.split_at(numbers.len().min(N_DIRECT as usize));
        let (single, rest) = rest.split_at(rest.len().min(per_table as usize));
        let mut map: Vec<u32> = direct.to_vec();
        map.resize(15, 0);
        let mut n_tables = 0;
        if let [.., one, two, _] = map.as_mut_slice() {
            *one = self.write_table(inode, single, &mut n_tables)?;
            let mut tables = Vec::new();
            for part in rest.chunks(per_table as usize) {
                tables.push(self.write_table(inode, part, &mut n_tables)?);
            }
            *two = self.write_table(inode, &tables, &mut n_tables)?;
        }
        let bytes: Vec<u8> = map.iter().flat_map(|number| number.to_le_bytes()).collect();
        inode.set_map(&bytes);
        Ok(n_tables)
    }

    /// Writes block numbers into a block of their own; 0 if all of them are.
    fn write_table(&mut self, inode: &Inode, numbers: &[u32], n: &mut u64) -> Result<u32> {
        if numbers.iter().all(|number| *number == 0) {
            return Ok(0);
        }
        let runs = self.take_blocks(self.group_of(inode), 1)?;
        let at = runs.first().map_or(0, |run| run.start);
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|one| one.to_le_bytes()).collect();
        bytes.resize(self.layout.block_bytes as usize, 0);
        self.write_block(at, &bytes)?;
        *n += 1;
        u32::try_from(at).map_err(|_| Error::unsupported("a block map of so large a disk"))
    }
}

fn header(n: usize, room: usize, depth: u16) -> Vec<u8> {
    let words = [MAGIC, n as u16, room as u16, depth, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Cuts an extent into such as can be stored.
fn pieces(extent: &Extent) -> impl Iterator<Item = Extent> {
    let most = if extent.is_written {
        MOST_BLOCKS
    } else {
        MOST_BLOCKS - 1
    };
    let whole = *extent;
    (0..whole.run.len)
        .step_by(most as usize)
        .map(move |from| Extent {
            logical: whole.logical + from,
            run: Run {
                start: whole.run.start + from,
                len: most.min(whole.run.len - from),
            },
            ..whole
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_follow_each_other_become_one_and_are_cut_again() {
        let mut content = Content::default();
        let run = |start, len| Run { start, len };
        content.add(0, &[run(10, 5), run(15, 5), run(100, 2)]);
        assert_eq!(content.extents.len(), 2);
        assert_eq!((content.block(9), content.block(10)), (Some(19), Some(100)));
        assert_eq!(content.block(12), None);
        assert_eq!(content.cut(4), [run(14, 6), run(100, 2)]);
        assert_eq!(content.n_blocks(), 4);
    }

    #[test]
    fn long_extents_are_stored_in_pieces() {
        let extent = Extent {
            logical: 7,
            run: Run {
                start: 1000,
                len: 0x8000 + 3,
            },
            is_written: true,
        };
        let found: Vec<_> = pieces(&extent)
            .map(|p| (p.logical, p.run.start, p.run.len))
            .collect();
        assert_eq!(found, [(7, 1000, 0x8000), (7 + 0x8000, 1000 + 0x8000, 3)]);
    }
}
