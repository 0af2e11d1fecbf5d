//! The two region tables (MS-VHDX, section 2.2.3): where BAT and metadata are. Both say the same;
//! the first valid one counts.

use std::ops::Range;

use hako_block::{Error, Result, Storage, Uuid};

use super::bytes::{guid_at, put, record_checksum, u32_at, u64_at};
use super::layout::MIB;

/// Bytes of a region table.
pub const TABLE_BYTES: usize = 64 << 10;
/// File offsets of the region tables.
pub const TABLE_OFFSETS: [u64; 2] = [192 << 10, 256 << 10];
const SIGNATURE: &[u8; 4] = b"regi";
/// Most entries that the specification allows.
const MAX_ENTRIES: usize = 2047;
const ENTRY_BYTES: usize = 32;

/// The BAT's region.
const BAT: &str = "2dc27766-f623-4200-9d64-115e9bfd4a08";
/// The metadata's region.
const METADATA: &str = "8b7ca206-4790-4b9a-b8fe-575f050f886e";

/// Returns a constant GUID from its text.
pub fn guid(text: &str) -> Uuid {
    Uuid::parse(text).unwrap_or_default()
}

/// A region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// What it is.
    pub guid: Uuid,
    /// File offset, a multiple of 1 MiB.
    pub offset: u64,
    /// Length in bytes, a multiple of 1 MiB.
    pub len: u32,
    /// Who does not know it must not open the file.
    pub required: bool,
}

impl Region {
    /// Returns its place in the file.
    pub fn range(&self) -> Range<u64> {
        // Checked when it was decoded.
        self.offset..self.offset.saturating_add(u64::from(self.len))
    }
}

/// A region table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionTable {
    /// Its regions, in the table's order.
    pub regions: Vec<Region>,
}

impl RegionTable {
    /// Returns the table of a file with nothing but BAT and metadata.
    pub fn new(bat: Range<u64>, metadata: Range<u64>) -> Self {
        let region = |text, range: Range<u64>| Region {
            guid: guid(text),
            offset: range.start,
            len: u32::try_from(range.end - range.start).unwrap_or(u32::MAX),
            required: true,
        };
        Self {
            regions: vec![region(BAT, bat), region(METADATA, metadata)],
        }
    }

    /// Decodes a table; `None` if its signature or checksum is wrong. Pure.
    pub fn decode(bytes: &[u8]) -> Option<Result<Self>> {
        let valid = bytes.len() == TABLE_BYTES
            && bytes.starts_with(SIGNATURE)
            && u32_at(bytes, 4) == record_checksum(bytes);
        valid.then(|| Self::decode_entries(bytes))
    }

    fn decode_entries(bytes: &[u8]) -> Result<Self> {
        let n = u32_at(bytes, 8) as usize;
        if n > MAX_ENTRIES {
            return Err(Error::corrupt("region table", format!("{n} entries")));
        }
        let entries = bytes.get(16..).unwrap_or(&[]).chunks_exact(ENTRY_BYTES);
        let mut regions: Vec<Region> = Vec::new();
        for (index, entry) in entries.take(n).enumerate() {
            let region = Region {
                guid: guid_at(entry, 0),
                offset: u64_at(entry, 16),
                len: u32_at(entry, 24),
                required: u32_at(entry, 28) & 1 == 1,
            };
            region
                .check(&regions)
                .map_err(|error| error.place(format!("region table, entry {index}")))?;
            regions.push(region);
        }
        Ok(Self { regions })
    }

    /// Returns its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; TABLE_BYTES];
        put(&mut bytes, 0, SIGNATURE);
        let n = u32::try_from(self.regions.len()).unwrap_or(u32::MAX);
        put(&mut bytes, 8, &n.to_le_bytes());
        for (index, region) in self.regions.iter().enumerate() {
            let at = 16 + index * ENTRY_BYTES;
            put(&mut bytes, at, &region.guid.to_mixed_endian());
            put(&mut bytes, at + 16, &region.offset.to_le_bytes());
            put(&mut bytes, at + 24, &region.len.to_le_bytes());
            put(
                &mut bytes,
                at + 28,
                &u32::from(region.required).to_le_bytes(),
            );
        }
        let checksum = record_checksum(&bytes);
        put(&mut bytes, 4, &checksum.to_le_bytes());
        bytes
    }

    /// Returns where the BAT is. Errors: nowhere.
    pub fn bat(&self) -> Result<Range<u64>> {
        self.find(BAT, "BAT")
    }

    /// Returns where the metadata is. Errors: nowhere.
    pub fn metadata(&self) -> Result<Range<u64>> {
        self.find(METADATA, "metadata")
    }

    /// Returns the table with the BAT elsewhere.
    pub fn with_bat(&self, bat: &Range<u64>) -> Self {
        let mut table = self.clone();
        for region in &mut table.regions {
            if region.guid == guid(BAT) {
                region.offset = bat.start;
                region.len = u32::try_from(bat.end - bat.start).unwrap_or(u32::MAX);
            }
        }
        table
    }

    fn find(&self, text: &str, name: &str) -> Result<Range<u64>> {
        let region = self.regions.iter().find(|region| region.guid == guid(text));
        region
            .map(Region::range)
            .ok_or_else(|| Error::corrupt("region table", format!("names no {name} region")))
    }
}

