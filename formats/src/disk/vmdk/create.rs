//! New images: which files a variant consists of, and the descriptor that names them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use hako_block::{ContentId, Error, ParentLink, Result, SECTOR_BYTES, Sink, Storage};

use super::create_type::{CREATE_TYPES, canonical};
use super::descriptor::{MAX_DESCRIPTOR_BYTES, check_value};
use super::hosted::{HostedCreate, HostedSink};
use super::layout::MAX_EXTENTS;
use super::stream::{StreamCreate, StreamSink};
use super::template::{DEFAULT_HW_VERSION, Template};
use crate::disk::raw::RawSink;
use crate::disk::{Allocation, Compression, CreateArgs};

/// Sectors of an extent of a split disk: 2047 MiB, as VMware splits.
pub const SPLIT_SECTORS: u64 = 4_192_256;
const SPLIT_BYTES: u64 = SPLIT_SECTORS * SECTOR_BYTES;
/// Grain of VMware's sparse files.
const DEFAULT_GRAIN_BYTES: u64 = 65536;
/// Smallest and largest grain: what VMware takes, and what divides the split size.
const GRAIN_BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 20;

/// A variant that can be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    MonolithicSparse,
    SplitSparse,
    MonolithicFlat,
    SplitFlat,
    Vmfs,
    StreamOptimized,
}

impl Variant {
    fn chosen(subformat: Option<&str>) -> Result<Self> {
        let name = subformat.filter(|name| !name.is_empty());
        match canonical(name.unwrap_or("monolithicSparse")) {
            Some("monolithicSparse") => Ok(Self::MonolithicSparse),
            Some("twoGbMaxExtentSparse") => Ok(Self::SplitSparse),
            Some("monolithicFlat") => Ok(Self::MonolithicFlat),
            Some("twoGbMaxExtentFlat") => Ok(Self::SplitFlat),
            Some("vmfs") => Ok(Self::Vmfs),
            Some("streamOptimized") => Ok(Self::StreamOptimized),
            known => {
                let creatable: Vec<_> = CREATE_TYPES
                    .iter()
                    .filter(|row| row.create)
                    .map(|row| row.name)
                    .collect();
                let name = name.unwrap_or_default();
                let error = match known {
                    Some(_) => Error::unsupported(format!("VMDK {name} cannot be created")),
                    None => Error::invalid(format!("VMDK has no subformat {name:?}")),
                };
                Err(error.hint(format!("one of {}", creatable.join(", "))))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::MonolithicSparse => "monolithicSparse",
            Self::SplitSparse => "twoGbMaxExtentSparse",
            Self::MonolithicFlat => "monolithicFlat",
            Self::SplitFlat => "twoGbMaxExtentFlat",
            Self::Vmfs => "vmfs",
            Self::StreamOptimized => "streamOptimized",
        }
    }

    /// Options of [`crate::CreateOptions`] that it has.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::MonolithicSparse | Self::SplitSparse => {
                &["allocation", "unit", "adapter", "hw-version"]
            }
            Self::MonolithicFlat | Self::SplitFlat | Self::Vmfs => {
                &["allocation", "adapter", "hw-version"]
            }
            Self::StreamOptimized => &["compression", "level", "adapter", "hw-version"],
        }
    }

    fn is_sparse(self) -> bool {
        matches!(self, Self::MonolithicSparse | Self::SplitSparse)
    }
}

/// Creates an image, to be filled in one ascending pass.
pub fn stream(args: CreateArgs<'_>) -> Result<Box<dyn Sink>> {
    let variant = Variant::chosen(args.options.subformat.as_deref())?;
    let format = format!("VMDK {}", variant.name());
    args.options.refuse_others(&format, variant.options())?;
    check_request(variant, &args)?;
    match variant {
        Variant::MonolithicSparse => monolithic_sparse(args),
        Variant::StreamOptimized => stream_optimized(args),
        _ => Ok(Box::new(ExtentsSink::new(variant, args)?)),
    }
}

