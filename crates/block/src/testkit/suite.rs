//! The healthy half of the suite: everything works, and the content is right.

use std::sync::{Arc, Mutex};

use super::model::{
    Context, Geometry, Model, Piece, Start, Step, assert_same, assert_sound, build, check_extents,
    deliver, main_name, random_range, read_all,
};
use super::{Effort, FaultFolder, Rng, Subject};
use crate::{Access, BlockImage, Chain};

pub fn run(subject: &dyn Subject, effort: Effort) {
    let _context = Context(subject.name());
    let geometry = Geometry::of(subject);
    for seed in 0..effort.n_seeds {
        let _context = Context(format!("seed {seed}"));
        sink_round_trip(subject, geometry, seed);
        wide_disk(subject, geometry, seed);
        read_only_refuses_writes(subject, geometry, seed);
        if subject.traits().writable {
            let start = || Start::build(subject, geometry.size, seed);
            random_steps(subject, geometry, effort, seed, start());
            many_threads(subject, seed, start(), false);
        }
        if subject.traits().overlay {
            overlay_round_trip(subject, geometry, seed);
        }
        if subject.traits().overlay && subject.traits().writable {
            overlay_steps(subject, geometry, effort, seed);
            overlay_threads(subject, geometry, seed);
        }
    }
}

/// Reads and writes an image that exists.
pub fn run_existing(subject: &dyn Subject, start: &Start, effort: Effort) {
    let geometry = Geometry::of_existing(subject, start);
    let image = open(subject, &start.folder, Access::ReadOnly);
    for seed in 0..effort.n_seeds {
        let _context = Context(format!("seed {seed}"));
        let mut rng = Rng::new(seed);
        let got = read_all(&*image, &mut rng).expect("reads");
        assert_same(&start.content, &got, "the image as it was");
        random_reads(&*image, &start.content, &mut rng);
        check_extents(&*image, &start.folder, &start.content, &mut rng);
        assert_sound(subject, &start.folder, &main_name(subject), true);
        if subject.traits().writable {
            random_steps(subject, geometry, effort, seed, start.copy());
            many_threads(subject, seed, start.copy(), true);
        }
    }
}

fn open(subject: &dyn Subject, folder: &FaultFolder, access: Access) -> Arc<dyn BlockImage> {
    subject
        .open(folder, &main_name(subject), access)
        .expect("opens")
}

fn sink_round_trip(subject: &dyn Subject, geometry: Geometry, seed: u64) {
    let _context = Context("sink_round_trip".to_owned());
    let Geometry { unit, size } = geometry;
    let sizes = [512, unit - 512, unit, unit + 512, size, size - 3 * 512];
    for size in sizes.into_iter().filter(|size| *size > 0) {
        let _context = Context(format!("a disk of {size} bytes"));
        let mut rng = Rng::new(seed);
        let folder = FaultFolder::default();
        let name = main_name(subject);
        let content = build(subject, &folder, &name, size, &mut rng, None);
        let image = open(subject, &folder, Access::ReadOnly);
        assert_eq!(image.info().virtual_size, size);
        let got = read_all(&*image, &mut rng).expect("reads");
        assert_same(&content, &got, "what was delivered");
        random_reads(&*image, &content, &mut rng);
        check_extents(&*image, &folder, &content, &mut rng);
        out_of_range(&*image);
        assert_sound(subject, &folder, &name, false);
    }
    empty_and_full(subject, size, seed);
}

fn empty_and_full(subject: &dyn Subject, size: u64, seed: u64) {
    let name = main_name(subject);
    let content = Rng::new(seed).bytes(size as usize);
    let cases = [
        (vec![], vec![0; size as usize]),
        (vec![Piece::Zero(0..size)], vec![0; size as usize]),
        (vec![Piece::Data(0, content.clone())], content),
    ];
    for (pieces, content) in cases {
        let folder = FaultFolder::default();
        let sink = subject.create(&folder, &name, size, None).expect("creates");
        deliver(sink, &pieces).expect("takes what is delivered");
        let image = open(subject, &folder, Access::ReadOnly);
        let got = read_all(&*image, &mut Rng::new(seed)).expect("reads");
        assert_same(&content, &got, "an empty or full disk");
        check_extents(&*image, &folder, &content, &mut Rng::new(seed));
        assert_sound(subject, &folder, &name, false);
    }
}

