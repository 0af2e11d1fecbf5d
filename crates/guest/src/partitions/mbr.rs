//! MBR: four entries of 16 bytes at byte 446, `55 aa` at 510. An extended partition holds a chain of
//! boot records, each with one logical partition (counted from that record) and the place of the
//! next record (counted from the begin of the extended partition).

use std::collections::BTreeSet;

use hako_block::Result;

use super::{MOST_PARTITIONS, Partition, PartitionKind, Run, Table, TableKind};
use crate::bytes::{array_at, le};
use crate::volume::{Volume, check_range};

/// Type byte of the one partition of a protective MBR.
const PROTECTIVE: u8 = 0xee;
/// Type bytes of extended partitions: CHS, LBA, Linux.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// The first sector of a disk, or of an extended partition's chain.
pub(super) struct BootRecord {
    signature: u32,
    entries: [Entry; 4],
}

#[derive(Clone, Copy)]
struct Entry {
    status: u8,
    kind: u8,
    start: u32,
    sectors: u32,
}

impl Entry {
    fn decode(bytes: [u8; 16]) -> Self {
        Self {
            status: bytes[0],
            kind: bytes[4],
            start: le::u32_at(&bytes, 8),
            sectors: le::u32_at(&bytes, 12),
        }
    }

    fn is_used(self) -> bool {
        self.kind != 0 && self.sectors != 0
    }

    fn is_extended(self) -> bool {
        self.is_used() && EXTENDED.contains(&self.kind)
    }
}

impl BootRecord {
    /// Reads that of a disk; none if the sector is not signed.
    pub(super) fn read(disk: &dyn Volume) -> Result<Option<Self>> {
        Self::read_at(disk, 0)
    }

    fn read_at(disk: &dyn Volume, offset: u64) -> Result<Option<Self>> {
        let mut sector = [0; 512];
        if check_range(offset, sector.len(), disk.len_bytes()).is_err() {
            return Ok(None);
        }
        disk.read_at(offset, &mut sector)?;
        if sector[510..] != [0x55, 0xaa] {
            return Ok(None);
        }
        let entry = |index: usize| Entry::decode(array_at(&sector, 446 + 16 * index));
        Ok(Some(Self {
            signature: le::u32_at(&sector, 440),
            entries: [entry(0), entry(1), entry(2), entry(3)],
        }))
    }

    /// Returns whether it announces a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.entries.iter().any(|entry| entry.kind == PROTECTIVE)
    }

    /// Returns whether it announces a GPT and lists partitions of its own besides.
    pub(super) fn is_hybrid(&self) -> bool {
        let real = |entry: &Entry| entry.is_used() && entry.kind != PROTECTIVE;
        self.is_protective() && self.entries.iter().any(real)
    }
}

/// Returns the table in the first sector of a disk; none if it is code or zeros that no table can be.
pub(super) fn read(disk: &dyn Volume, record: &BootRecord) -> Result<Option<Table>> {
    let size = disk.sector_bytes();
    let plausible = record.entries.iter().all(|entry| entry.status & 0x7f == 0)
        && record.entries.iter().any(|entry| {
            let start = u64::from(entry.start) * u64::from(size);
            entry.is_used() && entry.start > 0 && start < disk.len_bytes()
        });
    if !plausible {
        return Ok(None);
    }
    let mut reader = Reader {
        disk,
        signature: record.signature,
        seen: BTreeSet::from([0]),
        next_logical: 5,
        table: Table {
            kind: TableKind::Mbr,
            sector_bytes: size,
            uuid: match record.signature {
                0 => String::new(),
                signature => format!("{signature:08x}"),
            },
            partitions: Vec::new(),
            remarks: Vec::new(),
        },
    };
    for (number, entry) in (1..).zip(record.entries) {
        if !entry.is_extended() && entry.is_used() && entry.kind != PROTECTIVE {
            reader.add(number, entry, 0);
        }
    }
    for entry in record.entries.iter().filter(|entry| entry.is_extended()) {
        reader.follow(u64::from(entry.start))?;
    }
    Ok(Some(reader.table))
}

struct Reader<'a> {
    disk: &'a dyn Volume,
    signature: u32,
    /// Sectors of the boot records that were read.
    seen: BTreeSet<u64>,
    next_logical: u32,
    table: Table,
}

impl Reader<'_> {
    /// Adds a partition whose entry counts from sector `base`.
    fn add(&mut self, number: u32, entry: Entry, base: u64) {
        let run = Run {
            first: base + u64::from(entry.start),
            sectors: u64::from(entry.sectors),
        };
        let Some(place) = run.place_of(number, self.disk.len_bytes(), &mut self.table) else {
            return;
        };
        self.table.partitions.push(Partition {
            number,
            start: place.start,
            len: place.len,
            kind: PartitionKind::Mbr(entry.kind),
            uuid: match self.signature {
                0 => String::new(),
                signature => format!("{signature:08x}-{number:02x}"),
            },
            label: String::new(),
            bootable: entry.status == 0x80,
        });
    }

    /// Follows the chain of an extended partition that begins at sector `extended`.
    fn follow(&mut self, extended: u64) -> Result<()> {
        let mut here = extended;
        loop {
            if !self.seen.insert(here) || self.seen.len() > MOST_PARTITIONS {
                self.chain_ends(here, "leads in a circle, or on for too long");
                return Ok(());
            }
            let at = here.saturating_mul(u64::from(self.table.sector_bytes));
            let Some(record) = BootRecord::read_at(self.disk, at)? else {
                self.chain_ends(here, "leads to what is no boot record");
                return Ok(());
            };
            // Linux takes every entry that is none of the chain, and the first that is one.
            let logical = |entry: &&Entry| entry.is_used() && !entry.is_extended();
            for entry in record.entries.iter().filter(logical).take(2) {
                self.add(self.next_logical, *entry, here);
                self.next_logical += 1;
            }
            match record.entries.iter().find(|entry| entry.is_extended()) {
                Some(next) => here = extended + u64::from(next.start),
                None => return Ok(()),
            }
        }
    }

    fn chain_ends(&mut self, sector: u64, why: &str) {
        self.table.remarks.push(format!(
            "the chain of logical partitions {why} (sector {sector})"
        ));
    }
}
