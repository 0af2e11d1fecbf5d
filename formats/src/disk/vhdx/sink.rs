//! Creating: a new image, filled in one ascending pass.
//!
//! | file offset | what |
//! |---|---|
//! | 0 | file identifier, headers, region tables |
//! | 1 MiB | log, 1 MiB, empty |
//! | 2 MiB | metadata, 1 MiB |
//! | 3 MiB | BAT, whole MiB |
//! | behind | blocks, in the order of delivery (all of them, in the order of the disk, if fixed) |

use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result, Sink, Storage, Uuid, write_zeros};

use super::header::{HEADER_OFFSETS, Header, MAGIC};
use super::layout::{ENTRY_BYTES, Layout, MIB, STATE_PRESENT, STATE_ZERO};
use super::locator::Locator;
use super::metadata;
use super::region::{RegionTable, TABLE_OFFSETS};
use crate::disk::delivery::skipped_before;
use crate::disk::{Allocation, CreateArgs};

const LOG: Range<u64> = MIB..2 * MIB;
const METADATA: Range<u64> = 2 * MIB..3 * MIB;
const BAT_OFFSET: u64 = 3 * MIB;
/// Unit of delivery where there is no parent: smaller than a block, so that zeros inside one stay
/// holes of the host file.
const UNIT: u64 = 4096;
/// Blocks of a new image: small enough that little space is taken in vain and that a guest's
/// discards free whole ones.
const BLOCK: u64 = 2 * MIB;
/// Blocks double until there are no more: a BAT of 8 MiB.
const MAX_DEFAULT_BLOCKS: u64 = 1 << 20;
/// Entries of the BAT kept in memory.
const WINDOW: u64 = 8192;

/// Writes a new image.
pub struct VhdxSink {
    storage: Arc<dyn Storage>,
    layout: Layout,
    bat: Range<u64>,
    fixed: bool,
    /// Every block is stored; zeros are written too if eager.
    allocation: Allocation,
    locator: Option<Locator>,
    /// Whether what is not written reads as zeros.
    blank: bool,
    /// File offset of the next block.
    next_block: u64,
    /// The block stored last, and where.
    last: Option<(u64, u64)>,
    /// Guest offset below which everything has been delivered or skipped.
    position: u64,
    /// Entries of a part of the BAT, and which part.
    entries: Vec<u64>,
    window: u64,
}

impl VhdxSink {
    /// Checks the request and prepares the target.
    pub fn new(args: CreateArgs<'_>) -> Result<Self> {
        args.options
            .refuse_others("vhdx", &["allocation", "unit", "sector-size"])?;
        let fixed = is_fixed(args.options.subformat.as_deref(), args.parent.is_some())?;
        let locator = args.parent.as_ref().map(Locator::of).transpose()?;
        let layout = new_layout(&args, locator.is_some())?;
        let bat_len = (layout.n_entries() * ENTRY_BYTES).next_multiple_of(MIB);
        let bat = BAT_OFFSET..BAT_OFFSET + bat_len;
        let allocation = match args.options.allocation {
            Allocation::Thin if fixed => Allocation::Lazy,
            allocation => allocation,
        };
        if locator.is_some() && allocation != Allocation::Thin {
            return Err(Error::invalid(
                "an overlay is thin: blocks stored in it would hide its parent",
            ));
        }
        let sink = Self {
            blank: args.storage.is_blank(),
            storage: args.storage,
            layout,
            fixed,
            allocation,
            locator,
            next_block: bat.end,
            last: None,
            position: 0,
            entries: vec![0; WINDOW as usize],
            window: 0,
            bat,
        };
        sink.prepare(args.options.allocation)?;
        Ok(sink)
    }

    fn prepare(&self, wanted: Allocation) -> Result<()> {
        if !self.blank {
            // What was there before must be gone before its tables are.
            self.storage.write_at(0, &[0; 512])?;
            self.storage.punch_hole(512..self.bat.end)?;
        }
        if self.stores_all() {
            let blocks = self.bat.end..self.host_of(self.layout.n_blocks());
            self.storage.set_len(blocks.end)?;
            if wanted != Allocation::Thin {
                self.storage.reserve(blocks)?;
            }
        }
        Ok(())
    }

    fn stores_all(&self) -> bool {
        self.allocation != Allocation::Thin
    }

    /// Returns where a block lies if every block is stored.
    fn host_of(&self, block: u64) -> u64 {
        self.bat.end + (block << self.layout.block_shift)
    }

    /// Checks a delivery and makes up for what was skipped before it.
    fn advance(&mut self, range: &Range<u64>) -> Result<()> {
        let (unit, size) = (self.unit_bytes(), self.layout.virtual_size);
        let gap = skipped_before(self.position, range, unit, size)?;
        self.position = range.end;
        self.fill(gap)
    }

    /// Stores zeros for guest bytes that are stored but not delivered.
    fn fill(&self, range: Range<u64>) -> Result<()> {
        if !self.stores_all() || range.is_empty() {
            return Ok(());
        }
        let host = self.bat.end + range.start..self.bat.end + range.end;
        if self.allocation == Allocation::Eager {
            write_zeros(&*self.storage, host)
        } else if self.blank {
            Ok(())
        } else {
            self.storage.punch_hole(host)
        }
    }

    /// Returns where a block is stored, now at the latest.
    fn store(&mut self, block: u64) -> Result<u64> {
        if self.stores_all() {
            return Ok(self.host_of(block));
        }
        if let Some((last, host)) = self.last
            && last == block
        {
            return Ok(host);
        }
        let host = self.next_block;
        self.next_block = host + self.layout.block_bytes();
        if !self.blank {
            self.storage.punch_hole(host..self.next_block)?;
        }
        self.last = Some((block, host));
        self.set_entry(block, host | STATE_PRESENT)?;
        Ok(host)
    }

