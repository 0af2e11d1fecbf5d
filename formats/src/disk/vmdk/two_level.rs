//! A read-only image over a directory of tables of 4096 entries: what COWD and SESparse have in
//! common.

use std::ops::Range;
use std::sync::Arc;

use hako_block::image::check_range;
use hako_block::{
    BlockImage, Error, ErrorKind, Extent, ExtentKind, ImageInfo, Result, SECTOR_BYTES, Storage,
};

use crate::disk::cache::Cache;
use crate::disk::claims::Claims;
use crate::disk::{Findings, Severity};

/// Entries of a grain table.
pub(super) const TABLE_ENTRIES: u64 = 4096;
/// Tables kept in memory: 4 MiB.
const MAX_CACHED_TABLES: usize = 128;
/// Tables read in one call of `next_extent`.
const MAX_TABLES_PER_WALK: u64 = 128;

/// What a table says of a grain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    /// Not in this file.
    Hole,
    /// All zeros.
    Zero,
    /// Stored plainly at this file offset.
    Data(u64),
}

/// What the entries of a format mean. Errors need no place: it is added.
pub(super) trait Entries: Send + Sync {
    /// Bytes of an entry of the directory and of a table, little-endian.
    const ENTRY_BYTES: usize;

    /// Decodes a directory entry: the file offset of a table, or `None` for none.
    fn table(&self, entry: u64) -> Result<Option<u64>>;

    /// Decodes a table entry.
    fn grain(&self, entry: u64) -> Result<Grain>;
}

/// An extent file read through its tables. Guest offsets are relative to it.
pub(super) struct TwoLevel<E> {
    info: ImageInfo,
    storage: Arc<dyn Storage>,
    host_name: Arc<str>,
    file_len: u64,
    entries: E,
    directory: Vec<u64>,
    tables: Cache<Vec<u64>>,
}

/// Grains in a row that are alike: all holes, all zeros, or stored one after the other.
struct Run {
    first: Grain,
    n_grains: u64,
    n_tables_read: u64,
}

/// Returns how many tables a disk has.
pub(super) fn n_tables(virtual_size: u64, grain_bytes: u64) -> u64 {
    virtual_size.div_ceil(grain_bytes).div_ceil(TABLE_ENTRIES)
}

impl<E: Entries> TwoLevel<E> {
    /// Reads the directory at file offset `directory`; its length follows from `info`'s virtual
    /// size and unit, which the caller has bounded.
    pub(super) fn load(
        storage: Arc<dyn Storage>,
        info: ImageInfo,
        directory: u64,
        entries: E,
    ) -> Result<Self> {
        let file_len = storage.len_bytes()?;
        let n_tables = n_tables(info.virtual_size, info.unit_bytes);
        let end = directory.checked_add(n_tables * E::ENTRY_BYTES as u64);
        let Some(end) = end.filter(|end| *end <= file_len) else {
            let what = format!("{n_tables} entries reach past end of file ({file_len} bytes)");
            return Err(Error::corrupt("grain directory", what).at_byte(directory));
        };
        Ok(Self {
            directory: read_words::<E>(&*storage, directory..end)?,
            info,
            host_name: storage.name().into(),
            storage,
            file_len,
            entries,
            tables: Cache::new(MAX_CACHED_TABLES),
        })
    }

    fn grain_bytes(&self) -> u64 {
        self.info.unit_bytes
    }

    fn n_grains(&self) -> u64 {
        self.info.virtual_size.div_ceil(self.grain_bytes())
    }

    /// Returns the file offset of a table, or `None` if the directory has none.
    fn table_byte(&self, number: u64) -> Result<Option<u64>> {
        let entry = usize::try_from(number).ok();
        let entry = entry.and_then(|at| self.directory.get(at)).copied();
        let place = || format!("grain directory, entry {number}");
        let byte = self
            .entries
            .table(entry.unwrap_or(0))
            .map_err(|error| error.place(place()))?;
        match byte {
            Some(byte) if !self.is_inside(byte, TABLE_ENTRIES * E::ENTRY_BYTES as u64) => {
                Err(self.past_end(byte).place(place()))
            }
            byte => Ok(byte),
        }
    }

    fn table(&self, number: u64) -> Result<Option<Arc<Vec<u64>>>> {
        let Some(byte) = self.table_byte(number)? else {
            return Ok(None);
        };
        let range = byte..byte + TABLE_ENTRIES * E::ENTRY_BYTES as u64;
        let load = || read_words::<E>(&*self.storage, range);
        self.tables.get_or_load(number, load).map(Some)
    }

