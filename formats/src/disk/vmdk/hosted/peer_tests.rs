//! Extents that others wrote, and others reading ours: qemu-img, and the images of the corpus.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use hako_block::testkit::Rng;
use hako_block::{Access, BlockImage, FileStorage, LockMode, Sink, is_zero};

use super::tests::{GRAIN, args, create};
use super::{HostedCreate, HostedSink, check, open};
use crate::disk::Findings;

/// More than two grain tables, not a whole number of grains.
const SIZE: u64 = (70 << 20) + 3 * 512;

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img")
        .args(arguments)
        .output()
        .expect("qemu-img is needed for this test (Debian: qemu-utils)");
    assert!(
        output.status.success(),
        "qemu-img {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn assert_same(&self, raw: &str, vmdk: &str) {
        let (raw, vmdk) = (self.text(raw), self.text(vmdk));
        qemu_img(&["compare", "-f", "raw", "-F", "vmdk", &raw, &vmdk]);
        qemu_img(&["check", "-f", "vmdk", &vmdk]);
    }
}

/// Runs of data and holes, most of them not aligned to grains.
fn content(rng: &mut Rng) -> Vec<u8> {
    let mut content = vec![0; SIZE as usize];
    let mut at = 0;
    while at < content.len() {
        let end = content.len().min(at + rng.below(1..5 << 20) as usize);
        if rng.one_in(2) {
            content[at..end].copy_from_slice(&rng.bytes(end - at));
        }
        at = end;
    }
    content
}

fn new_file(path: &Path) -> Arc<FileStorage> {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    Arc::new(FileStorage::from_file(file, path, true).unwrap())
}

fn open_file(path: &Path, access: Access) -> Box<dyn BlockImage> {
    let storage = Arc::new(FileStorage::open(path, access, LockMode::None).unwrap());
    open(args(storage, access, false).unwrap()).unwrap()
}

fn read_all(image: &dyn BlockImage) -> Vec<u8> {
    let mut bytes = vec![1; image.info().virtual_size as usize];
    for (n, piece) in bytes.chunks_mut(1 << 20).enumerate() {
        image.read_at((n as u64) << 20, piece).unwrap();
    }
    bytes
}

fn assert_sound(path: &Path) {
    let storage = Arc::new(FileStorage::open(path, Access::ReadOnly, LockMode::None).unwrap());
    let mut findings = Findings::default();
    check(
        args(storage, Access::ReadOnly, false).unwrap(),
        &mut findings,
    )
    .unwrap();
    assert!(
        findings.list.is_empty(),
        "{}: {:#?}",
        path.display(),
        findings.list
    );
}

#[test]
fn qemu_reads_what_we_write() {
    let folder = Folder::new();
    let bytes = content(&mut Rng::new(1));
    std::fs::write(folder.path("disk.raw"), &bytes).unwrap();
    for (name, zeroed_grains, grain_bytes) in [
        ("a.vmdk", false, GRAIN),
        ("b.vmdk", true, GRAIN),
        ("c.vmdk", false, 8192),
        ("d.vmdk", false, 1 << 20),
    ] {
        let create = HostedCreate {
            zeroed_grains,
            grain_bytes,
            ..create(new_file(&folder.path(name)), SIZE)
        };
        let mut sink = Box::new(HostedSink::new(create).unwrap());
        for (n, piece) in bytes.chunks(1 << 20).enumerate() {
            let offset = (n as u64) << 20;
            if is_zero(piece) {
                sink.zero(offset..offset + piece.len() as u64).unwrap();
            } else {
                sink.data(offset, piece).unwrap();
            }
        }
        sink.finish().unwrap();
        folder.assert_same("disk.raw", name);
        assert_sound(&folder.path(name));
        assert!(read_all(&*open_file(&folder.path(name), Access::ReadOnly)) == bytes);
    }
}

#[test]
fn we_read_what_qemu_writes() {
    let folder = Folder::new();
    let bytes = content(&mut Rng::new(2));
    std::fs::write(folder.path("disk.raw"), &bytes).unwrap();
    let raw = folder.text("disk.raw");
    for (name, options) in [
        ("a.vmdk", "subformat=monolithicSparse"),
        ("b.vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
    ] {
        let vmdk = folder.text(name);
        qemu_img(&[
            "convert", "-f", "raw", "-O", "vmdk", "-o", options, &raw, &vmdk,
        ]);
        assert!(read_all(&*open_file(&folder.path(name), Access::ReadOnly)) == bytes);
        assert_sound(&folder.path(name));
    }
}

#[test]
fn many_threads_write_what_qemu_then_reads() {
    const N_THREADS: u64 = 4;
    const BLOCK: u64 = 4096;
    let folder = Folder::new();
    let mut bytes = content(&mut Rng::new(3));
    std::fs::write(folder.path("old.raw"), &bytes).unwrap();
    let (raw, vmdk) = (folder.text("old.raw"), folder.text("disk.vmdk"));
    qemu_img(&["convert", "-f", "raw", "-O", "vmdk", &raw, &vmdk]);
    let image = open_file(&folder.path("disk.vmdk"), Access::ReadWrite);
    // Each thread has every fourth block, so that all of them meet in every grain.
    let written: Vec<Vec<(u64, Option<Vec<u8>>)>> = std::thread::scope(|scope| {
        let image = &*image;
        let threads: Vec<_> = (0..N_THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut rng = Rng::new(thread);
                    let mut done = Vec::new();
                    for step in 0..1500 {
                        let block = rng.below(0..SIZE / BLOCK / N_THREADS) * N_THREADS + thread;
                        let offset = block * BLOCK;
                        let new = (!rng.one_in(8)).then(|| rng.bytes(BLOCK as usize));
                        match &new {
                            Some(new) => image.write_at(offset, new).unwrap(),
                            None => image.write_zeroes(offset..offset + BLOCK).unwrap(),
                        }
                        if step % 400 == thread * 100 {
                            image.flush().unwrap();
                        }
                        done.push((offset, new));
                    }
                    done
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (offset, new) in written.into_iter().flatten() {
        let place = &mut bytes[offset as usize..(offset + BLOCK) as usize];
        match new {
            Some(new) => place.copy_from_slice(&new),
            None => place.fill(0),
        }
    }
    assert!(read_all(&*image) == bytes);
    image.flush().unwrap();
    drop(image);
    std::fs::write(folder.path("new.raw"), &bytes).unwrap();
    folder.assert_same("new.raw", "disk.vmdk");
    assert_sound(&folder.path("disk.vmdk"));
}

#[test]
fn extents_of_vmware_and_virtualbox_are_the_same_disk() {
    let Some(corpus) = std::env::var_os("HAKO_CORPUS").map(PathBuf::from) else {
        println!("SKIPPED: HAKO_CORPUS is not set, no images by VMware and VirtualBox");
        return;
    };
    let disks = [
        "vmdk-rs/monolithicSparse.vmdk",
        "vmdk-rs/twoGbMaxExtentSparse-s001.vmdk",
        "virtualbox-made/std.vmdk",
    ]
    .map(|name| {
        let path = corpus.join(name);
        assert_sound(&path);
        read_all(&*open_file(&path, Access::ReadOnly))
    });
    assert!(disks[0] == disks[1] && disks[0] == disks[2]);
    assert_eq!(disks[0].len(), 10 << 20);
    assert!(!is_zero(&disks[0]));
}
