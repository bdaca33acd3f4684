use std::fmt;

use serde::Serialize;

/// Length of the longest bar of a printed histogram.
const BAR_CHARS: u64 = 40;

/// How often values fell into fixed ranges; takes the same memory for any number of values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// Largest value of each range but the last, which has no end. A range starts behind the one before it.
    pub up_to: &'static [u64],
    /// Values in each range: one more than `up_to` has.
    pub counts: Vec<u64>,
    /// Smallest value, if there is any.
    pub min: Option<u64>,
    /// Largest value, if there is any.
    pub max: Option<u64>,
    /// All values together.
    pub sum: u128,
}

impl Histogram {
    /// `up_to` rises.
    pub(super) fn new(up_to: &'static [u64]) -> Self {
        Self { up_to, counts: vec![0; up_to.len() + 1], min: None, max: None, sum: 0 }
    }

    pub(super) fn add(&mut self, value: u64) {
        self.counts[self.up_to.partition_point(|bound| *bound < value)] += 1;
        self.min = Some(self.min.map_or(value, |min| min.min(value)));
        self.max = self.max.max(Some(value));
        self.sum += u128::from(value);
    }

    /// Adds what another one of the same ranges counted.
    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.min = self.min.into_iter().chain(other.min).min();
        self.max = self.max.max(other.max);
        self.sum += other.sum;
    }

    /// Number of values.
    pub fn num_values(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Mean of the values, if there is any.
    pub fn mean(&self) -> Option<f64> {
        let num_values = self.num_values();
        (num_values > 0).then(|| self.sum as f64 / num_values as f64)
    }
}

/// The ranges from the first to the last that is not empty.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(min), Some(max), Some(mean)) = (self.min, self.max, self.mean()) else {
            return write!(f, "none");
        };
        write!(f, "least {min}, mean {mean:.1}, most {max}")?;
        let num_values = self.num_values();
        let most = self.counts.iter().copied().max().unwrap_or_default();
        let is_filled = |count: &u64| *count > 0;
        let first = self.counts.iter().position(is_filled).unwrap_or_default();
        let last = self.counts.iter().rposition(is_filled).unwrap_or_default();
        for (range, count) in self.counts.iter().enumerate().take(last + 1).skip(first) {
            let label = match self.up_to.get(range) {
                Some(bound) => format!("to {bound}"),
                None => "more".to_owned(),
            };
            let share = 100.0 * *count as f64 / num_values as f64;
            let bar =
                "#".repeat((u128::from(*count) * u128::from(BAR_CHARS)).div_ceil(u128::from(most)) as usize);
            write!(f, "\n  {label:>12} {count:>12} {share:5.1} % {bar}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_range_that_it_ends() {
        let mut histogram = Histogram::new(&[0, 10]);
        for value in [0, 1, 10, 11, 1000] {
            histogram.add(value);
        }
        assert_eq!(histogram.counts, [1, 2, 2]);
        assert_eq!((histogram.min, histogram.max, histogram.sum), (Some(0), Some(1000), 1022));
    }

    #[test]
    fn merging_counts_as_if_one_had_seen_all() {
        let (mut all, mut left, mut right) =
            (Histogram::new(&[4, 8]), Histogram::new(&[4, 8]), Histogram::new(&[4, 8]));
        for value in 3..12 {
            all.add(value);
            if value < 6 { left.add(value) } else { right.add(value) }
        }
        left.merge(&right);
        assert_eq!(left, all);
        let mut empty = Histogram::new(&[4, 8]);
        empty.merge(&all);
        assert_eq!(empty, all);
    }

    #[test]
    fn empty_ranges_are_printed_only_between_others() {
        let mut histogram = Histogram::new(&[1, 2, 3, 4]);
        histogram.add(2);
        histogram.add(4);
        let text = histogram.to_string();
        assert!(text.contains("to 3            0   0.0 %"), "{text}");
        assert!(!text.contains("to 1 ") && !text.contains("more"), "{text}");
        assert_eq!(Histogram::new(&[1]).to_string(), "none");
    }
}