fn check_request(variant: Variant, args: &CreateArgs<'_>) -> Result<()> {
    let size = args.virtual_size;
    if size == 0 || !size.is_multiple_of(SECTOR_BYTES) || size > i64::MAX as u64 {
        return Err(Error::invalid(format!(
            "a VMDK cannot have a size of {size} bytes (a multiple of 512, at least 512)"
        )));
    }
    if args.storage.is_device() {
        return Err(
            Error::unsupported("a VMDK cannot be written to a block device")
                .hint("write raw to the device: --to raw"),
        );
    }
    if args.options.compression == Some(Compression::Zstd) {
        return Err(Error::invalid("VMDK has no zstd compression"));
    }
    if let Some(unit) = args.options.unit_bytes
        && !(unit.is_power_of_two() && GRAIN_BYTES.contains(&unit))
    {
        return Err(Error::invalid(format!(
            "a grain of {unit} bytes (a power of two from 4 KiB to 1 MiB)"
        )));
    }
    if args.parent.is_some() && args.options.allocation != Allocation::Thin {
        return Err(Error::invalid(
            "an overlay is always thin: what it stores hides its parent",
        ));
    }
    check_value(&args.name)?;
    args.parent
        .as_ref()
        .map_or(Ok(()), |parent| check_parent(variant, parent))
}

fn check_parent(variant: Variant, parent: &ParentLink) -> Result<()> {
    if !variant.is_sparse() {
        let what = format!("a VMDK {} can have no parent", variant.name());
        return Err(
            Error::unsupported(what).hint("overlays are monolithicSparse or twoGbMaxExtentSparse")
        );
    }
    if parent
        .format
        .as_deref()
        .is_some_and(|format| format != "vmdk")
        || !matches!(parent.content_id, Some(ContentId::Cid(_)))
    {
        return Err(
            Error::unsupported("the parent of a VMDK must be a VMDK with a CID")
                .in_file(&parent.name),
        );
    }
    check_value(&parent.name)
}

/// Returns the descriptor's text for these extent lines.
fn descriptor_text(
    variant: Variant,
    args: &CreateArgs<'_>,
    extent_lines: &[String],
) -> Result<String> {
    let text = Template {
        create_type: variant.name(),
        extent_lines,
        virtual_size: args.virtual_size,
        parent: args.parent.as_ref(),
        adapter: args.options.adapter.unwrap_or_default(),
        hw_version: args.options.hw_version.unwrap_or(DEFAULT_HW_VERSION),
        thin_provisioned: variant == Variant::Vmfs && args.options.allocation == Allocation::Thin,
        seed: args.options.seed,
    }
    .text();
    if text.len() as u64 > MAX_DESCRIPTOR_BYTES {
        return Err(too_many_extents(
            args.virtual_size,
            extent_lines.len() as u64,
        ));
    }
    Ok(text)
}

fn monolithic_sparse(args: CreateArgs<'_>) -> Result<Box<dyn Sink>> {
    let n_sectors = args.virtual_size / SECTOR_BYTES;
    let line = format!("RW {n_sectors} SPARSE \"{}\"", args.name);
    let descriptor = descriptor_text(Variant::MonolithicSparse, &args, &[line])?;
    let sink = HostedSink::new(HostedCreate {
        storage: args.storage,
        capacity_bytes: args.virtual_size,
        grain_bytes: args.options.unit_bytes.unwrap_or(DEFAULT_GRAIN_BYTES),
        descriptor: Some(descriptor.into_bytes()),
        zeroed_grains: args.parent.is_some(),
        allocation: args.options.allocation,
    })?;
    Ok(Box::new(sink))
}

