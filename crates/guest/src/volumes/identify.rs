//! What is in a volume, by its magic numbers: a partition table, a file system, swap, or something
//! that is only named.
//!
//! The order decides where a volume shows several: a member of an array shows what the array holds; a
//! GPT is checked by its sums; a FAT or NTFS boot
//! sector is signed as an MBR is, and is none; behind an MBR with partitions lie remains of what the
//! disk held before; only an ISO 9660 image is both (a hybrid one, for USB sticks).

use std::sync::Arc;

use hako_block::Result;

use crate::bytes::{array_at, le, text};
use crate::fs::{self, Driver, FILE_SYSTEMS, FileSystem};
use crate::luks;
use crate::lvm;
use crate::md;
use crate::partitions::{self, Table, TableKind};
use crate::volume::{Volume, check_range};

/// What is in a volume.
#[derive(Default)]
pub struct Content {
    /// What it is good for.
    pub role: Role,
    /// What it is, as blkid(8) says it (`TYPE`, of a partition table `PTTYPE`); empty if unknown.
    pub kind: &'static str,
    /// Its label; empty if it has none.
    pub label: String,
    /// Its identity as blkid writes it; empty if it has none.
    pub uuid: String,
    pub(super) file_system: Option<Arc<dyn FileSystem>>,
    /// The file system that it is a device of, and which, if that is on several.
    pub(super) shared: Option<(Arc<dyn FileSystem>, u64)>,
    /// The length of the header of a swap area.
    pub(super) swap_header_bytes: u64,
    pub(super) inside: Inside,
    pub(super) remarks: Vec<String>,
}

/// What a volume is one part of, or has parts of.
#[derive(Default)]
pub(super) enum Inside {
    #[default]
    Nothing,
    Table(Table),
    PhysicalVolume(lvm::Label),
    ArrayMember(md::Superblock),
    /// What a key opens.
    Luks,
}

/// What a volume is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Nothing that is known: empty, or data without a form.
    #[default]
    Unknown,
    /// It holds partitions.
    Partitions,
    /// It holds a file system; one that hako does not read has none to give.
    FileSystem,
    /// It is swapped to.
    Swap,
    /// It is encrypted.
    Encrypted,
    /// It is a part of a volume group, an array, or something of the kind.
    Member,
}

/// Finds out what is in a volume.
pub(super) fn identify(volume: &Arc<dyn Volume>) -> Result<Content> {
    let bytes = &**volume;
    if let Some(superblock) = md::read(bytes)? {
        return Ok(Content {
            label: superblock.name().to_owned(),
            uuid: superblock.array().to_owned(),
            inside: Inside::ArrayMember(superblock),
            ..Content::only_named(Role::Member, "linux_raid_member")
        });
    }
    let table = partitions::read(bytes)?;
    let driver = driver_of(bytes)?;
    if let Some(table) = table {
        let is_mbr = table.kind == TableKind::Mbr;
        return Ok(match driver {
            Some(driver) if is_mbr && is_boot_sector(driver.name) => {
                Content::of_file_system(driver, volume)
            }
            Some(driver) if driver.name == "iso9660" => Content {
                inside: Inside::Table(table),
                ..Content::of_file_system(driver, volume)
            },
            _ => Content::of_table(table),
        });
    }
    if let Some(mut label) = lvm::read(bytes)? {
        return Ok(Content {
            uuid: label.uuid(),
            remarks: std::mem::take(&mut label.remarks),
            inside: Inside::PhysicalVolume(label),
            ..Content::only_named(Role::Member, "LVM2_member")
        });
    }
    if let Some(driver) = driver {
        return Ok(Content::of_file_system(driver, volume));
    }
    if let Some(content) = swap(bytes)? {
        return Ok(content);
    }
    named(bytes)
}

fn driver_of(volume: &dyn Volume) -> Result<Option<&'static Driver>> {
    for driver in FILE_SYSTEMS {
        if (driver.probe)(volume)? {
            return Ok(Some(driver));
        }
    }
    Ok(None)
}

/// Whether a file system's first sector is signed as an MBR is.
fn is_boot_sector(name: &str) -> bool {
    matches!(name, "vfat" | "ntfs" | "exfat")
}

impl Content {
    /// Returns the file system on several volumes that it is one of, and its number in it.
    pub(crate) fn shared(&self) -> Option<&(Arc<dyn FileSystem>, u64)> {
        self.shared.as_ref()
    }

    /// Returns the length of the header, of a swap area.
    pub(crate) fn swap_header_bytes(&self) -> u64 {
        self.swap_header_bytes
    }

    fn of_table(table: Table) -> Self {
        Self {
            role: Role::Partitions,
            kind: table.kind.name(),
            uuid: table.uuid.clone(),
            inside: Inside::Table(table),
            ..Self::default()
        }
    }

    fn of_file_system(driver: &Driver, volume: &Arc<dyn Volume>) -> Self {
        let mut content = Self {
            role: Role::FileSystem,
            kind: driver.name,
            ..Self::default()
        };
        let mut remarks = Vec::new();
        content.set_file_system(&(driver.open)(Arc::clone(volume)), &mut remarks);
        content.remarks = remarks;
        content
    }

