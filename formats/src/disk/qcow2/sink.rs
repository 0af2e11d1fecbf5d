//! Creating an image (version 3) in one ascending pass.
//!
//! Header, L1 table, then data clusters with each L2 table after the clusters it maps and each
//! refcount block after the clusters it counts, the refcount table at the end. The header is
//! written last: until then the file is no qcow2.

use std::ops::Range;
use std::sync::Arc;

use hako_block::{Encode, Error, Result, Sink, Storage, is_zero};

use super::append::Appender;
use super::header::{self, Codec, Header, MAX_L1_BYTES};
use super::layout::{COPIED, Compressed, Layout, Mapped};
use crate::disk::qcow2::backing;
use crate::disk::{Allocation, Compression, CreateArgs};

const DEFAULT_CLUSTER_BYTES: u64 = 65536;
/// Zeros written at once.
const ZEROS_BYTES: u64 = 1 << 20;

/// What the encoder puts before a unit.
const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;
const ZERO: u8 = 2;

/// Writes a new image.
pub struct Qcow2Sink {
    storage: Arc<dyn Storage>,
    header: Header,
    layout: Layout,
    allocation: Allocation,
    encoder: Option<Arc<Encoder>>,
    out: Appender,
    l1: Vec<u8>,
    /// The L2 table being filled, by its L1 index.
    table: Option<(u64, Vec<u8>)>,
    /// Everything below has been delivered or is a hole.
    position: u64,
}

impl Qcow2Sink {
    /// Begins an image. Errors: options that contradict, a size that the tables cannot address.
    pub fn new(args: CreateArgs<'_>) -> Result<Self> {
        let header = new_header(&args)?;
        let layout = header.layout();
        let encoder = encoder(&args, &layout)?;
        let storage = args.storage;
        // A pipe cannot be read; better now than after all data.
        storage.read_at(0, &mut [])?;
        if !storage.is_blank() {
            // What was there must not be taken for an image while this one is unfinished.
            storage.write_at(0, &[0; 512])?;
        }
        let mut out = Appender::new(Arc::clone(&storage), layout);
        out.allocate(1)?;
        let l1 = vec![0; (u64::from(header.n_l1) * 8) as usize];
        let l1_offset = out.allocate((l1.len() as u64).div_ceil(layout.cluster_bytes()))?;
        Ok(Self {
            storage,
            header: Header {
                l1_offset,
                ..header
            },
            layout,
            allocation: args.options.allocation,
            encoder,
            out,
            l1,
            table: None,
            position: 0,
        })
    }

    /// Delivers what lies between the last delivery and `offset`.
    fn fill_gap(&mut self, offset: u64) -> Result<()> {
        if self.position < offset && self.allocation != Allocation::Thin {
            self.preallocate(self.position..offset)?;
        }
        self.position = self.position.max(offset);
        Ok(())
    }

    /// Allocates clusters for zeros: said to be zeros (lazy), or written (eager).
    fn preallocate(&mut self, range: Range<u64>) -> Result<()> {
        let zeros = vec![0; ZEROS_BYTES as usize];
        let mut offset = range.start;
        while offset < range.end {
            let mut end = self.table_end(offset).min(range.end);
            if self.allocation == Allocation::Eager {
                end = end.min(offset + ZEROS_BYTES);
                self.data(offset, &zeros[..(end - offset) as usize])?;
            } else {
                let n = (end - offset).div_ceil(self.layout.cluster_bytes());
                let host = self.out.allocate(n)?;
                self.storage
                    .reserve(host..host + n * self.layout.cluster_bytes())?;
                self.set_run(offset, n, host, u32::MAX)?;
            }
            offset = end;
            self.position = end;
        }
        Ok(())
    }

    /// Returns the first guest offset that the L2 table of `offset` does not cover.
    fn table_end(&self, offset: u64) -> u64 {
        (self.layout.l1_index(offset) + 1) << self.layout.span_shift()
    }

    /// Maps `n` clusters from guest `offset` to the host clusters from `host`.
    fn set_run(&mut self, offset: u64, n: u64, host: u64, zero: u32) -> Result<()> {
        for index in 0..n {
            let distance = index << self.layout.cluster_shift;
            let mapped = Mapped {
                host: Some(host + distance),
                copied: true,
                stored: !zero,
                zero,
            };
            self.set_entry(offset + distance, mapped.encode(&self.layout).0)?;
        }
        Ok(())
    }

