//! What the log says the file shall hold: shown over the file, which stays as it is, or written
//! into it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, FileId, Result, Storage, StorageExtent};

use super::bytes::{put, u32_at, u64_at};
use super::header::Header;
use super::layout::{MAX_FILE_BYTES, MIB};
use super::log::{DESCRIPTOR_BYTES, Entry, HEADER_BYTES, Log, SECTOR};

/// Most runs of sectors that a log may change: the index of them stays below 64 MiB.
const MAX_RUNS: usize = 1 << 20;

/// Where the new content of a run of the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Zeros.
    Zero,
    /// One sector: where in the log its descriptor is and the sector is, in units of 32 bytes and
    /// of 4 KiB.
    Data { descriptor: u32, sector: u32 },
}

/// What a log changes: an index of where in the log the new sectors are, not their bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Runs of the file by where they begin, with their ends.
    runs: BTreeMap<u64, (u64, Source)>,
    /// Length that the file has at least.
    min_len: u64,
    /// How many entries of the log they come from.
    pub n_entries: usize,
}

impl Changes {
    /// Reads the log that the header names; `None` if there is nothing to replay.
    pub fn read(storage: &dyn Storage, header: &Header) -> Result<Option<Self>> {
        if header.log.is_nil() {
            return Ok(None);
        }
        let log = log_of(storage, header)?;
        let entries = log.active(header.log)?;
        let file_len = storage.len_bytes()?;
        let mut changes = Self {
            n_entries: entries.len(),
            min_len: file_len,
            ..Self::default()
        };
        if let Some(head) = entries.last() {
            if head.flushed_len > file_len {
                return Err(Error::corrupt(
                    "log",
                    format!(
                        "the file had {} bytes when it was written, now {file_len}: it was cut",
                        head.flushed_len
                    ),
                ));
            }
            changes.min_len = file_len.max(head.last_len);
        }
        for entry in &entries {
            changes
                .add_entry(&log, entry)
                .map_err(|error| error.place(format!("log entry {}", entry.sequence)))?;
        }
        Ok(Some(changes))
    }

    fn add_entry(&mut self, log: &Log<'_>, entry: &Entry) -> Result<()> {
        let mut sector = entry.position + entry.head_bytes();
        let entry_end = entry.position + entry.len;
        let mut bytes = [0; DESCRIPTOR_BYTES as usize];
        for index in 0..entry.n_descriptors {
            let position = entry.position + HEADER_BYTES + index * DESCRIPTOR_BYTES;
            log.read(position, &mut bytes)?;
            if u64_at(&bytes, 24) != entry.sequence {
                return Err(damaged(format!("descriptor {index} is of another entry")));
            }
            let offset = u64_at(&bytes, 16);
            let (len, source) = match bytes.first_chunk::<4>() {
                Some(b"zero") => (u64_at(&bytes, 8), Source::Zero),
                Some(b"desc") if sector < entry_end => {
                    let source = Source::Data {
                        descriptor: (position % log.len() / DESCRIPTOR_BYTES) as u32,
                        sector: (sector % log.len() / SECTOR) as u32,
                    };
                    sector += SECTOR;
                    (SECTOR, source)
                }
                _ => return Err(damaged(format!("descriptor {index} is none"))),
            };
            let range = self.check(offset, len, log)?;
            self.insert(range, source)?;
        }
        Ok(())
    }

    /// Checks that a run is where the log may change the file.
    fn check(&self, offset: u64, len: u64, log: &Log<'_>) -> Result<Range<u64>> {
        let end = offset.checked_add(len).filter(|end| *end <= MAX_FILE_BYTES);
        let aligned = offset.is_multiple_of(SECTOR) && len.is_multiple_of(SECTOR);
        match end {
            Some(end)
                if aligned
                    && offset >= MIB
                    && (end <= log.area.start || offset >= log.area.end) =>
            {
                Ok(offset..end)
            }
            _ => Err(damaged(format!(
                "changes {len} bytes at {offset:#x}, where a log may change nothing"
            ))),
        }
    }

    /// Puts a run in place of what was there.
    fn insert(&mut self, range: Range<u64>, source: Source) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        self.min_len = self.min_len.max(range.end);
        let before = self.runs.range(..range.start).next_back();
        if let Some((start, (end, old))) = before.map(|(start, run)| (*start, *run))
            && end > range.start
        {
            self.runs.insert(start, (range.start, old));
            if end > range.end {
                self.runs.insert(range.end, (end, old));
            }
        }
        while let Some((start, (end, old))) = self
            .runs
            .range(range.clone())
            .next()
            .map(|(start, run)| (*start, *run))
        {
            self.runs.remove(&start);
            if end > range.end {
                self.runs.insert(range.end, (end, old));
            }
        }
        self.runs.insert(range.start, (range.end, source));
        if self.runs.len() > MAX_RUNS {
            return Err(Error::unsupported(format!(
                "changes more than {MAX_RUNS} places of the file"
            )));
        }
        Ok(())
    }

    /// Returns the run at or after `offset`.
    fn next(&self, offset: u64) -> Option<(Range<u64>, Source)> {
        let before = self.runs.range(..=offset).next_back();
        before
            .filter(|(_, (end, _))| *end > offset)
            .or_else(|| self.runs.range(offset..).next())
            .map(|(start, (end, source))| (*start..*end, *source))
    }

    /// Writes the changes into the file and syncs them. What was written once may be again.
    pub fn apply(&self, storage: &dyn Storage, header: &Header) -> Result<()> {
        if storage.len_bytes()? < self.min_len {
            storage.set_len(self.min_len)?;
        }
        let log = log_of(storage, header)?;
        for (start, (end, source)) in &self.runs {
            match source {
                Source::Zero => storage.punch_hole(*start..*end)?,
                Source::Data { .. } => storage.write_at(*start, &content(&log, *source)?)?,
            }
        }
        storage.sync()
    }
}

