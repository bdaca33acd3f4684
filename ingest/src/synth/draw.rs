use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a random stream is used for. Streams of one picture are independent of each other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Scene,
    Words,
    Pixels,
}

/// A source of random choices.
///
/// The few ways to turn bits into choices are written out here, because those of the `rand` crate may change
/// from one version to the next, and with them every picture of every toy world.
#[derive(Debug)]
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream of one picture for one purpose; `split` tells training from held-out pictures.
    pub(super) fn new(seed: u64, split: u64, index: u64, purpose: Purpose) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream((split << 60) | (index << 2) | purpose as u64);
        Self(rng)
    }

    pub(super) fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A number in `[0, 1)`, one of 2^24.
    pub(super) fn unit(&mut self) -> f32 {
        (self.bits() >> 8) as f32 / (1 << 24) as f32
    }

    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// An index below `len`. The bias of at most `len` in 2^32 does not matter here.
    pub(super) fn below(&mut self, len: usize) -> usize {
        ((u64::from(self.bits()) * len as u64) >> 32) as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// One of several words: the first, the plain one, more often than the others.
    pub(super) fn word(&mut self, words: &[&'static str]) -> &'static str {
        if self.chance(0.5) { words[0] } else { self.pick(words) }
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// A value around zero with standard deviation about one: the sum of four uniform bytes.
    pub(super) fn bell(&mut self) -> f32 {
        let sum: u32 = self.bits().to_le_bytes().into_iter().map(u32::from).sum();
        (sum as f32 - 510.0) / 147.8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_in_seed_split_index_and_purpose() {
        let first = |seed, split, index, purpose| Draw::new(seed, split, index, purpose).bits();
        let all = [
            first(0, 0, 0, Purpose::Scene),
            first(1, 0, 0, Purpose::Scene),
            first(0, 1, 0, Purpose::Scene),
            first(0, 0, 1, Purpose::Scene),
            first(0, 0, 0, Purpose::Words),
            first(0, 0, 0, Purpose::Pixels),
        ];
        let distinct: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
    }

    #[test]
    fn choices_stay_in_their_ranges() {
        let mut draw = Draw::new(3, 0, 0, Purpose::Scene);
        for _ in 0..10_000 {
            assert!((0.0..1.0).contains(&draw.unit()));
            assert!((2.0..3.0).contains(&draw.between(2.0, 3.0)));
            assert!(draw.below(7) < 7);
            assert!(draw.bell().abs() < 3.5);
        }
    }
}