    fn set_entry(&mut self, offset: u64, word: u64) -> Result<()> {
        let index = self.layout.l1_index(offset);
        if self
            .table
            .as_ref()
            .is_some_and(|(current, _)| *current != index)
        {
            self.close_table()?;
        }
        let cluster_bytes = self.layout.cluster_bytes() as usize;
        let (_, table) = self
            .table
            .get_or_insert_with(|| (index, vec![0; cluster_bytes]));
        let at = self.layout.entry_position(offset) as usize;
        table[at..at + 8].copy_from_slice(&word.to_be_bytes());
        Ok(())
    }

    fn close_table(&mut self) -> Result<()> {
        let Some((index, table)) = self.table.take() else {
            return Ok(());
        };
        let host = self.out.allocate(1)?;
        self.out.write(host, &table)?;
        let at = index as usize * 8;
        self.l1[at..at + 8].copy_from_slice(&(host | COPIED).to_be_bytes());
        Ok(())
    }

    /// Stores one compressed unit; plainly if its offset is beyond what an entry can hold.
    fn compressed(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let host = self.out.pack(bytes.len() as u64)?;
        let word = Compressed::encode(&self.layout, host, bytes.len() as u64).ok_or_else(|| {
            Error::invalid("the file grows beyond what compressed clusters can address")
                .hint("choose smaller clusters")
        })?;
        self.out.write(host, bytes)?;
        self.set_entry(offset, word)?;
        self.position = offset.saturating_add(self.layout.cluster_bytes());
        Ok(())
    }

    fn write_l1(&mut self) -> Result<()> {
        if self.storage.is_blank() && is_zero(&self.l1) {
            return Ok(());
        }
        let l1 = std::mem::take(&mut self.l1);
        let end = self.header.l1_offset + l1.len() as u64;
        self.out.write(self.header.l1_offset, &l1)?;
        self.out.pad(end)
    }
}

impl Sink for Qcow2Sink {
    fn unit_bytes(&self) -> u64 {
        self.layout.cluster_bytes()
    }

    fn encoder(&self) -> Option<Arc<dyn Encode>> {
        let encoder = Arc::clone(self.encoder.as_ref()?);
        Some(encoder)
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.fill_gap(offset)?;
        let (mut offset, mut bytes) = (offset, bytes);
        while !bytes.is_empty() {
            let room = self.table_end(offset) - offset;
            let (now, rest) =
                bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            let len = now.len() as u64;
            let n = len.div_ceil(self.layout.cluster_bytes());
            let host = self.out.allocate(n)?;
            self.out.write(host, now)?;
            self.out.pad(host + len)?;
            self.set_run(offset, n, host, 0)?;
            offset += len;
            bytes = rest;
        }
        self.position = offset;
        Ok(())
    }

    fn encoded(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        match bytes.split_first() {
            Some((&PLAIN, unit)) => self.data(offset, unit),
            Some((&COMPRESSED, unit)) => self.compressed(offset, unit),
            _ => {
                let end = offset.saturating_add(self.layout.cluster_bytes());
                self.zero(offset..end.min(self.header.virtual_size))
            }
        }
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.fill_gap(range.start)?;
        if self.header.backing_name.is_none() {
            return self.fill_gap(range.end);
        }
        let word = Mapped {
            zero: u32::MAX,
            ..Mapped::default()
        }
        .encode(&self.layout)
        .0;
        let mut offset = range.start;
        while offset < range.end {
            self.set_entry(offset, word)?;
            offset += self.layout.cluster_bytes();
        }
        self.position = range.end;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.fill_gap(self.header.virtual_size)?;
        self.close_table()?;
        self.write_l1()?;
        let table = self.out.finish()?;
        if !self.storage.is_device() {
            self.storage.set_len(self.out.len_bytes())?;
        }
        self.header.refcount_table_offset = table.offset;
        self.header.refcount_table_clusters = table.n_clusters as u32;
        self.storage.sync()?;
        let mut cluster = self.header.encode()?;
        cluster.resize(self.layout.cluster_bytes() as usize, 0);
        self.storage.write_at(0, &cluster)?;
        self.storage.sync()
    }
}

/// Compresses units.
struct Encoder {
    codec: Codec,
    level: u32,
    cluster_bytes: usize,
}

impl Encode for Encoder {
    fn encode(&self, _offset: u64, unit: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if is_zero(unit) {
            out.push(ZERO);
            return Ok(());
        }
        out.push(COMPRESSED);
        let done = if unit.len() == self.cluster_bytes {
            self.codec.compress(self.level, unit, out)?
        } else {
            // The end of the disk: a compressed cluster is always a whole one.
            let mut cluster = unit.to_vec();
            cluster.resize(self.cluster_bytes, 0);
            self.codec.compress(self.level, &cluster, out)?
        };
        if !done {
            out.clear();
            out.push(PLAIN);
            out.extend_from_slice(unit);
        }
        Ok(())
    }
}