fn stream_optimized(args: CreateArgs<'_>) -> Result<Box<dyn Sink>> {
    if args.options.compression == Some(Compression::None) {
        return Err(Error::invalid("VMDK streamOptimized is always compressed"));
    }
    let variant = Variant::StreamOptimized;
    // What is written to a pipe has no name yet.
    let name = match args.name.as_str() {
        "" | "-" => "disk.vmdk",
        name => name,
    };
    let n_sectors = args.virtual_size / SECTOR_BYTES;
    let line = format!("RDONLY {n_sectors} SPARSE \"{name}\"");
    let descriptor = descriptor_text(variant, &args, &[line])?;
    let sink = StreamSink::new(StreamCreate {
        storage: args.storage,
        capacity_bytes: args.virtual_size,
        descriptor: descriptor.into_bytes(),
        level: args.options.level,
    })?;
    Ok(Box::new(sink))
}

/// Writes an image of a text descriptor and extent files, one extent after the other.
struct ExtentsSink {
    plan: ExtentPlan,
    waiting: VecDeque<NewExtent>,
    current: Option<(Range<u64>, Box<dyn Sink>)>,
    descriptor: String,
    descriptor_storage: Arc<dyn Storage>,
}

/// How each extent is written.
struct ExtentPlan {
    grain_bytes: Option<u64>,
    zeroed_grains: bool,
    allocation: Allocation,
}

struct NewExtent {
    range: Range<u64>,
    storage: Arc<dyn Storage>,
}

impl ExtentsSink {
    fn new(variant: Variant, args: CreateArgs<'_>) -> Result<Self> {
        let ranges = extent_ranges(variant, args.virtual_size, args.options.extent_bytes)?;
        let stem = stem(&args.name);
        let mut lines = Vec::new();
        let mut names = Vec::new();
        for (index, range) in ranges.iter().enumerate() {
            let name = extent_name(variant, stem, index + 1);
            let n_sectors = (range.end - range.start) / SECTOR_BYTES;
            lines.push(match variant {
                Variant::SplitSparse => format!("RW {n_sectors} SPARSE \"{name}\""),
                Variant::Vmfs => format!("RW {n_sectors} VMFS \"{name}\""),
                _ => format!("RW {n_sectors} FLAT \"{name}\" 0"),
            });
            names.push(name);
        }
        let descriptor = descriptor_text(variant, &args, &lines)?;
        let mut waiting = VecDeque::with_capacity(ranges.len());
        for (range, name) in ranges.into_iter().zip(names) {
            let storage = args.outputs.create(&name)?;
            waiting.push_back(NewExtent { range, storage });
        }
        let grain_bytes = args.options.unit_bytes.unwrap_or(DEFAULT_GRAIN_BYTES);
        Ok(Self {
            plan: ExtentPlan {
                grain_bytes: variant.is_sparse().then_some(grain_bytes),
                zeroed_grains: args.parent.is_some(),
                allocation: args.options.allocation,
            },
            waiting,
            current: None,
            descriptor,
            descriptor_storage: args.storage,
        })
    }

    /// Returns the extent that holds `offset`, finishing those before it.
    fn extent_at(&mut self, offset: u64) -> Result<(Range<u64>, &mut dyn Sink)> {
        while self
            .current
            .as_ref()
            .is_none_or(|(range, _)| offset >= range.end)
        {
            self.next_extent()?;
        }
        match &mut self.current {
            Some((range, sink)) => Ok((range.clone(), &mut **sink)),
            None => Err(past_end(offset)),
        }
    }

    fn next_extent(&mut self) -> Result<()> {
        if let Some((_, sink)) = self.current.take() {
            sink.finish()?;
        }
        let next = self.waiting.pop_front().ok_or_else(|| past_end(0))?;
        let sink = self.plan.open(&next)?;
        self.current = Some((next.range, sink));
        Ok(())
    }
}

impl ExtentPlan {
    fn open(&self, extent: &NewExtent) -> Result<Box<dyn Sink>> {
        let len = extent.range.end - extent.range.start;
        let storage = Arc::clone(&extent.storage);
        match self.grain_bytes {
            Some(grain_bytes) => Ok(Box::new(HostedSink::new(HostedCreate {
                storage,
                capacity_bytes: len,
                grain_bytes,
                descriptor: None,
                zeroed_grains: self.zeroed_grains,
                allocation: self.allocation,
            })?)),
            None => Ok(Box::new(RawSink::new(storage, len, self.allocation)?)),
        }
    }

