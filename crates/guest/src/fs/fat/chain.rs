//! Chains of clusters: the table names for each cluster the next one.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::PoisonError;

use hako_block::{Error, Result};

use super::geometry::{Root, Width};
use super::{BLOCK_BYTES, Fat};
use crate::bytes::{array_at, le};
use crate::volume::read_vec;

/// Chains whose last place is kept, so that a file is not walked from its beginning at every read.
const MOST_PLACES: usize = 32;

/// Where reading in chains was last.
#[derive(Default)]
pub(super) struct Last(VecDeque<Place>);

/// A place in a chain: the `index`th cluster of the one that begins with `first` is `cluster`.
#[derive(Clone, Copy)]
struct Place {
    first: u32,
    index: u64,
    cluster: u32,
}

impl Fat {
    /// Returns `N` bytes of a table or directory at a place on the volume, from the cache.
    pub(super) fn bytes_at<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let place = at.saturating_add(index as u64);
            let (number, within) = (place / BLOCK_BYTES, place % BLOCK_BYTES);
            let block = self.block(number)?;
            let rest = block.get(usize::try_from(within).unwrap_or(usize::MAX)..);
            let rest = rest.filter(|rest| !rest.is_empty());
            let past_end = || Error::corrupt("volume", "it ends before").at_byte(place);
            let rest = rest.ok_or_else(past_end)?;
            if index == 0 && rest.len() >= N {
                return Ok(array_at(rest, 0));
            }
            *byte = rest[0];
        }
        Ok(bytes)
    }

    fn block(&self, number: u64) -> Result<std::sync::Arc<Vec<u8>>> {
        self.blocks.get_or(number, || {
            let at = number.saturating_mul(BLOCK_BYTES);
            let left = self.volume.len_bytes().saturating_sub(at).min(BLOCK_BYTES);
            read_vec(&*self.volume, at, usize::try_from(left).unwrap_or(0))
        })
    }

    /// Returns the cluster that follows in a chain; none at its end.
    fn next(&self, cluster: u32) -> Result<Option<u32>> {
        let (table, number) = (self.geometry.table_at, u64::from(cluster));
        let (next, end) = match self.geometry.width {
            Width::Bits12 => {
                let pair = u16::from_le_bytes(self.bytes_at(table + number + number / 2)?);
                let next = if cluster.is_multiple_of(2) {
                    pair & 0xfff
                } else {
                    pair >> 4
                };
                (u32::from(next), 0xff8)
            }
            Width::Bits16 => {
                let next = u16::from_le_bytes(self.bytes_at(table + number * 2)?);
                (u32::from(next), 0xfff8)
            }
            Width::Bits32 => {
                let entry: [u8; 4] = self.bytes_at(table + number * 4)?;
                (le::u32_at(&entry, 0) & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        if next >= end {
            return Ok(None);
        }
        self.checked(next).map(Some)
    }

    fn checked(&self, cluster: u32) -> Result<u32> {
        match (2..self.geometry.end_cluster).contains(&cluster) {
            true => Ok(cluster),
            false => Err(Error::corrupt(
                "cluster chain",
                format!("cluster {cluster}, below {}", self.geometry.end_cluster),
            )),
        }
    }

    /// Returns the byte at which a cluster begins.
    fn place_of(&self, cluster: u32) -> u64 {
        let index = u64::from(cluster.saturating_sub(2));
        self.geometry.data_at + index * u64::from(self.geometry.cluster_bytes)
    }

    /// Calls `each` with place and length of the pieces of a directory.
    pub(super) fn each_run(
        &self,
        directory: Root,
        each: &mut dyn FnMut(u64, u64) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut cluster = match directory {
            Root::Fixed { at, len } => return each(at, len).map(|_| ()),
            Root::Chain(first) => self.checked(first)?,
        };
        let cluster_bytes = u64::from(self.geometry.cluster_bytes);
        // No chain is longer than there are clusters: one that is goes in a circle.
        for _ in 2..self.geometry.end_cluster {
            if each(self.place_of(cluster), cluster_bytes)?.is_break() {
                return Ok(());
            }
            match self.next(cluster)? {
                Some(next) => cluster = next,
                None => return Ok(()),
            }
        }
        Err(Error::corrupt("cluster chain", "it goes in a circle"))
    }

    /// Reads from a chain.
    pub(super) fn read_chain(&self, first: u32, offset: u64, buf: &mut [u8]) -> Result<()> {
        let cluster_bytes = u64::from(self.geometry.cluster_bytes);
        let mut place = self.find(first, offset / cluster_bytes)?;
        let mut within = offset % cluster_bytes;
        let mut rest = buf;
        loop {
            // Neighbours are read at once.
            let start = self.place_of(place.cluster) + within;
            let mut len = cluster_bytes - within;
            let mut next = None;
            while len < rest.len() as u64 {
                let following = self.next(place.cluster)?.ok_or_else(too_short)?;
                place.index += 1;
                let is_neighbour = following == place.cluster + 1;
                place.cluster = following;
                if !is_neighbour {
                    next = Some(place);
                    break;
                }
                len += cluster_bytes;
            }
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            self.volume.read_at(start, now)?;
            rest = later;
            within = 0;
            if next.is_none() || rest.is_empty() {
                self.remember(place);
                return Ok(());
            }
        }
    }

    /// Returns the `index`th cluster of a chain.
    fn find(&self, first: u32, index: u64) -> Result<Place> {
        let known = {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let mut places = last.0.iter();
            places
                .find(|place| place.first == first && place.index <= index)
                .copied()
        };
        let mut place = match known {
            Some(place) => place,
            None => Place {
                first,
                index: 0,
                cluster: self.checked(first)?,
            },
        };
        while place.index < index {
            place.cluster = self.next(place.cluster)?.ok_or_else(too_short)?;
            place.index += 1;
        }
        Ok(place)
    }

    fn remember(&self, place: Place) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.0.retain(|known| known.first != place.first);
        last.0.push_front(place);
        last.0.truncate(MOST_PLACES);
    }
}

fn too_short() -> Error {
    Error::corrupt("cluster chain", "it ends before the file does")
}
