//! Raw: the file is the disk. Sparse files, block devices, pipes (as a target).
//!
//! It has no magic: [`crate::detect`] decides by name and kind of file, never by content.

use std::ops::Range;
use std::sync::Arc;

use hako_block::image::check_range;
use hako_block::{
    Access, BlockImage, Error, Extent, ExtentKind, ImageInfo, Result, SECTOR_BYTES, Sink, Storage,
    is_zero, write_zeros,
};

use super::{Allocation, CreateArgs, DiskFormat, OpenArgs, Subformat, Task};

/// Zeros are given back to the host by blocks of its usual size.
const BLOCK_BYTES: usize = 4096;
/// Bytes looked at before the zeros among them are given back.
const CHUNK_BYTES: u64 = 4 << 20;

/// The raw format.
pub struct Raw;

impl DiskFormat for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["raw", "img", "dd"]
    }

    fn subformats(&self) -> &'static [Subformat] {
        &[Subformat {
            name: "",
            read: true,
            create: true,
            write: true,
            pipe: true,
            resize: true,
            compact: true,
            notes: "sparse files, block devices, stdin and stdout",
            ..Subformat::NONE
        }]
    }

    fn probe(&self, _head: &[u8], _tail: &[u8]) -> bool {
        false
    }

    fn open(&self, args: OpenArgs) -> Result<Box<dyn BlockImage>> {
        Ok(Box::new(RawImage::open(args)?))
    }

    fn stream(&self, args: CreateArgs<'_>) -> Result<Box<dyn Sink>> {
        args.options.refuse_others("raw", &["allocation"])?;
        if args.parent.is_some() {
            return Err(Error::unsupported("a raw image can have no parent"));
        }
        if args
            .options
            .subformat
            .as_ref()
            .is_some_and(|name| !name.is_empty())
        {
            return Err(Error::invalid("raw has no subformats"));
        }
        Ok(Box::new(RawSink::new(
            args.storage,
            args.virtual_size,
            args.options.allocation,
        )?))
    }

    fn resize(&self, args: OpenArgs, virtual_size: u64) -> Result<()> {
        if args.storage.is_device() {
            return Err(Error::unsupported("the size of a block device is its own")
                .hint("resize the volume or the partition that it is"));
        }
        args.storage.set_len(virtual_size)?;
        args.storage.sync()
    }

    fn compact(&self, args: OpenArgs, task: Task<'_>) -> Result<()> {
        let len = args.storage.len_bytes()?;
        task.progress.phase("look for zeros");
        task.progress.total(len);
        give_back_zeros(&*args.storage, 0..len, task)
    }
}

/// Gives the blocks of the host in `range` that are all zeros back to it.
pub(crate) fn give_back_zeros(
    storage: &dyn Storage,
    range: Range<u64>,
    task: Task<'_>,
) -> Result<()> {
    let mut offset = range.start;
    while offset < range.end {
        task.cancel.check()?;
        let run = storage.next_extent(offset)?;
        let start = (offset - offset % BLOCK_BYTES as u64).max(range.start);
        let mut end = (offset + run.len).min(range.end);
        if run.data {
            end = end.min(start - start % BLOCK_BYTES as u64 + CHUNK_BYTES);
            punch_zeros(storage, start..end)?;
        }
        task.progress.advance(end - offset);
        offset = end;
    }
    storage.sync()
}

/// Punches the blocks of `run`, which begins at one, that are all zeros. They read as before,
/// whether the holes reach the disk or not.
fn punch_zeros(storage: &dyn Storage, run: Range<u64>) -> Result<()> {
    let mut bytes = vec![0; (run.end - run.start) as usize];
    storage.read_at(run.start, &mut bytes)?;
    let mut zeros: Option<Range<u64>> = None;
    let mut at = run.start;
    for block in bytes.chunks(BLOCK_BYTES) {
        let end = at + block.len() as u64;
        if is_zero(block) {
            let start = zeros.take().map_or(at, |zeros| zeros.start);
            zeros = Some(start..end);
        } else if let Some(zeros) = zeros.take() {
            storage.punch_hole(zeros)?;
        }
        at = end;
    }
    zeros.map_or(Ok(()), |zeros| storage.punch_hole(zeros))
}

