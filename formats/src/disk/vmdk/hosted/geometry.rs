//! The numbers of an extent that follow from its header, and the layout of a new one.

use hako_block::{Error, Result, SECTOR_BYTES};

use crate::disk::vmdk::header::{GD_AT_END, N_GTES, SparseHeader};

/// Entries of a grain table.
pub const TABLE_ENTRIES: usize = N_GTES as usize;
/// Bytes of a grain table.
pub const TABLE_BYTES: u64 = 4 * N_GTES as u64;
/// Sectors of a grain table.
pub const TABLE_SECTORS: u64 = TABLE_BYTES / SECTOR_BYTES;
/// Sectors of the space kept for an embedded descriptor.
pub const DESCRIPTOR_SECTORS: u64 = 20;
/// Sectors that an entry can name.
pub const N_ADDRESSABLE_SECTORS: u64 = 1 << 32;

/// Most grain tables accepted: 2 TiB in grains of 4 KiB, the smallest that the format allows, or
/// 32 TiB in those of 64 KiB. Bounds the memory of a directory to 4 MiB.
pub const MAX_TABLES: u64 = 1 << 20;
/// Smallest grain of a new extent, in bytes.
const MIN_NEW_GRAIN: u64 = 4096;
/// Largest grain of a new extent, in bytes.
const MAX_NEW_GRAIN: u64 = 1 << 20;

/// Sizes in bytes that follow from a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// Virtual size.
    pub capacity: u64,
    /// Grain size, a power of two.
    pub grain: u64,
    /// File offset below which no grain may lie.
    pub overhead: u64,
    /// Grain tables that the capacity needs.
    pub n_tables: u64,
    /// Whether an entry of 1 says zeros.
    pub zeroed_grains: bool,
}

/// Where a guest offset is: which grain table, which entry, how far into the grain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the grain table.
    pub table: u64,
    /// Index of the entry, below 512.
    pub entry: usize,
    /// Offset in the grain.
    pub within: u64,
}

impl Geometry {
    /// Takes the numbers from a header, checking what decode cannot know of: that it is an
    /// uncompressed extent with a directory in front and content of its own.
    pub fn of(header: &SparseHeader) -> Result<Self> {
        if header.compressed || header.has_markers() || header.gd_sector == GD_AT_END {
            return Err(Error::unsupported(
                "is a compressed extent, not a hosted sparse one",
            ));
        }
        let bad = |what: String, byte| Err(Error::corrupt("header", what).at_byte(byte));
        if header.capacity_sectors == 0 {
            return bad("capacity of 0 sectors".to_owned(), 12);
        }
        let n_tables = header.n_grain_tables();
        if n_tables > MAX_TABLES {
            return bad(
                format!(
                    "capacity of {} sectors in grains of {} needs {n_tables} grain tables, more than {MAX_TABLES}",
                    header.capacity_sectors, header.grain_sectors
                ),
                12,
            );
        }
        let Some(overhead) = header.overhead_sectors.checked_mul(SECTOR_BYTES) else {
            return bad(
                format!("overhead of {} sectors", header.overhead_sectors),
                64,
            );
        };
        Ok(Self {
            capacity: header.capacity_sectors * SECTOR_BYTES,
            grain: header.grain_bytes(),
            // The header is no grain, whatever it says of the overhead.
            overhead: overhead.max(SECTOR_BYTES),
            n_tables,
            zeroed_grains: header.has_zeroed_grains(),
        })
    }

    /// Returns what is wrong if the grains begin past the end of a file of that length.
    pub fn overhead_past(&self, file_len: u64) -> Option<Error> {
        let what = format!(
            "overhead of {} sectors past end of file ({} sectors)",
            self.overhead / SECTOR_BYTES,
            file_len / SECTOR_BYTES
        );
        (self.overhead > file_len).then(|| Error::corrupt("header", what).at_byte(64))
    }

    /// Returns the guest bytes that one grain table covers.
    pub fn table_span(&self) -> u64 {
        self.grain * u64::from(N_GTES)
    }

    /// Returns the guest offset where a grain begins.
    pub fn grain_start(&self, table: u64, entry: usize) -> u64 {
        table * self.table_span() + entry as u64 * self.grain
    }

    /// Returns the bytes of a grain that lie inside the capacity: 0 for an entry past its end.
    pub fn grain_len(&self, table: u64, entry: usize) -> u64 {
        let start = self.grain_start(table, entry);
        self.capacity.saturating_sub(start).min(self.grain)
    }

    /// Returns where a guest offset is.
    pub fn place(&self, offset: u64) -> Place {
        let grain = offset / self.grain;
        Place {
            table: grain / u64::from(N_GTES),
            entry: (grain % u64::from(N_GTES)) as usize,
            within: offset % self.grain,
        }
    }

