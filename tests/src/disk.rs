//! Disks to try things on, and what they hold.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use hako_block::testkit::Rng;
use sha2::{Digest, Sha256};

use crate::run_program;

/// Makes a sparse raw disk: runs of data of many lengths, zeros that are written, holes.
pub fn make_raw(path: &Path, size: u64, seed: u64) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    let mut rng = Rng::new(seed);
    let mut offset = 0;
    while offset < size {
        let len = match rng.below(0..5) {
            0 => 512 * rng.below(1..20),
            1 | 2 => 4096 * rng.below(1..40),
            _ => 65536 * rng.below(1..40),
        };
        let len = len.min(size - offset);
        match rng.below(0..5) {
            0 | 1 => {}
            2 => file.write_all_at(&vec![0; len as usize], offset).unwrap(),
            _ => file.write_all_at(&rng.bytes(len as usize), offset).unwrap(),
        }
        offset += len;
    }
}

/// Makes a raw disk full of data.
pub fn make_dense(path: &Path, size: u64, seed: u64) {
    let file = File::create(path).unwrap();
    let mut rng = Rng::new(seed);
    let piece = rng.bytes(4 << 20);
    let mut offset = 0;
    while offset < size {
        let len = (piece.len() as u64).min(size - offset);
        let turned = (rng.below(0..piece.len() as u64 / 2)) as usize;
        let (head, tail) = piece[..len as usize].split_at(turned.min(len as usize));
        file.write_all_at(tail, offset).unwrap();
        file.write_all_at(head, offset + tail.len() as u64).unwrap();
        offset += len;
    }
    file.set_len(size).unwrap();
}

/// Copies a disk; its holes stay holes.
#[track_caller]
pub fn copy_sparse(from: &Path, to: &Path) {
    let [from, to] = [from, to].map(|path| path.to_str().unwrap());
    run_program("cp", &["--sparse=always", from, to]).ok();
}

/// Changes an ext2, ext3 or ext4 at an offset of a disk by e2fsprogs' own means. Panics if one of the
/// commands fails: debugfs itself ends well all the same.
#[track_caller]
pub fn debugfs(disk: &Path, offset: u64, commands: &str) {
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&list, commands).unwrap();
    let at = format!("{}?offset={offset}", disk.display());
    let run = run_program("debugfs", &["-w", "-f", list.path().to_str().unwrap(), &at]);
    let odd = |line: &&str| !line.starts_with("debugfs") && line.contains(": ");
    let said = run.stderr.lines().find(odd);
    assert!(said.is_none(), "{said:?} {}", run.stderr);
}

/// Returns the SHA-256 of a file.
pub fn sha256(path: &Path) -> String {
    let mut file = File::open(path).unwrap();
    let mut digest = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    loop {
        let len = file.read(&mut buf).unwrap();
        if len == 0 {
            break;
        }
        digest.update(&buf[..len]);
    }
    hex(&digest.finalize())
}

/// Returns bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the bytes that a file takes on its disk.
pub fn allocated(path: &Path) -> u64 {
    path.metadata().unwrap().blocks() * 512
}
