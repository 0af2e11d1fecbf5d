//! The plan: the extent map of an image as runs of whole units, then as steps of bounded size.

use std::ops::Range;

use hako_block::{BlockImage, Cancel, Error, Extent, ExtentKind, Result};

/// Bytes of a step's window, unless a unit is larger. Also the fingerprint's chunk: windows are
/// aligned, so all data of a chunk is in one step.
pub(crate) const WINDOW_BYTES: u64 = 1 << 20;

/// What tells runs apart.
pub(crate) trait Kind: Copy + PartialEq + Send {
    /// Returns whether such a run must be read.
    fn is_data(self) -> bool;
}

impl Kind for ExtentKind {
    fn is_data(self) -> bool {
        self == ExtentKind::Data
    }
}

/// A run of guest bytes of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run<K = ExtentKind> {
    pub(crate) range: Range<u64>,
    pub(crate) kind: K,
}

impl<K> Run<K> {
    pub(crate) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Gives the runs of a disk in order, without a gap.
pub(crate) trait Runs {
    /// What its runs are told apart by.
    type Kind: Kind;

    /// Returns the next run, or nothing at the end of the disk.
    fn next(&mut self) -> Result<Option<Run<Self::Kind>>>;
}

/// Appends a run, joined with the last where it continues it.
pub(crate) fn push_run<K: Kind>(runs: &mut Vec<Run<K>>, run: Run<K>) {
    match runs.last_mut() {
        Some(last) if last.kind == run.kind && last.range.end == run.range.start => {
            last.range.end = run.range.end;
        }
        _ => runs.push(run),
    }
}

/// What is planned over: an image, seen as a disk of a given size and in units of a given size.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) image: &'a dyn BlockImage,
    /// Size of the disk: what of the image is looked at, or more than it has; the rest is zero.
    pub(crate) size: u64,
    /// A power of two.
    pub(crate) unit: u64,
    /// Whether holes are told from zeros.
    pub(crate) keep_holes: bool,
}

impl View<'_> {
    /// Reads a range of the disk: beyond the image's end are zeros.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let inside = self.image.info().virtual_size.saturating_sub(offset);
        let inside = usize::try_from(inside).unwrap_or(usize::MAX).min(buf.len());
        let (stored, beyond) = buf.split_at_mut(inside);
        beyond.fill(0);
        if stored.is_empty() {
            return Ok(());
        }
        self.image.read_at(offset, stored)
    }

    /// Returns the window's size: whole units, at least [`WINDOW_BYTES`].
    pub(crate) fn window(&self) -> u64 {
        self.unit.max(WINDOW_BYTES)
    }

    fn gap(&self) -> ExtentKind {
        if self.keep_holes {
            ExtentKind::Hole
        } else {
            ExtentKind::Zero
        }
    }
}

/// Walks the extent map as runs of whole units; the last run ends with the disk.
pub(crate) struct Walk<'a> {
    view: View<'a>,
    cancel: &'a Cancel,
    position: u64,
    /// The extent found last: where it begins and ends, and what it is.
    found: Run,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(view: View<'a>, cancel: &'a Cancel) -> Self {
        Self {
            view,
            cancel,
            position: 0,
            found: Run {
                range: 0..0,
                kind: ExtentKind::Hole,
            },
        }
    }

    fn extent_at(&mut self, offset: u64) -> Result<(u64, ExtentKind)> {
        if !self.found.range.contains(&offset) {
            self.found = self.find(offset)?;
        }
        Ok((self.found.range.end, self.found.kind))
    }

    fn find(&self, offset: u64) -> Result<Run> {
        self.cancel.check()?;
        let image_size = self.view.image.info().virtual_size;
        if offset >= image_size {
            return Ok(Run {
                range: offset..self.view.size,
                kind: self.view.gap(),
            });
        }
        let extent = self.view.image.next_extent(offset)?;
        check_extent(&extent, offset, image_size)?;
        let kind = match extent.kind {
            ExtentKind::Hole => self.view.gap(),
            kind => kind,
        };
        Ok(Run {
            range: offset..extent.end().min(self.view.size),
            kind,
        })
    }
}

impl Runs for Walk<'_> {
    type Kind = ExtentKind;

    /// Returns whole units of one kind. A unit that is not all zero or all hole is data: it must
    /// be read.
    fn next(&mut self) -> Result<Option<Run>> {
        let View { size, unit, .. } = self.view;
        let start = self.position;
        if start >= size {
            return Ok(None);
        }
        let (end, mut kind) = self.extent_at(start)?;
        let mut end = if end >= size { size } else { end / unit * unit };
        if end <= start {
            end = start.saturating_add(unit).min(size);
            let mut position = self.found.range.end;
            while position < end {
                let (next, other) = self.extent_at(position)?;
                if other != kind {
                    kind = ExtentKind::Data;
                }
                position = next;
            }
        }
        self.position = end;
        let range = start..end;
        Ok(Some(Run { range, kind }))
    }
}

/// A driver that broke its promise here could make a copy skip bytes or run forever.
fn check_extent(extent: &Extent, offset: u64, image_size: u64) -> Result<()> {
    let end = extent.offset.checked_add(extent.len);
    if extent.offset == offset && extent.len > 0 && end.is_some_and(|end| end <= image_size) {
        return Ok(());
    }
    Err(Error::corrupt(
        "extent map",
        format!(
            "extent {}+{} found at guest offset {offset} of {image_size} bytes",
            extent.offset, extent.len
        ),
    ))
}