    /// Returns the first possible start of a grain at or after a file offset: grains are aligned
    /// to each other, the first one at the overhead.
    pub fn align_up(&self, offset: u64) -> Option<u64> {
        let base = self.overhead % self.grain;
        let offset = offset.max(self.overhead);
        (offset - base)
            .checked_next_multiple_of(self.grain)?
            .checked_add(base)
    }
}

/// Lays a new extent out like VMware and QEMU do: descriptor, redundant directory and tables,
/// directory and tables, grains from the next multiple of the grain. Errors: a size or grain that
/// the format cannot have.
pub fn new_header(
    capacity: u64,
    grain: u64,
    has_descriptor: bool,
    zeroed_grains: bool,
) -> Result<SparseHeader> {
    use crate::disk::vmdk::header::{FLAG_NEWLINE_TEST, FLAG_REDUNDANT_GD, FLAG_ZEROED_GRAINS};
    if capacity == 0 || !capacity.is_multiple_of(SECTOR_BYTES) {
        return Err(Error::invalid(format!(
            "a sparse extent of {capacity} bytes: not a positive multiple of 512"
        )));
    }
    if !grain.is_power_of_two() || !(MIN_NEW_GRAIN..=MAX_NEW_GRAIN).contains(&grain) {
        return Err(Error::invalid(format!(
            "a grain of {grain} bytes: not a power of two from {MIN_NEW_GRAIN} to {MAX_NEW_GRAIN}"
        )));
    }
    let mut header = SparseHeader {
        version: if zeroed_grains { 2 } else { 1 },
        flags: FLAG_NEWLINE_TEST | FLAG_REDUNDANT_GD,
        capacity_sectors: capacity / SECTOR_BYTES,
        grain_sectors: grain / SECTOR_BYTES,
        descriptor_sector: u64::from(has_descriptor),
        descriptor_sectors: if has_descriptor {
            DESCRIPTOR_SECTORS
        } else {
            0
        },
        rgd_sector: 0,
        gd_sector: 0,
        overhead_sectors: 0,
        unclean: false,
        compressed: false,
    };
    if zeroed_grains {
        header.flags |= FLAG_ZEROED_GRAINS;
    }
    let n_tables = header.n_grain_tables();
    let copy_sectors = directory_sectors(n_tables) + n_tables * TABLE_SECTORS;
    header.rgd_sector = 1 + header.descriptor_sectors;
    header.gd_sector = header.rgd_sector + copy_sectors;
    header.overhead_sectors =
        (header.gd_sector + copy_sectors).next_multiple_of(header.grain_sectors);
    let end = header.overhead_sectors + header.n_grains() * header.grain_sectors;
    if n_tables > MAX_TABLES || end > N_ADDRESSABLE_SECTORS {
        return Err(Error::invalid(format!(
            "{capacity} bytes are more than one sparse extent can address when it is full (2 TiB with its tables)"
        ))
        .hint("choose a split or flat subformat, or another format"));
    }
    Ok(header)
}

/// Returns the sectors of a directory of so many tables.
pub fn directory_sectors(n_tables: u64) -> u64 {
    (n_tables * 4).div_ceil(SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_disk_is_laid_out_like_vmwares() {
        let header = new_header(10 << 20, 65536, true, false).unwrap();
        let sectors = (
            header.rgd_sector,
            header.gd_sector,
            header.overhead_sectors,
            header.descriptor_sectors,
        );
        assert_eq!(sectors, (21, 26, 128, 20));
        assert_eq!((header.version, header.flags), (1, 3));
        let part = new_header(10 << 20, 65536, false, true).unwrap();
        assert_eq!((part.rgd_sector, part.gd_sector), (1, 6));
        assert_eq!((part.version, part.flags), (2, 7));
    }

    #[test]
    fn size_that_cannot_be_addressed_when_full_is_refused() {
        let tables = 2 * 65536 * TABLE_BYTES;
        assert!(new_header((2 << 40) - tables - (2 << 20), 65536, true, false).is_ok());
        for capacity in [(2 << 40) - tables, 2 << 40, 1 << 60, 0, 511] {
            assert!(
                new_header(capacity, 65536, true, false).is_err(),
                "{capacity}"
            );
        }
        for grain in [512, 65535, 2 << 20] {
            assert!(new_header(1 << 20, grain, true, false).is_err(), "{grain}");
        }
    }

    #[test]
    fn grains_are_aligned_to_the_overhead() {
        let mut header = new_header(10 << 20, 65536, true, false).unwrap();
        header.overhead_sectors = 130;
        let geometry = Geometry::of(&header).unwrap();
        assert_eq!(geometry.align_up(0), Some(130 * 512));
        assert_eq!(geometry.align_up(130 * 512 + 1), Some(258 * 512));
        assert_eq!(geometry.align_up(u64::MAX), None);
        assert_eq!(geometry.grain_len(0, 159), 65536);
        assert_eq!(geometry.grain_len(0, 160), 0);
    }
}