    /// Decodes the entry of `grain` in its table.
    fn grain(&self, grain: u64, table: &[u64]) -> Result<Grain> {
        let at = grain % TABLE_ENTRIES;
        let place = || format!("grain table {}, entry {at}", grain / TABLE_ENTRIES);
        let entry = usize::try_from(at).ok().and_then(|at| table.get(at));
        let decoded = self.entries.grain(entry.copied().unwrap_or(0));
        match decoded.map_err(|error| error.place(place()))? {
            // The disk's last grain need not be there to its end.
            Grain::Data(byte) if !self.is_inside(byte, self.grain_len(grain)) => {
                Err(self.past_end(byte).place(place()))
            }
            grain => Ok(grain),
        }
    }

    fn grain_len(&self, grain: u64) -> u64 {
        let start = grain * self.grain_bytes();
        self.info
            .virtual_size
            .saturating_sub(start)
            .min(self.grain_bytes())
    }

    fn is_inside(&self, byte: u64, len: u64) -> bool {
        byte.checked_add(len)
            .is_some_and(|end| end <= self.file_len)
    }

    fn past_end(&self, byte: u64) -> Error {
        let what = format!(
            "sector {} past end of file ({} sectors)",
            byte / SECTOR_BYTES,
            self.file_len / SECTOR_BYTES
        );
        Error::new(ErrorKind::Corrupt, what)
    }

    /// Returns the grains from `grain` on, to the end of their table at most, that are alike. An
    /// entry that is damaged ends the run before it; only as the first it is an error.
    fn run_in_table(&self, grain: u64) -> Result<Run> {
        let table_end = (grain / TABLE_ENTRIES + 1) * TABLE_ENTRIES;
        let end = table_end.min(self.n_grains());
        let Some(table) = self.table(grain / TABLE_ENTRIES)? else {
            return Ok(Run {
                first: Grain::Hole,
                n_grains: end.saturating_sub(grain),
                n_tables_read: 0,
            });
        };
        let mut run = Run {
            first: self.grain(grain, &table)?,
            n_grains: 1,
            n_tables_read: 1,
        };
        for next in grain + 1..end {
            match self.grain(next, &table) {
                Ok(next) if self.continues(&run, next) => run.n_grains += 1,
                _ => break,
            }
        }
        Ok(run)
    }

    fn continues(&self, run: &Run, next: Grain) -> bool {
        match run.first {
            Grain::Data(byte) => next == Grain::Data(byte + run.n_grains * self.grain_bytes()),
            same => next == same,
        }
    }

    /// Returns the extent at `offset`, no longer than to `end`.
    fn extent(&self, offset: u64, end: u64) -> Result<Extent> {
        let grain = offset / self.grain_bytes();
        let end_grain = end.div_ceil(self.grain_bytes());
        let mut run = self.run_in_table(grain)?;
        while grain + run.n_grains < end_grain && run.n_tables_read < MAX_TABLES_PER_WALK {
            match self.run_in_table(grain + run.n_grains) {
                Ok(next) if self.continues(&run, next.first) => {
                    run.n_grains += next.n_grains;
                    run.n_tables_read += next.n_tables_read;
                }
                _ => break,
            }
        }
        let len = (grain + run.n_grains) * self.grain_bytes() - offset;
        let extent = match run.first {
            Grain::Hole => Extent::new(offset, len, ExtentKind::Hole),
            Grain::Zero => Extent::new(offset, len, ExtentKind::Zero),
            Grain::Data(byte) => {
                let byte = byte + offset % self.grain_bytes();
                Extent::data(offset, len, &self.host_name, byte)
            }
        };
        Ok(extent.clipped(end))
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset + buf.len() as u64;
        let (mut offset, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let extent = self.extent(offset, end)?;
            let (now, later) = rest.split_at_mut(extent.len as usize);
            match &extent.host {
                Some(host) => self.storage.read_at(host.offset, now)?,
                None => now.fill(0),
            }
            (offset, rest) = (extent.end(), later);
        }
        Ok(())
    }
}

impl<E: Entries> BlockImage for TwoLevel<E> {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self.info.virtual_size, offset, buf.len() as u64)
            .and_then(|()| self.read(offset, buf))
            .map_err(|error| error.in_file(&*self.host_name))
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        check_range(self.info.virtual_size, offset, 1)
            .and_then(|()| self.extent(offset, self.info.virtual_size))
            .map_err(|error| error.in_file(&*self.host_name))
    }
}

