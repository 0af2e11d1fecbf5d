//! One bit for each place of a file.

use std::ops::Range;

/// Numbered places, each marked or not; none is at first.
#[derive(Debug, Clone)]
pub(crate) struct Bits {
    len: u64,
    words: Vec<u64>,
}

impl Bits {
    /// Returns `len` places. The caller has made sure that there is memory for them.
    pub(crate) fn new(len: u64) -> Self {
        Self {
            len,
            words: vec![0; usize::try_from(len.div_ceil(64)).unwrap_or(0)],
        }
    }

    /// Returns how many places there are.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds places, up to `len` of them. The caller has made sure that there is memory for them.
    pub(crate) fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
        self.words
            .resize(usize::try_from(self.len.div_ceil(64)).unwrap_or(0), 0);
    }

    /// Marks the places of `range` that exist. Returns whether one was marked before.
    pub(crate) fn mark(&mut self, range: Range<u64>) -> bool {
        let mut was_marked = false;
        self.each_word(range, |word, mask| {
            was_marked |= *word & mask != 0;
            *word |= mask;
        });
        was_marked
    }

    /// Marks the places that `other`, which has as many, has marked.
    pub(crate) fn mark_all(&mut self, other: &Bits) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    /// Takes the marks off the places of `range`.
    pub(crate) fn clear(&mut self, range: Range<u64>) {
        self.each_word(range, |word, mask| *word &= !mask);
    }

    /// Returns how many places are marked.
    pub(crate) fn n_marked(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// Returns the first place at or after `from` that is marked, or is not.
    pub(crate) fn next(&self, from: u64, marked: bool) -> Option<u64> {
        let mut place = from;
        while place < self.len {
            let word = self.words.get((place / 64) as usize)?;
            let word = if marked { *word } else { !*word };
            let rest = word & (u64::MAX << (place % 64));
            if rest != 0 {
                let found = place / 64 * 64 + u64::from(rest.trailing_zeros());
                return (found < self.len).then_some(found);
            }
            place = (place / 64 + 1) * 64;
        }
        None
    }

    /// Returns the first run of unmarked places at or after `from`, to its end.
    pub(crate) fn next_free(&self, from: u64) -> Option<Range<u64>> {
        let start = self.next(from, false)?;
        Some(start..self.next(start, true).unwrap_or(self.len))
    }

    /// Returns the place behind the last marked one, 0 if none is.
    pub(crate) fn end(&self) -> u64 {
        let last = self.words.iter().rposition(|word| *word != 0);
        last.and_then(|at| Some((at, self.words.get(at)?)))
            .map_or(0, |(at, word)| {
                (at as u64 + 1) * 64 - u64::from(word.leading_zeros())
            })
    }

    fn each_word(&mut self, range: Range<u64>, mut change: impl FnMut(&mut u64, u64)) {
        let mut place = range.start;
        let end = range.end.min(self.len);
        while place < end {
            let word_end = end.min((place / 64 + 1) * 64);
            let n = word_end - place;
            let mask = (u64::MAX >> (64 - n)) << (place % 64);
            if let Some(word) = self.words.get_mut((place / 64) as usize) {
                change(word, mask);
            }
            place = word_end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_across_words_are_marked_cleared_and_found() {
        let mut bits = Bits::new(300);
        assert!(!bits.mark(60..200));
        assert!(bits.mark(199..201));
        assert_eq!(bits.n_marked(), 141);
        assert_eq!(bits.next(0, true), Some(60));
        assert_eq!(bits.next_free(60), Some(201..300));
        bits.clear(64..128);
        assert_eq!(bits.next_free(60), Some(64..128));
        assert_eq!(bits.next(64, true), Some(128));
        assert!(!bits.mark(290..1000));
        assert_eq!(bits.next_free(290), None);
        assert_eq!(bits.n_marked(), 141 - 64 + 10);
        assert_eq!(bits.end(), 300);
        bits.clear(130..300);
        assert_eq!(bits.end(), 130);
        bits.grow(320);
        assert!(!bits.mark(310..320));
        assert_eq!(bits.end(), 320);
        let mut both = Bits::new(320);
        both.mark(0..2);
        both.mark_all(&bits);
        assert_eq!(both.n_marked(), bits.n_marked() + 2);
    }
}
