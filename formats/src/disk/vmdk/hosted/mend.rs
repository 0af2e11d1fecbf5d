//! Mends an extent from what is there twice: a directory from the other one, a table from its
//! copy. Where the copies contradict each other and both could be right, nothing is done.
//!
//! What is mended is written where nothing else can be: a table whose place something else uses
//! gets a new one behind the grains.

use std::collections::BTreeMap;
use std::ops::Range;

use hako_block::{Access, Error, ErrorKind, Result, SECTOR_BYTES, Storage};

use super::HostedArgs;
use super::check::check_extent;
use super::copies::{Copies, Runs};
use super::directory::{Copy, Directories, Directory};
use super::geometry::{Geometry, TABLE_BYTES, TABLE_ENTRIES, TABLE_SECTORS, directory_sectors};
use super::table::{Table, Tables};
use super::trust::{Places, usual_sector};
use crate::disk::vmdk::header::{HEADER_BYTES, SparseHeader};
use crate::disk::{Findings, Repair};

/// Hosted sparse header, fields rgdOffset, gdOffset, uncleanShutdown.
const RGD_FIELD: u64 = 48;
const GD_FIELD: u64 = 56;
const UNCLEAN_FIELD: u64 = 72;

/// Mends an extent. Returns what was done, one sentence each.
pub fn repair(args: &HostedArgs, what: Repair) -> Result<Vec<String>> {
    let mut done = Vec::new();
    let mut mend = || -> Result<()> {
        if what == Repair::All {
            mend_directories(args, &mut done)?;
            mend_tables(args, Mend::Faults, &mut done)?;
            if is_sound(&read_again(args)?, &mut |_| Ok(()))? {
                mend_tables(args, Mend::Differences, &mut done)?;
            }
        }
        give_back_leaks(args, &mut done)?;
        if what == Repair::All {
            clear_flag(args, &mut done)?;
        }
        Ok(())
    };
    match mend() {
        // The check that follows tells what is left.
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(done),
        Err(error) => Err(error),
        Ok(()) => Ok(done),
    }
}

/// Opens the tables with the header as it is in the file now.
fn open_tables(args: &HostedArgs) -> Result<(SparseHeader, Tables)> {
    let mut bytes = [0; HEADER_BYTES];
    args.storage.read_at(0, &mut bytes)?;
    let header = SparseHeader::decode(&bytes, "header")?;
    let geometry = Geometry::of(&header)?;
    let directories = Directories::read(&*args.storage, &header, &geometry)?;
    let storage = args.storage.clone();
    let tables = Tables::new(storage, geometry, directories, header.unclean)?;
    Ok((header, tables))
}

/// Gives each directory the entries that only the other one has, and makes one that is lost anew.
fn mend_directories(args: &HostedArgs, done: &mut Vec<String>) -> Result<()> {
    let (header, tables) = open_tables(args)?;
    let places = Places::of(&tables)?;
    let mut space = NewSpace::behind(&tables)?;
    let directories = &tables.directories;
    match (directories.copies.as_slice(), &directories.lost) {
        ([one, other], None) => {
            for (to, from) in [(one, other), (other, one)] {
                if let Some(text) = mend_entries(&tables, &places, &mut space, to, from)? {
                    done.push(text);
                }
            }
        }
        ([only], Some((lost, _))) => {
            let text = remake(&tables, &places, &mut space, *lost, only, &header)?;
            done.extend(text);
        }
        _ => {}
    }
    Ok(())
}

/// Mends the entries of `to` that are bad where those of `from` are good.
fn mend_entries(
    tables: &Tables,
    places: &Places,
    space: &mut NewSpace,
    to: &Directory,
    from: &Directory,
) -> Result<Option<String>> {
    let mut entries = BTreeMap::new();
    for index in 0..tables.geometry.n_tables {
        if places.sector(tables, to, index).is_some() {
            continue;
        }
        let Some(source) = places.sector(tables, from, index) else {
            continue;
        };
        let Some(bytes) = sane_table(tables, from, index, source)? else {
            continue;
        };
        let sector = match usual_place(tables, places, to, index, &bytes)? {
            Some(sector) => sector,
            None => space.store(tables, &bytes)?,
        };
        entries.insert(index, sector);
    }
    if entries.is_empty() {
        return Ok(None);
    }
    space.settle(tables)?;
    write_entries(tables, to, &entries)?;
    Ok(Some(format!(
        "{}: {} entries restored from the {}",
        to.copy.directory(),
        entries.len(),
        from.copy.directory()
    )))
}

