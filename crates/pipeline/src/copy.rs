//! Copying an image into a sink.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use hako_block::{BlockImage, Cancel, Encode, Error, ExtentKind, Result, Sink, is_zero};

use crate::fingerprint::{Chunk, Fold, take_chunks};
use crate::ordered::{Crew, ordered};
use crate::plan::{Run, Step, Steps, View, Walk, push_run, within};
use crate::rate::Bucket;
use crate::{CopyOptions, Fingerprint};

/// What a copy moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyReport {
    /// Bytes delivered as data.
    pub data_bytes: u64,
    /// All other bytes of the disk: zeros and holes.
    pub zero_bytes: u64,
    /// Fingerprint of what was delivered, if it was asked for.
    pub fingerprint: Option<Fingerprint>,
}

/// Copies `source` into `sink`, a disk of `virtual_size` bytes: at least the source's size; the
/// rest is zero. The sink is finished only when all of it was delivered, and dropped otherwise.
pub fn copy(
    source: &dyn BlockImage,
    sink: Box<dyn Sink + '_>,
    virtual_size: u64,
    options: &CopyOptions<'_>,
) -> Result<CopyReport> {
    let source_size = source.info().virtual_size;
    if virtual_size < source_size {
        return Err(Error::invalid(format!(
            "a disk of {source_size} bytes does not fit into one of {virtual_size}"
        )));
    }
    copy_first(source, sink, virtual_size, options)
}

/// Copies the first `virtual_size` bytes of `source`, and zeros for those it does not have.
pub(crate) fn copy_first(
    source: &dyn BlockImage,
    mut sink: Box<dyn Sink + '_>,
    virtual_size: u64,
    options: &CopyOptions<'_>,
) -> Result<CopyReport> {
    let view = view_of(source, &*sink, virtual_size, options)?;
    options.progress.total(virtual_size);
    let encoder = sink.encoder();
    let mut delivery = Delivery {
        has_encoder: encoder.is_some(),
        sink: &mut *sink,
        zeros: 0..0,
        bucket: options.rate.map(Bucket::new),
        fold: options.fingerprint.then(Fold::new),
        data_bytes: 0,
        options,
    };
    let mut steps = Steps::new(Walk::new(view, options.cancel), view.window());
    ordered(
        Crew::new(options.threads, view.window() as usize),
        Slot::default,
        |slot: &mut Slot| steps.next(&mut slot.step),
        || {
            let mut worker = Worker::new(view, encoder.clone(), options);
            move |slot: &mut Slot| worker.work(slot)
        },
        |slot| delivery.take(slot).map(ControlFlow::Continue),
    )?;
    delivery.flush_zeros()?;
    options.cancel.check()?;
    let report = CopyReport {
        data_bytes: delivery.data_bytes,
        zero_bytes: virtual_size - delivery.data_bytes,
        fingerprint: delivery.fold.map(|fold| fold.finish(virtual_size)),
    };
    sink.finish()?;
    Ok(report)
}

fn view_of<'a>(
    source: &'a dyn BlockImage,
    sink: &dyn Sink,
    virtual_size: u64,
    options: &CopyOptions<'_>,
) -> Result<View<'a>> {
    let unit = sink.unit_bytes();
    if !unit.is_power_of_two() || !(512..=MAX_UNIT_BYTES).contains(&unit) {
        return Err(Error::invalid(format!("delivery in units of {unit} bytes")));
    }
    Ok(View {
        image: source,
        size: virtual_size,
        unit,
        keep_holes: options.keep_holes,
    })
}

/// Largest unit of delivery: qcow2 clusters end at 2 MiB; a larger one would take too much memory.
const MAX_UNIT_BYTES: u64 = 16 << 20;

/// Most zeros delivered at once: a sink may have to write or hash them, and cancelling must not
/// wait for terabytes of that. A multiple of every unit.
const ZEROS_BYTES: u64 = 64 << 20;

/// One step on its way from plan to sink.
#[derive(Default)]
struct Slot {
    step: Step,
    /// What to deliver: the step's runs, zeros found in data taken out.
    found: Vec<Run>,
    /// The window's bytes; with an encoder, the stored forms of its data units one after another.
    bytes: Vec<u8>,
    /// With an encoder: the length of each stored form.
    stored_lens: Vec<usize>,
    /// Hashes of the window's chunks that are not all zero.
    chunks: Vec<Chunk>,
}

