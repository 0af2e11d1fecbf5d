//! Comparing two disks.

use std::ops::ControlFlow;

use hako_block::{BlockImage, ExtentKind, Result, is_zero};

use crate::CopyOptions;
use crate::ordered::{Crew, ordered};
use crate::plan::{Kind, Run, Runs, Step, Steps, View, Walk, within};

/// Small enough that both sides of a window stay in a core's cache while they are compared.
const WINDOW: u64 = 256 << 10;

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// Whether, and where first, they differ.
    pub verdict: Verdict,
    /// Virtual size of the first disk.
    pub size_a: u64,
    /// Virtual size of the second disk.
    pub size_b: u64,
}

/// Whether, and where first, two disks differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They do not. If the sizes differ, the larger one goes on with zeros.
    Same,
    /// The byte at this guest offset differs.
    ContentDiffers {
        /// Guest offset in bytes.
        offset: u64,
    },
    /// From this guest offset on, one stores data and the other does not. Only if strict.
    AllocationDiffers {
        /// Guest offset in bytes.
        offset: u64,
        /// Whether it is the first disk that stores it.
        stored_in_a: bool,
    },
    /// The virtual sizes differ. Only if strict.
    SizesDiffer,
}

/// Compares two disks. The smaller one counts as followed by zeros, unless `strict`: then sizes
/// and allocation (stored or not) must be the same too. The offset is that of the first difference.
pub fn compare(
    a: &dyn BlockImage,
    b: &dyn BlockImage,
    strict: bool,
    options: &CopyOptions<'_>,
) -> Result<Comparison> {
    let (size_a, size_b) = (a.info().virtual_size, b.info().virtual_size);
    let found = |verdict| Comparison {
        verdict,
        size_a,
        size_b,
    };
    if strict && size_a != size_b {
        return Ok(found(Verdict::SizesDiffer));
    }
    let size = size_a.max(size_b);
    let [a, b] = [a, b].map(|image| View {
        image,
        size,
        unit: 512,
        keep_holes: false,
    });
    options.progress.total(size);
    let walk = [a, b].map(|view| Ahead::new(Walk::new(view, options.cancel)));
    let mut steps = Steps::new(PairWalk(walk, 0), WINDOW);
    let mut verdict = Verdict::Same;
    ordered(
        Crew::new(options.threads, 2 * WINDOW as usize),
        Slot::default,
        |slot: &mut Slot| steps.next(&mut slot.step),
        || {
            move |slot: &mut Slot| {
                options.cancel.check()?;
                slot.compare(a, b, strict)
            }
        },
        |slot| {
            options.cancel.check()?;
            verdict = slot.verdict;
            let range = slot.step.range();
            options.progress.advance(range.end - range.start);
            Ok(match verdict {
                Verdict::Same => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            })
        },
    )?;
    Ok(found(verdict))
}

/// Which of the two disks store data in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    a: bool,
    b: bool,
}

impl Kind for Stored {
    fn is_data(self) -> bool {
        self.a || self.b
    }
}

/// A walk whose current run can be used up piece by piece.
struct Ahead<'a> {
    walk: Walk<'a>,
    current: Option<Run>,
}

impl<'a> Ahead<'a> {
    fn new(walk: Walk<'a>) -> Self {
        Self {
            walk,
            current: None,
        }
    }

    /// Returns the current run: where it ends and whether it is stored.
    fn peek(&mut self) -> Result<Option<(u64, bool)>> {
        if self.current.is_none() {
            self.current = self.walk.next()?;
        }
        let current = self.current.as_ref();
        Ok(current.map(|run| (run.range.end, run.kind == ExtentKind::Data)))
    }

    fn pass(&mut self, offset: u64) {
        self.current.take_if(|run| run.range.end <= offset);
    }
}

/// Both extent maps, walked together.
struct PairWalk<'a>([Ahead<'a>; 2], u64);

impl Runs for PairWalk<'_> {
    type Kind = Stored;

    fn next(&mut self) -> Result<Option<Run<Stored>>> {
        let [a, b] = &mut self.0;
        let (Some((end_a, stored_a)), Some((end_b, stored_b))) = (a.peek()?, b.peek()?) else {
            return Ok(None);
        };
        let (start, end) = (self.1, end_a.min(end_b));
        a.pass(end);
        b.pass(end);
        self.1 = end;
        Ok(Some(Run {
            range: start..end,
            kind: Stored {
                a: stored_a,
                b: stored_b,
            },
        }))
    }
}

struct Slot {
    step: Step<Stored>,
    bytes_a: Vec<u8>,
    bytes_b: Vec<u8>,
    verdict: Verdict,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            step: Step::default(),
            bytes_a: Vec::new(),
            bytes_b: Vec::new(),
            verdict: Verdict::Same,
        }
    }
}

