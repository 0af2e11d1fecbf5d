use std::sync::Mutex;

use hako_block::{ErrorKind, NoProgress};

use super::*;
use crate::testing::{FakeImage, Random};

/// What a sink was told, kept where the test can see it.
#[derive(Default)]
struct Log {
    events: Vec<(Range<u64>, ExtentKind)>,
    content: Vec<u8>,
    is_finished: bool,
}

struct LogSink<'a> {
    log: &'a Mutex<Log>,
    unit: u64,
    size: u64,
    encoder: Option<Arc<dyn Encode>>,
    fail_at: Option<u64>,
}

impl LogSink<'_> {
    fn note(&self, range: Range<u64>, kind: ExtentKind, bytes: Option<&[u8]>) -> Result<()> {
        let mut log = self.log.lock().unwrap();
        if let Some((last, _)) = log.events.last() {
            assert!(last.end <= range.start, "ascending: {last:?}, {range:?}");
        }
        assert!(range.start < range.end && range.end <= self.size);
        assert_eq!(range.start % self.unit, 0);
        assert!(range.end.is_multiple_of(self.unit) || range.end == self.size);
        if self.fail_at.is_some_and(|at| range.contains(&at)) {
            return Err(Error::new(ErrorKind::NoSpace, "full"));
        }
        if let Some(bytes) = bytes {
            log.content[range.start as usize..range.end as usize].copy_from_slice(bytes);
        }
        log.events.push((range, kind));
        Ok(())
    }
}

impl Sink for LogSink<'_> {
    fn unit_bytes(&self) -> u64 {
        self.unit
    }

    fn encoder(&self) -> Option<Arc<dyn Encode>> {
        self.encoder.clone()
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        assert!(self.encoder.is_none());
        self.note(
            offset..offset + bytes.len() as u64,
            ExtentKind::Data,
            Some(bytes),
        )
    }

    fn encoded(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let plain = decode(offset, bytes);
        assert!(plain.len() as u64 <= self.unit);
        self.note(
            offset..offset + plain.len() as u64,
            ExtentKind::Data,
            Some(&plain),
        )
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.note(range, ExtentKind::Zero, None)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.log.lock().unwrap().is_finished = true;
        Ok(())
    }
}

/// Run lengths behind the unit's offset: the stored form has another size than the unit.
struct RunLengths;

impl Encode for RunLengths {
    fn encode(&self, offset: u64, unit: &[u8], out: &mut Vec<u8>) -> Result<()> {
        assert!(out.is_empty());
        out.extend(offset.to_le_bytes());
        for run in unit.chunk_by(|a, b| a == b) {
            out.extend((run.len() as u32).to_le_bytes());
            out.push(run[0]);
        }
        Ok(())
    }
}

fn decode(offset: u64, stored: &[u8]) -> Vec<u8> {
    let (at, runs) = stored.split_at(8);
    assert_eq!(at, offset.to_le_bytes());
    let mut plain = Vec::new();
    for run in runs.chunks(5) {
        let len = u32::from_le_bytes(run[..4].try_into().unwrap());
        plain.resize(plain.len() + len as usize, run[4]);
    }
    plain
}

/// One copy to try.
struct Case {
    unit: u64,
    threads: usize,
    encode: bool,
    keep_holes: bool,
    detect_zeros: bool,
    fail_at: Option<u64>,
}

impl Case {
    fn random(random: &mut Random) -> Self {
        Self {
            unit: 512 << random.below(13),
            threads: 1 + random.below(5) as usize,
            encode: random.below(2) == 0,
            keep_holes: random.below(2) == 0,
            detect_zeros: random.below(3) > 0,
            fail_at: None,
        }
    }

    fn run(&self, image: &FakeImage, size: u64, cancel: &Cancel) -> (Result<CopyReport>, Log) {
        let log = Mutex::new(Log {
            content: vec![0; size as usize],
            ..Log::default()
        });
        let sink = LogSink {
            log: &log,
            unit: self.unit,
            size,
            encoder: self.encode.then(|| Arc::new(RunLengths) as Arc<dyn Encode>),
            fail_at: self.fail_at,
        };
        let options = CopyOptions {
            threads: self.threads,
            fingerprint: true,
            keep_holes: self.keep_holes,
            detect_zeros: self.detect_zeros,
            ..CopyOptions::new(&NoProgress, cancel)
        };
        let result = copy(image, Box::new(sink), size, &options);
        (result, log.into_inner().unwrap())
    }

