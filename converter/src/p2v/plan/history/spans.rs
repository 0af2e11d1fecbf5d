//! Values over time, and what they come to.
//!
//! Every value stands for a span of time, and counts by its length: ten minutes of sysstat are as much
//! as forty samples of 15 s. A percentile is the smallest value that is not exceeded in that share of
//! the time: one that was seen, nothing between two. With spans of one length that is the nearest rank.

use std::cmp::Ordering;

/// A value and when it was so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Its begin in milliseconds since 1970-01-01 UTC.
    pub start_ms: i64,
    /// Its length in milliseconds, more than 0.
    pub len_ms: i64,
    /// The value: finite, not below 0.
    pub value: f64,
}

impl Span {
    /// Returns its end.
    pub fn end_ms(&self) -> i64 {
        self.start_ms.saturating_add(self.len_ms)
    }
}

/// Returns spans of several recordings as one, none over another: where two recordings tell of the
/// same time, the one with the shorter spans is believed.
pub fn merge(mut recordings: Vec<Vec<Span>>) -> Vec<Span> {
    recordings.sort_by_key(|spans| median_len(spans));
    let mut all: Vec<Span> = Vec::new();
    for mut spans in recordings {
        spans.sort_by_key(|span| span.start_ms);
        let mut free: Vec<Span> = Vec::new();
        for span in spans {
            let after_last = free
                .last()
                .is_none_or(|last| last.end_ms() <= span.start_ms);
            if after_last && !is_covered(&all, span) {
                free.push(span);
            }
        }
        all.extend(free);
        all.sort_by_key(|span| span.start_ms);
    }
    all
}

/// Returns whether any of the spans, which are in order and apart, has time in common with one.
fn is_covered(spans: &[Span], span: Span) -> bool {
    let n_before = spans.partition_point(|other| other.start_ms < span.end_ms());
    let last = n_before.checked_sub(1).and_then(|at| spans.get(at));
    last.is_some_and(|last| last.end_ms() > span.start_ms)
}

fn median_len(spans: &[Span]) -> i64 {
    let mut lens: Vec<i64> = spans.iter().map(|span| span.len_ms).collect();
    lens.sort_unstable();
    lens.get(lens.len() / 2).copied().unwrap_or(i64::MAX)
}

/// How values are distributed over time.
#[derive(Debug, Clone, Default)]
pub struct Distribution {
    /// Ascending by value.
    spans: Vec<Span>,
    total_ms: u128,
}

impl Distribution {
    /// Returns the distribution of values.
    pub fn of(mut spans: Vec<Span>) -> Self {
        spans.sort_by(|a, b| a.value.partial_cmp(&b.value).unwrap_or(Ordering::Equal));
        let total_ms = spans.iter().map(weight).sum();
        Self { spans, total_ms }
    }

    /// Returns how many values there are.
    pub fn n(&self) -> usize {
        self.spans.len()
    }

    /// Returns for how long there are values, in milliseconds.
    pub fn total_ms(&self) -> u128 {
        self.total_ms
    }

    /// Returns the value that is not exceeded in `hundredths` of a percent of the time (9950 is the
    /// percentile 99.5); none if there are no values.
    pub fn percentile(&self, hundredths: u32) -> Option<f64> {
        let wanted = self.total_ms * u128::from(hundredths);
        let mut below = 0;
        let found = self.spans.iter().find(|span| {
            below += weight(span);
            below * 10_000 >= wanted
        });
        found.or(self.spans.last()).map(|span| span.value)
    }

    /// Returns the largest value.
    pub fn max(&self) -> Option<f64> {
        self.spans.last().map(|span| span.value)
    }
}

fn weight(span: &Span) -> u128 {
    u128::from(span.len_ms.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hako_block::testkit::Rng;

    fn span(start_ms: i64, len_ms: i64, value: f64) -> Span {
        Span {
            start_ms,
            len_ms,
            value,
        }
    }

    fn of(values: &[f64]) -> Distribution {
        let spans = values.iter().enumerate();
        Distribution::of(
            spans
                .map(|(at, value)| span(at as i64, 1, *value))
                .collect(),
        )
    }

    #[test]
    fn percentiles_of_a_hundred_are_their_ranks() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let spread = of(&values);
        for (hundredths, value) in [
            (1, 1.0),
            (100, 1.0),
            (101, 2.0),
            (5000, 50.0),
            (9500, 95.0),
            (9900, 99.0),
            (9950, 100.0),
            (10_000, 100.0),
        ] {
            assert_eq!(spread.percentile(hundredths), Some(value), "{hundredths}");
        }
        assert_eq!(of(&[]).percentile(9500), None);
        assert_eq!(of(&[7.0]).percentile(1), Some(7.0));
    }

    #[test]
    fn a_long_span_counts_as_many_short_ones() {
        let mut rng = Rng::new(1);
        for _ in 0..200 {
            let n = rng.below(1..20);
            let mut long = Vec::new();
            let mut short = Vec::new();
            for _ in 0..n {
                let (len, value) = (rng.below(1..40), rng.below(0..10) as f64);
                long.push(span(0, len as i64, value));
                short.extend((0..len).map(|_| span(0, 1, value)));
            }
            let (long, short) = (Distribution::of(long), Distribution::of(short));
            for hundredths in [1, 2500, 5000, 9000, 9500, 9900, 9950, 10_000] {
                assert_eq!(long.percentile(hundredths), short.percentile(hundredths));
            }
        }
    }

    #[test]
    fn a_percentile_is_the_smallest_value_that_enough_do_not_exceed() {
        let mut rng = Rng::new(2);
        for _ in 0..500 {
            let n = rng.below(1..60);
            let values: Vec<f64> = (0..n).map(|_| rng.below(0..30) as f64 / 7.0).collect();
            let hundredths = rng.below(1..10_001) as u32;
            let found = of(&values).percentile(hundredths).unwrap();
            let share = |most: f64| {
                let below = values.iter().filter(|value| **value <= most).count();
                below as u64 * 10_000 >= u64::from(hundredths) * n
            };
            assert!(values.contains(&found) && share(found));
            let smaller = values.iter().filter(|value| **value < found);
            assert!(smaller.copied().all(|value| !share(value)));
            assert!(found <= of(&values).max().unwrap());
        }
    }

    #[test]
    fn time_that_two_tell_of_is_counted_once_and_the_finer_is_believed() {
        let coarse = vec![span(0, 600, 1.0), span(600, 600, 1.0), span(1200, 600, 1.0)];
        let fine: Vec<Span> = (40..60).map(|at| span(at * 15, 15, 2.0)).collect();
        let merged = merge(vec![coarse.clone(), fine.clone(), coarse.clone()]);
        let expected: Vec<Span> = [coarse[0]].into_iter().chain(fine).collect();
        assert_eq!(merged[..21], expected);
        assert_eq!(merged[21..], [coarse[2]]);
        let mut rng = Rng::new(3);
        for _ in 0..300 {
            let recordings = (0..rng.below(1..5)).map(|_| {
                let some = (0..rng.below(0..30))
                    .map(|_| span(rng.below(0..500) as i64, rng.below(1..50) as i64, 1.0));
                some.collect::<Vec<_>>()
            });
            let merged = merge(recordings.collect());
            for pair in merged.windows(2) {
                assert!(pair[0].end_ms() <= pair[1].start_ms);
            }
        }
    }
}
