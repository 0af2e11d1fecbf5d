//! Which bytes of a file are spoken for: finds what two references share and what none names.

use std::collections::BTreeMap;
use std::ops::Range;

/// Most separate runs remembered. An image that needs more is too fragmented to be checked for
/// overlaps and leaks in bounded memory.
const MAX_RUNS: usize = 1 << 20;

/// A set of byte ranges; neighbours merge, so that an image in order needs one or two runs.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    runs: BTreeMap<u64, u64>,
    overflowed: bool,
}

impl Claims {
    /// Claims a range. Returns false if a part of it was claimed before.
    pub(crate) fn claim(&mut self, range: Range<u64>) -> bool {
        if range.is_empty() || self.overflowed {
            return true;
        }
        if self.touches(&range) {
            return false;
        }
        let before = self.runs.range(..range.end).next_back();
        let start = match before {
            Some((start, end)) if *end == range.start => *start,
            _ => range.start,
        };
        let end = self.runs.remove(&range.end).unwrap_or(range.end);
        self.runs.insert(start, end);
        if self.runs.len() > MAX_RUNS {
            self.overflowed = true;
            self.runs.clear();
        }
        true
    }

    /// Returns whether a part of a range, which is not empty, is claimed.
    pub(crate) fn touches(&self, range: &Range<u64>) -> bool {
        let before = self.runs.range(..range.end).next_back();
        before.is_some_and(|(_, end)| *end > range.start)
    }

    /// Returns whether there were too many runs, and the answers since are worth nothing.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Returns the parts of `range` that nothing claims.
    pub(crate) fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut at = range.start;
        let limit = range.end;
        self.runs
            .iter()
            .map(|(start, end)| (*start, *end))
            .chain([(limit, limit)])
            .filter_map(move |(start, end)| {
                let gap = at..start.min(limit);
                at = at.max(end);
                (gap.start < gap.end).then_some(gap)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_found_and_gaps_are_listed() {
        let mut claims = Claims::default();
        assert!(claims.claim(10..20));
        assert!(claims.claim(30..40));
        assert!(claims.claim(20..30));
        assert_eq!(claims.runs.len(), 1);
        for bad in [10..11, 39..41, 5..11, 0..100, 15..25] {
            assert!(
                claims.touches(&bad) && !claims.claim(bad.clone()),
                "{bad:?}"
            );
        }
        assert!(claims.claim(50..60));
        let gaps: Vec<_> = claims.gaps(0..70).collect();
        assert_eq!(gaps, [0..10, 40..50, 60..70]);
        let gaps: Vec<_> = claims.gaps(5..55).collect();
        assert_eq!(gaps, [5..10, 40..50]);
    }
}
