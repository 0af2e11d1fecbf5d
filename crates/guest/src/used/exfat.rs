//! What of an exFAT is in use, by its allocation bitmap ("exFAT file system specification", Microsoft).
//! Nothing else of it is read.
//!
//! | boot sector | |
//! |---|---|
//! | 80 | sector of the table, 84 its length, 88 sector of the clusters, 92 how many there are |
//! | 96 | first cluster of the root directory, 106 flags: 1 the second table and bitmap, 2 dirty |
//! | 108 | sector bytes and 109 sectors of a cluster, as powers of two; 110 number of tables |
//!
//! | entry of the root directory for a bitmap | |
//! |---|---|
//! | 0 | 81h, 1 which one, 20 first cluster, 24 length |

use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, Result};

use super::Ranges;
use crate::bytes::{array_at, le};
use crate::volume::{Volume, read_vec};

const BITMAP: u8 = 0x81;
const ENTRY_BYTES: usize = 32;
/// Clusters of the root directory that are looked at.
const MOST_OF_ROOT: usize = 4096;

/// An exFAT whose bitmap is known.
pub(super) struct ExFat {
    volume: Arc<dyn Volume>,
    heap_at: u64,
    cluster_bytes: u64,
    n_clusters: u64,
    /// Places of the bitmap's clusters on the volume, in order.
    bitmap: Vec<u64>,
}

impl ExFat {
    /// Finds the bitmap of a volume. Errors: unsupported if it was not unmounted.
    pub(super) fn open(volume: &Arc<dyn Volume>) -> Result<Self> {
        let sector = read_vec(&**volume, 0, 512)?;
        let corrupt = |what: &str| Error::corrupt("exFAT", what);
        let [_, _, sector_shift, cluster_shift] = array_at::<4>(&sector, 106);
        if !(9..=12).contains(&sector_shift)
            || u32::from(sector_shift) + u32::from(cluster_shift) > 25
        {
            return Err(corrupt("impossible sizes"));
        }
        let flags = le::u16_at(&sector, 106);
        if flags & 2 != 0 {
            return Err(Error::unsupported("it was not unmounted"));
        }
        let bytes = |at: usize| u64::from(le::u32_at(&sector, at)) << sector_shift;
        let mut exfat = Self {
            volume: Arc::clone(volume),
            heap_at: bytes(88),
            cluster_bytes: 1 << (sector_shift + cluster_shift),
            n_clusters: u64::from(le::u32_at(&sector, 92)),
            bitmap: Vec::new(),
        };
        let second = u64::from(flags & 1);
        let table_at = bytes(80) + second * bytes(84);
        let (first, len) = exfat
            .find_bitmap(le::u32_at(&sector, 96), table_at, second as u8)?
            .ok_or_else(|| corrupt("no allocation bitmap"))?;
        if len < exfat.n_clusters.div_ceil(8) {
            return Err(corrupt("its bitmap is too short"));
        }
        let n_places = exfat.n_clusters.div_ceil(8).div_ceil(exfat.cluster_bytes);
        exfat.bitmap = exfat.chain(first, table_at, usize::try_from(n_places).unwrap_or(0))?;
        match exfat.bitmap.len() as u64 == n_places {
            true => Ok(exfat),
            false => Err(corrupt("its bitmap ends before it should")),
        }
    }

    /// Returns where the bitmap begins, and its length.
    fn find_bitmap(&self, root: u32, table_at: u64, which: u8) -> Result<Option<(u32, u64)>> {
        let cluster_bytes = usize::try_from(self.cluster_bytes).unwrap_or(0);
        for place in self.chain(root, table_at, MOST_OF_ROOT)? {
            let entries = read_vec(&*self.volume, place, cluster_bytes)?;
            for entry in entries.chunks_exact(ENTRY_BYTES) {
                match entry {
                    [0, ..] => return Ok(None),
                    [BITMAP, number, ..] if number & 1 == which => {
                        return Ok(Some((le::u32_at(entry, 20), le::u64_at(entry, 24))));
                    }
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    /// Returns the places of the clusters of a chain, at most so many.
    fn chain(&self, first: u32, table_at: u64, most: usize) -> Result<Vec<u64>> {
        let mut places = Vec::new();
        let mut cluster = first;
        while places.len() < most {
            let index = u64::from(cluster).checked_sub(2);
            let Some(index) = index.filter(|index| *index < self.n_clusters) else {
                break;
            };
            let place = self.heap_at.saturating_add(index * self.cluster_bytes);
            if place >= self.volume.len_bytes() {
                return Err(Error::corrupt(
                    "exFAT",
                    format!("cluster {cluster} is not there"),
                ));
            }
            places.push(place);
            let entry = table_at.saturating_add(u64::from(cluster) * 4);
            cluster = le::u32_at(&read_vec(&*self.volume, entry, 4)?, 0);
        }
        Ok(places)
    }

    /// Returns what of a window is in use.
    pub(super) fn used(&self, window: &Range<u64>) -> Result<Ranges> {
        let mut used = Ranges::of(0..self.heap_at);
        let end = self.n_clusters.saturating_mul(self.cluster_bytes);
        // Behind the last cluster there may be anything.
        used.add(self.heap_at.saturating_add(end)..u64::MAX);
        let bits_each = self.cluster_bytes * 8;
        let asked = window.start.saturating_sub(self.heap_at) / self.cluster_bytes
            ..window
                .end
                .saturating_sub(self.heap_at)
                .div_ceil(self.cluster_bytes);
        let asked = asked.start / 8 * 8..asked.end.min(self.n_clusters);
        let mut bit = asked.start;
        while bit < asked.end {
            let index = usize::try_from(bit / bits_each).unwrap_or(usize::MAX);
            let Some(place) = self.bitmap.get(index) else {
                return Err(Error::corrupt("exFAT", "its bitmap ends before it should"));
            };
            let end = asked.end.min((bit / bits_each + 1) * bits_each);
            let len = usize::try_from((end - bit).div_ceil(8)).unwrap_or(0);
            let bits = read_vec(&*self.volume, place + bit % bits_each / 8, len)?;
            let start = self.heap_at.saturating_add(bit * self.cluster_bytes);
            used.add_bits(&bits, end - bit, start, self.cluster_bytes);
            bit = end;
        }
        Ok(used)
    }
}