fn encoder(args: &CreateArgs<'_>, layout: &Layout) -> Result<Option<Arc<Encoder>>> {
    let options = &args.options;
    let codec = match options.compression {
        None | Some(Compression::None) => {
            return match options.level {
                Some(_) => Err(Error::invalid("a compression level, but no compression")),
                None => Ok(None),
            };
        }
        Some(Compression::Zlib) => Codec::Deflate,
        Some(Compression::Zstd) => Codec::Zstd,
    };
    if options.allocation != Allocation::Thin {
        return Err(Error::invalid(
            "compressed clusters cannot be allocated in advance",
        ));
    }
    let level = options.level.unwrap_or(codec.default_level());
    if !(1..=codec.max_level()).contains(&level) {
        return Err(Error::invalid(format!(
            "{} has no level {level}: 1 to {}",
            codec.name(),
            codec.max_level()
        )));
    }
    Ok(Some(Arc::new(Encoder {
        codec,
        level,
        cluster_bytes: layout.cluster_bytes() as usize,
    })))
}

/// Returns the header of the new image; where its tables are comes later.
fn new_header(args: &CreateArgs<'_>) -> Result<Header> {
    let options = &args.options;
    options.refuse_others("qcow2", &["allocation", "unit", "compression", "level"])?;
    if let Some(name) = options
        .subformat
        .as_deref()
        .filter(|name| !name.eq_ignore_ascii_case("v3"))
    {
        return Err(Error::unsupported(format!(
            "qcow2 {name} cannot be created: only v3"
        )));
    }
    let cluster_bytes = options.unit_bytes.unwrap_or(DEFAULT_CLUSTER_BYTES);
    if !cluster_bytes.is_power_of_two() || !(9..=21).contains(&cluster_bytes.ilog2()) {
        return Err(Error::invalid(format!(
            "a cluster of {cluster_bytes} bytes: a power of two from 512 to 2097152 is needed"
        )));
    }
    if args.parent.is_some() && options.allocation != Allocation::Thin {
        return Err(Error::invalid(
            "an overlay cannot be allocated in advance: it would hide its parent",
        ));
    }
    let zstd = options.compression == Some(Compression::Zstd);
    let mut header = Header {
        version: 3,
        virtual_size: args.virtual_size,
        cluster_shift: cluster_bytes.ilog2(),
        refcount_order: 4,
        n_l1: 0,
        l1_offset: 0,
        refcount_table_offset: 0,
        refcount_table_clusters: 0,
        n_snapshots: 0,
        snapshots_offset: 0,
        incompatible: if zstd { header::COMPRESSION_TYPE } else { 0 },
        compatible: 0,
        autoclear: 0,
        codec: if zstd { Codec::Zstd } else { Codec::Deflate },
        backing_name: args.parent.as_ref().map(|parent| plain_name(&parent.name)),
        backing_format: args
            .parent
            .as_ref()
            .and_then(|parent| parent.format.as_deref())
            .map(|name| backing::to_qemu(name).to_owned()),
        data_file_name: None,
        bitmaps: None,
    };
    if header.backing_name.is_some() && header.backing_format.is_none() {
        return Err(Error::invalid("the format of the parent is not known"));
    }
    header.n_l1 = l1_entries(&header.layout(), args.virtual_size)?;
    header.encode()?;
    Ok(header)
}

/// Returns a parent's name as qemu takes it for a file's: a colon would be a protocol.
pub fn plain_name(name: &str) -> String {
    if name.contains(':') && !name.starts_with('/') {
        format!("./{name}")
    } else {
        name.to_owned()
    }
}

/// Returns the entries of the L1 table. Errors: the disk, when full, cannot be addressed.
pub fn l1_entries(layout: &Layout, virtual_size: u64) -> Result<u32> {
    let n_l1 = layout.n_l1(virtual_size).max(1);
    let n_data = virtual_size.div_ceil(layout.cluster_bytes());
    let n_l1_clusters = (n_l1 * 8).div_ceil(layout.cluster_bytes());
    let n_clusters = n_data.saturating_add(n_l1 + n_l1_clusters + 1);
    let n_blocks = (n_clusters >> layout.block_shift()) + 2;
    let n_table = header::MAX_REFCOUNT_TABLE_BYTES >> layout.cluster_shift;
    let total = n_clusters.saturating_add(2 * n_blocks + n_table);
    if n_l1 * 8 > MAX_L1_BYTES || total > Appender::max_clusters(layout) {
        return Err(Error::invalid(format!(
            "{virtual_size} bytes are too many for clusters of {} bytes",
            layout.cluster_bytes()
        ))
        .hint("choose larger clusters with --unit"));
    }
    u32::try_from(n_l1).map_err(|_| Error::invalid("the disk is too large"))
}