/// A disk whose bytes are those of the file, from its beginning on.
pub(super) struct RawImage {
    storage: Arc<dyn Storage>,
    host_name: Arc<str>,
    info: ImageInfo,
}

impl RawImage {
    /// Returns the disk that `info` describes, on `storage`.
    pub(super) fn new(storage: Arc<dyn Storage>, info: ImageInfo) -> Self {
        Self {
            host_name: storage.name().into(),
            storage,
            info,
        }
    }

    /// Opens a raw file. Its size is the file's: a tail of less than a sector is there too.
    fn open(args: OpenArgs) -> Result<Self> {
        let len = args.storage.len_bytes()?;
        let mut info = ImageInfo {
            format: "raw",
            virtual_size: len,
            unit_bytes: SECTOR_BYTES,
            writable: args.access == Access::ReadWrite,
            files: vec![args.storage.name().to_owned()],
            allocated_size: args.storage.allocated_bytes()?,
            ..ImageInfo::default()
        };
        if !len.is_multiple_of(SECTOR_BYTES) {
            info.oddities
                .push(format!("size {len} is no multiple of 512 bytes"));
        }
        if args.storage.is_device() {
            info.details.push(("block_device", true.into()));
        }
        Ok(Self::new(args.storage, info))
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        check_range(self.info.virtual_size, offset, len)
            .map_err(|error| error.in_file(self.storage.name()))
    }

    fn check_write(&self, offset: u64, len: u64) -> Result<()> {
        if !self.info.writable {
            return Err(Error::read_only().in_file(self.storage.name()));
        }
        self.check(offset, len)
    }
}

impl BlockImage for RawImage {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        self.storage.read_at(offset, buf)
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        self.check(offset, 1)?;
        let run = self.storage.next_extent(offset)?;
        let extent = Extent::data(offset, run.len, &self.host_name, offset);
        let kind = if run.data {
            ExtentKind::Data
        } else {
            ExtentKind::Zero
        };
        Ok(Extent { kind, ..extent }.clipped(self.info.virtual_size))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.check_write(offset, buf.len() as u64)?;
        self.storage.write_at(offset, buf)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.check_write(range.start, range.end.saturating_sub(range.start))?;
        self.storage.punch_hole(range)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.write_zeroes(range)
    }

    fn flush(&self) -> Result<()> {
        if self.info.writable {
            self.storage.sync()
        } else {
            Ok(())
        }
    }
}

/// Writes a raw disk. Zeros are skipped where the target is known to be blank, and written or
/// punched where it is not.
pub(super) struct RawSink {
    storage: Arc<dyn Storage>,
    virtual_size: u64,
    allocation: Allocation,
    /// Everything below has been delivered; between here and the next delivery is a gap.
    position: u64,
}

impl RawSink {
    /// Returns a sink that fills `storage` with a disk of `virtual_size` bytes.
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        virtual_size: u64,
        allocation: Allocation,
    ) -> Result<Self> {
        // A device must be large enough; a pipe learns its length at the end.
        if storage.is_device() {
            storage.set_len(virtual_size)?;
        }
        if allocation != Allocation::Thin {
            storage.reserve(0..virtual_size)?;
        }
        Ok(Self {
            storage,
            virtual_size,
            allocation,
            position: 0,
        })
    }

    fn fill_gap(&mut self, offset: u64) -> Result<()> {
        let gap = self.position..offset;
        if gap.is_empty() {
            Ok(())
        } else {
            self.zero(gap)
        }
    }
}

