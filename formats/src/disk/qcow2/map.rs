//! From guest offsets to what is stored: L1, L2, runs.

use hako_block::{Error, Result};

use super::layout::{Entry, Kind, Layout, OFFSET_MASK};
use super::tables::Tables;

/// The mapping of one L1 table: of the current state or of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    /// Sizes.
    pub layout: Layout,
    /// File offset of the L1 table.
    pub l1_offset: u64,
    /// Entries of the L1 table.
    pub n_l1: u64,
}

/// A run of guest bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Guest offset.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// What is said of them. A compressed run is (a part of) one cluster.
    pub kind: Kind,
}

impl Map {
    /// Returns where the L1 entry of guest `offset` is.
    pub fn l1_entry_offset(&self, offset: u64) -> Result<u64> {
        let index = self.layout.l1_index(offset);
        if index >= self.n_l1 {
            return Err(Error::corrupt(
                "L1 table",
                format!(
                    "{} entries do not reach guest offset {offset:#x}",
                    self.n_l1
                ),
            ));
        }
        Ok(self.l1_offset + index * 8)
    }

    /// Returns the file offset of an L2 table from its L1 entry; `None` if there is none.
    pub fn l2_offset(&self, l1_entry: u64, at: u64) -> Result<Option<u64>> {
        let offset = l1_entry & OFFSET_MASK;
        if self.layout.in_cluster(offset) != 0 {
            let index = at.saturating_sub(self.l1_offset) / 8;
            return Err(Error::corrupt(
                format!("L1 table, entry {index}"),
                format!("L2 table at {offset:#x}, not at a cluster"),
            )
            .at_byte(at));
        }
        Ok((offset != 0).then_some(offset))
    }

    /// Returns the L2 entry of guest `offset`; `None` if it has no L2 table.
    pub fn entry(&self, tables: &mut Tables, offset: u64) -> Result<Option<Entry>> {
        let at = self.l1_entry_offset(offset)?;
        let l1_entry = tables.read_u64(at)?;
        let Some(l2) = self.l2_offset(l1_entry, at)? else {
            return Ok(None);
        };
        let position = l2 + self.layout.entry_position(offset);
        let (word, bitmap) =
            words(tables.tail(position)?, &self.layout).ok_or_else(|| truncated(position))?;
        self.decode(word, bitmap, position).map(Some)
    }

    /// Returns the run that begins at guest `offset`, at most up to `end`. Looks at one page of
    /// tables only: the next run may be of the same kind.
    pub fn run(&self, tables: &mut Tables, offset: u64, end: u64) -> Result<Run> {
        let at = self.l1_entry_offset(offset)?;
        let l1_entry = tables.read_u64(at)?;
        match self.l2_offset(l1_entry, at)? {
            None => self.hole(tables, at, offset, end),
            Some(l2) => self.run_in_table(tables, l2, offset, end),
        }
    }

    /// Returns the hole of all L1 entries without a table from the one at `at`.
    fn hole(&self, tables: &mut Tables, at: u64, offset: u64, end: u64) -> Result<Run> {
        let n_left = self.n_l1 - (at - self.l1_offset) / 8;
        let n_empty = tables
            .tail(at)?
            .chunks_exact(8)
            .take(usize::try_from(n_left).unwrap_or(usize::MAX))
            .take_while(|entry| entry.iter().all(|byte| *byte == 0))
            .count() as u64;
        let shift = self.layout.span_shift();
        let hole_end = ((offset >> shift) + n_empty.max(1)) << shift;
        Ok(Run {
            offset,
            len: hole_end.min(end) - offset,
            kind: Kind::Hole,
        })
    }

    fn run_in_table(&self, tables: &mut Tables, l2: u64, offset: u64, end: u64) -> Result<Run> {
        let layout = &self.layout;
        let position = l2 + layout.entry_position(offset);
        let page = tables.tail(position)?;
        let mut run: Option<Run> = None;
        let mut at = offset;
        for (index, bytes) in page.chunks_exact(1 << layout.entry_shift()).enumerate() {
            let Some((word, bitmap)) = words(bytes, layout) else {
                break;
            };
            let entry = match self.decode(
                word,
                bitmap,
                position + ((index as u64) << layout.entry_shift()),
            ) {
                Ok(entry) => entry,
                Err(error) if run.is_none() => return Err(error),
                // What precedes the damage is still good.
                Err(_) => break,
            };
            let cluster = at - layout.in_cluster(at);
            let cluster_end = (cluster + layout.cluster_bytes()).min(end);
            while at < cluster_end {
                let (kind, piece_end) = entry.piece(layout, at - cluster);
                let piece_end = (cluster + piece_end).min(end);
                match &mut run {
                    None => {
                        run = Some(Run {
                            offset,
                            len: piece_end - at,
                            kind,
                        })
                    }
                    Some(run) if run.continues_with(kind) => run.len += piece_end - at,
                    Some(run) => return Ok(*run),
                }
                at = piece_end;
            }
            if at >= end {
                break;
            }
        }
        run.ok_or_else(|| truncated(position))
    }

    fn decode(&self, word: u64, bitmap: u64, position: u64) -> Result<Entry> {
        Entry::decode(&self.layout, word, bitmap).map_err(|error| {
            let table = position - self.layout.in_cluster(position);
            let index = (position - table) >> self.layout.entry_shift();
            error
                .place(format!("L2 table at {table:#x}, entry {index}"))
                .at_byte(position)
        })
    }
}

impl Run {
    fn continues_with(&self, kind: Kind) -> bool {
        match (self.kind, kind) {
            (Kind::Hole, Kind::Hole) | (Kind::Zero, Kind::Zero) => true,
            (Kind::Data(host), Kind::Data(next)) => host + self.len == next,
            _ => false,
        }
    }

    /// Takes `next`, which follows it, into this run if it continues it.
    pub fn merge(&mut self, next: &Run) -> bool {
        let merges = self.continues_with(next.kind);
        if merges {
            self.len += next.len;
        }
        merges
    }
}

/// Returns the halves of an L2 entry at the beginning of `bytes`.
pub fn words(bytes: &[u8], layout: &Layout) -> Option<(u64, u64)> {
    let word = u64::from_be_bytes(*bytes.first_chunk()?);
    let bitmap = if layout.extended {
        u64::from_be_bytes(*bytes.get(8..)?.first_chunk()?)
    } else {
        0
    };
    Some((word, bitmap))
}

fn truncated(position: u64) -> Error {
    Error::corrupt("L2 table", "past the end of the file").at_byte(position)
}
