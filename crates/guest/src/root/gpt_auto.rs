//! Partitions that are mounted by their types, as the Discoverable Partitions Specification (UAPI.2)
//! and systemd-gpt-auto-generator(8) have it.

use std::sync::Arc;

use super::Root;
use crate::partitions::PartitionKind;
use crate::tree::Found;
use crate::volumes::{FoundVolume, Origin, Volumes};

/// Types and where they belong; the first directory that is there and empty is taken.
const TYPES: &[(&str, &[&str])] = &[
    ("bc13c2ff-59e6-4262-a352-b275fd6f7172", &["/boot"]),
    (
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
        &["/efi", "/boot", "/boot/efi"],
    ),
    ("933ac7e1-2eb4-4f13-b844-0e14e2aef915", &["/home"]),
    ("3b8f8425-20e0-4f3b-907f-1a25a76f98e8", &["/srv"]),
    ("4d21b016-b534-45c2-a9fb-5c16e091fd2d", &["/var"]),
    ("8484680c-9521-48c6-9c11-b0720656f69e", &["/usr"]),
];

/// Mounts what lies on the root's disk and is not mounted yet.
pub(super) fn mount(root: &mut Root, volumes: &Volumes) {
    let Some(disk) = root.volume(volumes).and_then(disk_of) else {
        return;
    };
    for (kind, paths) in TYPES {
        let is_it = |found: &&FoundVolume| {
            disk_of(found) == Some(disk)
                && found.partition().is_some_and(|part| {
                    matches!(part.kind, PartitionKind::Gpt(uuid) if uuid.to_string() == *kind)
                })
        };
        let Some(volume) = volumes.list().iter().find(is_it) else {
            continue;
        };
        let is_mounted = root.mounts.iter().any(|mount| mount.volume == volume.name);
        let Some(fs) = volume.file_system().filter(|_| !is_mounted) else {
            continue;
        };
        let Some(path) = paths.iter().find(|path| is_free(root, path)) else {
            continue;
        };
        let top = Found::new(Arc::clone(fs), fs.root());
        if let Err(error) = root.add(path, volume, top, None) {
            root.remarks
                .push(format!("{path}: {} is not mounted: {error}", volume.name));
        }
    }
}

fn is_free(root: &Root, path: &str) -> bool {
    let is_mounted = root.mounts.iter().any(|mount| mount.path == path);
    !is_mounted
        && root
            .tree
            .entries(path.as_bytes(), 1)
            .is_ok_and(|names| names.is_empty())
}

/// Returns the place of the disk that a partition is on.
fn disk_of(found: &FoundVolume) -> Option<usize> {
    match found.origin {
        Origin::Partition { of, .. } => Some(of),
        _ => None,
    }
}