fn random_reads(image: &dyn BlockImage, content: &[u8], rng: &mut Rng) {
    let size = content.len() as u64;
    for _ in 0..50 {
        let range = random_range(rng, size, image.info().unit_bytes.max(4096));
        let mut got = vec![0x55; (range.end - range.start) as usize];
        image.read_at(range.start, &mut got).expect("reads");
        let expected = &content[range.start as usize..range.end as usize];
        assert_same(expected, &got, &format!("read of {range:x?}"));
    }
}

fn out_of_range(image: &dyn BlockImage) {
    let size = image.info().virtual_size;
    let mut byte = [0; 1];
    let mut two = [0; 2];
    assert!(image.read_at(size, &mut byte).is_err());
    assert!(image.read_at(size - 1, &mut two).is_err());
    assert!(image.read_at(u64::MAX, &mut two).is_err());
    assert!(image.next_extent(size).is_err());
    assert!(image.next_extent(u64::MAX).is_err());
    assert!(image.write_at(size, &byte).is_err());
    assert!(image.write_at(size - 1, &two).is_err());
    assert!(image.write_at(u64::MAX, &two).is_err());
    assert!(image.write_zeroes(size - 1..size + 1).is_err());
}

/// Disks larger than the places where formats and their limits change: 2047 MiB, 2 and 4 GiB.
fn wide_disk(subject: &dyn Subject, geometry: Geometry, seed: u64) {
    let _context = Context("wide_disk".to_owned());
    let unit = geometry.unit;
    let size = (5 << 30) + 512;
    let mut rng = Rng::new(seed);
    let folder = FaultFolder::default();
    let name = main_name(subject);
    let sink = subject.create(&folder, &name, size, None).expect("creates");
    let mut free = 0;
    let mut windows: Vec<(u64, Vec<u8>)> = [0, 2047 << 20, 2 << 30, 4 << 30]
        .into_iter()
        .map(|middle: u64| {
            // With large units the windows around 2047 MiB and 2 GiB would overlap.
            let start = (middle.saturating_sub(unit) / unit * unit).max(free);
            free = start + 2 * unit;
            (start, rng.bytes(2 * unit as usize))
        })
        .collect();
    windows.dedup_by(|next, window| next.0 < window.0 + window.1.len() as u64);
    let last = (size - 1) / unit * unit;
    windows.push((last, rng.bytes((size - last) as usize)));
    let pieces: Vec<_> = windows
        .iter()
        .map(|(start, bytes)| Piece::Data(*start, bytes.clone()))
        .collect();
    deliver(sink, &pieces).expect("takes what is delivered");

    let writable = subject.traits().writable;
    let access = if writable {
        Access::ReadWrite
    } else {
        Access::ReadOnly
    };
    let image = open(subject, &folder, access);
    wide_content(&*image, &windows, size);
    if writable {
        for (start, bytes) in &mut windows {
            let at = bytes.len() / 2 - 100.min(bytes.len() / 2);
            let len = 200.min(bytes.len() - at);
            let new = rng.bytes(len);
            image.write_at(*start + at as u64, &new).expect("writes");
            bytes[at..at + len].copy_from_slice(&new);
        }
        image.flush().expect("flushes");
        drop(image);
        let image = open(subject, &folder, Access::ReadOnly);
        wide_content(&*image, &windows, size);
    }
    assert_sound(subject, &folder, &name, false);
}

fn wide_content(image: &dyn BlockImage, windows: &[(u64, Vec<u8>)], size: u64) {
    for (start, bytes) in windows {
        let mut got = vec![0x55; bytes.len()];
        image.read_at(*start, &mut got).expect("reads");
        assert_same(bytes, &got, &format!("window at {start:#x}"));
    }
    let mut offset = 0;
    let mut n_extents = 0;
    while offset < size {
        let extent = image.next_extent(offset).expect("next_extent");
        assert_eq!(extent.offset, offset);
        assert!(extent.len > 0 && extent.end() <= size, "{extent:?}");
        offset = extent.end();
        n_extents += 1;
    }
    assert!(
        n_extents < 2000,
        "{n_extents} extents for five runs of data"
    );
}

