//! Checks the structure of a streamOptimized file without unpacking its grains.

use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result, SECTOR_BYTES, Storage};

use super::StreamArgs;
use super::layout::{self, Footer};
use super::marker::{self, Marker};
use super::tables::{Grain, TABLE_BYTES, Table, Tables};
use crate::disk::claims::Claims;
use crate::disk::vmdk::header::{GD_AT_END, HEADER_BYTES, SparseHeader};
use crate::disk::{Findings, Severity};

/// Checks an extent file; what is found goes into `findings`. An error means that the check could
/// not be done.
pub fn check(args: StreamArgs, findings: &mut Findings) -> Result<()> {
    check_end(args, findings).map(|_| ())
}

/// Checks an extent file. Returns where an end-of-stream marker should be and is not.
pub(super) fn check_end(args: StreamArgs, findings: &mut Findings) -> Result<Option<u64>> {
    let name = args.storage.name().to_owned();
    let file_len = args.storage.len_bytes()?;
    let mut check = Check {
        storage: args.storage,
        header: args.header,
        file_len,
        name,
        findings,
        claims: Claims::default(),
        last_sector: 0,
        n_out_of_order: 0,
        missing_end: None,
    };
    match check.run() {
        Err(error) if error.kind() != ErrorKind::Io => check.add_error(&error),
        result => result?,
    }
    Ok(check.missing_end)
}

/// Returns the first reason not to trust the tables: something that they point at is not there.
pub(super) fn first_damage(
    storage: &dyn Storage,
    header: &SparseHeader,
    tables: &Tables,
) -> Result<Option<Error>> {
    let mut last_sector = 0;
    for number in 0..tables.n_tables() {
        let table = match tables.table(number) {
            Ok(table) => table,
            Err(error) if error.kind() == ErrorKind::Io => return Err(error),
            Err(error) => return Ok(Some(error)),
        };
        for at in 0..table.as_ref().map_or(0, |table| table.len()) {
            let Some(table) = &table else { break };
            match tables.grain(number, table, at) {
                Ok(Grain::Stored(sector)) => last_sector = last_sector.max(sector),
                Ok(_) => {}
                Err(error) => return Ok(Some(error)),
            }
        }
    }
    if last_sector == 0 {
        return Ok(None);
    }
    match stored_range(storage, header, storage.len_bytes()?, last_sector) {
        Err(error) if error.kind() == ErrorKind::Io => Err(error),
        Err(error) => Ok(Some(error)),
        Ok(_) => Ok(None),
    }
}

struct Check<'a> {
    storage: Arc<dyn Storage>,
    header: SparseHeader,
    file_len: u64,
    name: String,
    findings: &'a mut Findings,
    claims: Claims,
    last_sector: u64,
    n_out_of_order: u64,
    missing_end: Option<u64>,
}