/// One step of a plan: a window with data in it, or a run of any length without.
#[derive(Debug)]
pub(crate) struct Step<K = ExtentKind> {
    /// Runs that follow each other without a gap.
    pub(crate) runs: Vec<Run<K>>,
}

impl<K> Default for Step<K> {
    fn default() -> Self {
        Self { runs: Vec::new() }
    }
}

impl<K: Kind> Step<K> {
    /// Returns the guest range that the step covers.
    pub(crate) fn range(&self) -> Range<u64> {
        match (self.runs.first(), self.runs.last()) {
            (Some(first), Some(last)) => first.range.start..last.range.end,
            _ => 0..0,
        }
    }

    /// Returns whether there is anything to read.
    pub(crate) fn has_data(&self) -> bool {
        self.runs.first().is_some_and(|run| run.kind.is_data())
    }
}

/// Returns the part of the buffer of a window that begins at guest offset `start`.
pub(crate) fn within(start: u64, range: &Range<u64>) -> Range<usize> {
    (range.start - start) as usize..(range.end - start) as usize
}

/// Cuts runs into steps.
pub(crate) struct Steps<R: Runs> {
    runs: R,
    window: u64,
    pending: Option<Run<R::Kind>>,
}

impl<R: Runs> Steps<R> {
    /// Cuts `runs` into steps that lie within aligned windows of `window` bytes.
    pub(crate) fn new(runs: R, window: u64) -> Self {
        Self {
            runs,
            window,
            pending: None,
        }
    }

    /// Fills `step` with the next step; returns false at the end. A step with data lies within
    /// one aligned window, begins with data and holds all data of the window.
    pub(crate) fn next(&mut self, step: &mut Step<R::Kind>) -> Result<bool> {
        step.runs.clear();
        let Some(run) = self.take()? else {
            return Ok(false);
        };
        if run.kind.is_data() {
            self.fill_window(run, &mut step.runs)?;
        } else {
            self.fill_gap(run, &mut step.runs)?;
        }
        Ok(true)
    }

    fn take(&mut self) -> Result<Option<Run<R::Kind>>> {
        match self.pending.take() {
            Some(run) => Ok(Some(run)),
            None => self.runs.next(),
        }
    }

    fn fill_gap(&mut self, first: Run<R::Kind>, runs: &mut Vec<Run<R::Kind>>) -> Result<()> {
        let kind = first.kind;
        runs.push(first);
        while let Some(run) = self.take()? {
            if run.kind != kind {
                self.pending = Some(run);
                break;
            }
            push_run(runs, run);
        }
        Ok(())
    }

    fn fill_window(&mut self, first: Run<R::Kind>, runs: &mut Vec<Run<R::Kind>>) -> Result<()> {
        let limit = (first.range.start / self.window + 1).saturating_mul(self.window);
        let mut next = Some(first);
        while let Some(mut run) = next {
            if run.range.start >= limit || (!run.kind.is_data() && run.range.end >= limit) {
                self.pending = Some(run);
                break;
            }
            if run.range.end > limit {
                self.pending = Some(Run {
                    range: limit..run.range.end,
                    kind: run.kind,
                });
                run.range.end = limit;
            }
            push_run(runs, run);
            next = self.take()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeImage, Random};

    fn steps(view: View<'_>) -> Vec<Step> {
        let cancel = Cancel::default();
        let mut steps = Steps::new(Walk::new(view, &cancel), view.window());
        let mut all = Vec::new();
        let mut step = Step::default();
        while steps.next(&mut step).unwrap() {
            all.push(std::mem::take(&mut step));
        }
        all
    }

    #[test]
    fn steps_cover_the_disk_in_whole_units_without_gap_or_overlap() {
        for seed in 0..30 {
            let mut random = Random::new(seed);
            let image = FakeImage::random(&mut random, 3 << 20);
            let unit = 512 << random.below(13);
            let size = image.virtual_size().next_multiple_of(512);
            for keep_holes in [false, true] {
                let view = View {
                    image: &image,
                    size,
                    unit,
                    keep_holes,
                };
                let mut position = 0;
                let mut windows_with_data = std::collections::BTreeSet::new();
                for step in steps(view) {
                    for run in &step.runs {
                        assert_eq!(run.range.start, position);
                        assert!(run.range.end > position);
                        assert!(run.range.end.is_multiple_of(unit) || run.range.end == size);
                        image.assert_kind_fits(run, keep_holes);
                        position = run.range.end;
                    }
                    if step.runs[0].kind == ExtentKind::Data {
                        let (range, window) = (step.range(), view.window());
                        assert_eq!(range.start / window, (range.end - 1) / window);
                        let data = step.runs.iter().filter(|run| run.kind == ExtentKind::Data);
                        for run in data {
                            assert!(
                                windows_with_data.insert(run.range.start / window)
                                    || run.range.start != range.start
                            );
                        }
                    } else {
                        assert_eq!(step.runs.len(), 1);
                    }
                }
                assert_eq!(position, size);
            }
        }
    }
}
