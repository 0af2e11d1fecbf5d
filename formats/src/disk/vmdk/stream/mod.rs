//! streamOptimized extents (VMware Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse
//! Extents"): read in every layout that is in use, salvaged when cut, checked, and written in one
//! pass.
//!
//! Layouts, in the order of the file:
//! - the directory at the end: header, descriptor, grains with a table after each 512, directory,
//!   footer, end-of-stream marker (VMware, VirtualBox, hako);
//! - the same, with the directory's sector in the header;
//! - directory and tables in front, then the grains (VMware's VDDK, open-vmdk);
//! - the same with a redundant directory, and zeros at the end (qemu).
//!
//! It does not read the descriptor and knows no parent.

pub mod arriving;
mod check;
mod grain;
mod layout;
mod marker;
mod mend;
mod salvage;
mod sink;
mod tables;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use hako_block::image::check_range;
use hako_block::{
    BlockImage, Extent, ExtentKind, HostPosition, ImageInfo, Result, SECTOR_BYTES, Storage,
};

use super::header::SparseHeader;
use grain::{GrainReader, Piece};
use marker::GRAIN_MARKER_BYTES;
use tables::{Grain, Index, TABLE_ENTRIES, Table, Tables};

pub use check::check;
pub use mend::repair;
pub use sink::{StreamCreate, StreamSink};

/// Grain tables read in one call of `next_extent`: 2 MiB of them, 32 GiB of disk.
const MAX_TABLES_PER_WALK: u32 = 1024;
/// Sectors that may stand between neighbouring grains: a grain table and its marker.
const MAX_SECTORS_BETWEEN: u64 = 5;

/// What there is to open or check one extent file.
#[derive(Clone)]
pub struct StreamArgs {
    /// The extent file.
    pub storage: Arc<dyn Storage>,
    /// Its decoded header, the one at byte 0.
    pub header: SparseHeader,
    /// Whether a file that is cut or has lost its directory is read as far as it goes. What is
    /// missing is listed in the image's oddities.
    pub salvage: bool,
}

/// Opens an extent for reading; guest offsets are relative to it.
pub fn open(args: StreamArgs) -> Result<Box<dyn BlockImage>> {
    let name = args.storage.name().to_owned();
    let image = StreamImage::open(args).map_err(|error| error.in_file(name))?;
    Ok(Box::new(image))
}

struct StreamImage {
    info: ImageInfo,
    host_name: Arc<str>,
    header: SparseHeader,
    tables: Tables,
    grains: GrainReader,
}

/// Grains in a row of which the tables say the same.
struct Run {
    first: Grain,
    last: Grain,
    n_grains: u64,
    n_tables_read: u32,
}

impl StreamImage {
    fn open(args: StreamArgs) -> Result<Self> {
        let file_len = args.storage.len_bytes()?;
        let mut oddities = Vec::new();
        let (header, tables) = if args.salvage {
            salvage(&args, file_len, &mut oddities)?
        } else {
            load(&args, file_len, &mut oddities)?
        };
        if header.unclean {
            oddities.push("the header says that the file was not closed properly".to_owned());
        }
        let grain_bytes = usize::try_from(header.grain_bytes()).unwrap_or(usize::MAX);
        Ok(Self {
            info: info_of(
                args.storage.name(),
                args.storage.allocated_bytes()?,
                &header,
                oddities,
            ),
            host_name: args.storage.name().into(),
            tables,
            grains: GrainReader::new(args.storage, file_len, grain_bytes),
            header,
        })
    }

    fn n_grains(&self) -> u64 {
        self.header.n_grains()
    }

