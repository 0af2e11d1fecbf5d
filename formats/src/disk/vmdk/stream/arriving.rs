//! A streamOptimized file that comes through a pipe: nothing of it can be read again, so its
//! grains are taken as they come, and its tables, which come after them, are compared with them.
//!
//! That is possible where the directory is at the end and the grains ascend, each table behind
//! its grains: as VMware, VirtualBox and hako write them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hako_block::image::check_range;
use hako_block::{
    BlockImage, Error, ErrorKind, Extent, ExtentKind, ImageInfo, Result, SECTOR_BYTES,
};
use libdeflater::Decompressor;

use super::grain::inflate;
use super::layout::check_sizes;
use super::marker::{self, Marker, max_compressed, stored_bytes};
use super::tables::{TABLE_BYTES, TABLE_ENTRIES, Table, words};
use super::{info_of, split};
use crate::disk::bits::Bits;
use crate::disk::vmdk::header::{GD_AT_END, HEADER_BYTES, SparseHeader};

/// Gives the next bytes of the file; 0 at its end.
pub type Source<'a> = Box<dyn FnMut(&mut [u8]) -> Result<usize> + Send + 'a>;

/// Most grains: a bit is kept for each, 8 MiB in all. 4 TiB in grains of 64 KiB.
const MAX_GRAINS: u64 = 1 << 26;
/// Most tables that nothing but zeros is in.
const MAX_EMPTY_TABLES: usize = 1 << 16;
/// Bytes of a piece of what is not looked at.
const PIECE_BYTES: usize = 1 << 16;

const SECTOR: usize = SECTOR_BYTES as usize;

/// Returns whether a file with this header may be read while it arrives.
pub fn arrives_in_order(header: &SparseHeader) -> bool {
    check_sizes(header).is_ok()
        && header.has_markers()
        && header.gd_sector == GD_AT_END
        && header.n_grains() <= MAX_GRAINS
}

/// The disk in a file that arrives. Everything of it is to be read once, in the order in which
/// [`BlockImage::next_extent`] has told of it.
pub struct ArrivingImage<'a> {
    info: ImageInfo,
    name: String,
    header: SparseHeader,
    arrival: Mutex<Arrival<'a>>,
    waiting: Mutex<Waiting>,
    /// As many as there were threads at once.
    decompressors: Mutex<Vec<Decompressor>>,
}

/// Grains that have come and were not read yet.
struct Waiting {
    grains: HashMap<u64, Waits>,
    /// Which grains have come at all.
    came: Bits,
}

/// A grain that waits to be read.
enum Waits {
    /// As it is stored.
    Stored(Vec<u8>),
    /// Read in parts: its bytes, and how many of them were not read yet.
    Plain(Vec<u8>, usize),
}

impl<'a> ArrivingImage<'a> {
    /// Reads from `source` on, which gives the file from its first grain on.
    pub fn new(name: &str, header: SparseHeader, source: Source<'a>) -> Self {
        let arrival = Arrival {
            source,
            sector: header.overhead_sectors,
            header: header.clone(),
            next: None,
            last: None,
            table: [0; TABLE_ENTRIES],
            table_number: None,
            directory: Vec::new(),
            empty_tables: BTreeSet::new(),
            has_ended: false,
        };
        Self {
            info: info_of(name, 0, &header, Vec::new()),
            name: name.to_owned(),
            waiting: Mutex::new(Waiting {
                grains: HashMap::new(),
                came: Bits::new(0),
            }),
            arrival: Mutex::new(arrival),
            decompressors: Mutex::new(Vec::new()),
            header,
        }
    }

    /// Reads what is left of the file. Errors: a grain that nobody asked for or read, tables that
    /// say something else than the grains before them.
    pub fn finish(&self) -> Result<()> {
        let finished = || {
            if let Some(next) = lock(&self.arrival).peek()? {
                let what = format!("the grain at LBA {} was not read", next.lba);
                return Err(Error::invalid(what));
            }
            match lock(&self.waiting).grains.len() {
                0 => Ok(()),
                left => Err(Error::invalid(format!("{left} grains were not read"))),
            }
        };
        finished().map_err(|error| error.in_file(&self.name))
    }

