//! Checking an image without reading its data.

use std::ops::Range;
use std::sync::atomic::Ordering;

use hako_block::{ErrorKind, Result};

use super::header::{Header, Kind};
use super::map::{Map, PAGE_ENTRIES, ZERO};
use super::places::Places;
use crate::disk::{CheckArgs, Findings, Severity};

/// Checks the header, the map, and what of the file is used by nothing.
pub fn check(args: &CheckArgs) -> Result<Findings> {
    let file = args.storage.name().to_owned();
    let mut findings = Findings::default();
    let opened = Header::read(&*args.storage)
        .and_then(|header| Map::open(args.storage.clone(), header, args.salvage));
    let map = match opened {
        Ok(map) => map,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            findings.add_error(&file, &error);
            return Ok(findings);
        }
        Err(error) => return Err(error),
    };
    for text in map.header.oddities() {
        findings.add(Severity::Oddity, &file, text, None);
    }
    let mut check = Check {
        places: Places::none(&map),
        map: &map,
        file: &file,
        findings,
    };
    check.entries()?;
    check.count();
    check.leaks();
    Ok(check.findings)
}

struct Check<'a> {
    map: &'a Map,
    file: &'a str,
    places: Places,
    findings: Findings,
}

impl Check<'_> {
    fn add(&mut self, severity: Severity, text: String, byte: u64) {
        self.findings.add(severity, self.file, text, Some(byte));
    }

    fn entries(&mut self) -> Result<()> {
        let header = &self.map.header;
        self.findings.n_units = header.virtual_size().div_ceil(header.block);
        for index in 0..self.map.n_pages() {
            let page = self.map.page(index)?;
            for (block, entry) in (index * PAGE_ENTRIES..).zip(page.iter()) {
                if *entry < ZERO {
                    self.stored(block, *entry);
                } else if header.kind == Kind::Fixed && header.block_len(block) > 0 {
                    let text = format!("block {block} of a fixed image is not stored");
                    self.add(Severity::Oddity, text, header.entry_offset(block));
                }
            }
        }
        Ok(())
    }

    fn stored(&mut self, block: u64, place: u32) {
        self.findings.n_allocated_units += 1;
        let header = &self.map.header;
        let byte = header.entry_offset(block);
        if let Err(error) = self.map.decode(block, place) {
            self.findings.add_error(self.file, &error);
            return;
        }
        if header.block_len(block) == 0 {
            let text = format!("block {block} lies beyond the disk, but is stored");
            self.add(Severity::Oddity, text, byte);
        }
        if let Some(what) = self.places.add(place) {
            self.add(Severity::Corruption, format!("block {block}: {what}"), byte);
        }
    }

    /// VirtualBox stores its next block behind so many.
    fn count(&mut self) {
        let n_stored = self.map.header.n_stored;
        let (end, n_used) = (self.places.end(), self.places.n_used());
        if n_stored < end {
            let text = format!(
                "header: {n_stored} blocks stored, but place {} is in use: VirtualBox would \
                 overwrite it",
                end - 1
            );
            self.findings
                .add(Severity::Corruption, self.file, text, None);
        } else if n_stored != n_used {
            let text = format!("header: {n_stored} blocks stored, but the map has {n_used}");
            self.findings.add(Severity::Oddity, self.file, text, None);
        }
    }

    /// One finding for each run of the file that nothing uses.
    fn leaks(&mut self) {
        if self.map.storage.is_device() {
            return;
        }
        let header = &self.map.header;
        let file_len = self.map.file_len.load(Ordering::Acquire);
        let end = self.places.end();
        let mut from = 0;
        while let Some(free) = self.places.next_free(from).filter(|free| free.start < end) {
            from = free.end;
            self.leak(header.place_offset(free.start)..header.place_offset(free.end));
        }
        self.leak(header.place_offset(end)..file_len);
    }

    fn leak(&mut self, bytes: Range<u64>) {
        let leaked = bytes.end.saturating_sub(bytes.start);
        if leaked == 0 {
            return;
        }
        self.findings.leaked_bytes += leaked;
        let text = format!("{leaked} bytes are used by nothing");
        self.add(Severity::Leak, text, bytes.start);
    }
}