    /// Returns the grains from `grain` on, to the end of their table at most, that are alike. An
    /// entry that is damaged ends the run before it; only as the first it is an error.
    fn run_in_table(&self, grain: u64) -> Result<Run> {
        let (number, at) = split(grain);
        let in_table = (TABLE_ENTRIES - at) as u64;
        let most = in_table.min(self.n_grains() - grain);
        let Some(table) = self.tables.table(number)? else {
            return Ok(Run {
                first: Grain::Hole,
                last: Grain::Hole,
                n_grains: most,
                n_tables_read: 0,
            });
        };
        let first = self.tables.grain(number, &table, at)?;
        let mut run = Run {
            first,
            last: first,
            n_grains: 1,
            n_tables_read: 1,
        };
        for at in (at + 1..TABLE_ENTRIES).take(most as usize - 1) {
            match self.tables.grain(number, &table, at) {
                Ok(next) if self.continues(run.last, next) => run.last = next,
                _ => break,
            }
            run.n_grains += 1;
        }
        Ok(run)
    }

    fn continues(&self, last: Grain, next: Grain) -> bool {
        match (last, next) {
            (Grain::Hole, Grain::Hole) | (Grain::Zero, Grain::Zero) => true,
            (Grain::Stored(last), Grain::Stored(next)) => {
                let most = self.grains.max_stored_sectors() + MAX_SECTORS_BETWEEN;
                next > last && next - last <= most
            }
            _ => false,
        }
    }

    /// Returns the grains from `grain` on that are alike.
    fn run(&self, grain: u64) -> Result<Run> {
        let mut run = self.run_in_table(grain)?;
        while run.n_tables_read < MAX_TABLES_PER_WALK {
            let next_grain = grain + run.n_grains;
            if next_grain >= self.n_grains() || split(next_grain).1 != 0 {
                break;
            }
            match self.run_in_table(next_grain) {
                Ok(next) if self.continues(run.last, next.first) => {
                    run.n_tables_read += next.n_tables_read;
                    run.last = next.last;
                    run.n_grains += next.n_grains;
                }
                _ => break,
            }
        }
        Ok(run)
    }

    /// Fills what is not stored with zeros and returns the pieces that are.
    fn pieces<'a>(&self, offset: u64, buf: &'a mut [u8]) -> Result<Vec<Piece<'a>>> {
        let grain_bytes = self.header.grain_bytes();
        let mut pieces = Vec::new();
        let mut table: Option<(u64, Option<Arc<Table>>)> = None;
        let (mut offset, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (grain, skip) = (offset / grain_bytes, offset % grain_bytes);
            let len = rest.len().min((grain_bytes - skip) as usize);
            let (out, later) = rest.split_at_mut(len);
            (offset, rest) = (offset + len as u64, later);
            let (number, at) = split(grain);
            let entries = match &table {
                Some((same, entries)) if *same == number => entries,
                _ => &table.insert((number, self.tables.table(number)?)).1,
            };
            let Some(entries) = entries else {
                out.fill(0);
                continue;
            };
            let Grain::Stored(sector) = self.tables.grain(number, entries, at)? else {
                out.fill(0);
                continue;
            };
            let start = grain * grain_bytes;
            pieces.push(Piece {
                lba: start / SECTOR_BYTES,
                sector,
                next_sector: entries.get(at + 1).copied().unwrap_or(0).into(),
                covers: (self.info.virtual_size - start).min(grain_bytes) as usize,
                skip: skip as usize,
                out,
            });
        }
        Ok(pieces)
    }
}

impl BlockImage for StreamImage {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self.info.virtual_size, offset, buf.len() as u64)
            .and_then(|()| self.grains.read(self.pieces(offset, buf)?))
            .map_err(|error| error.in_file(&*self.host_name))
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        check_range(self.info.virtual_size, offset, 1)
            .and_then(|()| self.run(offset / self.header.grain_bytes()))
            .map(|run| self.extent(offset, &run))
            .map_err(|error| error.in_file(&*self.host_name))
    }
}