    /// Takes on what a file system says of itself, or why it says nothing.
    pub(super) fn set_file_system(&mut self, opened: &fs::Opened, remarks: &mut Vec<String>) {
        match opened {
            Ok(fs) => {
                let info = fs.info();
                self.kind = info.kind;
                self.label.clone_from(&info.label);
                self.uuid.clone_from(&info.uuid);
                remarks.extend(info.remarks.iter().cloned());
                self.file_system = Some(Arc::clone(fs));
            }
            Err(error) => {
                self.file_system = None;
                remarks.push(format!("cannot be read: {error}"));
            }
        }
    }

    fn only_named(role: Role, kind: &'static str) -> Self {
        Self {
            role,
            kind,
            ..Self::default()
        }
    }
}

/// Reads `N` bytes; zeros if the volume is shorter.
fn peek<const N: usize>(volume: &dyn Volume, offset: u64) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    if check_range(offset, N, volume.len_bytes()).is_ok() {
        volume.read_at(offset, &mut bytes)?;
    }
    Ok(bytes)
}

/// A swap area: its signature ends the first page of the machine that made it.
fn swap(volume: &dyn Volume) -> Result<Option<Content>> {
    for page in [4096, 8192, 16384, 65536] {
        let signature: [u8; 10] = peek(volume, page - 10)?;
        let kind = match &signature {
            b"SWAPSPACE2" => "swap",
            b"S1SUSPEND\0" | b"S2SUSPEND\0" | b"ULSUSPEND\0" => "swsuspend",
            _ => continue,
        };
        let header: [u8; 1068] = peek(volume, 0)?;
        let mut content = Content::only_named(Role::Swap, kind);
        content.swap_header_bytes = page;
        // Version, last page and bad pages lie before them.
        if le::u32_at(&header, 1024) == 1 {
            content.uuid = uuid_text(array_at(&header, 1036));
            content.label = text(&array_at::<16>(&header, 1052));
        }
        if kind == "swsuspend" {
            content
                .remarks
                .push("it holds a suspended system".to_owned());
        }
        return Ok(Some(content));
    }
    Ok(None)
}

/// What hako does not read, but can name: role, type, offset, magic.
const NAMED: &[(Role, &str, u64, &[u8])] = &[
    (Role::Encrypted, "BitLocker", 3, b"-FVE-FS-"),
    (
        Role::Member,
        "VMFS_volume_member",
        0x10_0000,
        &[0x0d, 0xd0, 0x01, 0xc0],
    ),
    (
        Role::Member,
        "bcache",
        4096 + 24,
        &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca],
    ),
    (
        Role::Member,
        "stratis",
        516,
        b"!Stra0tis\x86\xff\x02^\x41rh",
    ),
    (Role::FileSystem, "exfat", 3, b"EXFAT   "),
    (Role::FileSystem, "ReFS", 3, b"ReFS\0\0\0\0"),
    (Role::FileSystem, "f2fs", 1024, &[0x10, 0x20, 0xf5, 0xf2]),
    (Role::FileSystem, "squashfs", 0, b"hsqs"),
    (Role::FileSystem, "erofs", 1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
    (Role::FileSystem, "jfs", 32768, b"JFS1"),
    (Role::FileSystem, "reiserfs", 65536 + 52, b"ReIsEr"),
    (Role::FileSystem, "nilfs2", 1024 + 6, &[0x34, 0x34]),
    (
        Role::FileSystem,
        "bcachefs",
        4096 + 24,
        &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9],
    ),
    (Role::FileSystem, "hfsplus", 1024, b"H+"),
    (Role::FileSystem, "hfsplus", 1024, b"HX"),
    (Role::FileSystem, "apfs", 32, b"NXSB"),
    (
        Role::FileSystem,
        "ufs",
        65536 + 1372,
        &[0x19, 0x01, 0x54, 0x19],
    ),
    (
        Role::FileSystem,
        "zfs_member",
        0x20_000 + 1024,
        &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0],
    ),
];

fn named(volume: &dyn Volume) -> Result<Content> {
    if let Some(content) = luks(volume)? {
        return Ok(content);
    }
    for (role, kind, offset, magic) in NAMED {
        let bytes: [u8; 16] = peek(volume, *offset)?;
        if bytes.starts_with(magic) {
            return Ok(Content::only_named(*role, kind));
        }
    }
    Ok(Content::default())
}

/// LUKS of either version: magic, version (big-endian), label (of 2), UUID as text.
fn luks(volume: &dyn Volume) -> Result<Option<Content>> {
    let header: [u8; 208] = peek(volume, 0)?;
    if !header.starts_with(luks::MAGIC) {
        return Ok(None);
    }
    let mut content = Content::only_named(Role::Encrypted, "crypto_LUKS");
    content.inside = Inside::Luks;
    content.uuid = text(&array_at::<40>(&header, 168));
    if array_at::<2>(&header, 6) == [0, 2] {
        content.label = text(&array_at::<48>(&header, 24));
    }
    Ok(Some(content))
}

fn uuid_text(bytes: [u8; 16]) -> String {
    hako_block::Uuid(bytes).to_string()
}
