//! The two grain directories: where each grain table and its redundant copy are.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use hako_block::{Error, Result, SECTOR_BYTES, Storage};

use super::geometry::{Geometry, TABLE_SECTORS, directory_sectors};
use crate::disk::vmdk::header::{FLAG_REDUNDANT_GD, SparseHeader};

/// Which of the two copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// The grain directory and its tables.
    First,
    /// The redundant ones.
    Redundant,
}

impl Copy {
    /// Returns the name of this copy's directory in messages.
    pub fn directory(self) -> &'static str {
        match self {
            Copy::First => "grain directory",
            Copy::Redundant => "redundant grain directory",
        }
    }

    /// Returns the name of this copy's tables in messages.
    pub fn table(self) -> &'static str {
        match self {
            Copy::First => "grain table",
            Copy::Redundant => "redundant grain table",
        }
    }
}

/// One directory in memory: a sector number per grain table, 0 for a table that is not there.
#[derive(Debug)]
pub struct Directory {
    /// Which copy it is.
    pub copy: Copy,
    /// File offset of the directory in bytes.
    pub offset: u64,
    sectors: Vec<AtomicU32>,
}

impl Directory {
    /// Returns the sector of a grain table; 0 if there is none.
    pub fn sector(&self, table: u64) -> u32 {
        usize::try_from(table)
            .ok()
            .and_then(|table| self.sectors.get(table))
            .map_or(0, |sector| sector.load(Ordering::Acquire))
    }

    /// Records the sector of a new grain table.
    pub fn set_sector(&self, table: u64, sector: u32) {
        let slot = usize::try_from(table)
            .ok()
            .and_then(|table| self.sectors.get(table));
        if let Some(slot) = slot {
            slot.store(sector, Ordering::Release);
        }
    }

    /// Returns the sectors of the grain tables, 0 for one that is not there.
    pub fn sectors(&self) -> impl Iterator<Item = u32> + '_ {
        let sectors = self.sectors.iter();
        sectors.map(|sector| sector.load(Ordering::Acquire))
    }

    /// Returns the lowest and the highest sector of a grain table; `None` if there is no table.
    pub fn span(&self) -> Option<(u32, u32)> {
        // Wrapping makes "none" the highest number: a pass without branches, for directories of
        // a large disk have 65,536 entries, and every layer's are looked at when it is opened.
        let (lowest, highest) = self
            .sectors()
            .fold((u32::MAX, 0), |(lowest, highest), sector| {
                (lowest.min(sector.wrapping_sub(1)), highest.max(sector))
            });
        (highest != 0).then_some((lowest.wrapping_add(1), highest))
    }

    /// Returns the sectors that the directory takes.
    pub fn area(&self) -> Range<u64> {
        let start = self.offset / SECTOR_BYTES;
        start..start + directory_sectors(self.sectors.len() as u64)
    }

    /// Returns whether it lies on any of these sectors.
    pub fn overlaps(&self, sectors: Range<u64>) -> bool {
        let area = self.area();
        sectors.start < area.end && sectors.end > area.start
    }

    /// Returns the file offset of the entry of a grain table.
    pub fn entry_offset(&self, table: u64) -> u64 {
        self.offset + 4 * table
    }
}

/// The directories that could be read, the one to believe first.
#[derive(Debug)]
pub struct Directories {
    /// One or two.
    pub copies: Vec<Directory>,
    /// The copy that could not be read, if there is another.
    pub lost: Option<(Copy, Error)>,
    /// Sectors of the header and the descriptor.
    reserved: [Range<u64>; 2],
}

impl Directories {
    /// Reads the directories. Where only one is good, that one is used; where none is, the error
    /// is the first one's.
    pub fn read(storage: &dyn Storage, header: &SparseHeader, geometry: &Geometry) -> Result<Self> {
        let has_redundant = header.flags & FLAG_REDUNDANT_GD != 0
            && header.rgd_sector != 0
            && header.rgd_sector != header.gd_sector;
        let descriptor_end = header
            .descriptor_sector
            .saturating_add(header.descriptor_sectors);
        let mut all = Self {
            copies: Vec::new(),
            lost: None,
            reserved: [0..1, header.descriptor_sector..descriptor_end],
        };
        let file_len = storage.len_bytes()?;
        let places = [
            (Copy::First, header.gd_sector, true),
            (Copy::Redundant, header.rgd_sector, has_redundant),
        ];
        for (copy, sector, _) in places.into_iter().filter(|(_, _, wanted)| *wanted) {
            match all.read_one(storage, copy, sector, geometry.n_tables, file_len) {
                Ok(directory) => all.copies.push(directory),
                Err(error) => {
                    all.lost.get_or_insert((copy, error));
                }
            }
        }
        match all.lost {
            Some((_, error)) if all.copies.is_empty() => Err(error),
            _ => Ok(all),
        }
    }

