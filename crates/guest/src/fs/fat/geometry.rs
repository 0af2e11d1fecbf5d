//! The boot sector: where the tables, the root directory and the clusters are, as Linux and
//! Microsoft's "FAT: General Overview of On-Disk Format" (1.03) have it.
//!
//! | byte | |
//! |---|---|
//! | 11 | bytes of a sector, 13 sectors of a cluster |
//! | 14 | reserved sectors, 16 number of tables, 17 entries of the root directory |
//! | 19, 32 | sectors of the volume (16, 32 bits) |
//! | 22, 36 | sectors of a table (16 bits; FAT32: 32 bits) |
//! | 40 | FAT32: which table is live, 44 first cluster of the root directory |
//! | 38, 66 | signature 28h or 29h, then serial number (4) and label (11); FAT32 at 66 |

use hako_block::{Error, Result};

use crate::bytes::{array_at, le};

/// How wide the entries of the tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Bits12,
    Bits16,
    Bits32,
}

/// Where the root directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    /// So many bytes from a place on.
    Fixed { at: u64, len: u64 },
    /// A chain that begins with this cluster.
    Chain(u32),
}

/// What the boot sector says, checked.
#[derive(Debug, Clone)]
pub(super) struct Geometry {
    pub(super) width: Width,
    /// The table that is read, in bytes.
    pub(super) table_at: u64,
    /// Where the first table is, how long each is, and how many follow each other.
    pub(super) tables_at: u64,
    pub(super) table_bytes: u64,
    pub(super) n_tables: u8,
    pub(super) root: Root,
    /// Where cluster 2 begins.
    pub(super) data_at: u64,
    pub(super) cluster_bytes: u32,
    /// Numbers of clusters are below this.
    pub(super) end_cluster: u32,
    pub(super) len_bytes: u64,
    pub(super) serial: Option<u32>,
    pub(super) label: [u8; 11],
    /// Whether Linux left its mark for a volume that is mounted.
    pub(super) is_dirty: bool,
}

/// Returns whether a boot sector can be one of FAT.
pub(super) fn is_fat(sector: &[u8]) -> bool {
    let sector_bytes = le::u16_at(sector, 11);
    let [per_cluster, _, _, n_tables] = array_at::<4>(sector, 13);
    let has_length = le::u16_at(sector, 19) != 0 || le::u32_at(sector, 32) != 0;
    let has_tables = le::u16_at(sector, 22) != 0 || le::u32_at(sector, 36) != 0;
    let [media] = array_at::<1>(sector, 21);
    matches!(sector.first(), Some(0xeb | 0xe9))
        && array_at::<2>(sector, 510) == [0x55, 0xaa]
        && matches!(sector_bytes, 512 | 1024 | 2048 | 4096)
        && per_cluster.is_power_of_two()
        && le::u16_at(sector, 14) != 0
        && matches!(n_tables, 1..=4)
        && (media == 0xf0 || media >= 0xf8)
        && has_length
        && has_tables
}

impl Geometry {
    /// Decodes the boot sector of a volume of `volume_bytes`.
    pub(super) fn decode(sector: &[u8], volume_bytes: u64) -> Result<Self> {
        let corrupt = |what: &str| Error::corrupt("boot sector", what);
        if !is_fat(sector) {
            return Err(corrupt("it is none of FAT"));
        }
        let sector_bytes = u64::from(le::u16_at(sector, 11));
        let [per_cluster, _, _, n_tables] = array_at::<4>(sector, 13);
        let cluster_bytes = u64::from(per_cluster) * sector_bytes;
        let is_32 = le::u16_at(sector, 22) == 0;
        let either = |short: u16, long: u32| match short {
            0 => u64::from(long),
            short => u64::from(short),
        };
        let table_sectors = either(le::u16_at(sector, 22), le::u32_at(sector, 36));
        let sectors = either(le::u16_at(sector, 19), le::u32_at(sector, 32));
        // All of these are at most 32 bits wide, and their sums and products far below 64.
        let table_bytes = table_sectors * sector_bytes;
        let tables_at = u64::from(le::u16_at(sector, 14)) * sector_bytes;
        let root_at = tables_at + table_bytes * u64::from(n_tables);
        let root_bytes = u64::from(le::u16_at(sector, 17)) * 32;
        let data_at = root_at + root_bytes.next_multiple_of(sector_bytes);
        let len_bytes = sectors * sector_bytes;
        let n_clusters = len_bytes
            .checked_sub(data_at)
            .map(|bytes| bytes / cluster_bytes)
            .filter(|_| data_at <= volume_bytes)
            .ok_or_else(|| corrupt("no room for clusters behind its tables"))?;
        let width = match (is_32, n_clusters) {
            (true, _) => Width::Bits32,
            (false, 0..=0xff4) => Width::Bits12,
            (false, _) => Width::Bits16,
        };
        // What the table has no entry for is in no chain.
        let entries = match width {
            Width::Bits12 => table_bytes * 2 / 3,
            Width::Bits16 => table_bytes / 2,
            Width::Bits32 => table_bytes / 4,
        };
        let live = match le::u16_at(sector, 40) {
            flags if is_32 && flags & 0x80 != 0 => u64::from(flags & 0xf),
            _ => 0,
        };
        if live >= u64::from(n_tables) {
            return Err(corrupt("the table that is live does not exist"));
        }
        let extended = if is_32 { 64 } else { 36 };
        let has_serial = matches!(array_at::<1>(sector, extended + 2), [0x28 | 0x29]);
        Ok(Self {
            width,
            table_at: tables_at + live * table_bytes,
            tables_at,
            table_bytes,
            n_tables,
            root: match is_32 {
                true => Root::Chain(le::u32_at(sector, 44)),
                false => Root::Fixed {
                    at: root_at,
                    len: root_bytes,
                },
            },
            data_at,
            cluster_bytes: u32::try_from(cluster_bytes)
                .map_err(|_| corrupt("its clusters are too large"))?,
            end_cluster: u32::try_from((n_clusters + 2).min(entries).min(0x0fff_fff7))
                .map_err(|_| corrupt("it has too many clusters"))?,
            len_bytes,
            serial: has_serial.then(|| le::u32_at(sector, extended + 3)),
            label: match array_at::<1>(sector, extended + 2) {
                [0x29] => array_at(sector, extended + 7),
                _ => [b' '; 11],
            },
            is_dirty: array_at::<1>(sector, extended + 1)[0] & 1 != 0,
        })
    }
}