impl Slot {
    fn compare(&mut self, a: View<'_>, b: View<'_>, strict: bool) -> Result<()> {
        self.verdict = Verdict::Same;
        let start = self.step.range().start;
        for run in self.step.runs.iter().filter(|run| run.kind.is_data()) {
            let one_sided = run.kind.a != run.kind.b;
            if strict && one_sided {
                self.verdict = Verdict::AllocationDiffers {
                    offset: run.range.start,
                    stored_in_a: run.kind.a,
                };
                return Ok(());
            }
            let range = within(start, &run.range);
            let read = |view: View<'_>, bytes: &mut Vec<u8>| {
                bytes.resize(WINDOW as usize, 0);
                view.read(run.range.start, &mut bytes[range.clone()])
            };
            let difference = match run.kind {
                Stored { a: true, b: true } => {
                    read(a, &mut self.bytes_a)?;
                    read(b, &mut self.bytes_b)?;
                    first_difference(&self.bytes_a[range.clone()], &self.bytes_b[range.clone()])
                }
                Stored { a: true, .. } => {
                    read(a, &mut self.bytes_a)?;
                    first_set(&self.bytes_a[range.clone()])
                }
                Stored { .. } => {
                    read(b, &mut self.bytes_b)?;
                    first_set(&self.bytes_b[range.clone()])
                }
            };
            if let Some(at) = difference {
                self.verdict = Verdict::ContentDiffers {
                    offset: run.range.start + at as u64,
                };
                return Ok(());
            }
        }
        Ok(())
    }
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None;
    }
    a.iter().zip(b).position(|(a, b)| a != b)
}

fn first_set(bytes: &[u8]) -> Option<usize> {
    if is_zero(bytes) {
        return None;
    }
    bytes.iter().position(|byte| *byte != 0)
}

#[cfg(test)]
mod tests {
    use hako_block::{Cancel, NoProgress};

    use super::*;
    use crate::testing::{FakeImage, Random};

    fn verdict(a: &FakeImage, b: &FakeImage, strict: bool) -> Verdict {
        let cancel = Cancel::default();
        let mut verdicts = [1, 4].map(|threads| {
            let options = CopyOptions {
                threads,
                ..CopyOptions::new(&NoProgress, &cancel)
            };
            compare(a, b, strict, &options).unwrap().verdict
        });
        assert_eq!(verdicts[0], verdicts[1]);
        std::mem::replace(&mut verdicts[0], Verdict::Same)
    }

    #[test]
    fn allocation_and_trailing_zeros_do_not_matter() {
        for seed in 0..6 {
            let image = FakeImage::random(&mut Random::new(seed), 3 << 20);
            let mut longer = image.content().to_vec();
            longer.resize(longer.len() + 70_000, 0);
            assert_eq!(verdict(&image, &image, true), Verdict::Same);
            assert_eq!(verdict(&image, &image.all_data(), false), Verdict::Same);
            let longer = FakeImage::of_data(longer);
            assert_eq!(verdict(&image, &longer, false), Verdict::Same);
            assert_eq!(verdict(&image, &longer, true), Verdict::SizesDiffer);
        }
    }

    #[test]
    fn first_differing_byte_is_found_whatever_stores_it() {
        for seed in 0..15 {
            let mut random = Random::new(seed);
            let image = FakeImage::random(&mut random, 3 << 20);
            let mut content = image.content().to_vec();
            let first = random.below(content.len() as u64);
            content[first as usize] ^= 0x40;
            for _ in 0..5 {
                let later = first + random.below(content.len() as u64 - first);
                content[later as usize] ^= 1;
            }
            let other = FakeImage::of_data(content);
            let expected = Verdict::ContentDiffers { offset: first };
            assert_eq!(verdict(&image, &other, false), expected);
            assert_eq!(verdict(&other, &image, false), expected);
        }
    }

    #[test]
    fn nonzero_tail_of_the_larger_disk_is_a_difference() {
        let small = FakeImage::of_data(vec![1; 1000]);
        let mut content = vec![1; 1000];
        content.resize(5000, 0);
        content[4999] = 1;
        let large = FakeImage::of_data(content);
        let expected = Verdict::ContentDiffers { offset: 4999 };
        assert_eq!(verdict(&small, &large, false), expected);
    }

    #[test]
    fn strict_finds_where_allocation_differs_first() {
        let mut content = vec![0; 1 << 20];
        content[700_000] = 1;
        let image = FakeImage::with_extents(
            content.clone(),
            &[
                (0, 65536, ExtentKind::Zero),
                (65536, 524_288, ExtentKind::Hole),
                (589_824, 458_752, ExtentKind::Data),
            ],
        );
        let full = FakeImage::of_data(content);
        let expected = |stored_in_a| Verdict::AllocationDiffers {
            offset: 0,
            stored_in_a,
        };
        assert_eq!(verdict(&image, &full, true), expected(false));
        assert_eq!(verdict(&full, &image, true), expected(true));
    }
}