impl Sink for RawSink {
    fn unit_bytes(&self) -> u64 {
        4096
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.fill_gap(offset)?;
        self.storage.write_at(offset, bytes)?;
        self.position = offset + bytes.len() as u64;
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        if self.allocation == Allocation::Eager {
            write_zeros(&*self.storage, range.clone())?;
        } else if !self.storage.is_blank() {
            self.storage.punch_hole(range.clone())?;
        }
        self.position = range.end;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.fill_gap(self.virtual_size)?;
        self.storage.set_len(self.virtual_size)?;
        self.storage.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hako_block::{MemoryFolder, MemoryStorage};

    fn args_of(storage: Arc<dyn Storage>) -> OpenArgs {
        OpenArgs {
            storage,
            name: "disk".into(),
            resolver: Arc::new(MemoryFolder::default()),
            access: Access::ReadWrite,
            salvage: false,
            snapshot: None,
        }
    }

    #[test]
    fn resizing_keeps_what_fits_and_adds_zeros() {
        let storage = Arc::new(MemoryStorage::new("disk", vec![7; 8192]));
        Raw.resize(args_of(storage.clone()), 4608).unwrap();
        assert_eq!(storage.to_vec(), [7; 4608]);
        Raw.resize(args_of(storage.clone()), 16384).unwrap();
        assert_eq!(storage.to_vec()[..4608], [7; 4608]);
        assert!(is_zero(&storage.to_vec()[4608..]) && storage.to_vec().len() == 16384);
    }

    #[test]
    fn compacting_punches_zeros_and_nothing_else_and_survives_cuts() {
        use hako_block::testkit::{FaultFolder, Rng, SparseBytes, cut_images};
        let mut content = Rng::new(1).bytes(9 << 20);
        for (start, len) in [
            (0, 4096),
            (10_000, 9000),
            (3 << 20, 3 << 20),
            (9_000_000, 437_184),
        ] {
            content[start..start + len].fill(0);
        }
        let folder = FaultFolder::default();
        folder.insert("disk", SparseBytes::from_bytes(&content));
        let (before, numbers) = (folder.files(), folder.numbers());
        let task = Task {
            progress: &hako_block::NoProgress,
            cancel: &hako_block::Cancel::default(),
        };
        let storage = folder.file("disk").unwrap();
        Raw.compact(args_of(storage.clone()), task).unwrap();
        let allocated = storage.allocated_bytes().unwrap();
        assert_eq!(allocated, (9 << 20) - 4096 - 4096 - (3 << 20) - 434_176);
        let log = folder.take_log();
        cut_images(&before, &numbers, &log, 4, &mut Rng::new(2), |cut| {
            assert!(cut.folder.files()["disk"].to_vec() == content);
        });
        // A file of terabytes costs what is in it.
        storage.set_len(4 << 40).unwrap();
        Raw.compact(args_of(storage), task).unwrap();
    }

    fn sink_onto(old: Vec<u8>, size: u64, allocation: Allocation) -> (Arc<MemoryStorage>, RawSink) {
        let storage = Arc::new(MemoryStorage::new("disk", old));
        let sink = RawSink::new(storage.clone(), size, allocation).unwrap();
        (storage, sink)
    }

    #[test]
    fn gaps_read_as_zeros_even_over_old_bytes() {
        let (storage, mut sink) = sink_onto(vec![7; 16384], 16384, Allocation::Thin);
        sink.data(4096, &[1; 4096]).unwrap();
        Box::new(sink).finish().unwrap();
        let bytes = storage.to_vec();
        assert!(bytes[..4096].iter().all(|byte| *byte == 0));
        assert!(bytes[4096..8192].iter().all(|byte| *byte == 1));
        assert!(bytes[8192..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn new_file_gets_its_full_length() {
        let (storage, sink) = sink_onto(Vec::new(), 12345 * 512, Allocation::Thin);
        Box::new(sink).finish().unwrap();
        assert_eq!(storage.len_bytes().unwrap(), 12345 * 512);
    }

    #[test]
    fn reading_past_the_end_is_refused() {
        let storage = Arc::new(MemoryStorage::new("disk", vec![0; 1024]));
        let image = Raw
            .open(OpenArgs {
                storage,
                name: "disk".into(),
                resolver: Arc::new(MemoryFolder::default()),
                access: Access::ReadOnly,
                salvage: false,
                snapshot: None,
            })
            .unwrap();
        assert!(image.read_at(1000, &mut [0; 25]).is_err());
        assert!(image.write_at(0, &[0]).is_err());
    }
}
