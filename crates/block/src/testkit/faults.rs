//! The unhealthy half of the suite: reads and writes that fail, a disk that is full, cuts. No
//! failure may turn into wrong bytes.

use std::sync::Arc;

use super::cut::{CutImage, cut_images};
use super::fault::Fault;
use super::model::{
    Context, Geometry, History, Model, Start, Step, assert_same, assert_sound, deliver, main_name,
    random_pieces, read_all,
};
use super::{Effort, FaultFolder, Rng, Subject};
use crate::{Access, BlockImage, Result};

pub fn run(subject: &dyn Subject, effort: Effort) {
    let _context = Context(subject.name());
    let geometry = Geometry::of(subject);
    for seed in 0..effort.n_seeds {
        let _context = Context(format!("seed {seed}"));
        let start = Start::build(subject, geometry.size, seed);
        failing_creation(subject, geometry, effort, seed);
        existing(subject, geometry, effort, seed, &start);
    }
}

/// Lets the reads and writes of an image that exists fail.
pub fn run_existing(subject: &dyn Subject, start: &Start, effort: Effort) {
    let geometry = Geometry::of_existing(subject, start);
    for seed in 0..effort.n_seeds {
        let _context = Context(format!("seed {seed}"));
        existing(subject, geometry, effort, seed, start);
    }
}

fn existing(subject: &dyn Subject, geometry: Geometry, effort: Effort, seed: u64, start: &Start) {
    failing_reads(subject, effort, start.copy());
    if subject.traits().writable {
        failing_writes(subject, geometry, effort, seed, start.copy());
        cuts(subject, geometry, effort, seed, start.copy());
    }
}

/// Returns at most `effort.n_faults` places below `n`, evenly spread, the first ones among them.
fn places(n: u64, effort: Effort) -> impl Iterator<Item = u64> {
    let step = n.div_ceil(effort.n_faults).max(1);
    (0..n).filter(move |at| *at < 10 || at % step == 0)
}

fn failing_reads(subject: &dyn Subject, effort: Effort, start: Start) {
    let _context = Context("failing_reads".to_owned());
    let name = main_name(subject);
    let Start { folder, content } = start;
    let read = || -> Result<()> {
        let image = subject.open(&folder, &name, Access::ReadOnly)?;
        let size = image.info().virtual_size;
        let mut failed = None;
        let mut offset = 0;
        while offset < size {
            let len = 50_000.min(size - offset) as usize;
            let mut got = vec![0; len];
            match image.read_at(offset, &mut got) {
                Ok(()) => {
                    let place = offset as usize..offset as usize + len;
                    assert_same(&content[place], &got, "a read that succeeded");
                }
                Err(error) => failed = Some(error),
            }
            offset += len as u64;
        }
        failed.map_or(Ok(()), Err)
    };
    folder.set_fault(None);
    read().expect("reads without a fault");
    let (_, n_reads) = folder.counts();
    for n in places(n_reads, effort) {
        for fault in [Fault::ReadEio(n), Fault::ReadShort(n)] {
            let _context = Context(format!("{fault:?}"));
            folder.set_fault(Some(fault));
            let _ = read();
        }
    }
}

fn failing_creation(subject: &dyn Subject, geometry: Geometry, effort: Effort, seed: u64) {
    let _context = Context("failing_creation".to_owned());
    let name = main_name(subject);
    let create = |folder: &FaultFolder| -> Result<()> {
        let sink = subject.create(folder, &name, geometry.size, None)?;
        let mut rng = Rng::new(seed);
        let (pieces, _) = random_pieces(&mut rng, geometry.size, sink.unit_bytes(), &[]);
        deliver(sink, &pieces)
    };
    let folder = FaultFolder::default();
    folder.set_fault(None);
    create(&folder).expect("creates without a fault");
    let (n_changes, _) = folder.counts();
    for n in places(n_changes, effort) {
        for fault in [Fault::WriteEio(n), Fault::DiskFull(n)] {
            let _context = Context(format!("{fault:?}"));
            let folder = FaultFolder::default();
            folder.set_fault(Some(fault));
            let result = create(&folder);
            assert!(
                result.is_err() || !folder.fired(),
                "a failed write went unnoticed"
            );
        }
    }
}