/// What a check of the tables has seen in use.
pub(super) struct InUse<'a> {
    findings: &'a mut Findings,
    file: &'a str,
    claims: Claims,
    /// From the first table or grain to the end of the last.
    span: Range<u64>,
}

impl<E: Entries> TwoLevel<E> {
    /// Checks every table and the place of every grain. `reserved` is what the header speaks for:
    /// no table or grain may be there.
    pub(super) fn check<'a>(
        &'a self,
        reserved: &[Range<u64>],
        findings: &'a mut Findings,
    ) -> Result<InUse<'a>> {
        let mut in_use = InUse {
            findings,
            file: &self.host_name,
            claims: Claims::default(),
            span: Range {
                start: u64::MAX,
                end: 0,
            },
        };
        for range in reserved {
            in_use.claims.claim(range.clone());
        }
        in_use.findings.n_units += self.n_grains();
        for number in 0..self.directory.len() as u64 {
            self.check_table(number, &mut in_use)?;
        }
        if in_use.claims.overflowed() {
            let text = "too fragmented to be checked for overlaps and leaks";
            in_use
                .findings
                .add(Severity::Oddity, in_use.file, text, None);
        }
        Ok(in_use)
    }

    fn check_table(&self, number: u64, in_use: &mut InUse<'_>) -> Result<()> {
        let byte = match self.table_byte(number) {
            Ok(Some(byte)) => byte,
            Ok(None) => return Ok(()),
            Err(error) => {
                in_use.findings.add_error(in_use.file, &error);
                return Ok(());
            }
        };
        let entry_bytes = E::ENTRY_BYTES as u64;
        // A table that two entries name is looked at once: a hostile directory names one always.
        if !in_use.claim(byte..byte + TABLE_ENTRIES * entry_bytes, || {
            format!("grain table {number}")
        }) {
            return Ok(());
        }
        let Some(table) = self.table(number)? else {
            return Ok(());
        };
        let start = number * TABLE_ENTRIES;
        for grain in start..(start + TABLE_ENTRIES).min(self.n_grains()) {
            let at = grain - start;
            match self.grain(grain, &table) {
                Ok(Grain::Data(byte)) => {
                    in_use.findings.n_allocated_units += 1;
                    in_use.claim(byte..byte + self.grain_bytes(), || {
                        format!("grain table {number}, entry {at}")
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    let error = error.at_byte(byte + at * entry_bytes);
                    in_use.findings.add_error(in_use.file, &error);
                }
            }
        }
        Ok(())
    }
}

impl InUse<'_> {
    fn claim(&mut self, range: Range<u64>, place: impl Fn() -> String) -> bool {
        self.span.start = self.span.start.min(range.start);
        self.span.end = self.span.end.max(range.end);
        let start = range.start;
        let free = self.claims.claim(range);
        if !free {
            let text = format!("{}: overlaps something else in the file", place());
            self.findings
                .add(Severity::Corruption, self.file, text, Some(start));
        }
        free
    }

    /// Compares what is in use with file offset `free`, where the header says that free space
    /// begins: nothing may be beyond, and what nothing refers to before is lost.
    pub(super) fn check_free_space(self, free: u64) {
        if self.span.end > free {
            let text = format!(
                "header: free space begins at byte {free}, but bytes up to {} are in use",
                self.span.end
            );
            self.findings.add(Severity::Oddity, self.file, text, None);
        }
        if self.claims.overflowed() || self.span.start >= free {
            return;
        }
        for gap in self.claims.gaps(self.span.start..free) {
            let len = gap.end - gap.start;
            self.findings.leaked_bytes += len;
            let text = format!("{len} bytes that nothing refers to");
            self.findings
                .add(Severity::Leak, self.file, text, Some(gap.start));
        }
    }
}

fn read_words<E: Entries>(storage: &dyn Storage, range: Range<u64>) -> Result<Vec<u64>> {
    let len = usize::try_from(range.end - range.start)
        .map_err(|_| Error::invalid("table larger than memory"))?;
    let mut bytes = vec![0; len];
    storage.read_at(range.start, &mut bytes)?;
    let words = bytes.chunks_exact(E::ENTRY_BYTES).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    Ok(words.collect())
}