fn log_of<'a>(storage: &'a dyn Storage, header: &Header) -> Result<Log<'a>> {
    let area = header.log_area()?;
    let file_len = storage.len_bytes()?;
    if area.end > file_len {
        return Err(Error::corrupt(
            "header, log",
            format!("ends at {:#x}, the file at {file_len:#x}", area.end),
        ));
    }
    Ok(Log { storage, area })
}

/// Returns the sector that a data descriptor is of: the log keeps its first 8 and last 4 bytes in
/// the descriptor (MS-VHDX, sections 2.3.1.3 and 2.3.1.4).
fn content(log: &Log<'_>, source: Source) -> Result<Vec<u8>> {
    let mut bytes = vec![0; SECTOR as usize];
    let Source::Data { descriptor, sector } = source else {
        return Ok(bytes);
    };
    let mut ends = [0; DESCRIPTOR_BYTES as usize];
    log.read(u64::from(descriptor) * DESCRIPTOR_BYTES, &mut ends)?;
    log.read(u64::from(sector) * SECTOR, &mut bytes)?;
    let sequence = u64::from(u32_at(&bytes, 4)) << 32 | u64::from(u32_at(&bytes, 4092));
    if !bytes.starts_with(b"data") || sequence != u64_at(&ends, 24) {
        return Err(damaged("a data sector is of another entry".to_owned()).place("log"));
    }
    put(&mut bytes, 0, ends.get(8..16).unwrap_or(&[]));
    put(&mut bytes, 4092, ends.get(4..8).unwrap_or(&[]));
    Ok(bytes)
}

fn damaged(what: String) -> Error {
    Error::new(hako_block::ErrorKind::Corrupt, what)
}

/// The file as it is once its log is replayed. Read-only.
pub struct Replayed {
    inner: Arc<dyn Storage>,
    header: Header,
    changes: Changes,
    len: u64,
}

impl Replayed {
    /// Shows `changes` over `inner`.
    pub fn new(inner: Arc<dyn Storage>, header: Header, changes: Changes) -> Result<Self> {
        let len = inner.len_bytes()?.max(changes.min_len);
        Ok(Self {
            inner,
            header,
            changes,
            len,
        })
    }

    /// Reads the file itself, zeros behind its end.
    fn read_inner(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let inside = self.inner.len_bytes()?.saturating_sub(offset);
        let inside = usize::try_from(inside).unwrap_or(usize::MAX).min(buf.len());
        let (stored, beyond) = buf.split_at_mut(inside);
        beyond.fill(0);
        if stored.is_empty() {
            return Ok(());
        }
        self.inner.read_at(offset, stored)
    }

    fn read_change(
        &self,
        run: &Range<u64>,
        source: Source,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        if source == Source::Zero {
            buf.fill(0);
            return Ok(());
        }
        let log = log_of(&*self.inner, &self.header)?;
        let bytes = content(&log, source)?;
        let at = (offset - run.start) as usize;
        if let Some(part) = bytes.get(at..at + buf.len()) {
            buf.copy_from_slice(part);
        }
        Ok(())
    }
}

impl Storage for Replayed {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len_bytes(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let (mut offset, mut buf) = (offset, buf);
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.len)
        {
            return Err(damaged(format!(
                "{} bytes needed, but the file ends before",
                buf.len()
            ))
            .in_file(self.name())
            .at_byte(offset));
        }
        while !buf.is_empty() {
            let end = offset + buf.len() as u64;
            let change = self.changes.next(offset).filter(|(run, _)| run.start < end);
            let stop = match &change {
                Some((run, _)) if run.start > offset => run.start,
                Some((run, _)) => run.end.min(end),
                None => end,
            };
            let (now, rest) = buf.split_at_mut((stop - offset) as usize);
            match change {
                Some((run, source)) if run.start <= offset => {
                    self.read_change(&run, source, offset, now)?;
                }
                _ => self.read_inner(offset, now)?,
            }
            buf = rest;
            offset = stop;
        }
        Ok(())
    }

    fn write_at(&self, _offset: u64, _buf: &[u8]) -> Result<()> {
        Err(Error::read_only())
    }

    fn set_len(&self, _len: u64) -> Result<()> {
        Err(Error::read_only())
    }

    fn punch_hole(&self, _range: Range<u64>) -> Result<()> {
        Err(Error::read_only())
    }

    fn next_extent(&self, offset: u64) -> Result<StorageExtent> {
        let change = self.changes.next(offset);
        if let Some((run, source)) = &change
            && run.start <= offset
        {
            return Ok(StorageExtent {
                offset,
                len: run.end - offset,
                data: *source != Source::Zero,
            });
        }
        let mut extent = if offset < self.inner.len_bytes()? {
            self.inner.next_extent(offset)?
        } else {
            StorageExtent {
                offset,
                len: self.len.saturating_sub(offset).max(1),
                data: false,
            }
        };
        if let Some((run, _)) = change {
            extent.len = extent.len.min(run.start - offset);
        }
        Ok(extent)
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn id(&self) -> Option<FileId> {
        self.inner.id()
    }

    fn is_device(&self) -> bool {
        self.inner.is_device()
    }

    fn allocated_bytes(&self) -> Result<u64> {
        self.inner.allocated_bytes()
    }
}