/// A seeded workload that ends with a flush.
fn workload(geometry: Geometry, effort: Effort, rng: &mut Rng) -> Vec<Arc<Step>> {
    let mut steps: Vec<_> = (0..effort.n_steps)
        .map(|_| Arc::new(Step::random(rng, geometry.size, geometry.unit)))
        .collect();
    steps.push(Arc::new(Step::Flush));
    steps
}

fn failing_writes(
    subject: &dyn Subject,
    geometry: Geometry,
    effort: Effort,
    seed: u64,
    start: Start,
) {
    let _context = Context("failing_writes".to_owned());
    let mut rng = Rng::new(seed);
    let name = main_name(subject);
    let original = start.folder;
    let content = Arc::new(start.content);
    let steps = workload(geometry, effort, &mut rng);

    let folder = original.copy();
    folder.set_fault(None);
    let n_errors = Faulty::run(subject, &folder, &content, &steps).n_errors;
    assert_eq!(n_errors, 0, "the workload succeeds without a fault");
    let (n_changes, _) = folder.counts();
    for n in places(n_changes, effort) {
        for fault in [Fault::WriteEio(n), Fault::DiskFull(n)] {
            let _context = Context(format!("{fault:?}"));
            let folder = original.copy();
            folder.set_fault(Some(fault));
            let run = Faulty::run(subject, &folder, &content, &steps);
            folder.set_fault(None);
            let image = subject
                .open(&folder, &name, Access::ReadOnly)
                .expect("opens after a failed write");
            let got = read_all(&*image, &mut rng).expect("reads after a failed write");
            run.history.assert_allows(&got);
            if run.n_errors == 0 {
                assert_same(&run.model, &got, "after a fault that nobody reported");
            }
            drop(image);
            assert_sound(subject, &folder, &name, true);
        }
    }
}

/// A workload in which steps may fail.
struct Faulty {
    history: History,
    /// What the disk holds if every step that succeeded did.
    model: Vec<u8>,
    n_errors: usize,
}

impl Faulty {
    fn run(
        subject: &dyn Subject,
        folder: &FaultFolder,
        content: &Arc<Vec<u8>>,
        steps: &[Arc<Step>],
    ) -> Self {
        let mut run = Self {
            history: History {
                flushed: Arc::clone(content),
                since: Vec::new(),
            },
            model: content.to_vec(),
            n_errors: 0,
        };
        let Ok(image) = subject.open(folder, &main_name(subject), Access::ReadWrite) else {
            run.n_errors += 1;
            return run;
        };
        // Where a failed step, or a discard, leaves open what is there.
        let mut unsure = vec![false; content.len()];
        for step in steps {
            run.step(&*image, step, &mut unsure);
        }
        run
    }

    fn step(&mut self, image: &dyn BlockImage, step: &Arc<Step>, unsure: &mut [bool]) {
        let result = step.run(image);
        self.n_errors += usize::from(result.is_err());
        let range = step.range();
        match (&**step, result) {
            (Step::Flush, Ok(())) => self.flushed(image, unsure),
            (Step::Flush, Err(_)) => {}
            (step_done, result) => {
                self.history.since.push(Arc::clone(step));
                let is_sure = result.is_ok() && !matches!(step_done, Step::Discard(_));
                unsure[range.clone()].fill(!is_sure);
                match step_done {
                    Step::Write(_, bytes) if is_sure => self.model[range].copy_from_slice(bytes),
                    Step::Zero(_) if is_sure => self.model[range].fill(0),
                    _ => {}
                }
            }
        }
    }