impl StreamImage {
    fn extent(&self, offset: u64, run: &Run) -> Extent {
        let grain_bytes = self.header.grain_bytes();
        let end = (offset / grain_bytes + run.n_grains) * grain_bytes;
        let end = end.min(self.info.virtual_size);
        let plain = |kind| Extent::new(offset, end - offset, kind);
        match run.first {
            Grain::Hole => plain(ExtentKind::Hole),
            Grain::Zero => plain(ExtentKind::Zero),
            Grain::Stored(sector) => Extent {
                host: Some(HostPosition {
                    file: Arc::clone(&self.host_name),
                    offset: sector * SECTOR_BYTES + GRAIN_MARKER_BYTES as u64,
                }),
                compressed: true,
                ..plain(ExtentKind::Data)
            },
        }
    }
}

/// Loads the tables of a file that is whole.
fn load(
    args: &StreamArgs,
    file_len: u64,
    oddities: &mut Vec<String>,
) -> Result<(SparseHeader, Tables)> {
    let header = layout::resolve(&*args.storage, &args.header, file_len, oddities)?;
    let tables = Tables::load(Arc::clone(&args.storage), &header, file_len)?;
    Ok((header, tables))
}

/// Loads the tables if they are whole and everything they point at is there; otherwise makes them
/// anew from the grains.
fn salvage(
    args: &StreamArgs,
    file_len: u64,
    oddities: &mut Vec<String>,
) -> Result<(SparseHeader, Tables)> {
    layout::check_sizes(&args.header)?;
    let loaded = load(args, file_len, oddities);
    let damage = match loaded {
        Ok((header, tables)) => match check::first_damage(&*args.storage, &header, &tables)? {
            None => return Ok((header, tables)),
            Some(damage) => damage,
        },
        Err(error) if error.kind() == hako_block::ErrorKind::Io => return Err(error),
        Err(error) => error,
    };
    oddities.push(damage.finding());
    let scan = salvage::scan(&*args.storage, &args.header, file_len)?;
    oddities.extend(scan.oddities);
    let index = Index::Scanned(scan.runs);
    let storage = Arc::clone(&args.storage);
    let tables = Tables::new(storage, &args.header, file_len, index);
    Ok((args.header.clone(), tables))
}

fn info_of(
    name: &str,
    allocated_size: u64,
    header: &SparseHeader,
    oddities: Vec<String>,
) -> ImageInfo {
    ImageInfo {
        format: "vmdk",
        subformat: Some("streamOptimized".to_owned()),
        virtual_size: header.capacity_sectors * SECTOR_BYTES,
        unit_bytes: header.grain_bytes(),
        has_zero_extents: header.has_zeroed_grains(),
        files: vec![name.to_owned()],
        allocated_size,
        details: vec![
            ("version", u64::from(header.version).into()),
            ("grain_size_bytes", header.grain_bytes().into()),
        ],
        oddities,
        ..ImageInfo::default()
    }
}

/// Returns a grain's table and its entry there.
fn split(grain: u64) -> (u64, usize) {
    let entries = TABLE_ENTRIES as u64;
    (grain / entries, (grain % entries) as usize)
}

/// Returns the first sector behind the descriptor that is not free. `None`: it cannot be told.
pub fn first_after_descriptor(header: &SparseHeader) -> Option<u64> {
    let behind = |sector| sector == 0 || sector >= header.overhead_sectors;
    let all_behind = behind(header.gd_sector) && behind(header.rgd_sector);
    all_behind.then_some(header.overhead_sectors)
}

/// Makes the footer say the same as the header in the bytes `fields`, if there is a footer.
pub fn patch_footer(storage: &dyn Storage, fields: Range<usize>, bytes: &[u8]) -> Result<()> {
    let Ok(Some(footer)) = layout::find_footer(storage, storage.len_bytes()?) else {
        return Ok(());
    };
    let offset = footer.byte + fields.start as u64;
    let mut old = vec![0; fields.len()];
    storage.read_at(offset, &mut old)?;
    if old == bytes {
        return Ok(());
    }
    storage.write_at(offset, bytes)
}