impl Region {
    fn check(&self, others: &[Region]) -> Result<()> {
        let corrupt = |what: String| Err(Error::new(hako_block::ErrorKind::Corrupt, what));
        let (offset, len) = (self.offset, u64::from(self.len));
        let known = [guid(BAT), guid(METADATA)].contains(&self.guid);
        if self.required && !known {
            return Err(Error::unsupported(format!(
                "needs the region {}, which hako does not know",
                self.guid
            )));
        }
        if offset < MIB || !offset.is_multiple_of(MIB) || !len.is_multiple_of(MIB) || len == 0 {
            return corrupt(format!("a region of {len} bytes at {offset:#x}"));
        }
        if offset.checked_add(len).is_none() {
            return corrupt(format!("a region at {offset:#x}"));
        }
        let (start, end) = (offset, offset + len);
        for other in others {
            if other.guid == self.guid {
                return corrupt(format!("region {} is there twice", self.guid));
            }
            let range = other.range();
            if range.start < end && start < range.end {
                return corrupt(format!("overlaps the region at {:#x}", other.offset));
            }
        }
        Ok(())
    }
}

/// The region table that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionTables {
    /// The table.
    pub current: RegionTable,
    /// Which of the two are not valid.
    pub bad: Vec<usize>,
    /// Whether both are valid and differ.
    pub differ: bool,
}

impl RegionTables {
    /// Reads both. Errors: no valid one, a required region that hako does not know.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let mut found: Option<RegionTable> = None;
        let mut error = None;
        let (mut bad, mut differ) = (Vec::new(), false);
        for (slot, offset) in TABLE_OFFSETS.into_iter().enumerate() {
            let mut bytes = vec![0; TABLE_BYTES];
            storage.read_at(offset, &mut bytes)?;
            match (RegionTable::decode(&bytes), &found) {
                (Some(Ok(table)), Some(first)) => differ = *first != table,
                (Some(Ok(table)), None) => found = Some(table),
                (Some(Err(problem)), _) => {
                    bad.push(slot);
                    error = error.or(Some(problem.at_byte(offset)));
                }
                (None, _) => bad.push(slot),
            }
        }
        let Some(current) = found else {
            return Err(error.unwrap_or_else(|| {
                Error::corrupt("region tables", "neither copy is valid").at_byte(TABLE_OFFSETS[0])
            }));
        };
        Ok(Self {
            current,
            bad,
            differ,
        })
    }

    /// Returns what is odd about them.
    pub fn oddities(&self) -> impl Iterator<Item = String> {
        let differ = self
            .differ
            .then(|| "the region tables differ; the first one is used".to_owned());
        self.bad
            .iter()
            .map(|slot| {
                format!(
                    "region table {} is damaged; the other copy is used",
                    slot + 1
                )
            })
            .chain(differ)
    }

    /// Returns whether one copy must be made like the other before the file is written.
    pub fn need_mending(&self) -> bool {
        self.differ || !self.bad.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> RegionTable {
        RegionTable::new(3 * MIB..4 * MIB, 2 * MIB..3 * MIB)
    }

    fn decoded(table: &RegionTable) -> Result<RegionTable> {
        RegionTable::decode(&table.encode()).expect("a valid checksum")
    }

    #[test]
    fn table_comes_back() {
        assert_eq!(decoded(&table()).unwrap(), table());
        let moved = table().with_bat(&(8 * MIB..10 * MIB));
        assert_eq!(decoded(&moved).unwrap().bat().unwrap(), 8 * MIB..10 * MIB);
        let mut bytes = table().encode();
        bytes[40] ^= 1;
        assert!(RegionTable::decode(&bytes).is_none());
    }

    #[test]
    fn hostile_regions_are_refused() {
        let with = |change: fn(&mut RegionTable)| {
            let mut table = table();
            change(&mut table);
            decoded(&table)
        };
        assert!(with(|table| table.regions[0].offset = 2 * MIB).is_err());
        assert!(with(|table| table.regions[0].offset = 0).is_err());
        assert!(with(|table| table.regions[0].offset = 4096).is_err());
        assert!(with(|table| table.regions[0].offset = u64::MAX << 20).is_err());
        assert!(with(|table| table.regions[0].len = 0).is_err());
        assert!(with(|table| table.regions[1].guid = table.regions[0].guid).is_err());
        let unknown = with(|table| table.regions[1].guid = Uuid([9; 16])).unwrap_err();
        assert_eq!(unknown.kind(), hako_block::ErrorKind::Unsupported);
        assert!(
            with(|table| table.regions.truncate(1))
                .unwrap()
                .metadata()
                .is_err()
        );
    }
}