    fn set_entry(&mut self, block: u64, word: u64) -> Result<()> {
        let entry = self.layout.entry_of(block);
        if entry / WINDOW != self.window {
            self.write_window()?;
            self.window = entry / WINDOW;
        }
        if let Some(slot) = self.entries.get_mut((entry % WINDOW) as usize) {
            *slot = word;
        }
        Ok(())
    }

    /// Writes the entries in memory, unless there are none.
    fn write_window(&mut self) -> Result<()> {
        let used = self.entries.iter().rposition(|word| *word != 0);
        let Some(last) = used else {
            return Ok(());
        };
        let words = self.entries.iter().take(last + 1);
        let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        let at = self.bat.start + self.window * WINDOW * ENTRY_BYTES;
        self.storage.write_at(at, &bytes)?;
        self.entries.fill(0);
        Ok(())
    }

    fn write_structure(&self) -> Result<()> {
        let header = Header {
            sequence: 1,
            file_write: Uuid::random(),
            data_write: Uuid::random(),
            log: Uuid::default(),
            log_version: 0,
            version: 1,
            log_len: (LOG.end - LOG.start) as u32,
            log_offset: LOG.start,
        };
        for (sequence, offset) in (1..).zip(HEADER_OFFSETS) {
            let bytes = Header {
                sequence,
                ..header.clone()
            };
            self.storage.write_at(offset, &bytes.encode())?;
        }
        let regions = RegionTable::new(self.bat.clone(), METADATA).encode();
        for offset in TABLE_OFFSETS {
            self.storage.write_at(offset, &regions)?;
        }
        let metadata = metadata::encode(
            &self.layout,
            self.fixed,
            Uuid::random(),
            self.locator.as_ref(),
        )?;
        if metadata.len() as u64 > METADATA.end - METADATA.start {
            return Err(Error::invalid("the parent's name is too long"));
        }
        self.storage.write_at(METADATA.start, &metadata)
    }
}

impl Sink for VhdxSink {
    fn unit_bytes(&self) -> u64 {
        if self.locator.is_some() {
            self.layout.block_bytes()
        } else {
            UNIT
        }
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.advance(&(offset..offset.saturating_add(bytes.len() as u64)))?;
        let (mut offset, mut bytes) = (offset, bytes);
        while !bytes.is_empty() {
            let block = offset >> self.layout.block_shift;
            let within = offset - self.layout.start_of(block);
            let room = self.layout.block_bytes() - within;
            let n = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (now, rest) = bytes.split_at(n);
            let host = self.store(block)?;
            self.storage.write_at(host + within, now)?;
            bytes = rest;
            offset += n as u64;
        }
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.advance(&range)?;
        if self.locator.is_some() {
            let blocks = range.start >> self.layout.block_shift
                ..range.end.div_ceil(self.layout.block_bytes());
            for block in blocks {
                self.set_entry(block, STATE_ZERO)?;
            }
        }
        self.fill(range)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let rest = self.position..self.layout.n_blocks() << self.layout.block_shift;
        self.fill(rest)?;
        if self.stores_all() {
            for block in 0..self.layout.n_blocks() {
                self.set_entry(block, self.host_of(block) | STATE_PRESENT)?;
            }
            self.next_block = self.host_of(self.layout.n_blocks());
        }
        self.write_window()?;
        self.storage.set_len(self.next_block)?;
        self.write_structure()?;
        if !self.blank {
            self.storage.sync()?;
        }
        self.storage.write_at(0, &identifier())?;
        self.storage.sync()
    }
}

/// Returns the file identifier: the magic and what wrote the file, in UTF-16.
fn identifier() -> Vec<u8> {
    let creator = concat!("hako ", env!("CARGO_PKG_VERSION"));
    let mut bytes = MAGIC.to_vec();
    bytes.extend(creator.encode_utf16().flat_map(u16::to_le_bytes));
    bytes.resize(520, 0);
    bytes
}

fn is_fixed(subformat: Option<&str>, has_parent: bool) -> Result<bool> {
    let name = subformat.map(str::to_lowercase);
    match (name.as_deref(), has_parent) {
        (None | Some("dynamic"), false) | (None | Some("dynamic" | "differencing"), true) => {
            Ok(false)
        }
        (Some("fixed"), false) => Ok(true),
        (Some("fixed"), true) => Err(Error::invalid("a fixed VHDX can have no parent")),
        (Some("differencing"), false) => Err(Error::invalid("a differencing VHDX needs a parent")),
        (Some(other), _) => Err(Error::invalid(format!("vhdx has no subformat {other:?}"))
            .hint("one of dynamic, fixed, differencing")),
    }
}

fn new_layout(args: &CreateArgs<'_>, has_parent: bool) -> Result<Layout> {
    let mut block_bytes = BLOCK;
    while !has_parent && args.virtual_size.div_ceil(block_bytes) > MAX_DEFAULT_BLOCKS {
        block_bytes *= 2;
    }
    let block_bytes = args.options.unit_bytes.unwrap_or(block_bytes);
    if has_parent && block_bytes > BLOCK {
        return Err(Error::invalid(
            "blocks of an overlay larger than 2 MiB: each is copied up as a whole",
        ));
    }
    let sector_bytes = u64::from(args.options.sector_bytes.unwrap_or(512));
    metadata::layout(args.virtual_size, block_bytes, sector_bytes, has_parent)
        .map_err(|error| Error::new(ErrorKind::Invalid, error.finding()))
}
