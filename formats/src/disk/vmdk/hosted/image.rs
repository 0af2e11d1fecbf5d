//! An open extent: reading and its extent map. Writing is in [`super::write`].

use std::ops::Range;
use std::sync::Arc;

use hako_block::image::check_range;
use hako_block::{
    Access, BlockImage, Error, ErrorKind, Extent, ExtentKind, ImageInfo, Result, SECTOR_BYTES,
    Storage,
};

use super::HostedArgs;
use super::directory::Directories;
use super::geometry::{Geometry, TABLE_ENTRIES};
use super::table::{Found, Grain, Table, Tables};
use super::write::Writer;

/// Grain tables walked by one `next_extent`: 2 MiB of them.
const MAX_WALK: usize = 1024;

const DAMAGE_HINT: &str =
    "writing would make the damage worse: open it read-only, or convert it to a new image";

/// An open extent.
pub struct HostedImage {
    pub(super) tables: Tables,
    pub(super) has_parent: bool,
    pub(super) writer: Option<Writer>,
    host_name: Arc<str>,
    info: ImageInfo,
}

impl HostedImage {
    /// Reads the directories; for writing, checks that they are safe to write.
    pub fn open(args: HostedArgs) -> Result<Self> {
        let geometry = Geometry::of(&args.header)?;
        let directories = Directories::read(&*args.storage, &args.header, &geometry)?;
        let file_len = args.storage.len_bytes()?;
        let mut damage = directories.damage(file_len);
        if args.access == Access::ReadWrite {
            check_writable(&geometry, &directories, &damage, file_len)
                .map_err(|error| error.hint(DAMAGE_HINT))?;
        }
        let mut info = describe(&args, &geometry)?;
        for damage in &mut damage {
            damage.push_str("; the other copy is used, where it is good");
        }
        info.oddities.append(&mut damage);
        let host_name = args.storage.name().into();
        let tables = Tables::new(args.storage, geometry, directories, args.header.unclean)?;
        let writer = match args.access {
            Access::ReadOnly => None,
            Access::ReadWrite => Some(Writer::new(&tables, args.header.unclean)?),
        };
        Ok(Self {
            tables,
            has_parent: args.has_parent,
            writer,
            host_name,
            info,
        })
    }

    /// Brings everything changed to stable storage.
    pub(super) fn flush_all(&self) -> Result<()> {
        match &self.writer {
            Some(writer) => writer.flush(&self.tables),
            None => Ok(()),
        }
    }

    pub(super) fn storage(&self) -> &dyn Storage {
        &*self.tables.storage
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.tables.geometry
    }

    pub(super) fn check(&self, offset: u64, len: u64) -> Result<()> {
        check_range(self.info.virtual_size, offset, len).map_err(|error| self.named(error))
    }

    pub(super) fn named(&self, error: Error) -> Error {
        error.in_file(self.storage().name())
    }

    /// Returns the run that begins at `offset`, up to `end`, merged over tables.
    fn run(&self, offset: u64, end: u64) -> Result<Extent> {
        let mut run = self.run_in_table(offset, end)?;
        for _ in 1..MAX_WALK {
            // Within a table runs are maximal already.
            if run.end() >= end || !run.end().is_multiple_of(self.geometry().table_span()) {
                break;
            }
            match self.run_in_table(run.end(), end) {
                Ok(next) if run.merge(&next) => {}
                _ => break,
            }
        }
        Ok(run)
    }

    fn run_in_table(&self, offset: u64, end: u64) -> Result<Extent> {
        let geometry = self.geometry();
        let place = geometry.place(offset);
        match self.tables.find(place.table)? {
            Found::Empty(n_tables) => {
                let empty_end = (place.table + n_tables) * geometry.table_span();
                let len = empty_end.min(end) - offset;
                Ok(Extent::new(offset, len, ExtentKind::Hole))
            }
            Found::Table(table) => self.run_of(&table, offset, end),
        }
    }

    /// Returns the run that begins at `offset` in its grain table, up to `end`.
    pub(super) fn run_of(&self, table: &Table, offset: u64, end: u64) -> Result<Extent> {
        let geometry = self.geometry();
        let place = geometry.place(offset);
        let first = self.tables.grain(table, place.entry)?;
        let mut next = place.entry + 1;
        while next < TABLE_ENTRIES && geometry.grain_start(table.index, next) < end {
            let distance = (next - place.entry) as u64 * (geometry.grain / SECTOR_BYTES);
            let continues = match (first, self.tables.grain(table, next)) {
                (Grain::At(a), Ok(Grain::At(b))) => u64::from(a) + distance == u64::from(b),
                (a, Ok(b)) => a == b,
                (_, Err(_)) => false,
            };
            if !continues {
                break;
            }
            next += 1;
        }
        let len = geometry.grain_start(table.index, next).min(end) - offset;
        Ok(match first {
            Grain::Hole => Extent::new(offset, len, ExtentKind::Hole),
            Grain::Zero => Extent::new(offset, len, ExtentKind::Zero),
            Grain::At(sector) => {
                let host = u64::from(sector) * SECTOR_BYTES + place.within;
                Extent::data(offset, len, &self.host_name, host)
            }
        })
    }

    fn read(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        let _in_use = self.writer.as_ref().map(Writer::use_grains);
        while !buf.is_empty() {
            let run = self.run(offset, offset + buf.len() as u64)?;
            let (now, rest) = buf.split_at_mut(run.len as usize);
            match &run.host {
                Some(host) => self.storage().read_at(host.offset, now)?,
                None => now.fill(0),
            }
            offset += run.len;
            buf = rest;
        }
        Ok(())
    }
}

impl BlockImage for HostedImage {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        self.read(offset, buf).map_err(|error| self.named(error))
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        self.check(offset, 1)?;
        self.run(offset, self.info.virtual_size)
            .map_err(|error| self.named(error))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.write(offset, buf).map_err(|error| self.named(error))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.zero(range).map_err(|error| self.named(error))
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.trim(range).map_err(|error| self.named(error))
    }

    fn flush(&self) -> Result<()> {
        self.flush_all().map_err(|error| self.named(error))
    }
}

/// Refuses what is not safe to write: structures that overlap, are lost or out of the file.
fn check_writable(
    geometry: &Geometry,
    directories: &Directories,
    damage: &[String],
    file_len: u64,
) -> Result<()> {
    if let Some(damage) = damage.first() {
        return Err(Error::new(ErrorKind::Corrupt, damage));
    }
    geometry.overhead_past(file_len).map_or(Ok(()), Err)?;
    directories.check_overlaps()
}

fn describe(args: &HostedArgs, geometry: &Geometry) -> Result<ImageInfo> {
    let header = &args.header;
    let mut info = ImageInfo {
        format: "vmdk",
        virtual_size: geometry.capacity,
        unit_bytes: geometry.grain,
        has_zero_extents: geometry.zeroed_grains,
        writable: args.access == Access::ReadWrite,
        files: vec![args.storage.name().to_owned()],
        allocated_size: args.storage.allocated_bytes()?,
        ..ImageInfo::default()
    };
    info.details = vec![
        ("header_version", u64::from(header.version).into()),
        ("grain_size_bytes", geometry.grain.into()),
        ("zeroed_grains", geometry.zeroed_grains.into()),
    ];
    if header.unclean {
        info.oddities
            .push("was not closed properly (unclean shutdown flag)".to_owned());
    }
    Ok(info)
}
