//! A new extent, filled in one ascending pass.

use std::ops::Range;
use std::sync::Arc;

use hako_block::{Error, Result, SECTOR_BYTES, Sink, Storage, write_zeros};

use super::geometry::{
    DESCRIPTOR_SECTORS, Geometry, TABLE_BYTES, TABLE_ENTRIES, TABLE_SECTORS, directory_sectors,
    new_header,
};
use crate::disk::Allocation;
use crate::disk::delivery::skipped_before;
use crate::disk::vmdk::header::SparseHeader;

/// What a new extent is to be.
pub struct HostedCreate {
    /// The file: new, or a block device with anything on it.
    pub storage: Arc<dyn Storage>,
    /// Virtual size in bytes, a positive multiple of 512.
    pub capacity_bytes: u64,
    /// Grain in bytes, a power of two from 4 KiB to 1 MiB; 64 KiB is what everybody uses.
    pub grain_bytes: u64,
    /// Text of the embedded descriptor, at most 20 sectors; none in a part of a split disk.
    pub descriptor: Option<Vec<u8>>,
    /// Zeros delivered are stored as zeroed grains (an overlay's must be); else they are holes.
    pub zeroed_grains: bool,
    /// Anything but thin stores every grain: an overlay would hide its parent.
    pub allocation: Allocation,
}

/// Writes a new extent. Grains lie in the order of delivery; with preallocation, in the order of
/// the disk. The header comes last onto a target that was not blank.
pub struct HostedSink {
    storage: Arc<dyn Storage>,
    header: SparseHeader,
    geometry: Geometry,
    allocation: Allocation,
    zeroed_grains: bool,
    /// Whether what is not written reads as zeros.
    blank: bool,
    /// File offset of the next grain.
    next_grain: u64,
    /// Guest offset below which everything has been delivered or skipped.
    position: u64,
    /// The grain table being filled.
    table: u64,
    entries: Vec<u32>,
}

impl HostedSink {
    /// Writes the descriptor and the directories. Errors: a size, grain or descriptor that the
    /// format cannot have, a device that is too small.
    pub fn new(create: HostedCreate) -> Result<Self> {
        let header = new_header(
            create.capacity_bytes,
            create.grain_bytes,
            create.descriptor.is_some(),
            create.zeroed_grains,
        )?;
        let geometry = Geometry::of(&header)?;
        let mut sink = Self {
            blank: create.storage.is_blank(),
            storage: create.storage,
            next_grain: geometry.overhead,
            header,
            geometry,
            allocation: create.allocation,
            zeroed_grains: create.zeroed_grains,
            position: 0,
            table: 0,
            entries: vec![0; TABLE_ENTRIES],
        };
        sink.prepare(create.descriptor.as_deref())?;
        Ok(sink)
    }

    fn prepare(&mut self, descriptor: Option<&[u8]>) -> Result<()> {
        if !self.blank {
            // What was there before must be gone before its tables are, and so must theirs.
            self.storage.write_at(0, &[0; SECTOR_BYTES as usize])?;
            self.storage
                .punch_hole(SECTOR_BYTES..self.geometry.overhead)?;
        }
        if let Some(text) = descriptor {
            let mut bytes = text.to_vec();
            let room = (DESCRIPTOR_SECTORS * SECTOR_BYTES) as usize;
            if bytes.len() > room {
                return Err(Error::invalid(format!(
                    "a descriptor of {} bytes does not fit into {room}",
                    bytes.len()
                )));
            }
            bytes.resize(room, 0);
            self.storage.write_at(SECTOR_BYTES, &bytes)?;
        }
        for sector in [self.header.rgd_sector, self.header.gd_sector] {
            self.write_directory(sector)?;
        }
        if self.allocation != Allocation::Thin {
            let grains = self.geometry.overhead..self.grain_offset(self.header.n_grains());
            self.storage.set_len(grains.end)?;
            self.storage.reserve(grains)?;
        }
        Ok(())
    }

    /// Writes a directory: its tables follow it one after the other.
    fn write_directory(&self, sector: u64) -> Result<()> {
        let n_sectors = directory_sectors(self.geometry.n_tables);
        let mut bytes = Vec::with_capacity((n_sectors * SECTOR_BYTES) as usize);
        for table in 0..self.geometry.n_tables {
            let entry = sector_number(sector + n_sectors + table * TABLE_SECTORS)?;
            bytes.extend_from_slice(&entry.to_le_bytes());
        }
        bytes.resize((n_sectors * SECTOR_BYTES) as usize, 0);
        self.storage.write_at(sector * SECTOR_BYTES, &bytes)
    }