    /// After a flush that succeeded the disk holds what it shows, and shows what was written.
    fn flushed(&mut self, image: &dyn BlockImage, unsure: &mut [bool]) {
        let got = read_all(image, &mut Rng::new(1)).expect("reads after a flush");
        self.history.assert_allows(&got);
        for at in 0..got.len() {
            assert!(
                unsure[at] || got[at] == self.model[at],
                "byte {at:#x} lost a write that had succeeded"
            );
        }
        unsure.fill(false);
        self.model.copy_from_slice(&got);
        self.history = History {
            flushed: Arc::new(got),
            since: Vec::new(),
        };
    }
}

/// The histories of a workload by when, in operations of the log, each begins to hold.
type Timeline = Vec<(usize, History)>;

fn cuts(subject: &dyn Subject, geometry: Geometry, effort: Effort, seed: u64, start: Start) {
    let _context = Context("cuts".to_owned());
    let mut rng = Rng::new(seed);
    let Start { folder, content } = start;
    let (before, numbers) = (folder.files(), folder.numbers());
    let steps = workload(geometry, effort, &mut rng);
    let timeline = run_logged(subject, &folder, content, &steps);
    let log = folder.take_log();

    let n_variants = effort.n_cut_variants;
    let mut n_images = 0;
    let mut choices = Rng::new(seed + 1);
    cut_images(&before, &numbers, &log, n_variants, &mut choices, |cut| {
        let _context = Context(format!(
            "a cut after {} operations, lost: {}",
            cut.n_ops, cut.lost
        ));
        // The newest history that had begun; one that begins only with the next operation may
        // have no effect yet, and allows what came before anyway.
        let known = timeline.partition_point(|(begins, _)| *begins <= cut.n_ops);
        let history = &timeline[known.max(1) - 1].1;
        n_images += 1;
        after_cut(subject, geometry, &cut, history, n_images % 5 == 0);
    });
}

/// Runs the workload, noting what each point of the log may show.
fn run_logged(
    subject: &dyn Subject,
    folder: &FaultFolder,
    content: Vec<u8>,
    steps: &[Arc<Step>],
) -> Timeline {
    let image = subject
        .open(folder, &main_name(subject), Access::ReadWrite)
        .expect("opens");
    let mut history = History {
        flushed: Arc::new(content.clone()),
        since: Vec::new(),
    };
    let mut model = Model { bytes: content };
    let mut timeline = vec![(0, history.clone())];
    for step in steps {
        if !matches!(**step, Step::Flush) {
            history.since.push(Arc::clone(step));
            timeline.push((folder.log_len(), history.clone()));
        }
        model.step(&*image, step);
        if matches!(**step, Step::Flush) {
            history = History {
                flushed: Arc::new(model.bytes.clone()),
                since: Vec::new(),
            };
            timeline.push((folder.log_len(), history.clone()));
        }
    }
    timeline
}

/// Opens what a cut left: old or new bytes, sound structure; now and then goes on writing to it.
fn after_cut(
    subject: &dyn Subject,
    geometry: Geometry,
    cut: &CutImage,
    history: &History,
    go_on: bool,
) {
    let name = main_name(subject);
    let mut rng = Rng::new(cut.n_ops as u64);
    let image = match subject.open(&cut.folder, &name, Access::ReadOnly) {
        Ok(image) => image,
        Err(error) => {
            assert!(subject.traits().may_refuse_after_cut, "refused: {error}");
            return;
        }
    };
    let got = read_all(&*image, &mut rng).expect("reads after a cut");
    history.assert_allows(&got);
    drop(image);
    assert_sound(subject, &cut.folder, &name, true);
    if !go_on {
        return;
    }
    let image = subject
        .open(&cut.folder, &name, Access::ReadWrite)
        .expect("opens for writing after a cut");
    let mut model = Model { bytes: got };
    for _ in 0..6 {
        model.step(
            &*image,
            &Step::random(&mut rng, geometry.size, geometry.unit),
        );
    }
    image.flush().expect("flushes after a cut");
    drop(image);
    let image = subject
        .open(&cut.folder, &name, Access::ReadOnly)
        .expect("opens again");
    let got = read_all(&*image, &mut rng).expect("reads again");
    assert_same(&model.bytes, &got, "written after a cut");
    assert_sound(subject, &cut.folder, &name, true);
}
