//! The steps of the suite: what is delivered, what is written, what may be read afterwards.

use std::ops::Range;
use std::sync::Arc;

use super::{FaultFolder, Rng, Subject};
use crate::{Access, BlockImage, ExtentKind, ParentLink, Result, Sink, is_zero};

/// Says where a test stood when it panicked.
pub struct Context(pub String);

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[allow(clippy::print_stderr)]
            {
                eprintln!("… in {}", self.0);
            }
        }
    }
}

/// Sizes that suit a variant.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    /// The larger of the sink's and the image's unit.
    pub unit: u64,
    /// A disk of several units, the last one partial.
    pub size: u64,
}

impl Geometry {
    pub fn of(subject: &dyn Subject) -> Self {
        let folder = FaultFolder::default();
        let name = main_name(subject);
        let sink = subject
            .create(&folder, &name, 1 << 20, None)
            .expect("creates a disk of 1 MiB");
        let sink_unit = sink.unit_bytes();
        assert!(sink_unit.is_power_of_two() && sink_unit >= 512);
        sink.finish().expect("finishes an empty disk");
        let image = subject
            .open(&folder, &name, Access::ReadOnly)
            .expect("opens an empty disk");
        let unit = image.info().unit_bytes.max(sink_unit);
        let n_units = ((24 << 20) / unit).clamp(2, 12);
        let size = (n_units * unit).max(256 << 10) + 3 * 512;
        Self { unit, size }
    }

    /// Returns those of an image that exists.
    pub fn of_existing(subject: &dyn Subject, start: &Start) -> Self {
        let image = subject
            .open(&start.folder, &main_name(subject), Access::ReadOnly)
            .expect("opens");
        let info = image.info();
        assert_eq!(info.virtual_size, start.content.len() as u64);
        Self {
            unit: info.unit_bytes.max(4096),
            size: info.virtual_size,
        }
    }
}

/// The image a test begins with, under [`main_name`], and what it holds.
#[derive(Clone)]
pub struct Start {
    pub folder: FaultFolder,
    pub content: Vec<u8>,
}

impl Start {
    /// Makes an image of random content.
    pub fn build(subject: &dyn Subject, size: u64, seed: u64) -> Self {
        let folder = FaultFolder::default();
        let name = main_name(subject);
        let content = build(subject, &folder, &name, size, &mut Rng::new(seed), None);
        Self { folder, content }
    }

    /// Returns the same image in a folder of its own, with an empty log.
    pub fn copy(&self) -> Self {
        Self {
            folder: self.folder.copy(),
            content: self.content.clone(),
        }
    }
}

pub fn main_name(subject: &dyn Subject) -> String {
    format!("disk.{}", subject.extension())
}

/// One delivery to a sink.
pub enum Piece {
    Data(u64, Vec<u8>),
    Zero(Range<u64>),
}

/// Chooses deliveries for a disk of `size` bytes. Returns them with the content they make over
/// `below` (what shows through holes).
pub fn random_pieces(
    rng: &mut Rng,
    size: u64,
    sink_unit: u64,
    below: &[u8],
) -> (Vec<Piece>, Vec<u8>) {
    let mut content = below.to_vec();
    content.resize(size as usize, 0);
    let mut pieces = Vec::new();
    let mut offset = 0;
    while offset < size {
        let most = (size / sink_unit / 6).clamp(2, 64);
        let end = (offset + sink_unit * rng.below(1..most)).min(size);
        let place = offset as usize..end as usize;
        match rng.below(0..8) {
            0 | 1 => {
                content[place].fill(0);
                pieces.push(Piece::Zero(offset..end));
            }
            2 | 3 => {}
            4 => {
                // Zeros that nobody looked at, and a single byte among zeros.
                content[place.clone()].fill(0);
                if rng.one_in(2) {
                    content[rng.below(offset..end) as usize] = 1;
                }
                pieces.push(Piece::Data(offset, content[place].to_vec()));
            }
            _ => {
                content[place.clone()].copy_from_slice(&rng.bytes(place.len()));
                pieces.push(Piece::Data(offset, content[place].to_vec()));
            }
        }
        offset = end;
    }
    (pieces, content)
}

/// Delivers to a sink as the pipeline does, and finishes it.
pub fn deliver(mut sink: Box<dyn Sink>, pieces: &[Piece]) -> Result<()> {
    let unit = sink.unit_bytes() as usize;
    let encoder = sink.encoder();
    for piece in pieces {
        match (piece, &encoder) {
            (Piece::Zero(range), _) => sink.zero(range.clone())?,
            (Piece::Data(offset, bytes), None) => sink.data(*offset, bytes)?,
            (Piece::Data(offset, bytes), Some(encoder)) => {
                let mut out = Vec::new();
                for (index, bytes) in bytes.chunks(unit).enumerate() {
                    let at = offset + (index * unit) as u64;
                    out.clear();
                    encoder.encode(at, bytes, &mut out)?;
                    sink.encoded(at, &out)?;
                }
            }
        }
    }
    sink.finish()
}