fn read_only_refuses_writes(subject: &dyn Subject, geometry: Geometry, seed: u64) {
    let _context = Context("read_only_refuses_writes".to_owned());
    let mut rng = Rng::new(seed);
    let folder = FaultFolder::default();
    let name = main_name(subject);
    build(subject, &folder, &name, geometry.size, &mut rng, None);
    let before = folder.files();
    folder.take_log();
    let refuses = |image: &dyn BlockImage| {
        assert!(!image.info().writable);
        assert!(image.write_at(0, &[1; 512]).is_err());
        assert!(image.write_zeroes(0..512).is_err());
        let _ = image.discard(0..geometry.size);
        let _ = image.flush();
    };
    refuses(&*open(subject, &folder, Access::ReadOnly));
    if !subject.traits().writable
        && let Ok(image) = subject.open(&folder, &name, Access::ReadWrite)
    {
        refuses(&*image);
    }
    assert!(folder.files() == before, "a read-only image changed");
    assert_eq!(folder.log_len(), 0, "a read-only image was written to");
}

fn random_steps(
    subject: &dyn Subject,
    geometry: Geometry,
    effort: Effort,
    seed: u64,
    start: Start,
) {
    let _context = Context("random_steps".to_owned());
    let Geometry { unit, size } = geometry;
    let mut rng = Rng::new(seed);
    let name = main_name(subject);
    let folder = start.folder;
    let mut model = Model {
        bytes: start.content,
    };
    for _ in 0..4 {
        let image = open(subject, &folder, Access::ReadWrite);
        assert!(image.info().writable);
        for _ in 0..effort.n_steps {
            model.step(&*image, &Step::random(&mut rng, size, unit));
        }
        let got = read_all(&*image, &mut rng).expect("reads");
        assert_same(&model.bytes, &got, "before the flush");
        image.flush().expect("flushes");
        check_extents(&*image, &folder, &model.bytes, &mut rng);
        drop(image);
        let image = open(subject, &folder, Access::ReadOnly);
        let got = read_all(&*image, &mut rng).expect("reads");
        assert_same(&model.bytes, &got, "after flush and reopen");
        assert_sound(subject, &folder, &name, true);
    }
}

/// Threads write bytes of their own, interleaved so that every unit belongs to all of them.
fn write_from_threads(image: &dyn BlockImage, content: &mut [u8], seed: u64) {
    const N_THREADS: usize = 4;
    const STRIPE: usize = 1000;
    let written = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..N_THREADS {
            let (written, size) = (&written, content.len());
            scope.spawn(move || {
                let mut rng = Rng::new(seed ^ (thread as u64) << 32);
                let mut at = thread * STRIPE;
                while at < size {
                    let len = STRIPE.min(size - at);
                    let bytes = rng.bytes(len);
                    match rng.below(0..8) {
                        0 => {}
                        1 => {
                            let range = at as u64..(at + len) as u64;
                            image.write_zeroes(range).expect("writes zeros");
                            written.lock().unwrap().push((at, vec![0; len]));
                        }
                        2 => {
                            let mut got = vec![0; len];
                            image.read_at(at as u64, &mut got).expect("reads");
                        }
                        _ => {
                            image.write_at(at as u64, &bytes).expect("writes");
                            written.lock().unwrap().push((at, bytes));
                        }
                    }
                    if rng.one_in(300) {
                        image.flush().expect("flushes");
                    }
                    at += N_THREADS * STRIPE;
                }
            });
        }
    });
    for (at, bytes) in written.into_inner().unwrap() {
        content[at..at + bytes.len()].copy_from_slice(&bytes);
    }
}

fn many_threads(subject: &dyn Subject, seed: u64, start: Start, leaks_allowed: bool) {
    let _context = Context("many_threads".to_owned());
    let mut rng = Rng::new(seed);
    let name = main_name(subject);
    let Start {
        folder,
        mut content,
    } = start;
    let image = open(subject, &folder, Access::ReadWrite);
    write_from_threads(&*image, &mut content, seed);
    let got = read_all(&*image, &mut rng).expect("reads");
    assert_same(&content, &got, "after many threads");
    image.flush().expect("flushes");
    drop(image);
    let image = open(subject, &folder, Access::ReadOnly);
    let got = read_all(&*image, &mut rng).expect("reads");
    assert_same(&content, &got, "after many threads and reopen");
    assert_sound(subject, &folder, &name, leaks_allowed);
}

/// An overlay and its parent in one folder.
struct Layers<'a> {
    subject: &'a dyn Subject,
    folder: FaultFolder,
    parent: String,
    top: String,
}