    /// Returns where a grain lies when all of them are preallocated.
    fn grain_offset(&self, grain: u64) -> u64 {
        self.geometry.overhead + grain * self.geometry.grain
    }

    /// Sets the entries of the grains in `range`; `entry` gives each one's value.
    fn set_entries(
        &mut self,
        range: Range<u64>,
        mut entry: impl FnMut(u64) -> Result<u32>,
    ) -> Result<()> {
        let grains = range.start / self.geometry.grain..range.end.div_ceil(self.geometry.grain);
        for grain in grains {
            let place = self.geometry.place(grain * self.geometry.grain);
            if place.table != self.table {
                self.write_table()?;
                self.table = place.table;
            }
            let value = entry(grain)?;
            if let Some(slot) = self.entries.get_mut(place.entry) {
                *slot = value;
            }
        }
        Ok(())
    }

    /// Writes both copies of the current table, unless it is empty, and clears it.
    fn write_table(&mut self) -> Result<()> {
        if self.entries.iter().all(|entry| *entry == 0) {
            return Ok(());
        }
        let bytes: Vec<u8> = self
            .entries
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect();
        for sector in [self.header.rgd_sector, self.header.gd_sector] {
            let tables = (sector + directory_sectors(self.geometry.n_tables)) * SECTOR_BYTES;
            self.storage
                .write_at(tables + self.table * TABLE_BYTES, &bytes)?;
        }
        self.entries.fill(0);
        Ok(())
    }

    /// Checks a delivery and makes up for what was skipped before it.
    fn advance(&mut self, range: &Range<u64>) -> Result<()> {
        let (unit, size) = (self.geometry.grain, self.geometry.capacity);
        let gap = skipped_before(self.position, range, unit, size)?;
        self.position = range.end;
        self.preallocate(gap)
    }

    /// Stores zeros for `range` if every grain is to be stored.
    fn preallocate(&mut self, range: Range<u64>) -> Result<()> {
        if self.allocation == Allocation::Thin || range.is_empty() {
            return Ok(());
        }
        let host = self.geometry.overhead + range.start
            ..self.grain_offset(range.end.div_ceil(self.geometry.grain));
        if self.allocation == Allocation::Eager {
            write_zeros(&*self.storage, host.clone())?;
        } else if !self.blank {
            self.storage.punch_hole(host.clone())?;
        }
        self.set_run(range, host.start)
    }

    /// Gives the grains of `range` consecutive places in the file.
    fn set_run(&mut self, range: Range<u64>, host: u64) -> Result<()> {
        let (first, bytes) = (range.start / self.geometry.grain, self.geometry.grain);
        self.set_entries(range, |grain| {
            sector_number((host + (grain - first) * bytes) / SECTOR_BYTES)
        })
    }
}

impl Sink for HostedSink {
    fn unit_bytes(&self) -> u64 {
        self.geometry.grain
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let range = offset..offset.saturating_add(bytes.len() as u64);
        self.advance(&range)?;
        let host = match self.allocation {
            Allocation::Thin => self.next_grain,
            Allocation::Lazy | Allocation::Eager => self.geometry.overhead + offset,
        };
        self.storage.write_at(host, bytes)?;
        let end = host + bytes.len() as u64;
        let grain_end = end.next_multiple_of(self.geometry.grain);
        if end < grain_end && !self.blank {
            write_zeros(&*self.storage, end..grain_end)?;
        }
        self.next_grain = grain_end;
        self.set_run(range, host)
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.advance(&range)?;
        if self.allocation != Allocation::Thin {
            self.preallocate(range)
        } else if self.zeroed_grains {
            self.set_entries(range, |_| Ok(1))
        } else {
            Ok(())
        }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let rest = self.position..self.geometry.capacity;
        self.preallocate(rest)?;
        self.write_table()?;
        let end = match self.allocation {
            Allocation::Thin => self.next_grain,
            Allocation::Lazy | Allocation::Eager => self.grain_offset(self.header.n_grains()),
        };
        self.storage.set_len(end)?;
        if !self.blank {
            self.storage.sync()?;
        }
        self.storage.write_at(0, &self.header.encode())?;
        self.storage.sync()
    }
}

fn sector_number(sector: u64) -> Result<u32> {
    u32::try_from(sector)
        .map_err(|_| Error::invalid(format!("sector {sector} cannot be addressed")))
}
