use std::ops::Range;

/// All shards cut into runs of samples, numbered through.
///
/// Holds four bytes a shard for the cuts, not the segments themselves: 315 million samples have over a million.
#[derive(Debug)]
pub(super) struct Segments {
    shard_samples: Vec<u32>,
    /// First segment of each shard; one more entry ends the last shard.
    first: Vec<u32>,
}

/// Samples of one shard that lie together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) shard: usize,
    pub(super) samples: Range<u32>,
}

impl Segments {
    /// Cuts every shard into as few, nearly equal segments of at most `most` samples as possible.
    pub(super) fn new(shard_samples: impl Iterator<Item = u32>, most: u32) -> Self {
        let shard_samples: Vec<u32> = shard_samples.collect();
        // Numbered by u32: a larger number of segments could not be permuted in the memory that a plan may take, and
        // would need over a trillion samples at the usual length.
        let mut next = 0_u32;
        let mut first = Vec::with_capacity(shard_samples.len() + 1);
        first.push(next);
        for &num_samples in &shard_samples {
            next = next.checked_add(num_samples.div_ceil(most)).expect("`Layout` keeps segments below 2^32");
            first.push(next);
        }
        Self { shard_samples, first }
    }

    /// Samples of a shard.
    pub(super) fn shard_samples(&self, shard: usize) -> u32 {
        self.shard_samples[shard]
    }

    /// Segments of these shards.
    pub(super) fn of_shards(&self, shards: Range<usize>) -> Range<u32> {
        self.first[shards.start]..self.first[shards.end]
    }

    pub(super) fn get(&self, segment: u32) -> Segment {
        // Shards without samples start at the same segment as their successor; the last one that starts there holds it.
        let shard = self.first.partition_point(|&first| first <= segment) - 1;
        let parts = u64::from(self.first[shard + 1] - self.first[shard]);
        let part = u64::from(segment - self.first[shard]);
        let num_samples = u64::from(self.shard_samples[shard]);
        // Both quotients are at most the shard's samples, which fit.
        let cut = |part: u64| (num_samples * part / parts) as u32;
        Segment { shard, samples: cut(part)..cut(part + 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_partition_their_shards_in_order() {
        let shards = [1000, 0, 1, 256, 257, 0];
        let segments = Segments::new(shards.into_iter(), 256);
        assert_eq!(segments.of_shards(0..shards.len()), 0..4 + 1 + 1 + 2);
        assert_eq!(segments.of_shards(1..4), 4..4 + 1 + 1);
        let mut samples = Vec::new();
        for segment in segments.of_shards(0..shards.len()).map(|segment| segments.get(segment)) {
            assert!((1..=256).contains(&segment.samples.len()), "{segment:?}");
            samples.extend(segment.samples.map(|sample| (segment.shard, sample)));
        }
        let expected: Vec<(usize, u32)> = shards
            .iter()
            .enumerate()
            .flat_map(|(shard, &num)| (0..num).map(move |sample| (shard, sample)))
            .collect();
        assert_eq!(samples, expected);
    }
}