    /// Checks that everything was delivered as what it is.
    fn assert_delivered(&self, image: &FakeImage, size: u64, log: &Log) {
        let mut position = 0;
        for (range, kind) in &log.events {
            if position < range.start {
                self.assert_hole(image, position..range.start);
            }
            let stored = range.start.min(image.virtual_size())..range.end.min(image.virtual_size());
            let content = &image.content()[stored.start as usize..stored.end as usize];
            if *kind == ExtentKind::Zero {
                assert!(is_zero(content));
            } else if self.detect_zeros && self.encode {
                assert!(!is_zero(content), "a unit of zeros delivered as data");
            }
            position = range.end;
        }
        if position < size {
            self.assert_hole(image, position..size);
        }
    }

    fn assert_hole(&self, image: &FakeImage, gap: Range<u64>) {
        assert!(self.keep_holes, "not delivered: {gap:?}");
        let kinds = image.kinds_in(gap.start, gap.end);
        assert!(kinds.iter().all(|kind| *kind == ExtentKind::Hole));
    }
}

#[test]
fn every_byte_arrives_once_in_order_and_in_whole_units() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let image = FakeImage::random(&mut random, 3 << 20);
        let case = Case::random(&mut random);
        let size = image.virtual_size().next_multiple_of(512) + 512 * random.below(3000);
        let cancel = Cancel::default();
        let (result, log) = case.run(&image, size, &cancel);
        let report = result.unwrap();
        let mut content = image.content().to_vec();
        content.resize(size as usize, 0);
        assert!(log.content == content, "seed {seed}");
        assert!(log.is_finished);
        case.assert_delivered(&image, size, &log);
        assert_eq!(report.data_bytes + report.zero_bytes, size);
        let options = CopyOptions::new(&NoProgress, &cancel);
        let expected = crate::fingerprint(&FakeImage::of_data(content), size, &options).unwrap();
        assert_eq!(report.fingerprint, Some(expected), "seed {seed}");
    }
}

#[test]
fn failing_read_stops_the_copy_before_the_sink_is_finished() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let mut image = FakeImage::random(&mut random, 3 << 20).all_data();
        let at = random.below(image.virtual_size());
        image.fail_reads = vec![at];
        let case = Case::random(&mut random);
        let size = image.virtual_size();
        let (result, log) = case.run(&image, size, &Cancel::default());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Io);
        assert!(!log.is_finished);
        assert!(log.events.iter().all(|(range, _)| range.end <= at));
    }
}

#[test]
fn failing_sink_stops_the_copy_and_its_error_is_returned() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let image = FakeImage::of_data(vec![1; 5 << 20]);
        let mut case = Case::random(&mut random);
        case.fail_at = Some(random.below(5 << 20));
        let (result, log) = case.run(&image, 5 << 20, &Cancel::default());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::NoSpace);
        assert!(!log.is_finished);
    }
}

#[test]
fn cancelled_copy_is_not_finished() {
    let cancel = Cancel::default();
    cancel.cancel();
    let case = Case::random(&mut Random::new(1));
    for image in [
        FakeImage::of_data(vec![1; 100_000]),
        FakeImage::of_data(Vec::new()),
    ] {
        let (result, log) = case.run(&image, 131_072, &cancel);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(!log.is_finished);
    }
}

#[test]
fn empty_disk_is_finished_with_nothing_delivered() {
    let image = FakeImage::with_extents(Vec::new(), &[]);
    let case = Case::random(&mut Random::new(1));
    let (result, log) = case.run(&image, 0, &Cancel::default());
    result.unwrap();
    assert!(log.is_finished && log.events.is_empty());
}

#[test]
fn target_smaller_than_the_source_is_refused() {
    let image = FakeImage::of_data(vec![1; 1024]);
    let case = Case::random(&mut Random::new(1));
    let (result, log) = case.run(&image, 512, &Cancel::default());
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(!log.is_finished);
}
