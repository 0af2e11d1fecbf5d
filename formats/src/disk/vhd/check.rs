//! Checks the structure of a disk: the footers against each other, the header, the BAT against
//! the file, blocks that share space, and space that nothing refers to. Reads no blocks.

use std::ops::Range;

use hako_block::{ErrorKind, Result, SECTOR_BYTES, Storage};

use super::footer::{DiskType, FOOTER_BYTES};
use super::image::check_slot;
use super::layout::{Layout, UNUSED};
use super::open::{Dynamic, Found};
use crate::disk::claims::Claims;
use crate::disk::{CheckArgs, Findings, Severity};

/// Bytes of the BAT read at once.
const BAT_BUFFER: u64 = 64 << 10;

/// What hosts store at least.
pub const PAGE_BYTES: u64 = 4096;

/// Checks one layer.
pub fn check(args: &CheckArgs) -> Result<Findings> {
    let mut findings = Findings::default();
    let file = args.storage.name();
    match check_disk(args, &mut findings) {
        Err(error) if error.kind() == ErrorKind::Corrupt => findings.add_error(file, &error),
        result => result.map_err(|error| error.in_file(file))?,
    }
    Ok(findings)
}

fn check_disk(args: &CheckArgs, findings: &mut Findings) -> Result<()> {
    let (storage, file) = (&*args.storage, args.storage.name());
    let found = Found::read(storage, args.salvage)?;
    for oddity in &found.oddities {
        findings.add(Severity::Oddity, file, oddity, None);
    }
    found.refuse_resizing()?;
    if found.footer.disk_type == DiskType::Fixed {
        found.check_fixed()?;
        findings.n_units = found.footer.virtual_size() / SECTOR_BYTES;
        findings.n_allocated_units = findings.n_units;
        return Ok(());
    }
    let dynamic = Dynamic::read(found, storage, args.salvage)?;
    let names = dynamic.parent.as_ref().map(|parent| &parent.oddities);
    for oddity in names.into_iter().flatten() {
        findings.add(Severity::Oddity, file, oddity, None);
    }
    let mut used = Claims::default();
    for range in tables(&dynamic) {
        if !used.claim(range.clone()) {
            let text = format!("tables overlap at {:#x}", range.start);
            findings.add(Severity::Corruption, file, text, Some(range.start));
        }
    }
    blocks(storage, &dynamic, &mut used, findings)?;
    if used.overflowed() {
        let text = "blocks in too many places: overlaps and leaks are not told";
        findings.add(Severity::Oddity, file, text, None);
        return Ok(());
    }
    let end = dynamic.found.blocks_end();
    for gap in leaks(storage, &dynamic.layout, &used, end) {
        let (len, at) = (gap.end - gap.start, gap.start);
        findings.leaked_bytes += len;
        let text = format!("{len} bytes that nothing refers to");
        findings.add(Severity::Leak, file, text, Some(at));
    }
    Ok(())
}

/// Checks every entry of the BAT.
fn blocks(
    storage: &dyn Storage,
    dynamic: &Dynamic,
    used: &mut Claims,
    findings: &mut Findings,
) -> Result<()> {
    let (layout, file) = (&dynamic.layout, storage.name());
    findings.n_units = layout.n_blocks;
    each_entry(storage, layout, |block, entry| {
        let at = layout.bat_offset + block * 4;
        if block >= layout.n_blocks {
            let text = format!("BAT, entry {block}: a block beyond the end of the disk");
            findings.add(Severity::Oddity, file, text, Some(at));
        }
        match check_slot(layout, block, entry, dynamic.found.blocks_end()) {
            Err(error) => findings.add_error(file, &error),
            Ok(slot) => {
                findings.n_allocated_units += u64::from(block < layout.n_blocks);
                let end = (slot + layout.slot_bytes()).min(dynamic.found.blocks_end());
                if !used.claim(slot..end) {
                    let text = format!("BAT, entry {block}: sector {entry} is used twice");
                    findings.add(Severity::Corruption, file, text, Some(at));
                }
            }
        }
    })
}

/// Calls `each` with the number and the BAT entry of every block that is stored.
pub fn each_entry(
    storage: &dyn Storage,
    layout: &Layout,
    mut each: impl FnMut(u64, u32),
) -> Result<()> {
    each_entry_from(storage, layout, 0, &mut |block, entry| {
        each(block, entry);
        true
    })
}

/// Calls `each` with the number and the BAT entry of every block that is stored, from block
/// `from` on, until it returns false.
pub fn each_entry_from(
    storage: &dyn Storage,
    layout: &Layout,
    from: u64,
    each: &mut dyn FnMut(u64, u32) -> bool,
) -> Result<()> {
    let mut bytes = vec![0; BAT_BUFFER as usize];
    let mut block = from;
    while block < layout.n_entries {
        let n = (layout.n_entries - block).min(BAT_BUFFER / 4);
        let piece = &mut bytes[..(n * 4) as usize];
        storage.read_at(layout.bat_offset + block * 4, piece)?;
        for (index, entry) in (block..).zip(piece.chunks_exact(4)) {
            let entry = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
            if entry != UNUSED && !each(index, entry) {
                return Ok(());
            }
        }
        block += n;
    }
    Ok(())
}

/// Returns where everything lies that is no block.
pub fn tables(dynamic: &Dynamic) -> Vec<Range<u64>> {
    let (header, file_len) = (&dynamic.header, dynamic.found.file_len);
    let at = dynamic.found.footer.data_offset;
    let mut tables = vec![
        0..FOOTER_BYTES,
        at..at + super::header::HEADER_BYTES,
        header.bat_offset..dynamic.layout.bat_end().min(file_len),
    ];
    for locator in header.locators.iter().filter(|it| it.len > 0) {
        let end = locator.offset.saturating_add(u64::from(locator.len));
        if end <= file_len {
            tables.push(locator.offset..end);
        }
    }
    tables
}

/// Returns the gaps below `end` that a block would fit into and that the host stores. Smaller ones
/// are what aligning leaves.
pub fn leaks(storage: &dyn Storage, layout: &Layout, used: &Claims, end: u64) -> Vec<Range<u64>> {
    used.gaps(0..end)
        .filter(|gap| gap.end - gap.start >= layout.slot_bytes())
        .filter(|gap| is_stored(storage, gap))
        .collect()
}

/// Returns whether the host stores anything of a gap. The pages at its edges do not count: they
/// hold what is beside it too.
fn is_stored(storage: &dyn Storage, gap: &Range<u64>) -> bool {
    let mut at = gap.start.next_multiple_of(PAGE_BYTES);
    let end = gap.end / PAGE_BYTES * PAGE_BYTES;
    while at < end {
        match storage.next_extent(at) {
            Ok(run) if !run.data => at += run.len,
            _ => return true,
        }
    }
    false
}
/// Returns the leaks of a disk that has been checked and is not damaged.
pub fn find_leaks(storage: &dyn Storage, dynamic: &Dynamic) -> Result<Vec<Range<u64>>> {
    let mut used = Claims::default();
    for range in tables(dynamic) {
        used.claim(range);
    }
    blocks(storage, dynamic, &mut used, &mut Findings::default())?;
    let end = dynamic.found.blocks_end();
    Ok(if used.overflowed() {
        Vec::new()
    } else {
        leaks(storage, &dynamic.layout, &used, end)
    })
}
