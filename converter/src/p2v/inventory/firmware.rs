//! How a machine starts: what its firmware keeps in variables, or what its disks are made for.
//!
//! | variable of UEFI (behind 4 bytes of attributes) | |
//! |---|---|
//! | `Boot####` | attributes u32, length of the path list u16, label in UTF-16 ended by 0, device paths |
//! | device path | type u8, subtype u8, length u16; 4/1 a partition (identity at 24, its form at 41), 4/4 a file's path in UTF-16, 0x7f the end |

use std::sync::Arc;

use hako_block::Uuid;
use hako_guest::bytes::{array_at, le};
use hako_guest::{Origin, Tree, Volumes};

use super::model::{Firmware, FirmwareEntry, FirmwareKind};
use super::system::names;

const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// UEFI's own variables.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// The longest variable that is read.
const MOST_BYTES: usize = 64 << 10;
/// Loaders that start where nothing says what to start.
const FALLBACKS: &[&str] = &["X64", "AA64", "IA32"];

/// Returns what the disks are made for: an EFI system partition with loaders, or boot code.
pub(super) fn of_disks(volumes: &Volumes) -> Firmware {
    let mut firmware = Firmware::default();
    for found in volumes.list() {
        let is_efi = found
            .partition()
            .is_some_and(|part| part.kind.is_efi_system());
        if let (true, Some(fs)) = (is_efi, found.file_system()) {
            let tree = Tree::new(Arc::clone(fs));
            if tree.find(b"/EFI").is_ok() {
                firmware.kind = FirmwareKind::Uefi;
            }
            let has_one = has_fallback(&tree, "");
            firmware.has_fallback = Some(firmware.has_fallback == Some(true) || has_one);
        }
        let mut code = [0; 440];
        if let (Origin::Disk(_), Some(volume)) = (&found.origin, &found.volume)
            && firmware.kind == FirmwareKind::Unknown
            && volume.len_bytes() >= 512
            && volume.read_at(0, &mut code).is_ok()
            && code.iter().any(|byte| *byte != 0)
        {
            firmware.kind = FirmwareKind::Bios;
        }
    }
    firmware
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
