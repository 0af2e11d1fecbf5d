//! Checks the structure of an extent: directories and tables against each other and the file,
//! grains used twice, and space that nothing refers to. Reads no grains.

use std::ops::Range;

use hako_block::{Error, ErrorKind, Result, SECTOR_BYTES};

use super::HostedArgs;
use super::copies::{Copies, Runs};
use super::directory::{Copy, Directories};
use super::geometry::{Geometry, TABLE_ENTRIES, TABLE_SECTORS};
use super::table::{Grain, Table, Tables};
use crate::disk::{Findings, Severity};

/// Grains out of line that are remembered, 8 MiB of them.
const MAX_MISALIGNED: usize = 1 << 20;

/// Checks one extent. Damage goes into `findings`; an error means that the check could not be
/// done.
pub fn check(args: HostedArgs, findings: &mut Findings) -> Result<()> {
    let file = args.storage.name().to_owned();
    match check_extent(args, &file, findings, &mut |_| Ok(())) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            findings.add_error(&file, &error);
            Ok(())
        }
        result => result.map(drop).map_err(|error| error.in_file(&file)),
    }
}

/// Checks one extent and tells `on_leak` the file range of every leak, once everything that could
/// refer to it has been looked at. Returns how many tables differ from their copies.
pub(super) fn check_extent(
    args: HostedArgs,
    file: &str,
    findings: &mut Findings,
    on_leak: &mut dyn FnMut(Range<u64>) -> Result<()>,
) -> Result<u64> {
    let geometry = Geometry::of(&args.header)?;
    findings.n_units += geometry.capacity.div_ceil(geometry.grain);
    if args.header.unclean {
        let text = "header: unclean shutdown flag is set: it was not closed properly";
        findings.add(Severity::Oddity, file, text, Some(72));
    }
    let directories = Directories::read(&*args.storage, &args.header, &geometry)?;
    let tables = Tables::new(args.storage, geometry, directories, args.header.unclean)?;
    let mut check = Check {
        file,
        findings,
        file_len: tables.storage.len_bytes()?,
        tables: &tables,
        unread: Vec::new(),
        misaligned: Vec::new(),
        differing: Vec::new(),
        on_leak,
    };
    if let Some(error) = tables.geometry.overhead_past(check.file_len) {
        check.findings.add_error(file, &error);
    }
    check.directories();
    check.table_places();
    check.tables()?;
    check.grain_places()?;
    Ok(check.differing.len() as u64)
}

pub struct Check<'a> {
    pub(super) file: &'a str,
    pub(super) findings: &'a mut Findings,
    pub(super) file_len: u64,
    pub(super) tables: &'a Tables,
    /// Tables that overlap others, ascending: reading them would take unbounded time.
    pub(super) unread: Vec<u64>,
    /// File offsets of grains that are not in line with the others.
    pub(super) misaligned: Vec<u64>,
    /// Tables whose copies differ, ascending.
    pub(super) differing: Vec<u64>,
    /// Told the file range of every leak.
    pub(super) on_leak: &'a mut dyn FnMut(Range<u64>) -> Result<()>,
}

