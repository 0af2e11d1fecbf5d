use std::ops::ControlFlow;
use std::sync::Arc;

use hako_block::ErrorKind;
use hako_block::testkit::Rng;

use crate::fs::{FileSystem, NodeKind};
use crate::tree::Tree;

/// A FAT12 of 100 clusters of 512 bytes: one table in sector 1, the root in sector 2.
struct Image(Vec<u8>);

impl Image {
    fn new() -> Self {
        let mut bytes = vec![0; 103 * 512];
        bytes[0] = 0xeb;
        bytes[11..13].copy_from_slice(&512_u16.to_le_bytes());
        bytes[13] = 1;
        bytes[14] = 1;
        bytes[16] = 1;
        bytes[17] = 16;
        bytes[19] = 103;
        bytes[21] = 0xf8;
        bytes[22] = 1;
        bytes[38] = 0x29;
        bytes[39..43].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
        bytes[43..54].copy_from_slice(b"BOOT LABEL ");
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        Self(bytes)
    }

    fn next(&mut self, cluster: usize, next: u16) {
        let at = 512 + cluster + cluster / 2;
        let pair = u16::from_le_bytes([self.0[at], self.0[at + 1]]);
        let pair = match cluster % 2 {
            0 => pair & 0xf000 | next,
            _ => pair & 0xf | next << 4,
        };
        self.0[at..at + 2].copy_from_slice(&pair.to_le_bytes());
    }

    fn record(&mut self, at: usize, name: &[u8; 11], attributes: u8, cluster: u16, len: u32) {
        let record = &mut self.0[at..at + 32];
        record[..11].copy_from_slice(name);
        record[11] = attributes;
        record[26..28].copy_from_slice(&cluster.to_le_bytes());
        record[28..].copy_from_slice(&len.to_le_bytes());
    }

    fn cluster(&mut self, cluster: usize) -> &mut [u8] {
        &mut self.0[(cluster + 1) * 512..][..512]
    }

    /// A label, a directory, and a file in pieces: clusters 5, 6, 3.
    fn filled() -> Self {
        let mut image = Self::new();
        image.record(1024, b"MY LABEL   ", 0x08, 0, 0);
        image.record(1056, b"FILE    TXT", 0, 5, 1200);
        image.record(1088, b"DIR        ", 0x10, 4, 0);
        image.record(4 * 512 + 1024 - 512, b"INNER      ", 0, 0, 0);
        for (cluster, next) in [(5, 6), (6, 3), (3, 0xfff), (4, 0xfff)] {
            image.next(cluster, next);
        }
        for cluster in [5, 6, 3] {
            image.cluster(cluster).fill(cluster as u8);
        }
        image
    }

    fn open(&self) -> hako_block::Result<Arc<dyn FileSystem>> {
        super::open(Arc::new(self.0.clone()))
    }
}

#[test]
fn a_fragmented_file_is_read_from_any_place() {
    let fs = Image::filled().open().unwrap();
    assert_eq!(
        (fs.info().label.as_str(), fs.info().uuid.as_str()),
        ("MY LABEL", "1234-ABCD")
    );
    let tree = Tree::new(fs);
    let content = tree.read(b"file.txt", 4096).unwrap();
    let expected: Vec<u8> = [vec![5; 512], vec![6; 512], vec![3; 176]].concat();
    assert_eq!(content, expected);
    let file = tree.find(b"/FILE.TXT").unwrap();
    for offset in (0..1300).rev().step_by(7) {
        let mut buf = [0xee; 100];
        let have = file.read_at(offset as u64, &mut buf).unwrap();
        assert_eq!(
            &buf[..have],
            &expected[offset.min(1200)..(offset + 100).min(1200)]
        );
    }
    assert_eq!(tree.stat(b"dir/inner").unwrap().kind, NodeKind::File);
}

#[test]
fn chains_that_end_early_leave_the_volume_or_go_in_a_circle_are_corrupt() {
    for (cluster, next) in [(6, 0xfff), (6, 0), (6, 0xff7), (6, 102), (5, 1)] {
        let mut image = Image::filled();
        image.next(cluster, next);
        let tree = Tree::new(image.open().unwrap());
        let error = tree.read(b"file.txt", 4096).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    // A directory in a circle, of records that are in use.
    let mut image = Image::filled();
    for record in image.cluster(4).chunks_exact_mut(32) {
        record[..11].copy_from_slice(b"X          ");
    }
    image.next(4, 4);
    let fs = image.open().unwrap();
    let directory = Tree::new(fs.clone()).find(b"dir").unwrap().node();
    let mut seen = 0;
    let result = fs.visit(directory, &mut |_| {
        seen += 1;
        ControlFlow::Continue(())
    });
    assert!(result.is_err() && seen < 2000, "{seen}");
}

#[test]
fn a_boot_sector_that_contradicts_itself_is_refused() {
    for (at, value) in [(13, 3), (14, 200), (22, 200), (17, 0xff)] {
        let mut image = Image::filled();
        image.0[at] = value;
        image.0[at + 1] |= u8::from(at == 17) * 0xff;
        assert!(image.open().is_err(), "byte {at}");
    }
    assert!(super::open(Arc::new(vec![0; 100])).is_err());
}

#[test]
fn damage_anywhere_ends_in_an_error_or_an_answer() {
    let mut rng = Rng::new(12);
    let whole = Image::filled();
    for _ in 0..1000 {
        let mut image = Image(whole.0.clone());
        for _ in 0..rng.below(1..6) {
            let area = [0, 512, 1024, 5 * 512][rng.below(0..4) as usize];
            let at = (area + rng.below(0..128)) as usize;
            image.0[at] = [0, 0xff, 0x10, rng.next_u64() as u8][rng.below(0..4) as usize];
        }
        if rng.one_in(4) {
            let len = rng.below(0..image.0.len() as u64) as usize;
            image.0.truncate(len);
        }
        if let Ok(fs) = image.open() {
            look(&*fs, fs.root(), 0);
        }
    }
}

fn look(fs: &dyn FileSystem, directory: crate::NodeId, depth: u32) {
    let mut nodes = Vec::new();
    let _ = fs.visit(directory, &mut |entry| {
        nodes.push(entry.node);
        ControlFlow::Continue(())
    });
    for node in nodes.into_iter().take(100) {
        match fs.stat(node).map(|stat| stat.kind) {
            Ok(NodeKind::Directory) if depth < 3 => look(fs, node, depth + 1),
            Ok(_) => {
                let _ = fs.read_at(node, 1000, &mut [0; 4096]);
            }
            Err(_) => {}
        }
    }
}
