//! The boot sector: sizes, and where the master file table begins.

use hako_block::{Error, Result};

use crate::bytes::{array_at, le};
use crate::volume::{Volume, read_vec};

const BYTES: usize = 512;

/// What the boot sector says.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// Length of the whole in bytes.
    pub len_bytes: u64,
    /// Bytes of a cluster: 512 to 2 MiB.
    pub cluster_bytes: u64,
    /// Bytes of a record of the master file table: mostly 1024, 4096 with large sectors.
    pub record_bytes: usize,
    /// The first cluster of the master file table, and of the copy of its first records.
    pub table_clusters: [u64; 2],
    /// The serial number, which serves as identity.
    pub serial: u64,
}

/// Returns whether the volume begins with one.
pub fn probe(volume: &dyn Volume) -> Result<bool> {
    if volume.len_bytes() < BYTES as u64 {
        return Ok(false);
    }
    let sector = read_vec(volume, 0, BYTES)?;
    Ok(array_at(&sector, 3) == *b"NTFS    " && array_at(&sector, 510) == [0x55, 0xaa])
}

/// Reads it. Bytes per sector 0x0b, sectors per cluster 0x0d, sectors 0x28, table 0x30, its copy
/// 0x38, size of a record 0x40, serial 0x48.
pub fn read(volume: &dyn Volume) -> Result<Boot> {
    let sector = read_vec(volume, 0, BYTES)?;
    let sector_bytes = u64::from(le::u16_at(&sector, 0x0b));
    if !sector_bytes.is_power_of_two() || !(256..=4096).contains(&sector_bytes) {
        return Err(bad(format!("sectors of {sector_bytes} bytes")));
    }
    let [per_cluster] = array_at(&sector, 0x0d);
    // Above 128 it is the power of two, negative.
    let per_cluster = match per_cluster {
        0xf0..=0xff => 1 << (256 - u64::from(per_cluster)),
        few => u64::from(few),
    };
    let cluster_bytes = per_cluster * sector_bytes;
    if !per_cluster.is_power_of_two() || !(256..=2 << 20).contains(&cluster_bytes) {
        return Err(bad(format!("clusters of {cluster_bytes} bytes")));
    }
    let len_bytes = le::u64_at(&sector, 0x28).checked_mul(sector_bytes);
    Ok(Boot {
        len_bytes: len_bytes.ok_or_else(|| bad("more sectors than there can be"))?,
        cluster_bytes,
        record_bytes: record_bytes(array_at(&sector, 0x40), cluster_bytes)?,
        table_clusters: [le::u64_at(&sector, 0x30), le::u64_at(&sector, 0x38)],
        serial: le::u64_at(&sector, 0x48),
    })
}

/// A positive number counts clusters, a negative one is the power of two of the bytes.
fn record_bytes([size]: [u8; 1], cluster_bytes: u64) -> Result<usize> {
    let bytes = match i8::from_le_bytes([size]) {
        power @ -16..=-9 => 1 << -power,
        clusters @ 1.. => cluster_bytes * u64::from(clusters.unsigned_abs()),
        _ => 0,
    };
    match bytes.is_power_of_two() && (512..=65536).contains(&bytes) {
        true => Ok(usize::try_from(bytes).unwrap_or_default()),
        false => Err(bad(format!("records of size {size:#x}"))),
    }
}

fn bad(what: impl Into<String>) -> Error {
    Error::corrupt("NTFS boot sector", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(per_cluster: u8, record: u8) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[3..11].copy_from_slice(b"NTFS    ");
        sector[11..13].copy_from_slice(&512_u16.to_le_bytes());
        sector[13] = per_cluster;
        sector[0x28] = 100;
        sector[0x40] = record;
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    #[test]
    fn sizes_are_counts_or_powers() {
        let sizes = |per_cluster, record| {
            let boot = read(&sector(per_cluster, record)).unwrap();
            (boot.cluster_bytes, boot.record_bytes)
        };
        assert!(probe(&sector(8, 0xf6)).unwrap());
        assert_eq!(sizes(8, 0xf6), (4096, 1024));
        assert_eq!(sizes(1, 2), (512, 1024));
        assert_eq!(sizes(128, 0xf4), (65536, 4096));
        assert_eq!(sizes(0xf4, 0xf6), (2 << 20, 1024));
        for (per_cluster, record) in [(0, 0xf6), (3, 0xf6), (0xf0, 0xf6), (8, 0), (8, 0x80)] {
            assert!(read(&sector(per_cluster, record)).is_err());
        }
    }
}