/// Makes a directory that cannot be read, with tables of its own, and points the header at it.
fn remake(
    tables: &Tables,
    places: &Places,
    space: &mut NewSpace,
    lost: Copy,
    from: &Directory,
    header: &SparseHeader,
) -> Result<Option<String>> {
    let n_tables = tables.geometry.n_tables;
    let mut bytes = Vec::with_capacity(4 * n_tables as usize);
    for index in 0..n_tables {
        let source = places.sector(tables, from, index);
        let sector = match (source, from.sector(index)) {
            (Some(source), _) => match sane_table(tables, from, index, source)? {
                Some(table) => space.store(tables, &table)?,
                None => return Ok(None),
            },
            (None, 0) => 0,
            // What stands there is not known.
            (None, _) => return Ok(None),
        };
        bytes.extend_from_slice(&sector.to_le_bytes());
    }
    bytes.resize((directory_sectors(n_tables) * SECTOR_BYTES) as usize, 0);
    let sector = space.store(tables, &bytes)?;
    space.settle(tables)?;
    let (field, old) = match lost {
        Copy::First => (GD_FIELD, header.gd_sector),
        Copy::Redundant => (RGD_FIELD, header.rgd_sector),
    };
    let storage = &*tables.storage;
    storage.write_at(field, &u64::from(sector).to_le_bytes())?;
    storage.sync()?;
    Ok(Some(format!(
        "header: the {}, which was not to be found at sector {old}, made anew at sector {sector} from the {}",
        lost.directory(),
        from.copy.directory()
    )))
}

/// Returns the bytes of a table if all of its entries can be right.
fn sane_table(
    tables: &Tables,
    directory: &Directory,
    index: u64,
    sector: u32,
) -> Result<Option<Vec<u8>>> {
    let offset = u64::from(sector) * SECTOR_BYTES;
    let mut bytes = vec![0; TABLE_BYTES as usize];
    tables.storage.read_at(offset, &mut bytes)?;
    let table = Table::decode(directory.copy, index, offset, &bytes);
    Ok(tables.first_fault(&table).is_none().then_some(bytes))
}

/// Returns where a table is in the usual layout, if the same table is there: its copy was intact
/// and only the directory's entry was not.
fn usual_place(
    tables: &Tables,
    places: &Places,
    directory: &Directory,
    index: u64,
    wanted: &[u8],
) -> Result<Option<u32>> {
    let start = usual_sector(directory, index);
    let bytes = start * SECTOR_BYTES..(start + TABLE_SECTORS) * SECTOR_BYTES;
    if bytes.end > tables.geometry.overhead || !places.is_unused(tables, start) {
        return Ok(None);
    }
    let mut found = vec![0; TABLE_BYTES as usize];
    tables.storage.read_at(bytes.start, &mut found)?;
    Ok((found == wanted).then_some(start as u32))
}

/// Writes entries of a directory, whole sectors of it.
fn write_entries(
    tables: &Tables,
    directory: &Directory,
    entries: &BTreeMap<u64, u32>,
) -> Result<()> {
    const PER_SECTOR: u64 = SECTOR_BYTES / 4;
    let n_tables = tables.geometry.n_tables;
    let mut next = entries.keys().next().copied();
    while let Some(index) = next {
        let first = index / PER_SECTOR * PER_SECTOR;
        let end = (first + PER_SECTOR).min(n_tables);
        let bytes: Vec<u8> = (first..end)
            .map(|index| {
                entries
                    .get(&index)
                    .copied()
                    .unwrap_or(directory.sector(index))
            })
            .flat_map(u32::to_le_bytes)
            .collect();
        tables
            .storage
            .write_at(directory.entry_offset(first), &bytes)?;
        next = entries.range(end..).next().map(|(index, _)| *index);
    }
    tables.storage.sync()
}

/// Space behind the grains for new tables.
struct NewSpace {
    /// File offset of the next.
    end: u64,
    is_used: bool,
}

impl NewSpace {
    fn behind(tables: &Tables) -> Result<Self> {
        let end = tables.geometry.align_up(tables.storage.len_bytes()?);
        Ok(Self {
            end: end.ok_or_else(|| Error::invalid("the file is too long"))?,
            is_used: false,
        })
    }

    /// Stores bytes, nothing if they are zeros. Returns their sector.
    fn store(&mut self, tables: &Tables, bytes: &[u8]) -> Result<u32> {
        let sector = u32::try_from(self.end / SECTOR_BYTES)
            .map_err(|_| Error::invalid("the file is too long for more tables"))?;
        if !hako_block::is_zero(bytes) {
            tables.storage.write_at(self.end, bytes)?;
        }
        self.end += bytes.len() as u64;
        self.is_used = true;
        Ok(sector)
    }

    /// Returns once what was stored is on disk.
    fn settle(&mut self, tables: &Tables) -> Result<()> {
        if !self.is_used {
            return Ok(());
        }
        let end = tables.geometry.align_up(self.end).unwrap_or(self.end);
        if tables.storage.len_bytes()? < end {
            tables.storage.set_len(end)?;
        }
        self.end = end;
        tables.storage.sync()
    }
}

/// Which entries of the tables to mend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mend {
    /// Those that cannot be right, and whose copy can.
    Faults,
    /// Those that differ though both can be right: only in an extent without damage, for there
    /// either may be what is wrong.
    Differences,
}