    fn extent(&self, offset: u64) -> Result<Extent> {
        check_range(self.info.virtual_size, offset, 1)?;
        let grain_bytes = self.header.grain_bytes();
        let wanted = offset / grain_bytes;
        let until = |grain: u64, kind| {
            let end = grain.saturating_mul(grain_bytes);
            let end = end.min(self.info.virtual_size);
            Extent::new(offset, end - offset, kind)
        };
        let mut arrival = lock(&self.arrival);
        if lock(&self.waiting).grains.contains_key(&wanted) {
            return Ok(until(wanted + 1, ExtentKind::Data));
        }
        let Some(next) = arrival.peek()? else {
            return Ok(until(u64::MAX, ExtentKind::Hole));
        };
        if next.number > wanted {
            return Ok(until(next.number, ExtentKind::Hole));
        }
        if next.number < wanted {
            let what = format!("the grain at LBA {} was passed over", next.lba);
            return Err(Error::invalid(what));
        }
        if let Some(grain) = arrival.next.take() {
            let mut waiting = lock(&self.waiting);
            waiting.came.grow(wanted + 1);
            waiting.came.mark(wanted..wanted + 1);
            waiting.grains.insert(wanted, Waits::Stored(grain.data));
        }
        Ok(until(wanted + 1, ExtentKind::Data))
    }

    /// Reads a part of one grain.
    fn read_part(&self, grain: u64, skip: usize, out: &mut [u8]) -> Result<()> {
        let grain_bytes = self.header.grain_bytes();
        let covers = (self.info.virtual_size - grain * grain_bytes).min(grain_bytes) as usize;
        let mut waiting = lock(&self.waiting);
        let Some(found) = waiting.grains.remove(&grain) else {
            if waiting.came.next(grain, true) == Some(grain) {
                return Err(Error::invalid("a grain that arrives is read once"));
            }
            out.fill(0);
            return Ok(());
        };
        let (mut plain, left) = match found {
            Waits::Stored(data) if out.len() == covers => {
                drop(waiting);
                return self.unpack(&data, grain_bytes as usize, out);
            }
            Waits::Stored(data) => {
                let mut plain = vec![0; covers];
                self.unpack(&data, grain_bytes as usize, &mut plain)?;
                (plain, covers)
            }
            Waits::Plain(plain, left) => (plain, left),
        };
        out.copy_from_slice(&plain[skip..skip + out.len()]);
        let left = left.saturating_sub(out.len());
        if left > 0 {
            plain.shrink_to_fit();
            waiting.grains.insert(grain, Waits::Plain(plain, left));
        }
        Ok(())
    }

    /// Unpacks a grain, of which the disk has as much as `out` is long.
    fn unpack(&self, data: &[u8], grain_bytes: usize, out: &mut [u8]) -> Result<()> {
        let pooled = lock(&self.decompressors).pop();
        let mut decompressor = pooled.unwrap_or_default();
        let covers = out.len();
        let len = if covers == grain_bytes {
            inflate(&mut decompressor, data, out)?
        } else {
            let mut grain = vec![0; grain_bytes];
            let len = inflate(&mut decompressor, data, &mut grain)?;
            out.copy_from_slice(&grain[..covers]);
            len
        };
        lock(&self.decompressors).push(decompressor);
        if len < covers {
            return Err(corrupt(format!("unpacks to {len} bytes, not {covers}")));
        }
        Ok(())
    }
}

impl BlockImage for ArrivingImage<'_> {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self.info.virtual_size, offset, buf.len() as u64)?;
        let grain_bytes = self.header.grain_bytes();
        let (mut offset, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (grain, skip) = (offset / grain_bytes, offset % grain_bytes);
            let len = rest.len().min((grain_bytes - skip) as usize);
            let (out, later) = rest.split_at_mut(len);
            self.read_part(grain, skip as usize, out).map_err(|error| {
                let lba = grain * self.header.grain_sectors;
                error
                    .place(format!("grain at LBA {lba}"))
                    .in_file(&self.name)
            })?;
            (offset, rest) = (offset + len as u64, later);
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        self.extent(offset)
            .map_err(|error| error.in_file(&self.name))
    }
}

