use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::Histogram;

/// Buckets of an octave, so that a percentile is right within an eighth.
const BUCKETS_PER_OCTAVE: u32 = 8;
/// From 8 ns on, up to what 64 bits hold.
const NUM_BUCKETS: usize = 62 * BUCKETS_PER_OCTAVE as usize;

/// Counts something that takes time, from any number of threads.
pub(crate) struct Meter {
    /// Where programs collect what all their parts measure; nowhere unless they do.
    exported: Histogram,
    nanoseconds: AtomicU64,
    buckets: [AtomicU64; NUM_BUCKETS],
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.read()).finish()
    }
}

/// How often something happened, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Timing {
    /// How often.
    pub count: u64,
    /// How long altogether, over all threads.
    pub total: Duration,
    /// What 99 of 100 took at most, to an eighth.
    pub p99: Duration,
}

impl Timing {
    /// How long it took once.
    pub fn mean(&self) -> Duration {
        if self.count == 0 { Duration::ZERO } else { self.total.div_f64(self.count as f64) }
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1?} (99 %: {:.1?})", self.mean(), self.p99)
    }
}

/// The bucket of a time: its highest four bits, of which the first is always set, and how far they are shifted.
fn bucket(nanoseconds: u64) -> usize {
    let shift = nanoseconds.checked_ilog2().unwrap_or(0).saturating_sub(BUCKETS_PER_OCTAVE.ilog2());
    // Up to 15, and 8 at least once anything is shifted.
    let top = (nanoseconds >> shift) as usize;
    shift as usize * BUCKETS_PER_OCTAVE as usize + top
}

/// The largest time of a bucket.
fn largest(bucket: usize) -> u64 {
    let octave = BUCKETS_PER_OCTAVE as usize;
    let shift = (bucket / octave).saturating_sub(1);
    let top = (bucket - shift * octave) as u64;
    (top << shift) + ((1 << shift) - 1)
}

impl Meter {
    pub(crate) fn new(exported: Histogram) -> Self {
        Self { exported, nanoseconds: AtomicU64::new(0), buckets: [const { AtomicU64::new(0) }; NUM_BUCKETS] }
    }

    pub(crate) fn add(&self, time: Duration) {
        // Wraps after 584 years of work.
        let nanoseconds = time.as_nanos() as u64;
        self.exported.record(time.as_secs_f64());
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.buckets[bucket(nanoseconds)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(start.elapsed());
        result
    }

    pub(crate) fn read(&self) -> Timing {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let mut rest = count - count / 100;
        let slowest = counts.iter().position(|&count| {
            rest = rest.saturating_sub(count);
            rest == 0
        });
        Timing {
            count,
            total: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
            p99: if count == 0 { Duration::ZERO } else { Duration::from_nanos(slowest.map_or(0, largest)) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        let mut before = None;
        for bucket_number in 0..NUM_BUCKETS {
            let last = largest(bucket_number);
            assert_eq!(bucket(last), bucket_number);
            if let Some(before) = before {
                assert_eq!(bucket(before + 1), bucket_number, "after {before}");
            }
            before = Some(last);
        }
        assert_eq!(before, Some(u64::MAX));
    }

    #[test]
    fn one_of_a_hundred_is_beyond_the_percentile() {
        let meter = Meter::new(Histogram::noop());
        assert_eq!(meter.read(), Timing::default());
        (0..990).for_each(|_| meter.add(Duration::from_micros(100)));
        (0..10).for_each(|_| meter.add(Duration::from_millis(50)));
        let timing = meter.read();
        assert_eq!((timing.count, timing.total), (1000, Duration::from_millis(99 + 500)));
        assert!((100..113).contains(&timing.p99.as_micros()), "{timing:?}");
        meter.add(Duration::from_millis(50));
        (0..99).for_each(|_| meter.add(Duration::from_millis(50)));
        assert!((50..57).contains(&meter.read().p99.as_millis()));
    }
}
