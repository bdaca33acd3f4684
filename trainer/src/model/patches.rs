//! Which patches of an image take part in a training step.

use fastclip_schemas::SampleId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// Keeps this stream of random numbers apart from those of initial parameters.
const STREAM: [u8; 8] = *b"patches\0";

/// Draws the patches of a batch that are kept, `i64`, [samples, `num_kept`], in ascending order.
///
/// What is drawn for a sample depends on seed, step and the sample alone: not on the rank that has it, nor on the samples
/// beside it, so that a run that is resumed, or goes on over another number of ranks, does the same.
pub(super) fn draw(seed: u64, step: u64, ids: &[SampleId], num_patches: i64, num_kept: i64) -> Tensor {
    let kept: Vec<i64> = ids
        .iter()
        .flat_map(|&id| {
            let mut generator = ChaCha8Rng::from_seed(stream_seed(seed, step, id));
            let mut keys: Vec<(u64, i64)> =
                (0..num_patches).map(|patch| (generator.random(), patch)).collect();
            keys.select_nth_unstable(num_kept as usize - 1);
            let mut kept: Vec<i64> = keys[..num_kept as usize].iter().map(|&(_, patch)| patch).collect();
            kept.sort_unstable();
            kept
        })
        .collect();
    Tensor::from_slice(&kept).view([ids.len() as i64, num_kept])
}

fn stream_seed(seed: u64, step: u64, SampleId(id): SampleId) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (place, part) in
        bytes.chunks_exact_mut(8).zip([seed.to_le_bytes(), step.to_le_bytes(), id.to_le_bytes(), STREAM])
    {
        place.copy_from_slice(&part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(step: u64, ids: std::ops::Range<u64>) -> Vec<Vec<i64>> {
        let ids: Vec<SampleId> = ids.map(SampleId).collect();
        Vec::try_from(draw(3, step, &ids, 49, 24)).unwrap()
    }

    #[test]
    fn a_sample_keeps_the_same_patches_whoever_is_beside_it() {
        let together = drawn(5, 0..8);
        let apart = [drawn(5, 0..3), drawn(5, 3..8)].concat();
        assert_eq!(together, apart);
        assert_ne!(together[0], together[1]);
        assert_ne!(together, drawn(6, 0..8));
    }

    #[test]
    fn every_patch_is_kept_as_often_as_every_other_and_never_twice() {
        const SAMPLES: u64 = 4000;
        let mut counts = [0u64; 49];
        for kept in drawn(0, 0..SAMPLES) {
            assert!(kept.is_sorted_by(|left, right| left < right), "{kept:?}");
            kept.iter().for_each(|&patch| counts[patch as usize] += 1);
        }
        // Five standard deviations of a binomial count.
        let share = 24.0 / 49.0;
        let spread = (SAMPLES as f64 * share * (1.0 - share)).sqrt();
        for count in counts {
            assert!((count as f64 - SAMPLES as f64 * share).abs() < 5.0 * spread, "{counts:?}");
        }
    }
}
