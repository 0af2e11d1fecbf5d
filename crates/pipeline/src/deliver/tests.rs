use std::ops::Range;
use std::path::Path;

use hako_block::{Cancel, ExtentKind, NoProgress};

use super::*;
use crate::testing::{FakeImage, Random};

/// Writes plainly, and one wrong byte at `spoil`.
struct PlainSink {
    storage: Arc<dyn Storage>,
    spoil: Option<u64>,
}

impl Sink for PlainSink {
    fn unit_bytes(&self) -> u64 {
        512
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.storage.write_at(offset, bytes)
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.storage
            .write_at(range.start, &vec![0; (range.end - range.start) as usize])
    }

    fn finish(self: Box<Self>) -> Result<()> {
        if let Some(at) = self.spoil {
            self.storage.write_at(at, &[0xee])?;
        }
        self.storage.sync()
    }
}

fn read_back(opened: Opened) -> Result<Box<dyn BlockImage>> {
    let mut content = vec![0; opened.storage.len_bytes()? as usize];
    opened.storage.read_at(0, &mut content)?;
    Ok(Box::new(FakeImage::of_data(content)))
}

fn run(image: &FakeImage, target: Target, spoil: Option<u64>) -> Result<DeliverReport> {
    let cancel = Cancel::default();
    let delivery = Delivery {
        source: image,
        virtual_size: image.virtual_size(),
        target,
        sink: Box::new(move |storage, _| Ok(Box::new(PlainSink { storage, spoil }))),
        verify: Some(Box::new(read_back)),
    };
    deliver(delivery, &CopyOptions::new(&NoProgress, &cancel))
}

fn names_in(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn verified_image_gets_its_name_and_only_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let image = FakeImage::random(&mut Random::new(2), 4 << 20);
    let target = Target::Staged(StagedFolder::new(&path, false).unwrap());
    let report = run(&image, target, None).unwrap();
    assert!(report.verified && report.fingerprint.is_some());
    assert!(std::fs::read(&path).unwrap() == image.content());
    assert_eq!(names_in(folder.path()), ["disk"]);
}

#[test]
fn image_that_reads_back_wrong_never_gets_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let image = FakeImage::random(&mut Random::new(2), 4 << 20);
    for at in [image.virtual_size() / 2, image.virtual_size()] {
        let target = Target::Staged(StagedFolder::new(&path, false).unwrap());
        let error = run(&image, target, Some(at)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(names_in(folder.path()).is_empty());
    }
}

#[test]
fn device_larger_than_the_disk_verifies_its_beginning() {
    let image = FakeImage::with_extents(vec![0; 8192], &[(0, 8192, ExtentKind::Zero)]);
    let device = hako_block::MemoryStorage::new("device", vec![7; 16384]);
    run(&image, Target::Device(Arc::new(device)), None).unwrap();
}
