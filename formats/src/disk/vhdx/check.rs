//! Checking one layer: headers, region tables, log, and where every block is.

use std::ops::Range;

use hako_block::{Access, Error, ErrorKind, Result, Storage};

use super::bat::each_entry;
use super::layout::{Block, Layout, MIB, decode_bitmap_entry};
use super::structure::Structure;
use crate::disk::bits::Bits;
use crate::disk::{CheckArgs, Findings, Severity};

/// Checks one layer, its log replayed in memory.
pub fn check(args: &CheckArgs) -> Result<Findings> {
    let mut findings = Findings::default();
    let name = args.storage.name().to_owned();
    let structure = match Structure::open(&args.storage, Access::ReadOnly) {
        Ok(structure) => structure,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            findings.add_error(&name, &error);
            return Ok(findings);
        }
        Err(error) => return Err(error),
    };
    for oddity in structure.oddities() {
        findings.add(Severity::Oddity, &name, oddity, None);
    }
    if let Some(locator) = &structure.metadata.locator
        && let Err(error) = locator.link()
    {
        findings.add_error(&name, &error.place("parent locator"));
    }
    check_blocks(&structure, &name, &mut findings)?;
    Ok(findings)
}

fn check_blocks(structure: &Structure, name: &str, findings: &mut Findings) -> Result<()> {
    let layout = structure.layout();
    let file_len = structure.storage.len_bytes()?;
    if layout.n_entries() * 8 > structure.bat.end - structure.bat.start
        || structure.bat.end > file_len
    {
        let error = Error::corrupt("BAT", "too small for the disk, or past the end of the file");
        findings.add_error(name, &error.at_byte(structure.bat.start));
        return Ok(());
    }
    let mut blocks = Blocks::new(structure, file_len);
    each_entry(
        &*structure.storage,
        &structure.bat,
        layout.n_entries(),
        |entry, word| {
            if let Err(error) = blocks.add(entry, word) {
                let at = structure.bat.start + entry * 8;
                let error = error.place(format!("BAT entry {entry}")).at_byte(at);
                findings.add_error(name, &error);
            }
            Ok(())
        },
    )?;
    blocks.bitmaps_missing.extend(blocks.partial);
    for chunk in &blocks.bitmaps_missing {
        let what = format!("sector bitmap {chunk}: blocks are partially present, but it is not");
        findings.add(Severity::Corruption, name, what, None);
    }
    findings.n_units = layout.n_blocks();
    findings.n_allocated_units = blocks.n_stored;
    let mut from = 0;
    while let Some(free) = blocks.used.next_free(from) {
        from = free.end;
        let bytes = free.start * MIB..free.end * MIB;
        let stored = stored_bytes(&*structure.storage, bytes.clone())?;
        if stored > 0 {
            findings.leaked_bytes += stored;
            let what = format!("{stored} bytes that nothing refers to");
            findings.add(Severity::Leak, name, what, Some(bytes.start));
        }
    }
    Ok(())
}

/// Returns how many bytes the host stores of a free range: its holes are not lost to anybody, and
/// the range is the next block's.
fn stored_bytes(storage: &dyn Storage, range: Range<u64>) -> Result<u64> {
    let mut stored = 0;
    let mut at = range.start;
    while at < range.end {
        let extent = storage.next_extent(at)?;
        let end = range.end.min(at.saturating_add(extent.len));
        if extent.data {
            stored += end - at;
        }
        at = end;
    }
    Ok(stored)
}

/// Where blocks are.
struct Blocks<'a> {
    layout: &'a Layout,
    file_len: u64,
    /// Places of 1 MiB.
    used: Bits,
    n_stored: u64,
    /// The chunk with partially present blocks whose sector bitmap has not been seen yet.
    partial: Option<u64>,
    /// Chunks that have none.
    bitmaps_missing: Vec<u64>,
}

impl<'a> Blocks<'a> {
    fn new(structure: &'a Structure, file_len: u64) -> Self {
        let mut used = Bits::new(file_len / MIB);
        for range in structure.reserved() {
            used.mark(places(&range));
        }
        Self {
            layout: structure.layout(),
            file_len,
            used,
            n_stored: 0,
            partial: None,
            bitmaps_missing: Vec::new(),
        }
    }

    fn add(&mut self, entry: u64, word: u64) -> Result<()> {
        let Some(block) = self.layout.block_of(entry) else {
            return self.add_bitmap(entry, word);
        };
        let found = Block::decode(word, self.layout)?;
        if matches!(found, Block::Partial(_)) {
            let chunk = block >> self.layout.chunk_shift();
            if self.partial.is_some_and(|before| before != chunk) {
                self.bitmaps_missing.extend(self.partial);
            }
            self.partial = Some(chunk);
        }
        let Some(offset) = found.offset() else {
            return Ok(());
        };
        self.n_stored += 1;
        self.claim(offset..offset + self.layout.block_bytes())
    }

    fn add_bitmap(&mut self, entry: u64, word: u64) -> Result<()> {
        let Some(offset) = decode_bitmap_entry(word)? else {
            return Ok(());
        };
        let is_of = |chunk: &mut u64| {
            self.layout
                .bitmap_entry_of(*chunk << self.layout.chunk_shift())
                == entry
        };
        self.partial.take_if(is_of);
        self.claim(offset..offset + MIB)
    }

    fn claim(&mut self, range: Range<u64>) -> Result<()> {
        let corrupt = |what: String| Err(Error::new(ErrorKind::Corrupt, what));
        if range.end > self.file_len {
            return corrupt(format!(
                "its block at {:#x} ends past the end of the file ({} bytes)",
                range.start, self.file_len
            ));
        }
        if self.used.mark(places(&range)) {
            return corrupt(format!(
                "its block at {:#x} lies where something else is",
                range.start
            ));
        }
        Ok(())
    }
}

fn places(range: &Range<u64>) -> Range<u64> {
    range.start / MIB..range.end.div_ceil(MIB)
}
