use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use fastclip_schemas::ShardEntry;

/// Neighbouring samples that are read together, with one request.
pub(super) const RUN_SAMPLES: u32 = 64;

/// What is read of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShardChoice {
    pub(super) shard: usize,
    /// In the order of the shard.
    pub(super) runs: Vec<Run>,
}

/// Neighbouring samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) samples: Range<u32>,
    /// Those of them that are shown.
    pub(super) shown: BTreeSet<u32>,
}

/// Chooses runs that have about so many samples together, and which samples of them are shown. Any run of the dataset is as
/// likely as any other; the same seed chooses the same ones. It needs the counts of the manifest and nothing else.
pub(super) fn choose(
    shards: &[ShardEntry],
    num_samples: u64,
    num_shown: usize,
    seed: u64,
) -> Vec<ShardChoice> {
    let num_runs = |shard: &ShardEntry| u64::from(shard.num_samples.div_ceil(RUN_SAMPLES));
    let first_runs: Vec<u64> = shards
        .iter()
        .scan(0, |sum, shard| {
            let first = *sum;
            *sum += num_runs(shard);
            Some(first)
        })
        .collect();
    let total = shards.iter().map(num_runs).sum();
    let chosen = distinct(total, num_samples.div_ceil(u64::from(RUN_SAMPLES)), seed);
    let shown = shares(&chosen, num_shown, seed);
    let mut choice: BTreeMap<usize, Vec<Run>> = BTreeMap::new();
    for (run, num_shown) in chosen.into_iter().zip(shown) {
        // Shards without samples start where the next one does; the last that starts there has it.
        let shard = first_runs.partition_point(|first| *first <= run) - 1;
        let start = (run - first_runs[shard]) as u32 * RUN_SAMPLES;
        let samples = start..shards[shard].num_samples.min(start + RUN_SAMPLES);
        let mut order: Vec<u32> = samples.clone().collect();
        order.sort_by_cached_key(|sample| hash(seed, "sample", [run, u64::from(*sample)]));
        let shown = order.into_iter().take(num_shown).collect();
        choice.entry(shard).or_default().push(Run { samples, shown });
    }
    choice.into_iter().map(|(shard, runs)| ShardChoice { shard, runs }).collect()
}

/// So many different numbers below `total`, rising: Floyd's method, which takes memory for the chosen ones only.
fn distinct(total: u64, wanted: u64, seed: u64) -> Vec<u64> {
    let mut chosen = BTreeSet::new();
    for last in total.saturating_sub(wanted)..total {
        let drawn = hash(seed, "run", [last, 0]) % (last + 1);
        if !chosen.insert(drawn) {
            chosen.insert(last);
        }
    }
    chosen.into_iter().collect()
}

/// How many samples of each run are shown: all runs have as many, and as chance has it some one more.
fn shares(runs: &[u64], num_shown: usize, seed: u64) -> Vec<usize> {
    if runs.is_empty() {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by_cached_key(|at| hash(seed, "shown", [runs[*at], 0]));
    let mut shares = vec![num_shown / runs.len(); runs.len()];
    order.into_iter().take(num_shown % runs.len()).for_each(|at| shares[at] += 1);
    shares
}

fn hash(seed: u64, what: &str, numbers: [u64; 2]) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(what);
    hasher.update(&seed.to_le_bytes());
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    let bytes: [u8; 32] = hasher.finalize().into();
    u64::from_le_bytes(*bytes.first_chunk().expect("8 of 32 bytes"))
}

#[cfg(test)]
mod tests {
    use fastclip_schemas::{Digest, SampleId};

    use super::*;

    fn shards(sizes: &[u32]) -> Vec<ShardEntry> {
        let entry = |num_samples| ShardEntry {
            name: String::new(),
            index: String::new(),
            num_samples,
            num_bytes: 0,
            digest: Digest([0; 32]),
            index_digest: Digest([0; 32]),
            first_sample_id: SampleId(0),
        };
        sizes.iter().copied().map(entry).collect()
    }

    fn counts(choice: &[ShardChoice]) -> (usize, usize) {
        let runs = || choice.iter().flat_map(|shard| &shard.runs);
        (runs().map(|run| run.samples.len()).sum(), runs().map(|run| run.shown.len()).sum())
    }

    #[test]
    fn a_small_dataset_is_read_whole() {
        let choice = choose(&shards(&[100, 0, 7]), 1000, 10, 3);
        assert_eq!(counts(&choice), (107, 10));
        assert_eq!(choice.iter().map(|shard| shard.shard).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(choice[0].runs[1].samples, 64..100);
    }

    #[test]
    fn of_a_hundred_million_samples_a_bounded_number_is_read_from_everywhere() {
        let shards = shards(&vec![10_000; 10_000]);
        let choice = choose(&shards, 16_384, 48, 0);
        // The last run of each shard has 16 samples.
        let (num_samples, num_shown) = counts(&choice);
        assert!((15_800..=16_384).contains(&num_samples) && num_shown == 48, "{num_samples}");
        let shard = |at: usize| choice[at].shard;
        assert!(choice.len() > 240 && shard(0) < 200 && shard(choice.len() - 1) > 9800, "{}", choice.len());
        let is_inside = |run: &Run| run.shown.iter().all(|sample| run.samples.contains(sample));
        assert!(choice.iter().flat_map(|shard| &shard.runs).all(is_inside));
    }

    #[test]
    fn a_seed_chooses_the_same_samples_again_and_another_seed_others() {
        let shards = shards(&[10_000; 50]);
        assert_eq!(choose(&shards, 640, 20, 1), choose(&shards, 640, 20, 1));
        assert_ne!(choose(&shards, 640, 20, 1), choose(&shards, 640, 20, 2));
        assert!(choose(&[], 640, 20, 1).is_empty());
    }
}
