//! Sets of bytes as ranges.

use std::ops::Range;

/// Bytes of something: ranges in order that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Returns a set of one range.
    pub fn of(range: Range<u64>) -> Self {
        let mut ranges = Self::default();
        ranges.add(range);
        ranges
    }

    /// Adds the bytes of a range. Cheap for one behind all others.
    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.end < range.start => self.0.push(range),
            Some(last) if last.start <= range.start => last.end = last.end.max(range.end),
            None => self.0.push(range),
            Some(_) => {
                let first = self.0.partition_point(|known| known.end < range.start);
                let end = self.0.partition_point(|known| known.start <= range.end);
                let touched = self.0.get(first..end).unwrap_or_default();
                let start = touched.first().map_or(range.start, |known| known.start);
                let stop = touched.last().map_or(range.end, |known| known.end);
                let joined = start.min(range.start)..stop.max(range.end);
                self.0.splice(first..end.max(first), [joined]);
            }
        }
    }

    /// Adds all bytes of another set.
    pub fn add_all(&mut self, other: &Ranges) {
        for range in &other.0 {
            self.add(range.clone());
        }
    }

    /// Adds the units whose bits are set, `n_bits` of them from the lowest bit of the first byte on:
    /// the first has `unit` bytes at `start`, the others follow.
    pub fn add_bits(&mut self, bits: &[u8], n_bits: u64, start: u64, unit: u64) {
        let place = |bit: u64| start.saturating_add(bit.saturating_mul(unit));
        let mut begun = None;
        let mut next = 0;
        for byte in bits {
            let end = (next + 8).min(n_bits);
            match (byte, begun) {
                (0, None) | (0xff, Some(_)) => next = end,
                _ => {
                    for bit in next..end {
                        let is_set = byte >> (bit - next) & 1 != 0;
                        match (is_set, begun) {
                            (true, None) => begun = Some(bit),
                            (false, Some(first)) => {
                                self.add(place(first)..place(bit));
                                begun = None;
                            }
                            _ => {}
                        }
                    }
                    next = end;
                }
            }
            if next == n_bits {
                break;
            }
        }
        if let Some(first) = begun {
            self.add(place(first)..place(next));
        }
    }

    /// Returns the ranges.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }

    /// Returns whether a byte is in it, and where that ends to be so: never, if nothing follows.
    pub fn run_at(&self, at: u64) -> (bool, u64) {
        let next = self.0.partition_point(|range| range.end <= at);
        match self.0.get(next) {
            Some(range) if range.start <= at => (true, range.end),
            Some(range) => (false, range.start),
            None => (false, u64::MAX),
        }
    }

    /// Returns whether there are no bytes in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many bytes there are in it.
    pub fn n_bytes(&self) -> u64 {
        let lens = self.0.iter().map(|range| range.end - range.start);
        lens.fold(0, u64::saturating_add)
    }

    /// Returns what of it lies in a window.
    #[must_use]
    pub fn within(&self, window: &Range<u64>) -> Self {
        let mut within = Self::default();
        for range in self.touching(window) {
            within.add(range.start.max(window.start)..range.end.min(window.end));
        }
        within
    }

    /// Returns what of a window is not in it.
    #[must_use]
    pub fn gaps(&self, window: &Range<u64>) -> Self {
        let mut gaps = Self::default();
        let mut at = window.start;
        for range in self.touching(window) {
            gaps.add(at..range.start);
            at = range.end;
        }
        gaps.add(at..window.end);
        gaps
    }

    /// Takes bytes out.
    pub fn remove(&mut self, gone: &Ranges) {
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else {
            return;
        };
        let all = first.start..last.end;
        let mut left = Self::default();
        for kept in gone.gaps(&all).iter() {
            left.add_all(&self.within(&kept));
        }
        *self = left;
    }

    fn touching(&self, window: &Range<u64>) -> &[Range<u64>] {
        let first = self.0.partition_point(|range| range.end <= window.start);
        let end = self.0.partition_point(|range| range.start < window.end);
        self.0.get(first..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use hako_block::testkit::Rng;

    use super::*;

    fn bytes(ranges: &Ranges) -> Vec<u64> {
        ranges.iter().flatten().collect()
    }

    #[test]
    fn sets_are_what_a_list_of_all_bytes_is() {
        let mut rng = Rng::new(7);
        for _ in 0..2000 {
            let mut ranges = [Ranges::default(), Ranges::default()];
            let mut model = [[false; 64]; 2];
            for (ranges, model) in ranges.iter_mut().zip(&mut model) {
                for _ in 0..rng.below(0..6) {
                    let start = rng.below(0..64);
                    let end = start + rng.below(0..64 - start + 1);
                    ranges.add(start..end);
                    model[start as usize..end as usize].fill(true);
                }
            }
            let listed =
                |model: &[bool]| -> Vec<u64> { (0..64).filter(|at| model[*at as usize]).collect() };
            assert_eq!(bytes(&ranges[0]), listed(&model[0]));
            let is_apart = |pair: &[Range<u64>]| pair[0].end < pair[1].start;
            assert!(ranges[0].0.windows(2).all(is_apart));
            let (from, len) = (rng.below(0..60), rng.below(0..20));
            let window = from..(from + len).min(64);
            let inside = |at: &u64| window.contains(at);
            let used: Vec<u64> = listed(&model[0]).into_iter().filter(inside).collect();
            assert_eq!(bytes(&ranges[0].within(&window)), used);
            let unused: Vec<u64> = window.clone().filter(|at| !used.contains(at)).collect();
            assert_eq!(bytes(&ranges[0].gaps(&window)), unused);
            for at in 0..64 {
                let (is_in, end) = ranges[0].run_at(at);
                assert_eq!(is_in, model[0][at as usize]);
                let end = end.min(64) as usize;
                assert!(model[0][at as usize..end].iter().all(|one| *one == is_in));
                assert!(end == 64 || model[0][end] != is_in);
            }
            let [mut left, gone] = ranges;
            left.remove(&gone);
            let is_left = |at: &u64| !model[1][*at as usize];
            let expected: Vec<u64> = listed(&model[0]).into_iter().filter(is_left).collect();
            assert_eq!(bytes(&left), expected);
            assert_eq!(left.n_bytes(), expected.len() as u64);
        }
    }

    #[test]
    fn bits_become_units() {
        let mut rng = Rng::new(3);
        for _ in 0..500 {
            let pattern = [0, 0xff, rng.below(0..256) as u8, rng.below(0..256) as u8];
            let bits: Vec<u8> = (0..6).map(|_| pattern[rng.below(0..4) as usize]).collect();
            let n_bits = rng.below(0..60);
            let mut ranges = Ranges::default();
            ranges.add_bits(&bits, n_bits, 100, 10);
            let is_set = |bit: &u64| {
                bits.get(*bit as usize / 8)
                    .is_some_and(|byte| byte >> (bit % 8) & 1 != 0)
            };
            let expected = (0..n_bits).filter(is_set);
            let expected: Vec<u64> = expected
                .flat_map(|bit| 100 + bit * 10..110 + bit * 10)
                .collect();
            assert_eq!(bytes(&ranges), expected);
        }
    }
}
