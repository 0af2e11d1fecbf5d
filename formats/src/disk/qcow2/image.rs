//! An open image: what it says of itself, reading, the extent map.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use hako_block::image::check_range;
use hako_block::{BlockImage, Error, Extent, ExtentKind, HostPosition, ImageInfo, Result, Storage};

use super::allocate::Allocator;
use super::header::Codec;
use super::layout::{Kind, Layout};
use super::map::{Map, Run};
use super::tables::Tables;
use super::write::Writer;

/// Guest bytes planned under one hold of the lock.
const PLAN_BYTES: u64 = 8 << 20;
/// Compressed bytes read at once.
const COMPRESSED_READ_BYTES: u64 = 2 << 20;
/// How much of the tables one call of `next_extent` looks at: pages of up to 64 KiB.
const MAP_PAGES: u32 = 64;
/// How many compressed clusters count as a page.
const CLUSTERS_PER_PAGE: u32 = 64;

/// An open image, of any version, its current state or one of its snapshots.
pub struct Image {
    /// The file with header and tables, and the guest's data unless there is a data file.
    pub storage: Arc<dyn Storage>,
    /// The file with the guest's data: the same one, or an external data file.
    pub data: Arc<dyn Storage>,
    /// Name of the file with the guest's data.
    pub data_name: Arc<str>,
    /// How compressed clusters are compressed.
    pub codec: Codec,
    /// The mapping shown.
    pub map: Map,
    /// What is known of the image.
    pub info: ImageInfo,
    /// Held for reading by each operation while it uses offsets that it looked up, for writing
    /// by a flush: freed clusters are used again only when nobody can still reach them.
    pub gate: RwLock<()>,
    /// Tables, and the state of writing.
    pub meta: Mutex<Meta>,
    /// Told when clusters are no longer being allocated.
    pub idle: Condvar,
}

/// What the lock of an image protects.
pub struct Meta {
    /// Pages of tables.
    pub tables: Tables,
    /// What is being written; `None` if the image is open for reading only.
    pub writer: Option<Writer>,
}

impl Image {
    /// Returns the sizes.
    pub fn layout(&self) -> &Layout {
        &self.map.layout
    }

    /// Locks the tables.
    pub fn meta(&self) -> MutexGuard<'_, Meta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `work` with what gives out clusters and the tables; a flush is due afterwards.
    pub fn with_allocator<T>(
        &self,
        work: impl FnOnce(&mut Allocator, &mut Tables) -> Result<T>,
    ) -> Result<T> {
        let mut meta = self.meta();
        let Meta { tables, writer } = &mut *meta;
        let writer = writer.as_mut().ok_or_else(Error::read_only)?;
        writer.unsynced = true;
        work(&mut writer.allocator, tables)
    }

    /// Checks that a guest range lies on the disk.
    pub fn check(&self, offset: u64, len: u64) -> Result<()> {
        check_range(self.info.virtual_size, offset, len)
            .map_err(|error| error.in_file(self.storage.name()))
    }

    /// Names the image's file in an error.
    pub fn named(&self, error: Error) -> Error {
        error.in_file(self.storage.name())
    }

    /// Reads guest bytes; the caller holds the gate.
    pub fn read_guest(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset + buf.len() as u64;
        let (mut offset, mut buf) = (offset, buf);
        while offset < end {
            let runs = self.plan(offset, end.min(offset.saturating_add(PLAN_BYTES)))?;
            let len: u64 = runs.iter().map(|run| run.len).sum();
            let (now, rest) = buf.split_at_mut(len as usize);
            self.read_runs(&runs, now)?;
            offset += len;
            buf = rest;
        }
        Ok(())
    }

    fn plan(&self, offset: u64, end: u64) -> Result<Vec<Run>> {
        let mut meta = self.meta();
        let mut runs: Vec<Run> = Vec::new();
        let mut at = offset;
        while at < end {
            let run = self.map.run(&mut meta.tables, at, end)?;
            at += run.len;
            if !runs.last_mut().is_some_and(|last| last.merge(&run)) {
                runs.push(run);
            }
        }
        Ok(runs)
    }

    fn read_runs(&self, runs: &[Run], buf: &mut [u8]) -> Result<()> {
        let (mut runs, mut buf) = (runs, buf);
        while let Some(first) = runs.first() {
            let n = compressed_group(runs).max(1);
            let (group, later) = runs.split_at(n);
            let len: u64 = group.iter().map(|run| run.len).sum();
            let (now, rest) = buf.split_at_mut(len as usize);
            match first.kind {
                Kind::Hole | Kind::Zero => now.fill(0),
                Kind::Data(host) => self.data.read_at(host, now)?,
                Kind::Compressed(_) => self.read_compressed(group, now)?,
            }
            runs = later;
            buf = rest;
        }
        Ok(())
    }

