//! FAT is written only where it is whole.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::process::Command;
use std::sync::Arc;

use hako_block::{ErrorKind, Result};
use hako_edit::{Fat, Staged};

/// Returns a FAT32 with a folder `EFI`; none, said so, without its peers.
fn made() -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("fat.img");
    let steps = [
        ("mkfs.vfat", &["-F", "32", "-C"][..], &["40000"][..]),
        ("mmd", &["-i"], &["::/EFI"]),
    ];
    for (program, before, after) in steps {
        let mut command = Command::new(program);
        let Ok(output) = command.args(before).arg(&image).args(after).output() else {
            let is_ci = std::env::var_os("CI").is_some();
            assert!(!is_ci, "CI needs {program}");
            println!("skipped: no {program}");
            return None;
        };
        assert!(output.status.success(), "{output:?}");
    }
    Some(std::fs::read(image).unwrap())
}

fn open(bytes: Vec<u8>) -> Result<Fat> {
    Fat::open(Arc::new(Staged::new(Arc::new(bytes))))
}

#[test]
fn a_damaged_one_is_refused_before_anything_is_written() {
    let Some(whole) = made() else { return };
    open(whole.clone())
        .unwrap()
        .make_folder("/EFI/BOOT")
        .unwrap();

    let table = usize::from(u16::from_le_bytes([whole[14], whole[15]])) * 512;
    let root = table + 2 * 4;
    let folder = whole
        .windows(11)
        .position(|name| name == b"EFI        ")
        .unwrap();
    // What comes after the root's cluster, and where the folder is: 1 is no cluster.
    let edits = [
        ("the root", root, &[1, 0, 0, 0][..]),
        ("a folder", folder + 26, &[1, 0]),
    ];
    for (what, at, bytes) in edits {
        let mut damaged = whole.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        let error = open(damaged).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error}");
        assert!(error.to_string().contains("damaged"), "{what}: {error}");
    }
}