impl Check<'_> {
    pub(super) fn add(&mut self, severity: Severity, text: String, byte: Option<u64>) {
        self.findings.add(severity, self.file, text, byte);
    }

    fn add_error(&mut self, copy: Copy, error: &Error) {
        match copy {
            Copy::First => self.findings.add_error(self.file, error),
            // Nothing is lost while the first is good.
            Copy::Redundant => self.add(Severity::Oddity, error.finding(), error.byte()),
        }
    }

    /// Each directory for itself, then one against the other.
    fn directories(&mut self) {
        let directories = &self.tables.directories;
        if let Some((copy, error)) = &directories.lost {
            self.add_error(*copy, error);
        }
        for directory in &directories.copies {
            for error in directories.bad_entries(directory, self.file_len) {
                self.add_error(directory.copy, &error);
            }
        }
        let [first, redundant] = directories.copies.as_slice() else {
            return;
        };
        for table in 0..self.tables.geometry.n_tables {
            let (one, other) = (first.sector(table), redundant.sector(table));
            if (one == 0) != (other == 0) {
                let text = format!(
                    "{}, entry {table}: sector {other}, but the {} says {one}",
                    redundant.copy.directory(),
                    first.copy.directory()
                );
                self.add(Severity::Oddity, text, Some(redundant.entry_offset(table)));
            }
        }
    }

    /// No table may overlap another or a directory.
    fn table_places(&mut self) {
        let n_tables = self.tables.geometry.n_tables;
        // Start sector, and which table: kept small, for there may be two millions.
        let mut places: Vec<(u32, u32)> = Vec::new();
        for directory in &self.tables.directories.copies {
            for table in 0..n_tables {
                places.extend(
                    self.tables
                        .sector(directory, table)
                        .map(|sector| (sector, table as u32)),
                );
            }
        }
        places.sort_unstable();
        let mut last: Option<(u32, u32)> = None;
        for (sector, table) in places {
            let overlapped = last
                .filter(|(before, _)| u64::from(sector - before) < TABLE_SECTORS)
                .map(|(_, other)| format!("grain table {other}"));
            let start = u64::from(sector);
            let on_directory = self
                .tables
                .directories
                .copies
                .iter()
                .find(|directory| directory.overlaps(start..start + TABLE_SECTORS))
                .map(|directory| directory.copy.directory().to_owned());
            last = Some((sector, table));
            if let Some(other) = overlapped.or(on_directory) {
                self.unread.push(u64::from(table));
                let text = format!("grain table {table}: sector {sector} overlaps the {other}");
                self.add(Severity::Corruption, text, Some(start * SECTOR_BYTES));
            }
        }
        self.unread.sort_unstable();
        self.unread.dedup();
    }

    /// Every entry for itself, then the copies against each other.
    fn tables(&mut self) -> Result<()> {
        let mut runs = Runs::default();
        for index in 0..self.tables.geometry.n_tables {
            if self.unread.binary_search(&index).is_ok() {
                continue;
            }
            let copies = Copies::read(self.tables, &mut runs, index)?;
            if let Some(table) = copies.believed() {
                self.entries(table);
            }
            self.compare(index, &copies);
        }
        Ok(())
    }

    fn entries(&mut self, table: &Table) {
        let geometry = &self.tables.geometry;
        for entry in 0..TABLE_ENTRIES {
            if table.entry(entry) == 0 {
                continue;
            }
            if geometry.grain_len(table.index, entry) == 0 {
                let text = format!(
                    "grain table {}, entry {entry}: sector {} beyond the capacity",
                    table.index,
                    table.entry(entry)
                );
                self.add(Severity::Oddity, text, None);
                continue;
            }
            match self.tables.grain(table, entry) {
                Ok(Grain::At(sector)) => self.stored(table, entry, sector),
                Ok(Grain::Hole | Grain::Zero) => {}
                Err(error) => self.findings.add_error(self.file, &error),
            }
        }
    }

    fn stored(&mut self, table: &Table, entry: usize, sector: u32) {
        self.findings.n_allocated_units += 1;
        let offset = u64::from(sector) * SECTOR_BYTES;
        if self.slot(offset).is_none() {
            let text = format!(
                "grain table {}, entry {entry}: sector {sector} is not aligned to the grains",
                table.index
            );
            self.add(Severity::Oddity, text, None);
            if self.misaligned.len() < MAX_MISALIGNED {
                self.misaligned.push(offset);
            }
        }
    }

    /// Tells the first difference, and how many there are.
    fn compare(&mut self, index: u64, copies: &Copies) {
        let mut differences = copies.differences();
        let Some((entry, first, other)) = differences.next() else {
            return;
        };
        self.differing.push(index);
        let text = format!(
            "{} {index}, entry {entry}: {other}, but the {} says {first} ({} entries differ)",
            Copy::Redundant.table(),
            Copy::First.table(),
            1 + differences.count()
        );
        self.add(Severity::Oddity, text, None);
    }
}