impl Check<'_> {
    fn run(&mut self) -> Result<()> {
        layout::check_sizes(&self.header)?;
        if self.header.unclean {
            self.add(Severity::Oddity, "header: not closed properly", Some(72));
        }
        let footer = layout::find_footer(&*self.storage, self.file_len)?;
        if let Some(footer) = &footer {
            self.footer(footer)?;
        }
        let header = layout::resolve(&*self.storage, &self.header, self.file_len, &mut Vec::new())?;
        self.header = header;
        let tables = Tables::load(Arc::clone(&self.storage), &self.header, self.file_len)?;
        self.front_and_directory()?;
        self.findings.n_units += self.header.n_grains();
        for number in 0..tables.n_tables() {
            self.table(&tables, number)?;
        }
        if self.n_out_of_order > 0 {
            let text = format!("{} grains are not in ascending order", self.n_out_of_order);
            self.add(Severity::Oddity, text, None);
        }
        self.leaks(footer.is_some())
    }

    /// Compares header and footer, looks for the end-of-stream marker.
    fn footer(&mut self, footer: &Footer) -> Result<()> {
        for difference in layout::differences(&self.header, &footer.header) {
            self.add(Severity::Corruption, difference, Some(footer.byte));
        }
        let (header, footer_gd) = (self.header.gd_sector, footer.header.gd_sector);
        if header != GD_AT_END && header != footer_gd {
            let text = format!(
                "footer: grain directory at sector {footer_gd}, but the header has it at {header}"
            );
            self.add(Severity::Oddity, text, Some(footer.byte + 56));
        }
        let end = footer.byte + SECTOR_BYTES;
        self.claims.claim(footer.byte - SECTOR_BYTES..end);
        if !self.is_marker(end, marker::END_OF_STREAM)? {
            self.missing_end = Some(end);
            let text = "no end-of-stream marker after the footer";
            self.add(Severity::Oddity, text, Some(end));
        }
        self.claims.claim(end..end + SECTOR_BYTES);
        Ok(())
    }

    fn front_and_directory(&mut self) -> Result<()> {
        self.claim("header", 0..HEADER_BYTES as u64);
        let sectors = |start: u64, n: u64| -> Result<Range<u64>> {
            let end = start
                .checked_add(n)
                .and_then(|end| end.checked_mul(SECTOR_BYTES));
            end.map(|end| start * SECTOR_BYTES..end)
                .ok_or_else(|| Error::corrupt("header", "a sector number is out of all range"))
        };
        let header = self.header.clone();
        if header.descriptor_sector != 0 {
            let descriptor = sectors(header.descriptor_sector, header.descriptor_sectors)?;
            self.claim("descriptor", descriptor);
        }
        let directory = sectors(
            header.gd_sector,
            (header.n_grain_tables() * 4).div_ceil(SECTOR_BYTES),
        )?;
        self.marker_before("grain directory", directory.start, marker::GRAIN_DIRECTORY)?;
        self.claim("grain directory", directory);
        Ok(())
    }

    fn table(&mut self, tables: &Tables, number: u64) -> Result<()> {
        let place = format!("grain table {number}");
        let byte = match tables.table_byte(number) {
            Ok(Some(byte)) => byte,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.add_error(&error);
                return Ok(());
            }
        };
        // A table that two entries name is looked at once: a hostile directory names one always.
        if !self.claim(&place, byte..byte + TABLE_BYTES as u64) {
            return Ok(());
        }
        self.marker_before(&place, byte, marker::GRAIN_TABLE)?;
        let Some(table) = tables.table(number)? else {
            return Ok(());
        };
        for at in 0..table.len() {
            let checked = self.grain(tables, number, &table, at);
            match checked.map_err(|error| error.at_byte(byte + at as u64 * 4)) {
                Err(error) if error.kind() == ErrorKind::Io => return Err(error),
                Err(error) => self.add_error(&error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn grain(&mut self, tables: &Tables, number: u64, table: &Table, at: usize) -> Result<()> {
        let Grain::Stored(sector) = tables.grain(number, table, at)? else {
            return Ok(());
        };
        let place = format!("grain table {number}, entry {at}");
        let grain = number * table.len() as u64 + at as u64;
        if grain >= self.header.n_grains() {
            self.add(
                Severity::Oddity,
                format!("{place}: past the end of the disk"),
                None,
            );
            return Ok(());
        }
        let (lba, stored) = stored_range(&*self.storage, &self.header, self.file_len, sector)
            .map_err(|error| error.place(&place))?;
        let expected = grain * self.header.grain_sectors;
        if lba != expected {
            let what = format!("sector {sector} has the grain of LBA {lba}, not {expected}");
            return Err(Error::corrupt(place, what));
        }
        self.claim(&place, stored);
        self.findings.n_allocated_units += 1;
        self.findings.n_compressed_units += 1;
        self.n_out_of_order += u64::from(sector < self.last_sector);
        self.last_sector = sector;
        Ok(())
    }

    /// Expects a marker before what stands among the grains; in front of them there are none.
    fn marker_before(&mut self, place: &str, byte: u64, kind: u32) -> Result<()> {
        if byte / SECTOR_BYTES < self.header.overhead_sectors.max(1) {
            return Ok(());
        }
        let start = byte - SECTOR_BYTES;
        if self.is_marker(start, kind)? {
            self.claim(place, start..byte);
        } else {
            let text = format!("{place}: no marker of kind {kind} before it");
            self.add(Severity::Oddity, text, Some(start));
        }
        Ok(())
    }

    fn is_marker(&self, byte: u64, wanted: u32) -> Result<bool> {
        if byte + SECTOR_BYTES > self.file_len {
            return Ok(false);
        }
        let marker = Marker::read(&*self.storage, byte)?;
        Ok(matches!(marker, Marker::Other { kind, .. } if kind == wanted))
    }

    /// Lists what nothing refers to between the first grain and the end of the stream.
    fn leaks(&mut self, has_footer: bool) -> Result<()> {
        if self.claims.overflowed() {
            let text = "too fragmented to be checked for overlaps and leaks";
            self.add(Severity::Oddity, text, None);
            return Ok(());
        }
        let start = self.header.overhead_sectors.saturating_mul(SECTOR_BYTES);
        let gaps: Vec<_> = self
            .claims
            .gaps(start.min(self.file_len)..self.file_len)
            .collect();
        for gap in gaps {
            let at_end = gap.end == self.file_len;
            // Zeros at the end are the end-of-stream marker of files without a footer, and padding.
            if at_end && self.is_marker(gap.start, marker::END_OF_STREAM)? {
                continue;
            }
            self.findings.leaked_bytes += gap.end - gap.start;
            let text = format!("{} bytes that nothing refers to", gap.end - gap.start);
            self.add(Severity::Leak, text, Some(gap.start));
        }
        let closed = self
            .claims
            .gaps(start..self.file_len)
            .any(|gap| gap.end == self.file_len);
        if !has_footer && !closed {
            self.missing_end = Some(self.file_len);
            self.add(
                Severity::Oddity,
                "no end-of-stream marker",
                Some(self.file_len),
            );
        }
        Ok(())
    }

    fn claim(&mut self, place: &str, range: Range<u64>) -> bool {
        let start = range.start;
        let free = self.claims.claim(range);
        if !free {
            let text = format!("{place}: overlaps something else in the file");
            self.add(Severity::Corruption, text, Some(start));
        }
        free
    }

    fn add(&mut self, severity: Severity, text: impl Into<String>, byte: Option<u64>) {
        self.findings.add(severity, &self.name, text, byte);
    }

    fn add_error(&mut self, error: &Error) {
        self.findings.add_error(&self.name, error);
    }
}

/// Returns the LBA that the grain at `sector` says it has, and the bytes of the file it takes.
fn stored_range(
    storage: &dyn Storage,
    header: &SparseHeader,
    file_len: u64,
    sector: u64,
) -> Result<(u64, Range<u64>)> {
    let byte = sector * SECTOR_BYTES;
    let Marker::Grain { lba, len } = Marker::read(storage, byte)? else {
        let what = format!("no grain marker at sector {sector}");
        return Err(Error::new(ErrorKind::Corrupt, what));
    };
    if u64::from(len) > marker::max_compressed(header.grain_bytes()) {
        let what = format!("grain at sector {sector} has {len} compressed bytes, too many");
        return Err(Error::new(ErrorKind::Corrupt, what));
    }
    if byte + marker::GRAIN_MARKER_BYTES as u64 + u64::from(len) > file_len {
        return Err(layout::cut(format!(
            "grain at sector {sector} ends past end of file ({file_len} bytes)"
        )));
    }
    Ok((lba, byte..byte + marker::stored_bytes(len)))
}
