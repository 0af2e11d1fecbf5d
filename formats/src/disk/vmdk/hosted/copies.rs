//! Both copies of a grain table as they are in the file, for comparing them.

use hako_block::{Result, SECTOR_BYTES, StorageExtent};

use super::geometry::{TABLE_BYTES, TABLE_ENTRIES};
use super::table::{Table, Tables};

/// For each copy of the tables, the run of the host file that was looked at last.
pub type Runs = [Option<StorageExtent>; 2];

/// The copies of one table, in the order of the directories.
#[derive(Default)]
pub struct Copies([FoundCopy; 2]);

#[derive(Default)]
struct FoundCopy {
    /// The directory's entry is good.
    is_there: bool,
    /// `None`: it is not there, or all of it is a hole.
    table: Option<Table>,
}

impl Copies {
    /// Reads the copies of a table.
    pub fn read(tables: &Tables, runs: &mut Runs, index: u64) -> Result<Self> {
        let mut copies = Self::default();
        let directories = &tables.directories.copies;
        for ((copy, directory), run) in copies.0.iter_mut().zip(directories).zip(runs) {
            let Some(sector) = tables.sector(directory, index) else {
                continue;
            };
            copy.is_there = true;
            let offset = u64::from(sector) * SECTOR_BYTES;
            if tables.is_in_hole(run, offset)? {
                continue;
            }
            let mut bytes = vec![0; TABLE_BYTES as usize];
            tables.storage.read_at(offset, &mut bytes)?;
            copy.table = Some(Table::decode(directory.copy, index, offset, &bytes));
        }
        Ok(copies)
    }

    /// Returns the copy that is read when the extent is in use; `None` if it has no entries.
    pub fn believed(&self) -> Option<&Table> {
        let copy = self.0.iter().find(|copy| copy.is_there)?;
        copy.table.as_ref()
    }

    /// Returns an entry of both copies, 0 in one that is not there.
    pub fn entries(&self, at: usize) -> (u32, u32) {
        let [first, other] = &self.0;
        let entry = |copy: &FoundCopy| copy.table.as_ref().map_or(0, |table| table.entry(at));
        (entry(first), entry(other))
    }

    /// Returns the copies that have entries.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.0.iter().filter_map(|copy| copy.table.as_ref())
    }

    /// Returns whether one copy is there and the other is not.
    pub fn is_one_missing(&self) -> bool {
        let [first, other] = &self.0;
        first.is_there != other.is_there
    }

    /// Returns the entries of two copies that are there where they differ: which entry, the first
    /// copy's, the other's.
    pub fn differences(&self) -> impl Iterator<Item = (usize, u32, u32)> + '_ {
        let [first, other] = &self.0;
        let entry = |copy: &FoundCopy, at| copy.table.as_ref().map_or(0, |table| table.entry(at));
        let both = first.is_there && other.is_there;
        let any = first.table.is_some() || other.table.is_some();
        let n_entries = if both && any { TABLE_ENTRIES } else { 0 };
        (0..n_entries)
            .map(move |at| (at, entry(first, at), entry(other, at)))
            .filter(|(_, first, other)| first != other)
    }
}