    fn read_one(
        &self,
        storage: &dyn Storage,
        copy: Copy,
        sector: u64,
        n_tables: u64,
        file_len: u64,
    ) -> Result<Directory> {
        let n_bytes = 4 * n_tables;
        let bad = |what: String| Err(Error::corrupt(copy.directory(), what));
        let offset = match sector.checked_mul(SECTOR_BYTES) {
            Some(offset) if offset.saturating_add(n_bytes) <= file_len => offset,
            _ => {
                return bad(format!(
                    "sectors {sector}+{} past end of file ({} sectors)",
                    directory_sectors(n_tables),
                    file_len / SECTOR_BYTES
                ));
            }
        };
        if self.is_reserved(sector..sector + directory_sectors(n_tables)) {
            return bad(format!(
                "sector {sector} is the header's or the descriptor's"
            ));
        }
        let mut bytes = vec![0; n_bytes as usize];
        storage.read_at(offset, &mut bytes)?;
        Ok(Directory {
            copy,
            offset,
            sectors: decode(&bytes).map(AtomicU32::new).collect(),
        })
    }

    fn is_reserved(&self, sectors: Range<u64>) -> bool {
        self.reserved
            .iter()
            .any(|area| sectors.start < area.end && sectors.end > area.start)
    }

    /// Returns the sector of a grain table in one directory, `None` if the entry is 0. Errors: it
    /// is past the end of the file, or over the header, the descriptor or the directory.
    pub fn check_entry(
        &self,
        directory: &Directory,
        table: u64,
        file_len: u64,
    ) -> Result<Option<u32>> {
        let sector = directory.sector(table);
        if sector == 0 {
            return Ok(None);
        }
        let bad = |what: String| {
            let place = format!("{}, entry {table}", directory.copy.directory());
            Err(Error::corrupt(place, what).at_byte(directory.entry_offset(table)))
        };
        let (start, end) = (u64::from(sector), u64::from(sector) + TABLE_SECTORS);
        if end * SECTOR_BYTES > file_len {
            return bad(format!(
                "sector {sector} past end of file ({} sectors)",
                file_len / SECTOR_BYTES
            ));
        }
        if self.is_reserved(start..end) || directory.overlaps(start..end) {
            return bad(format!(
                "sector {sector} is the header's, the descriptor's or the directory's"
            ));
        }
        Ok(Some(sector))
    }

    /// Returns the errors of one directory's entries.
    pub fn bad_entries<'a>(
        &'a self,
        directory: &'a Directory,
        file_len: u64,
    ) -> impl Iterator<Item = Error> + 'a {
        (0..directory.sectors.len() as u64)
            .filter_map(move |table| self.check_entry(directory, table, file_len).err())
    }

    /// Returns whether all tables lie behind the header, the descriptor and the directory and
    /// before the end of the file, as whoever makes an extent places them: then
    /// [`Self::bad_entries`] has nothing to find.
    fn is_surely_good(&self, directory: &Directory, file_len: u64) -> bool {
        let Some((lowest, highest)) = directory.span() else {
            return true;
        };
        let own = std::iter::once(directory.area());
        let mut areas = self.reserved.iter().cloned().chain(own);
        let end = u64::from(highest) + TABLE_SECTORS;
        end * SECTOR_BYTES <= file_len && areas.all(|area| area.end <= u64::from(lowest))
    }

    /// Returns what is wrong: the copy that is lost, and the first bad entry of each other.
    pub fn damage(&self, file_len: u64) -> Vec<String> {
        let lost = self.lost.iter().map(|(_, error)| error.finding());
        let suspects = self.copies.iter();
        let suspects = suspects.filter(|directory| !self.is_surely_good(directory, file_len));
        let bad = suspects.filter_map(|directory| {
            let first = self.bad_entries(directory, file_len).next()?;
            Some(first.finding())
        });
        lost.chain(bad).collect()
    }

    /// Returns the first sector of any directory or table; `None` if a copy is lost.
    pub fn first_sector(&self) -> Option<u64> {
        if self.lost.is_some() {
            return None;
        }
        let tables = |copy: &Directory| {
            let first = copy.span().map(|(lowest, _)| lowest);
            first.map_or(u64::MAX, u64::from).min(copy.area().start)
        };
        self.copies.iter().map(tables).min()
    }

    /// Returns the sectors that are the header's, the descriptor's and the directories'.
    pub fn areas(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let reserved = self.reserved.iter().cloned();
        reserved.chain(self.copies.iter().map(Directory::area))
    }

    /// Refuses an extent whose tables overlap: writing one would change another.
    pub fn check_overlaps(&self) -> Result<()> {
        let mut areas: Vec<Range<u64>> = self.copies.iter().map(Directory::area).collect();
        for copy in &self.copies {
            areas.extend(
                copy.sectors()
                    .filter(|sector| *sector != 0)
                    .map(|sector| u64::from(sector)..u64::from(sector) + TABLE_SECTORS),
            );
        }
        areas.sort_unstable_by_key(|area| area.start);
        match areas.windows(2).find(|pair| pair[0].end > pair[1].start) {
            Some(pair) => Err(Error::corrupt(
                "grain directory",
                format!(
                    "tables at sectors {} and {} overlap",
                    pair[0].start, pair[1].start
                ),
            )),
            None => Ok(()),
        }
    }
}

/// Returns the little-endian numbers in `bytes`.
pub fn decode(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes
        .chunks_exact(4)
        .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}
