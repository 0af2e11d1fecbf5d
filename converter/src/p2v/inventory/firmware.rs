//! How a machine starts: what its firmware keeps in variables, or what its disks are made for.
//!
//! | variable of UEFI (behind 4 bytes of attributes) | |
//! |---|---|
//! | `Boot####` | attributes u32, length of the path list u16, label in UTF-16 ended by 0, device paths |
//! | device path | type u8, subtype u8, length u16; 4/1 a partition (identity at 24, its form at 41), 4/4 a file's path in UTF-16, 0x7f the end |

use std::sync::Arc;

use hako_block::Uuid;
use hako_guest::bytes::{array_at, le};
use hako_guest::{FoundVolume, Origin, Tree, Volumes};

use super::model::{Firmware, FirmwareEntry, FirmwareKind};
use super::system::{fstab, names};

const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// UEFI's own variables.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// The longest variable that is read.
const MOST_BYTES: usize = 64 << 10;
/// Loaders that start where nothing says what to start.
const FALLBACKS: &[&str] = &["X64", "AA64", "IA32"];

/// Returns what the disks are made for: an EFI system partition with loaders, or boot code. Where they
/// have both, the system's files, if one is known, say which of them it uses.
pub(super) fn of_disks(volumes: &Volumes, system: Option<&Tree>) -> Firmware {
    let mut firmware = Firmware::default();
    let (mut by_uefi, mut by_bios) = (Vec::new(), Vec::new());
    for (at, found) in volumes.list().iter().enumerate() {
        let is_efi = found
            .partition()
            .is_some_and(|part| part.kind.is_efi_system());
        if let (true, Some(fs)) = (is_efi, found.file_system()) {
            let tree = Tree::new(Arc::clone(fs));
            if tree.find(b"/EFI").is_ok() {
                by_uefi.push(format!("{} has its loaders", found.name));
            }
            let has_one = has_fallback(&tree, "");
            firmware.has_fallback = Some(firmware.has_fallback == Some(true) || has_one);
        }
        by_bios.extend(boot_code(volumes, at, found));
    }
    (firmware.kind, firmware.why) = match (by_uefi.is_empty(), by_bios.is_empty()) {
        (true, true) => (FirmwareKind::Unknown, String::new()),
        (false, true) => (FirmwareKind::Uefi, by_uefi.join(", ")),
        (true, false) => (FirmwareKind::Bios, by_bios.join(", ")),
        (false, false) => {
            let (kind, why) = used(system);
            firmware.starts_both = true;
            let all = [by_uefi, by_bios].concat().join(", ");
            (kind, format!("{all}; {why}"))
        }
    };
    firmware
}

/// Returns what a BIOS starts of a disk, the volume at this place. Code on a disk with a GPT counts if it
/// has a partition for the rest of it, or is GRUB's: others leave code behind there that starts nothing.
fn boot_code(volumes: &Volumes, at: usize, found: &FoundVolume) -> Option<String> {
    const CODE_BYTES: usize = 440;
    let (Origin::Disk(_), Some(volume)) = (&found.origin, &found.volume) else {
        return None;
    };
    let mut code = [0; CODE_BYTES];
    let is_read = volume.len_bytes() >= 512 && volume.read_at(0, &mut code).is_ok();
    if !is_read || code.iter().all(|byte| *byte == 0) {
        return None;
    }
    let is_rest = |one: &&FoundVolume| match &one.origin {
        Origin::Partition { of, partition, .. } => {
            *of == at && partition.kind.name() == Some("BIOS boot")
        }
        _ => false,
    };
    let rest = volumes.list().iter().find(is_rest);
    let is_grub = code.windows(4).any(|word| word == b"GRUB");
    match (found.content.kind, rest) {
        (_, Some(rest)) => Some(format!(
            "{} has boot code, and {} the rest",
            found.name, rest.name
        )),
        ("gpt", None) if !is_grub => None,
        _ => Some(format!("{} has boot code", found.name)),
    }
}

/// Says which of both a system uses.
fn used(system: Option<&Tree>) -> (FirmwareKind, &'static str) {
    let has = |path: &str| system.is_some_and(|tree| tree.find(path.as_bytes()).is_ok());
    let has_grub = |kind: &str| {
        let mut folders = ["/boot/grub", "/boot/grub2"].iter();
        folders.any(|folder| has(&format!("{folder}/{kind}")))
    };
    let lines = system.map(fstab).unwrap_or_default();
    let mounts_it = |line: &hako_guest::root::fstab::Line| {
        line.kind == "vfat" && matches!(line.target.as_str(), "/boot/efi" | "/efi" | "/boot")
    };
    match (has_grub("x86_64-efi"), has_grub("i386-pc")) {
        (true, false) => (FirmwareKind::Uefi, "the system's GRUB is UEFI's"),
        _ if lines.iter().any(mounts_it) => (
            FirmwareKind::Uefi,
            "its fstab mounts the EFI system partition",
        ),
        (_, true) => (
            FirmwareKind::Bios,
            "the system's GRUB is the BIOS's, and it mounts no EFI system partition",
        ),
        (false, false) => (FirmwareKind::Uefi, "nothing says which is used"),
    }
}

/// Whether an EFI system partition that is mounted somewhere has a loader for machines without boot
/// entries.
fn has_fallback(tree: &Tree, mounted_at: &str) -> bool {
    let mut kinds = FALLBACKS.iter();
    kinds.any(|kind| {
        let path = format!("{mounted_at}/EFI/BOOT/BOOT{kind}.EFI");
        tree.find(path.as_bytes()).is_ok()
    })
}