impl<'a> Layers<'a> {
    /// Makes a parent of `parent_size` bytes and an overlay; returns them with the content.
    fn build(
        subject: &'a dyn Subject,
        size: u64,
        parent_size: u64,
        empty: bool,
        rng: &mut Rng,
    ) -> (Self, Vec<u8>) {
        let layers = Self {
            subject,
            folder: FaultFolder::default(),
            parent: format!("parent.{}", subject.extension()),
            top: main_name(subject),
        };
        let (folder, parent) = (&layers.folder, &layers.parent);
        let mut below = build(subject, folder, parent, parent_size, rng, None);
        below.resize(size as usize, 0);
        let image = subject
            .open(folder, parent, Access::ReadOnly)
            .expect("opens the parent");
        let link = subject.parent_link(parent, &*image);
        if !empty {
            let content = build(
                subject,
                folder,
                &layers.top,
                size,
                rng,
                Some((link, &below)),
            );
            return (layers, content);
        }
        let sink = subject
            .create(folder, &layers.top, size, Some(link))
            .expect("creates an overlay");
        sink.finish().expect("finishes an empty overlay");
        (layers, below)
    }

    fn open(&self, access: Access) -> Chain {
        let top = self.subject.open(&self.folder, &self.top, access);
        let top = top.expect("opens the overlay");
        assert!(top.info().parent.is_some(), "the overlay knows its parent");
        let parent = self
            .subject
            .open(&self.folder, &self.parent, Access::ReadOnly)
            .expect("opens the parent");
        Chain::new(vec![top, parent]).expect("a chain")
    }

    fn assert_reads(&self, content: &[u8], rng: &mut Rng, what: &str) {
        let chain = self.open(Access::ReadOnly);
        let got = read_all(&chain, rng).expect("reads");
        assert_same(content, &got, what);
        check_extents(&chain, &self.folder, content, rng);
        assert_sound(self.subject, &self.folder, &self.top, true);
    }
}

fn overlay_round_trip(subject: &dyn Subject, geometry: Geometry, seed: u64) {
    let _context = Context("overlay_round_trip".to_owned());
    let Geometry { unit, size } = geometry;
    let parent_sizes = [size, (size - unit - unit / 2) / 512 * 512, size + 512];
    for parent_size in parent_sizes {
        let _context = Context(format!("a parent of {parent_size} bytes"));
        let mut rng = Rng::new(seed);
        for empty in [true, false] {
            let (layers, content) = Layers::build(subject, size, parent_size, empty, &mut rng);
            layers.assert_reads(&content, &mut rng, "overlay as delivered");
        }
    }
}

fn overlay_steps(subject: &dyn Subject, geometry: Geometry, effort: Effort, seed: u64) {
    let _context = Context("overlay_steps".to_owned());
    let Geometry { unit, size } = geometry;
    let mut rng = Rng::new(seed);
    let (layers, bytes) = Layers::build(subject, size, size, seed.is_multiple_of(2), &mut rng);
    let parent_before = layers.folder.files()[&layers.parent].clone();
    let mut model = Model { bytes };
    for _ in 0..3 {
        let chain = layers.open(Access::ReadWrite);
        for _ in 0..effort.n_steps {
            model.step(&chain, &Step::random(&mut rng, size, unit));
        }
        let got = read_all(&chain, &mut rng).expect("reads");
        assert_same(&model.bytes, &got, "overlay before the flush");
        chain.flush().expect("flushes");
        drop(chain);
        layers.assert_reads(&model.bytes, &mut rng, "overlay after flush and reopen");
    }
    let parent_after = &layers.folder.files()[&layers.parent];
    assert!(*parent_after == parent_before, "the parent changed");
}

fn overlay_threads(subject: &dyn Subject, geometry: Geometry, seed: u64) {
    let _context = Context("overlay_threads".to_owned());
    let size = geometry.size;
    let mut rng = Rng::new(seed);
    let (layers, mut content) = Layers::build(subject, size, size, true, &mut rng);
    let chain = layers.open(Access::ReadWrite);
    write_from_threads(&chain, &mut content, seed);
    let got = read_all(&chain, &mut rng).expect("reads");
    assert_same(&content, &got, "overlay after many threads");
    chain.flush().expect("flushes");
    drop(chain);
    layers.assert_reads(&content, &mut rng, "overlay after many threads and reopen");
}