/// Makes an image of random content. Returns the content, as a reader of the layer alone sees it
/// over `below`.
pub fn build(
    subject: &dyn Subject,
    folder: &FaultFolder,
    name: &str,
    size: u64,
    rng: &mut Rng,
    parent: Option<(ParentLink, &[u8])>,
) -> Vec<u8> {
    let (link, below) = match parent {
        Some((link, below)) => (Some(link), below),
        None => (None, &[][..]),
    };
    let sink = subject
        .create(folder, name, size, link)
        .expect("creates an image");
    let (pieces, content) = random_pieces(rng, size, sink.unit_bytes(), below);
    deliver(sink, &pieces).expect("takes what is delivered");
    content
}

/// Reads the whole disk in pieces of odd lengths.
pub fn read_all(image: &dyn BlockImage, rng: &mut Rng) -> Result<Vec<u8>> {
    let size = image.info().virtual_size as usize;
    let mut bytes = vec![0xaa; size];
    let mut at = 0;
    while at < size {
        let len = (rng.below(1..400_000) as usize).min(size - at);
        image.read_at(at as u64, &mut bytes[at..at + len])?;
        at += len;
    }
    Ok(bytes)
}

pub fn assert_same(expected: &[u8], got: &[u8], what: &str) {
    assert_eq!(expected.len(), got.len(), "{what}: length");
    if expected == got {
        return;
    }
    let at = (0..got.len()).find(|at| expected[*at] != got[*at]).unwrap();
    panic!(
        "{what}: byte {at:#x} is {:#04x}, should be {:#04x} ({} bytes differ)",
        got[at],
        expected[at],
        (0..got.len())
            .filter(|at| expected[*at] != got[*at])
            .count()
    );
}

/// Walks the extents and compares them with the content; where they name a host position, also
/// with the bytes there.
pub fn check_extents(image: &dyn BlockImage, folder: &FaultFolder, content: &[u8], rng: &mut Rng) {
    let size = image.info().virtual_size;
    let mut offset = 0;
    while offset < size {
        let extent = image.next_extent(offset).expect("next_extent");
        assert_eq!(extent.offset, offset, "an extent begins where asked");
        assert!(extent.len > 0 && extent.end() <= size, "{extent:?}");
        let bytes = &content[offset as usize..extent.end() as usize];
        match (extent.kind, &extent.host) {
            (ExtentKind::Data, Some(host)) if !extent.compressed => {
                let file = folder.file(&host.file).expect("the host file exists");
                let mut stored = vec![0; bytes.len()];
                crate::Storage::read_at(&*file, host.offset, &mut stored).expect("host bytes");
                assert_same(bytes, &stored, "the bytes at the extent's host position");
            }
            (ExtentKind::Data, _) => {}
            (ExtentKind::Zero | ExtentKind::Hole, _) => {
                assert!(crate::is_zero(bytes), "{extent:?} does not read as zeros");
            }
        }
        offset = extent.end();
    }
    for _ in 0..50 {
        let offset = rng.below(0..size);
        let extent = image.next_extent(offset).expect("next_extent");
        assert_eq!(extent.offset, offset, "an extent begins where asked");
        assert!(extent.len > 0 && extent.end() <= size, "{extent:?}");
    }
}

/// One step of a workload.
#[derive(Debug, Clone)]
pub enum Step {
    Write(u64, Vec<u8>),
    Zero(Range<u64>),
    Discard(Range<u64>),
    Flush,
}

impl Step {
    /// Chooses a step: small and unaligned, by sectors, whole units, across units.
    pub fn random(rng: &mut Rng, size: u64, unit: u64) -> Self {
        let range = random_range(rng, size, unit);
        match rng.below(0..10) {
            0 => Step::Zero(range),
            1 => Step::Discard(range),
            2 => Step::Flush,
            _ => Step::Write(range.start, rng.bytes((range.end - range.start) as usize)),
        }
    }

    pub fn run(&self, image: &dyn BlockImage) -> Result<()> {
        match self {
            Step::Write(offset, bytes) => image.write_at(*offset, bytes),
            Step::Zero(range) => image.write_zeroes(range.clone()),
            Step::Discard(range) => image.discard(range.clone()),
            Step::Flush => image.flush(),
        }
    }

    /// Returns the bytes it touches.
    pub fn range(&self) -> Range<usize> {
        match self {
            Step::Write(offset, bytes) => *offset as usize..*offset as usize + bytes.len(),
            Step::Zero(range) | Step::Discard(range) => range.start as usize..range.end as usize,
            Step::Flush => 0..0,
        }
    }