/// Reads, detects zeros, hashes, encodes.
struct Worker<'a> {
    view: View<'a>,
    encoder: Option<Arc<dyn Encode>>,
    cancel: &'a Cancel,
    detect_zeros: bool,
    fingerprint: bool,
    /// The window's bytes while they are encoded.
    plain: Vec<u8>,
    /// One stored form.
    stored: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(view: View<'a>, encoder: Option<Arc<dyn Encode>>, options: &CopyOptions<'a>) -> Self {
        Self {
            view,
            encoder,
            cancel: options.cancel,
            detect_zeros: options.detect_zeros,
            fingerprint: options.fingerprint,
            plain: Vec::new(),
            stored: Vec::new(),
        }
    }

    fn work(&mut self, slot: &mut Slot) -> Result<()> {
        self.cancel.check()?;
        slot.found.clear();
        slot.chunks.clear();
        let range = slot.step.range();
        if !slot.step.has_data() {
            slot.found.extend(slot.step.runs.iter().cloned());
            return Ok(());
        }
        let mut plain = std::mem::take(&mut self.plain);
        let bytes = match self.encoder {
            Some(_) => &mut plain,
            None => &mut slot.bytes,
        };
        if bytes.is_empty() {
            bytes.resize(self.view.window() as usize, 0);
        }
        for run in &slot.step.runs {
            self.read_run(run, range.start, bytes, &mut slot.found)?;
        }
        if self.fingerprint {
            take_chunks(&slot.found, range.start, bytes, &mut slot.chunks);
        }
        if let Some(encoder) = self.encoder.clone() {
            slot.bytes.clear();
            slot.stored_lens.clear();
            let result = self.encode(&*encoder, range.start, &plain, slot);
            self.plain = plain;
            result?;
        }
        Ok(())
    }

    fn read_run(
        &self,
        run: &Run,
        start: u64,
        bytes: &mut [u8],
        found: &mut Vec<Run>,
    ) -> Result<()> {
        if run.kind != ExtentKind::Data {
            push_run(found, run.clone());
            return Ok(());
        }
        let bytes = &mut bytes[within(start, &run.range)];
        self.view.read(run.range.start, bytes)?;
        if !self.detect_zeros {
            push_run(found, run.clone());
            return Ok(());
        }
        let mut offset = run.range.start;
        for unit in bytes.chunks(self.view.unit as usize) {
            let end = offset + unit.len() as u64;
            let kind = if is_zero(unit) {
                ExtentKind::Zero
            } else {
                ExtentKind::Data
            };
            let range = offset..end;
            push_run(found, Run { range, kind });
            offset = end;
        }
        Ok(())
    }

    fn encode(
        &mut self,
        encoder: &dyn Encode,
        start: u64,
        plain: &[u8],
        slot: &mut Slot,
    ) -> Result<()> {
        let unit_bytes = self.view.unit as usize;
        for run in slot.found.iter().filter(|run| run.kind == ExtentKind::Data) {
            let units = plain[within(start, &run.range)].chunks(unit_bytes);
            for (unit, offset) in units.zip((run.range.start..).step_by(unit_bytes)) {
                self.stored.clear();
                encoder.encode(offset, unit, &mut self.stored)?;
                slot.bytes.extend_from_slice(&self.stored);
                slot.stored_lens.push(self.stored.len());
            }
        }
        Ok(())
    }
}

/// The calling thread's part: paces, delivers, counts.
struct Delivery<'a, 'o> {
    sink: &'a mut dyn Sink,
    has_encoder: bool,
    /// Zeros not delivered yet: more may follow.
    zeros: Range<u64>,
    bucket: Option<Bucket>,
    fold: Option<Fold>,
    data_bytes: u64,
    options: &'a CopyOptions<'o>,
}

impl Delivery<'_, '_> {
    fn take(&mut self, slot: &mut Slot) -> Result<()> {
        self.options.cancel.check()?;
        let start = slot.step.range().start;
        let mut encoded = Encoded {
            bytes: &slot.bytes,
            lens: slot.stored_lens.iter(),
        };
        for run in &slot.found {
            match run.kind {
                ExtentKind::Hole => {}
                ExtentKind::Zero => {
                    self.zero(run.range.clone())?;
                    continue; // Counted when delivered.
                }
                ExtentKind::Data => {
                    self.flush_zeros()?;
                    self.pace(run.len())?;
                    if self.has_encoder {
                        self.encoded(&run.range, &mut encoded)?;
                    } else {
                        let bytes = &slot.bytes[within(start, &run.range)];
                        self.sink.data(run.range.start, bytes)?;
                    }
                    self.data_bytes += run.len();
                }
            }
            self.options.progress.advance(run.len());
        }
        if let Some(fold) = &mut self.fold {
            fold.add(&slot.chunks);
        }
        Ok(())
    }

    fn encoded(&mut self, range: &Range<u64>, encoded: &mut Encoded<'_>) -> Result<()> {
        let unit = self.sink.unit_bytes() as usize;
        for offset in range.clone().step_by(unit) {
            if let Some(bytes) = encoded.next() {
                self.sink.encoded(offset, bytes)?;
            }
        }
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        if self.zeros.end == range.start && !self.zeros.is_empty() {
            self.zeros.end = range.end;
            return Ok(());
        }
        self.flush_zeros()?;
        self.zeros = range;
        Ok(())
    }

    fn flush_zeros(&mut self) -> Result<()> {
        let zeros = std::mem::replace(&mut self.zeros, 0..0);
        let mut offset = zeros.start;
        while offset < zeros.end {
            self.options.cancel.check()?;
            let end = zeros.end.min(offset.saturating_add(ZEROS_BYTES));
            self.sink.zero(offset..end)?;
            self.options.progress.advance(end - offset);
            offset = end;
        }
        Ok(())
    }

    fn pace(&mut self, len: u64) -> Result<()> {
        match &mut self.bucket {
            Some(bucket) => bucket.take(len, self.options.cancel),
            None => Ok(()),
        }
    }
}

/// The stored forms of a window, taken one after another.
struct Encoded<'a> {
    bytes: &'a [u8],
    lens: std::slice::Iter<'a, usize>,
}

impl<'a> Iterator for Encoded<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (unit, rest) = self.bytes.split_at_checked(*self.lens.next()?)?;
        self.bytes = rest;
        Some(unit)
    }
}

#[cfg(test)]
mod tests;