/// A grain as it came.
struct Grain {
    number: u64,
    lba: u64,
    /// What is stored of it, without marker and padding.
    data: Vec<u8>,
}

/// The file, read from its first grain to its end.
struct Arrival<'a> {
    source: Source<'a>,
    /// Sector of the file that is read next.
    sector: u64,
    header: SparseHeader,
    /// The grain that nobody has asked for yet.
    next: Option<Grain>,
    /// Number of the grain that came last.
    last: Option<u64>,
    /// What the next table must say, and which one it is.
    table: Table,
    table_number: Option<u64>,
    /// Sector of each table that has come; 0 none.
    directory: Vec<u32>,
    /// Sectors of tables without a grain: the directory may name them or not.
    empty_tables: BTreeSet<u32>,
    has_ended: bool,
}

impl Arrival<'_> {
    /// Returns the next grain; at the end of the file none.
    fn peek(&mut self) -> Result<Option<&Grain>> {
        while self.next.is_none() && !self.has_ended {
            let byte = self.sector * SECTOR_BYTES;
            self.step().map_err(|error| error.at_byte(byte))?;
        }
        Ok(self.next.as_ref())
    }

    /// Takes in what comes next.
    fn step(&mut self) -> Result<()> {
        let sector = self.sector;
        let first = self.take::<SECTOR>()?;
        let mut head = [0; 16];
        head.copy_from_slice(&first[..16]);
        match Marker::decode(head) {
            Marker::Grain { lba, len } => self.grain(sector, lba, len, &first),
            Marker::Other {
                kind: marker::GRAIN_TABLE,
                n_sectors: 4,
            } => self.table(),
            Marker::Other {
                kind: marker::GRAIN_DIRECTORY,
                n_sectors,
            } => self.end(n_sectors),
            Marker::Other { kind, n_sectors } => Err(corrupt(format!(
                "a marker of kind {kind} with {n_sectors} sectors where a grain or a table should be"
            ))),
        }
    }

    fn grain(&mut self, sector: u64, lba: u64, len: u32, first: &[u8; SECTOR]) -> Result<()> {
        let grain_sectors = self.header.grain_sectors;
        let number = lba / grain_sectors;
        if !lba.is_multiple_of(grain_sectors) || lba >= self.header.capacity_sectors {
            return Err(corrupt(format!("a grain at LBA {lba} of the disk")));
        }
        if u64::from(len) > max_compressed(self.header.grain_bytes()) {
            return Err(corrupt(format!("{len} compressed bytes are too many")));
        }
        if self.last.is_some_and(|last| number <= last) {
            return Err(out_of_order(format!(
                "the grain at LBA {lba} comes too late"
            )));
        }
        let (table_number, at) = split(number);
        if self
            .table_number
            .is_some_and(|before| before != table_number)
        {
            return Err(out_of_order("a table does not follow its grains"));
        }
        let stored = usize::try_from(stored_bytes(len)).unwrap_or(usize::MAX);
        let mut data = vec![0; stored];
        data[..SECTOR].copy_from_slice(first);
        self.fill(&mut data[SECTOR..])?;
        data.truncate(marker::GRAIN_MARKER_BYTES + len as usize);
        data.drain(..marker::GRAIN_MARKER_BYTES);
        self.table[at] = sector_number(sector)?;
        self.table_number = Some(table_number);
        self.last = Some(number);
        self.next = Some(Grain { number, lba, data });
        Ok(())
    }

    /// Compares a table with the grains before it.
    fn table(&mut self) -> Result<()> {
        let sector = sector_number(self.sector)?;
        let bytes = self.take::<TABLE_BYTES>()?;
        let may_say_zeros = self.header.has_zeroed_grains();
        for (at, (said, came)) in words(&bytes).zip(self.table).enumerate() {
            // Zeros read as what never came does: there is no parent.
            if said != came && !(said == 1 && came == 0 && may_say_zeros) {
                return Err(corrupt(format!(
                    "entry {at} of the grain table is sector {said}, but {}",
                    match came {
                        0 => "no such grain came".to_owned(),
                        came => format!("its grain came at sector {came}"),
                    }
                )));
            }
        }
        match self.table_number.take() {
            Some(number) => {
                let at = usize::try_from(number).unwrap_or(usize::MAX);
                self.directory.resize(at, 0);
                self.directory.push(sector);
                self.table = [0; TABLE_ENTRIES];
            }
            None => {
                self.empty_tables.insert(sector);
            }
        }
        match self.empty_tables.len() > MAX_EMPTY_TABLES {
            true => Err(corrupt("too many empty grain tables")),
            false => Ok(()),
        }
    }

    /// Compares directory and footer with what came before them, and reads the rest.
    fn end(&mut self, n_sectors: u64) -> Result<()> {
        if self.table_number.is_some() {
            return Err(corrupt("the table of the last grains is missing"));
        }
        let gd_sector = self.sector;
        self.directory(n_sectors)
            .map_err(|error| error.place("grain directory"))?;
        self.footer(gd_sector)
            .map_err(|error| error.place("footer"))?;
        let mut piece = vec![0; PIECE_BYTES];
        while (self.source)(&mut piece)? > 0 {}
        self.has_ended = true;
        Ok(())
    }

    fn directory(&mut self, n_sectors: u64) -> Result<()> {
        let n_tables = self.header.n_grain_tables();
        if n_sectors != (n_tables * 4).div_ceil(SECTOR_BYTES) {
            return Err(corrupt(format!(
                "{n_sectors} sectors for {n_tables} tables"
            )));
        }
        let directory = std::mem::take(&mut self.directory);
        let mut came = directory.into_iter();
        let mut left = n_tables;
        for _ in 0..n_sectors {
            let sector = self.take::<SECTOR>()?;
            for said in words(&sector).take(usize::try_from(left).unwrap_or(usize::MAX)) {
                let came = came.next().unwrap_or(0);
                let is_empty = came == 0 && self.empty_tables.contains(&said);
                if said != came && !is_empty {
                    return Err(corrupt(format!(
                        "entry {} is sector {said}, but that table came at {came}",
                        n_tables - left
                    )));
                }
                left -= 1;
            }
        }
        Ok(())
    }

    fn footer(&mut self, gd_sector: u64) -> Result<()> {
        let mut head = [0; 16];
        head.copy_from_slice(&self.take::<SECTOR>()?[..16]);
        if !matches!(Marker::decode(head), Marker::Other { kind, .. } if kind == marker::FOOTER) {
            return Err(corrupt("does not follow the grain directory"));
        }
        let footer = SparseHeader::decode(&self.take::<HEADER_BYTES>()?, "footer")?;
        let of_disk = |header: &SparseHeader| (header.capacity_sectors, header.grain_sectors);
        if footer.gd_sector != gd_sector || of_disk(&footer) != of_disk(&self.header) {
            return Err(corrupt("says something else than the header and the file"));
        }
        Ok(())
    }

    /// Reads whole sectors.
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut rest = &mut bytes[..];
        while !rest.is_empty() {
            let len = (self.source)(rest)?;
            if len == 0 {
                return Err(corrupt("the file ends in the midst of it"));
            }
            rest = rest.get_mut(len..).unwrap_or_default();
        }
        self.sector += bytes.len() as u64 / SECTOR_BYTES;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sector_number(sector: u64) -> Result<u32> {
    u32::try_from(sector).map_err(|_| corrupt("past what 32 bits can address"))
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

fn out_of_order(what: impl Into<String>) -> Error {
    Error::unsupported(what).hint("it cannot be read from a pipe: give it as a file")
}

#[cfg(test)]
mod tests;