/// Makes the copies of each table say the same where it is plain which one is right.
fn mend_tables(args: &HostedArgs, what: Mend, done: &mut Vec<String>) -> Result<()> {
    let (header, tables) = open_tables(args)?;
    let [first, other] = tables.directories.copies.as_slice() else {
        return Ok(());
    };
    let places = Places::of(&tables)?;
    let mut changed = [0u64; 2];
    let mut runs = Runs::default();
    for index in 0..tables.geometry.n_tables {
        let copies = Copies::read(&tables, &mut runs, index)?;
        let sectors = [first, other].map(|copy| places.sector(&tables, copy, index));
        let [Some(first), Some(other)] = sectors else {
            continue;
        };
        let merged = Merged::of(&tables, index, &copies, what, header.unclean);
        for (n, sector) in [first, other].into_iter().enumerate() {
            if merged.n_changed[n] > 0 {
                changed[n] += merged.n_changed[n];
                let offset = u64::from(sector) * SECTOR_BYTES;
                tables.storage.write_at(offset, &merged.bytes[n])?;
            }
        }
    }
    let [first, other] = changed;
    if first > 0 {
        done.push(format!(
            "grain tables: {first} entries restored from the redundant tables"
        ));
    }
    if other > 0 {
        done.push(format!(
            "redundant grain tables: {other} entries restored from the grain tables"
        ));
    }
    if first + other > 0 {
        tables.storage.sync()?;
    }
    Ok(())
}

/// The copies of a table, mended.
struct Merged {
    bytes: [Vec<u8>; 2],
    n_changed: [u64; 2],
}

impl Merged {
    fn of(tables: &Tables, index: u64, copies: &Copies, what: Mend, unclean: bool) -> Self {
        let mut merged = Merged {
            bytes: [Vec::new(), Vec::new()],
            n_changed: [0; 2],
        };
        let is_sane = |entry: usize, value: u32| tables.entry_fault(index, entry, value).is_none();
        for entry in 0..TABLE_ENTRIES {
            let (first, other) = copies.entries(entry);
            let right = match (is_sane(entry, first), is_sane(entry, other)) {
                _ if first == other => None,
                (true, false) => Some(first),
                // The redundant one may be older after an unclean shutdown, and a hole in it need
                // not be one.
                (false, true) if !unclean && other != 0 => Some(other),
                // Whoever writes, writes the first one first.
                (true, true) if what == Mend::Differences && (unclean || other == 0) => Some(first),
                _ => None,
            };
            for (n, value) in [first, other].into_iter().enumerate() {
                let right = right.unwrap_or(value);
                merged.n_changed[n] += u64::from(right != value);
                merged.bytes[n].extend_from_slice(&right.to_le_bytes());
            }
        }
        merged
    }
}

/// Gives space that nothing refers to back to the host, if everything else is sound.
fn give_back_leaks(args: &HostedArgs, done: &mut Vec<String>) -> Result<()> {
    let args = read_again(args)?;
    let storage = &*args.storage;
    let mut ignore = |_: Range<u64>| Ok(());
    if !is_sound(&args, &mut ignore)? {
        return Ok(());
    }
    let file_len = storage.len_bytes()?;
    let (mut n_runs, mut n_bytes, mut cut) = (0u64, 0u64, None);
    let mut give_back = |range: Range<u64>| {
        n_runs += 1;
        n_bytes += range.end - range.start;
        if range.end == file_len {
            cut = Some(range.start);
            return Ok(());
        }
        storage.punch_hole(range)
    };
    is_sound(&args, &mut give_back)?;
    if let Some(end) = cut {
        storage.set_len(end)?;
    }
    if n_runs > 0 {
        storage.sync()?;
        done.push(format!(
            "{n_bytes} bytes in {n_runs} runs that nothing refers to given back"
        ));
    }
    Ok(())
}

fn read_again(args: &HostedArgs) -> Result<HostedArgs> {
    let (header, _) = open_tables(args)?;
    Ok(HostedArgs {
        header,
        access: Access::ReadOnly,
        ..args.clone()
    })
}

/// Returns whether a check finds no damage; tells the leaks.
fn is_sound(args: &HostedArgs, on_leak: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<bool> {
    let mut findings = Findings::default();
    check_extent(args.clone(), args.storage.name(), &mut findings, on_leak)?;
    Ok(findings.n_corruptions == 0)
}

/// Says that the file was closed properly, if it is as if it had been.
fn clear_flag(args: &HostedArgs, done: &mut Vec<String>) -> Result<()> {
    let args = read_again(args)?;
    if !args.header.unclean || !is_sound(&args, &mut |_| Ok(()))? {
        return Ok(());
    }
    let storage: &dyn Storage = &*args.storage;
    storage.sync()?;
    storage.write_at(UNCLEAN_FIELD, &[0])?;
    storage.sync()?;
    done.push("header: unclean shutdown flag cleared".to_owned());
    Ok(())
}