    /// Writes extents to which nothing was delivered, several at once: each waits for its sync.
    fn make_empty(&self, extents: &[NewExtent]) -> Result<()> {
        const MAX_THREADS: usize = 16;
        let per_thread = extents.len().div_ceil(MAX_THREADS).max(1);
        let make = |extents: &[NewExtent]| {
            let mut extents = extents.iter();
            extents.try_for_each(|extent| self.open(extent)?.finish())
        };
        if extents.len() <= 1 {
            return make(extents);
        }
        std::thread::scope(|scope| {
            let chunks = extents.chunks(per_thread);
            let threads: Vec<_> = chunks
                .map(|chunk| scope.spawn(move || make(chunk)))
                .collect();
            let ends = threads.into_iter().map(|thread| {
                let failed = |_| Err(Error::invalid("a thread ended before its time"));
                thread.join().unwrap_or_else(failed)
            });
            ends.collect()
        })
    }
}

impl Sink for ExtentsSink {
    fn unit_bytes(&self) -> u64 {
        self.plan.grain_bytes.unwrap_or(4096)
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let (mut offset, mut bytes) = (offset, bytes);
        while !bytes.is_empty() {
            let (range, sink) = self.extent_at(offset)?;
            let len = (range.end - offset).min(bytes.len() as u64);
            let (now, rest) = bytes.split_at(len as usize);
            sink.data(offset - range.start, now)?;
            bytes = rest;
            offset += len;
        }
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        let mut offset = range.start;
        while offset < range.end {
            let (extent, sink) = self.extent_at(offset)?;
            let end = extent.end.min(range.end);
            sink.zero(offset - extent.start..end - extent.start)?;
            offset = end;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if let Some((_, sink)) = self.current.take() {
            sink.finish()?;
        }
        self.plan.make_empty(self.waiting.make_contiguous())?;
        self.descriptor_storage
            .write_at(0, self.descriptor.as_bytes())?;
        self.descriptor_storage.sync()
    }
}

fn past_end(offset: u64) -> Error {
    Error::invalid(format!("delivery at {offset} is past the end of the disk"))
}

fn extent_ranges(variant: Variant, size: u64, longest: Option<u64>) -> Result<Vec<Range<u64>>> {
    let split = match variant {
        Variant::SplitSparse => longest.unwrap_or(SPLIT_BYTES),
        Variant::SplitFlat => SPLIT_BYTES,
        _ => size,
    };
    if split == 0 || (split < size && !split.is_multiple_of(*GRAIN_BYTES.end())) {
        let what = format!("an extent file cannot hold {split} bytes (a multiple of 1 MiB)");
        return Err(Error::invalid(what));
    }
    let n_extents = size.div_ceil(split);
    if n_extents > MAX_EXTENTS as u64 {
        return Err(too_many_extents(size, n_extents));
    }
    Ok((0..n_extents)
        .map(|index| index * split..((index + 1) * split).min(size))
        .collect())
}

fn too_many_extents(size: u64, n_extents: u64) -> Error {
    Error::invalid(format!(
        "a size of {size} bytes makes too many extent files ({n_extents})"
    ))
    .hint("choose a subformat of one file")
}

fn extent_name(variant: Variant, stem: &str, number: usize) -> String {
    match variant {
        Variant::SplitSparse => format!("{stem}-s{number:03}.vmdk"),
        Variant::SplitFlat => format!("{stem}-f{number:03}.vmdk"),
        _ => format!("{stem}-flat.vmdk"),
    }
}

/// Returns the name without its extension `.vmdk`.
pub fn stem(name: &str) -> &str {
    match name
        .len()
        .checked_sub(5)
        .and_then(|at| name.split_at_checked(at))
    {
        Some((stem, extension)) if extension.eq_ignore_ascii_case(".vmdk") && !stem.is_empty() => {
            stem
        }
        _ => name,
    }
}