    /// Returns what it makes of byte `at`, which it touches.
    fn value(&self, at: usize) -> u8 {
        match self {
            Step::Write(offset, bytes) => bytes[at - *offset as usize],
            _ => 0,
        }
    }

    /// Returns whether it makes `bytes` of the piece at `at`.
    fn makes(&self, at: usize, bytes: &[u8]) -> bool {
        let range = self.range();
        if range.start > at || at + bytes.len() > range.end {
            return false;
        }
        match self {
            Step::Write(offset, written) => {
                written[at - *offset as usize..][..bytes.len()] == *bytes
            }
            _ => is_zero(bytes),
        }
    }

    /// Shows it without its bytes.
    pub fn text(&self) -> String {
        match self {
            Step::Write(offset, bytes) => format!("write {offset:#x}+{:#x}", bytes.len()),
            Step::Zero(range) => format!("zero {range:x?}"),
            Step::Discard(range) => format!("discard {range:x?}"),
            Step::Flush => "flush".to_owned(),
        }
    }
}

pub fn random_range(rng: &mut Rng, size: u64, unit: u64) -> Range<u64> {
    let (start, len) = match rng.below(0..6) {
        0 => (rng.below(0..size), rng.below(1..600)),
        1 | 2 => (
            rng.below(0..size) / 512 * 512,
            512 * rng.below(1..(unit / 512).max(2)),
        ),
        3 => (rng.below(0..size) / unit * unit, unit),
        4 => (rng.below(0..size) / unit * unit, unit * rng.below(1..4)),
        _ => (rng.below(0..size), rng.below(1..unit * 2)),
    };
    start..(start + len).min(size)
}

/// What a disk may hold after a failure: its content when the last flush returned, and what was
/// begun since.
#[derive(Clone)]
pub struct History {
    pub flushed: Arc<Vec<u8>>,
    pub since: Vec<Arc<Step>>,
}

impl History {
    /// Panics unless every byte is as it was flushed, or as a later step made it.
    pub fn assert_allows(&self, got: &[u8]) {
        assert_eq!(self.flushed.len(), got.len(), "virtual size");
        for start in (0..got.len()).step_by(512) {
            let end = (start + 512).min(got.len());
            // Byte by byte is slow; nearly always one source explains the whole piece.
            let one_step = |step: &Arc<Step>| step.makes(start, &got[start..end]);
            if self.flushed[start..end] == got[start..end] || self.since.iter().any(one_step) {
                continue;
            }
            for (at, byte) in (start..).zip(&got[start..end]) {
                assert!(
                    self.allows(at, *byte),
                    "byte {at:#x} is {byte:#04x}: it was {:#04x} at the last flush, since then: {}",
                    self.flushed[at],
                    self.touching(at)
                );
            }
        }
    }

    fn allows(&self, at: usize, byte: u8) -> bool {
        self.flushed[at] == byte
            || self
                .since
                .iter()
                .any(|step| step.range().contains(&at) && step.value(at) == byte)
    }

    fn touching(&self, at: usize) -> String {
        let texts: Vec<_> = self
            .since
            .iter()
            .filter(|step| step.range().contains(&at))
            .map(|step| step.text())
            .collect();
        if texts.is_empty() {
            "nothing touched it".to_owned()
        } else {
            texts.join(", ")
        }
    }
}

/// What a healthy disk holds, step by step.
pub struct Model {
    pub bytes: Vec<u8>,
}

impl Model {
    /// Does a step on the image and in the model. A discard may zero or keep each byte, never
    /// show anything else; the model takes what it did.
    pub fn step(&mut self, image: &dyn BlockImage, step: &Step) {
        let _context = Context(step.text());
        step.run(image).expect("a step succeeds");
        let range = step.range();
        match step {
            Step::Write(_, bytes) => self.bytes[range].copy_from_slice(bytes),
            Step::Zero(_) => self.bytes[range].fill(0),
            Step::Discard(_) => {
                let mut got = vec![0; range.len()];
                image.read_at(range.start as u64, &mut got).expect("reads");
                let old = &self.bytes[range.clone()];
                assert!(
                    got.iter()
                        .zip(old)
                        .all(|(new, old)| *new == 0 || new == old),
                    "discarded bytes read as neither zero nor before"
                );
                self.bytes[range].copy_from_slice(&got);
            }
            Step::Flush => {}
        }
    }
}

/// Checks the image's structure: no corruption, and no leaks unless allowed.
pub fn assert_sound(subject: &dyn Subject, folder: &FaultFolder, name: &str, leaks_allowed: bool) {
    let Some(report) = subject.check(folder, name).expect("check runs") else {
        return;
    };
    assert!(
        report.corruptions.is_empty(),
        "check found: {:#?}",
        report.corruptions
    );
    assert!(
        leaks_allowed || report.n_leaks == 0,
        "check found {} leaks",
        report.n_leaks
    );
}