    /// Reads compressed clusters that lie one after another in the file.
    fn read_compressed(&self, group: &[Run], buf: &mut [u8]) -> Result<()> {
        let (Some(first), Some(last)) = (
            group.first().and_then(bytes_of),
            group.last().and_then(bytes_of),
        ) else {
            return Ok(());
        };
        let start = first.start;
        // The last sector of the last cluster may be cut off by the end of the file.
        let end = last.end.min(self.storage.len_bytes()?).max(start);
        let mut stored = vec![0; (end - start) as usize];
        self.storage.read_at(start, &mut stored)?;
        let mut buf = buf;
        for run in group {
            let (now, rest) = buf.split_at_mut(run.len as usize);
            let range = bytes_of(run).unwrap_or(start..start);
            let input = (range.start - start) as usize
                ..(range.end.min(end).max(range.start) - start) as usize;
            let input = stored.get(input).unwrap_or(&[]);
            self.decompress(run.offset, input, now).map_err(|error| {
                error
                    .place(format!("guest offset {:#x}", run.offset))
                    .at_byte(range.start)
            })?;
            buf = rest;
        }
        Ok(())
    }

    /// Decompresses a cluster, of which `out` takes the bytes from guest `offset`.
    fn decompress(&self, offset: u64, input: &[u8], out: &mut [u8]) -> Result<()> {
        let cluster_bytes = self.layout().cluster_bytes() as usize;
        if out.len() == cluster_bytes {
            return self.codec.decompress(input, out);
        }
        let mut cluster = vec![0; cluster_bytes];
        self.codec.decompress(input, &mut cluster)?;
        let start = self.layout().in_cluster(offset) as usize;
        out.copy_from_slice(&cluster[start..start + out.len()]);
        Ok(())
    }

    fn find_extent(&self, offset: u64) -> Result<Run> {
        let size = self.info.virtual_size;
        let mut meta = self.meta();
        let mut found = self.map.run(&mut meta.tables, offset, size)?;
        let mut budget = MAP_PAGES * CLUSTERS_PER_PAGE;
        while budget > 0 && found.offset + found.len < size {
            // Damage further on is reported when somebody asks for it.
            let Ok(next) = self
                .map
                .run(&mut meta.tables, found.offset + found.len, size)
            else {
                break;
            };
            let both = matches!(
                (found.kind, next.kind),
                (Kind::Compressed(_), Kind::Compressed(_))
            );
            if both {
                found.len += next.len;
            } else if !found.merge(&next) {
                break;
            }
            budget = budget.saturating_sub(if both { 1 } else { CLUSTERS_PER_PAGE });
        }
        Ok(found)
    }

    fn extent(&self, run: &Run) -> Extent {
        match run.kind {
            Kind::Hole => Extent::new(run.offset, run.len, ExtentKind::Hole),
            Kind::Zero => Extent::new(run.offset, run.len, ExtentKind::Zero),
            Kind::Data(host) => Extent::data(run.offset, run.len, &self.data_name, host),
            Kind::Compressed(compressed) => Extent {
                host: Some(HostPosition {
                    file: Arc::clone(&self.data_name),
                    offset: compressed.offset,
                }),
                compressed: true,
                ..Extent::new(run.offset, run.len, ExtentKind::Data)
            },
        }
    }
}

impl BlockImage for Image {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        let _open = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.read_guest(offset, buf)
            .map_err(|error| self.named(error))
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        self.check(offset, 1)?;
        let run = self
            .find_extent(offset)
            .map_err(|error| self.named(error))?;
        Ok(self.extent(&run))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        self.write_guest(offset, buf)
            .map_err(|error| self.named(error))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.check(range.start, range.end.saturating_sub(range.start))?;
        self.zero_guest(range).map_err(|error| self.named(error))
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.check(range.start, range.end.saturating_sub(range.start))?;
        self.discard_guest(range).map_err(|error| self.named(error))
    }

    fn flush(&self) -> Result<()> {
        self.flush_all().map_err(|error| self.named(error))
    }
}

/// Returns how many of the first runs are compressed and lie one after another in the file.
fn compressed_group(runs: &[Run]) -> usize {
    let Some(first) = runs.first().and_then(bytes_of) else {
        return 0;
    };
    let mut end = first.end;
    let mut n = 1;
    while let Some(next) = runs.get(n).and_then(bytes_of) {
        // Two neighbours may share a sector, at whose end both of their ranges are rounded up.
        let follows = next.start >= end.saturating_sub(512) && next.start <= end;
        if !follows || next.end - first.start > COMPRESSED_READ_BYTES {
            break;
        }
        end = next.end;
        n += 1;
    }
    n
}

fn bytes_of(run: &Run) -> Option<Range<u64>> {
    match run.kind {
        Kind::Compressed(compressed) => Some(compressed.offset..compressed.offset + compressed.len),
        _ => None,
    }
}