/// Returns how the system that runs was started.
pub(super) fn running(tree: &Tree) -> Firmware {
    let has = |path: &str| tree.find(path.as_bytes()).is_ok();
    let is_uefi = has("/sys/firmware/efi");
    let is_there = |path: &&&str| has(&format!("{path}/EFI"));
    let mut mounts = ["/boot/efi", "/efi", "/boot"].iter();
    let mounted = mounts.find(is_there);
    Firmware {
        kind: match (is_uefi, has("/sys/firmware")) {
            (true, _) => FirmwareKind::Uefi,
            (false, true) => FirmwareKind::Bios,
            (false, false) => FirmwareKind::Unknown,
        },
        secure_boot: match (is_uefi, variable(tree, "SecureBoot")) {
            (true, Some(value)) => value.first().map(|on| *on == 1),
            (true, None) => None,
            (false, _) => Some(false),
        },
        tpm: Some(!names(tree, "/sys/class/tpm").is_empty()),
        entries: entries(tree),
        has_fallback: mounted.map(|path| has_fallback(tree, path)),
        ..Firmware::default()
    }
}

fn variable(tree: &Tree, name: &str) -> Option<Vec<u8>> {
    let path = format!("{VARIABLES}/{name}-{GLOBAL}");
    let mut value = tree.read(path.as_bytes(), MOST_BYTES).ok()?;
    (value.len() >= 4).then(|| value.split_off(4))
}

/// Returns the boot entries in the order in which they are tried.
fn entries(tree: &Tree) -> Vec<FirmwareEntry> {
    let order = variable(tree, "BootOrder").unwrap_or_default();
    let current = variable(tree, "BootCurrent").map(|value| le::u16_at(&value, 0));
    let numbers = order.chunks_exact(2).map(|number| le::u16_at(number, 0));
    let entries = numbers.filter_map(|number| {
        let value = variable(tree, &format!("Boot{number:04X}"))?;
        let mut entry = entry(&value);
        entry.number = number;
        entry.is_current = Some(number) == current;
        Some(entry)
    });
    entries.collect()
}

fn entry(value: &[u8]) -> FirmwareEntry {
    let mut entry = FirmwareEntry::default();
    let label = value.get(6..).unwrap_or_default();
    entry.label = text(label);
    let label_bytes = 2
        * (label
            .chunks_exact(2)
            .take_while(|unit| *unit != [0, 0])
            .count()
            + 1);
    let mut rest = label.get(label_bytes..).unwrap_or_default();
    while let [kind, subkind, low, high, ..] = *rest {
        let len = usize::from(u16::from_le_bytes([low, high]));
        let Some(node) = rest
            .get(..len)
            .filter(|node| node.len() >= 4 && kind != 0x7f)
        else {
            break;
        };
        // Identities of partitions: 2 is that of a GPT.
        if (kind, subkind) == (4, 1) && node.get(41) == Some(&2) {
            entry.partition = Uuid::from_mixed_endian(array_at(node, 24)).to_string();
        }
        if (kind, subkind) == (4, 4) {
            entry.loader = text(node.get(4..).unwrap_or_default());
        }
        rest = rest.get(len..).unwrap_or_default();
    }
    entry
}

fn text(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|unit| le::u16_at(unit, 0));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use hako_guest::testkit::MemoryFs;

    use super::*;

    fn utf16(text: &str) -> Vec<u8> {
        let units = text.encode_utf16().chain([0]);
        units.flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn boot_entries_name_their_loaders() {
        let id: Vec<u8> = (1..=16).collect();
        let mut drive = [vec![4, 1, 42, 0], vec![0; 20], id, vec![2, 2]].concat();
        assert_eq!(drive.len(), 42);
        let path = utf16("\\EFI\\debian\\shimx64.efi");
        let len = u16::try_from(path.len() + 4).unwrap().to_le_bytes();
        drive.extend([4, 4, len[0], len[1]]);
        drive.extend(path);
        drive.extend([0x7f, 0xff, 4, 0]);
        let attributes = [7, 0, 0, 0];
        let value = [
            &attributes[..],
            &[1, 0, 0, 0, 0, 0],
            &utf16("debian"),
            &drive,
        ]
        .concat();
        let path = |name: &str| format!("{VARIABLES}/{name}-{GLOBAL}");
        let tree = Tree::new(
            MemoryFs::new("ext4")
                .file(&path("BootOrder"), [7, 0, 0, 0, 3, 0, 9, 0])
                .file(&path("BootCurrent"), [7, 0, 0, 0, 3, 0])
                .file(&path("SecureBoot"), [6, 0, 0, 0, 1])
                .file(&path("Boot0003"), &value)
                .file("/boot/efi/EFI/BOOT/BOOTX64.EFI", "x")
                .build(),
        );
        let firmware = running(&tree);
        assert_eq!(firmware.kind, FirmwareKind::Uefi);
        assert_eq!(firmware.secure_boot, Some(true));
        assert_eq!(firmware.has_fallback, Some(true));
        let [entry] = &firmware.entries[..] else {
            panic!("{firmware:?}")
        };
        assert_eq!((entry.number, entry.is_current), (3, true));
        assert_eq!(
            (entry.label.as_str(), entry.loader.as_str()),
            ("debian", "\\EFI\\debian\\shimx64.efi")
        );
        assert_eq!(entry.partition, "04030201-0605-0807-090a-0b0c0d0e0f10");
        // However it is cut, it is read.
        for len in 0..value.len() {
            let _ = super::entry(&value[..len]);
        }
    }
}
