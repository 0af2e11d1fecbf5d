//! A run that is cut off at any write is completed by the next, and one about another disk is not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hako_block::{BlockImage, Error, ErrorKind, Extent, ImageInfo, Result};
use hako_edit::{Intent, Staged, Writes};
use hako_guest::{Disk, Slice, Volume};

/// A disk in memory that takes so many writes.
struct Cut {
    info: ImageInfo,
    bytes: std::sync::Mutex<Vec<u8>>,
    left: AtomicUsize,
}

impl Cut {
    fn new(bytes: Vec<u8>, left: usize) -> Arc<Self> {
        let virtual_size = bytes.len() as u64;
        Arc::new(Self {
            info: ImageInfo {
                virtual_size,
                writable: true,
                ..ImageInfo::default()
            },
            bytes: bytes.into(),
            left: left.into(),
        })
    }

    fn now(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

impl BlockImage for Cut {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let at = offset as usize;
        buf.copy_from_slice(&self.bytes.lock().unwrap()[at..at + buf.len()]);
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        let len = self.info.virtual_size - offset;
        Ok(Extent::new(offset, len, hako_block::ExtentKind::Data))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        if self.left.load(Ordering::Relaxed) == 0 {
            return Err(Error::cancelled());
        }
        self.left.fetch_sub(1, Ordering::Relaxed);
        let at = offset as usize;
        self.bytes.lock().unwrap()[at..at + buf.len()].copy_from_slice(buf);
        Ok(())
    }
}

/// Returns what is to be written to a disk whose second half is a volume.
fn writes(disk: &Arc<dyn BlockImage>) -> Writes {
    let whole: Arc<dyn Volume> = Arc::new(Disk::new(Arc::clone(disk), 512));
    let half = disk.info().virtual_size / 2;
    let staged = Staged::new(Arc::new(Slice::new(whole, half, half).unwrap()));
    for at in [0, 5000, 9000, 20_000] {
        staged.write_at(at, &[7; 100]).unwrap();
    }
    let mut writes = Writes::new(std::slice::from_ref(disk));
    writes.add(&staged, std::slice::from_ref(disk)).unwrap();
    writes
}

#[test]
fn a_run_that_is_cut_off_anywhere_is_completed_by_the_next() {
    let before = vec![1_u8; 80_000];
    let mut after = before.clone();
    for at in [40_000, 45_000, 49_000, 60_000] {
        after[at..at + 100].fill(7);
    }
    for n in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let intent = Intent::at(&folder.path().join(".x.hako-adapt"));
        let disk = Cut::new(before.clone(), n);
        let image: Arc<dyn BlockImage> = Arc::clone(&disk) as _;
        let done = intent.carry_out(&writes(&image), &[Arc::clone(&image)]);
        assert_eq!(done.is_ok(), n >= 4, "{n}");
        assert_eq!(intent.is_there(), n < 4, "{n}");
        disk.left.store(100, Ordering::Relaxed);
        assert_eq!(intent.complete(&[image]).unwrap(), n < 4, "{n}");
        assert!(disk.now() == after, "{n}");
        assert!(!intent.is_there());
    }
}

#[test]
fn what_is_about_another_disk_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let intent = Intent::at(&folder.path().join(".x.hako-adapt"));
    let disk = Cut::new(vec![1; 80_000], 2);
    let image: Arc<dyn BlockImage> = Arc::clone(&disk) as _;
    intent.carry_out(&writes(&image), &[image]).unwrap_err();
    for other in [vec![2; 80_000], vec![1; 80_512]] {
        let other = Cut::new(other, 100);
        let error = intent.complete(&[Arc::clone(&other) as _]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(other.left.load(Ordering::Relaxed), 100);
    }
    assert!(intent.is_there());
}
