//! Partition tables: GPT (UEFI specification 2.10, chapter 5) and MBR with its extended partitions,
//! on disks of 512 and 4096-byte sectors.
//!
//! Whoever has both, a GPT with a protective MBR beside it, is GPT; a GPT that no MBR announces is
//! what an older tool left behind when it wrote an MBR over it, and is passed over if that MBR has
//! partitions. BSD disk labels and other tables are not read.

mod gpt;
mod kinds;
mod mbr;
#[cfg(test)]
mod tests;

use hako_block::{Result, Uuid};

use crate::volume::Volume;

/// Most partitions of one table: more than anything writes, few enough to list.
pub const MOST_PARTITIONS: usize = 1024;

/// What kind of table it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// The table in the master boot record.
    Mbr,
    /// The GUID partition table.
    Gpt,
}

impl TableKind {
    /// Returns its name as blkid(8) says it (`PTTYPE`).
    pub fn name(self) -> &'static str {
        match self {
            TableKind::Mbr => "dos",
            TableKind::Gpt => "gpt",
        }
    }
}

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Which one.
    pub kind: TableKind,
    /// Bytes of the sectors that its numbers count: 512 or 4096.
    pub sector_bytes: u32,
    /// The disk's identity as blkid writes it (`PTUUID`): a GUID, or 8 digits of an MBR. Empty if
    /// it has none.
    pub uuid: String,
    /// The partitions by their numbers. Extended partitions, which hold nothing but others, are
    /// left out.
    pub partitions: Vec<Partition>,
    /// What is wrong with the table: a broken primary header, a partition past the end.
    pub remarks: Vec<String>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1, as Linux counts; logical ones of an MBR begin at 5.
    pub number: u32,
    /// Its first byte on the disk.
    pub start: u64,
    /// Its length in bytes.
    pub len: u64,
    /// What it is for.
    pub kind: PartitionKind,
    /// Its identity as Linux and blkid write it (`PARTUUID`).
    pub uuid: String,
    /// Its name (`PARTLABEL`); only a GPT has them.
    pub label: String,
    /// Whether a BIOS is to boot it (MBR: active; GPT: attribute bit 2).
    pub bootable: bool,
}

/// What a table says a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionKind {
    /// The type byte of an MBR.
    Mbr(u8),
    /// The type GUID of a GPT.
    Gpt(Uuid),
}

impl PartitionKind {
    /// Returns what fdisk(8) calls it, if it is one of the common ones.
    pub fn name(self) -> Option<&'static str> {
        kinds::name(self)
    }

    /// Returns whether it is an EFI system partition.
    pub fn is_efi_system(self) -> bool {
        self == PartitionKind::Mbr(0xef) || self.name() == Some("EFI System")
    }
}

impl std::fmt::Display for PartitionKind {
    /// The type as sfdisk(8) writes it: `83`, `0FC63DAF-…`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PartitionKind::Mbr(kind) => write!(f, "{kind:x}"),
            PartitionKind::Gpt(kind) => f.write_str(&kind.to_string().to_uppercase()),
        }
    }
}

/// Reads the partition table of a disk; none if it has none. A GPT is looked for with sectors of
/// the disk's size and of the other one. Errors are those of reading: a table that is broken beyond
/// use says so in its remarks and has no partitions.
pub fn read(disk: &dyn Volume) -> Result<Option<Table>> {
    let Some(record) = mbr::BootRecord::read(disk)? else {
        // The MBR is gone; its GPT may be whole.
        return gpt::read(disk, false);
    };
    if record.is_protective() {
        if let Some(mut table) = gpt::read(disk, true)? {
            if record.is_hybrid() {
                let remark = "a hybrid MBR lists partitions besides; the GPT is what is read";
                table.remarks.push(remark.to_owned());
            }
            return Ok(Some(table));
        }
        if !record.is_hybrid() {
            return Ok(Some(Table {
                kind: TableKind::Gpt,
                sector_bytes: disk.sector_bytes(),
                uuid: String::new(),
                partitions: Vec::new(),
                remarks: vec!["the MBR announces a GPT, but neither of its headers is good".into()],
            }));
        }
    }
    if let Some(table) = mbr::read(disk, &record)? {
        return Ok(Some(table));
    }
    gpt::read(disk, false)
}

/// A run of sectors as a table gives it.
struct Run {
    first: u64,
    sectors: u64,
}

/// Where a run lies on the disk, in bytes.
struct Place {
    start: u64,
    len: u64,
    /// Whether the disk ends before the run does.
    is_cut: bool,
}

impl Run {
    /// Returns its place; none if it begins past the end of the disk. What goes past the end is cut
    /// off, as Linux does.
    fn place(&self, sector_bytes: u32, disk_bytes: u64) -> Option<Place> {
        let start = self.first.checked_mul(u64::from(sector_bytes))?;
        let room = disk_bytes.checked_sub(start)?;
        let len = self.sectors.saturating_mul(u64::from(sector_bytes));
        let place = Place {
            start,
            len: len.min(room),
            is_cut: len > room,
        };
        (place.len > 0).then_some(place)
    }

    /// Like [`Run::place`], with remarks on what is wrong with it.
    fn place_of(&self, number: u32, disk_bytes: u64, table: &mut Table) -> Option<Place> {
        let place = self.place(table.sector_bytes, disk_bytes);
        let what = match &place {
            Some(place) if place.is_cut => "goes past the end of the disk",
            Some(_) => return place,
            None => "does not lie on the disk",
        };
        let Run { first, sectors } = self;
        table.remarks.push(format!(
            "partition {number} {what} ({sectors} sectors from {first})"
        ));
        place
    }
}
