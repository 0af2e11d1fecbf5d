//! Reading everything that an image stores, to find what cannot be read.

use std::ops::ControlFlow;

use hako_block::{BlockImage, Error, Result};

use crate::CopyOptions;
use crate::ordered::{Crew, ordered};
use crate::plan::{Kind, Run, Step, Steps, View, WINDOW_BYTES, Walk, within};

/// Reads all data of `image` and tells `on_error` of each unit that fails: guest offset, length
/// and why. Goes on to the end; errors only if the extent map itself fails or the work is stopped.
pub fn read_all(
    image: &dyn BlockImage,
    options: &CopyOptions<'_>,
    mut on_error: impl FnMut(u64, u64, Error) + Send,
) -> Result<()> {
    let info = image.info();
    let unit = if info.unit_bytes.is_power_of_two() {
        info.unit_bytes.clamp(512, WINDOW_BYTES)
    } else {
        4096
    };
    let view = View {
        image,
        size: info.virtual_size,
        unit,
        keep_holes: false,
    };
    options.progress.total(view.size);
    let mut steps = Steps::new(Walk::new(view, options.cancel), view.window());
    ordered(
        Crew::new(options.threads, view.window() as usize),
        Slot::default,
        |slot: &mut Slot| steps.next(&mut slot.step),
        || {
            |slot: &mut Slot| {
                options.cancel.check()?;
                slot.read(view);
                Ok(())
            }
        },
        |slot| {
            options.cancel.check()?;
            for failure in slot.failures.drain(..) {
                on_error(failure.offset, failure.len, failure.error);
            }
            let range = slot.step.range();
            options.progress.advance(range.end - range.start);
            Ok(ControlFlow::Continue(()))
        },
    )
}

#[derive(Default)]
struct Slot {
    step: Step,
    bytes: Vec<u8>,
    failures: Vec<Failure>,
}

struct Failure {
    offset: u64,
    len: u64,
    error: Error,
}

impl Slot {
    fn read(&mut self, view: View<'_>) {
        if !self.step.has_data() {
            return;
        }
        self.bytes.resize(view.window() as usize, 0);
        let Self {
            step,
            bytes,
            failures,
        } = self;
        let start = step.range().start;
        for run in step.runs.iter().filter(|run| run.kind.is_data()) {
            let bytes = &mut bytes[within(start, &run.range)];
            if view.read(run.range.start, bytes).is_err() {
                read_units(view, run, bytes, failures);
            }
        }
    }
}

fn read_units(view: View<'_>, run: &Run, bytes: &mut [u8], failures: &mut Vec<Failure>) {
    let mut offset = run.range.start;
    for unit in bytes.chunks_mut(view.unit as usize) {
        if let Err(error) = view.read(offset, unit) {
            failures.push(Failure {
                offset,
                len: unit.len() as u64,
                error,
            });
        }
        offset += unit.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use hako_block::{Cancel, ErrorKind, NoProgress};

    use super::*;
    use crate::testing::{FakeImage, Random};

    #[test]
    fn each_unit_that_fails_is_reported_once_and_reading_goes_on() {
        let mut image = FakeImage::random(&mut Random::new(3), 5 << 20).all_data();
        image.fail_reads = vec![70_000, 1 << 20, 4_500_000];
        let cancel = Cancel::default();
        let mut failed = Vec::new();
        let options = CopyOptions::new(&NoProgress, &cancel);
        read_all(&image, &options, |offset, len, error| {
            assert_eq!(error.kind(), ErrorKind::Io);
            failed.push((offset, len));
        })
        .unwrap();
        let unit = image.info().unit_bytes;
        let expected: Vec<_> = image
            .fail_reads
            .iter()
            .map(|at| (at / unit * unit, unit))
            .collect();
        assert_eq!(failed, expected);
    }
}
