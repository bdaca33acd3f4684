use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a sequence of random numbers is for. Part of its key, so that no two purposes share numbers.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub(crate) enum Purpose {
    Segments = 1,
    Window = 2,
    Augmentation = 3,
    Pass = 4,
    Caption = 5,
}

/// Random numbers that depend on four numbers and on nothing else, in this and in every later version.
///
/// The generator's output is fixed by its definition; bounded draws and shuffles are spelled out here instead of taken
/// from `rand`, which may change how it makes them.
#[derive(Debug)]
pub(crate) struct Draws(ChaCha8Rng);

impl Draws {
    pub(crate) fn new(purpose: Purpose, seed: u64, epoch: u64, item: u64) -> Self {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([purpose as u64, seed, epoch, item]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A number below `bound`, all equally likely: Lemire's multiplication with rejection.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        debug_assert!(bound > 0, "no number is below 0");
        let mut product = u64::from(self.0.next_u32()) * u64::from(bound);
        if (product as u32) < bound {
            let threshold = bound.wrapping_neg() % bound;
            while (product as u32) < threshold {
                product = u64::from(self.0.next_u32()) * u64::from(bound);
            }
        }
        (product >> 32) as u32
    }

    /// A number in [0, 1) with 53 random bits.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Fisher and Yates' shuffle, from the end.
    pub(crate) fn shuffle(&mut self, items: &mut [u32]) {
        for i in (1..items.len()).rev() {
            let bound = u32::try_from(i + 1).expect("what is shuffled is numbered by u32");
            items.swap(i, self.below(bound) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_never_change_between_versions() {
        let mut draws = Draws::new(Purpose::Window, 7, 3, 11);
        let mut items: Vec<u32> = (0..12).collect();
        draws.shuffle(&mut items);
        let bounded: Vec<u32> = (0..6).map(|_| draws.below(1000)).collect();
        let unit = draws.unit();
        assert_eq!(items, [3, 6, 11, 4, 2, 10, 1, 9, 5, 0, 7, 8]);
        assert_eq!((bounded, unit), (vec![886, 514, 802, 552, 805, 132], 0.338_378_840_267_055_34));
    }

    #[test]
    fn every_number_below_the_bound_is_drawn_about_equally_often() {
        let mut draws = Draws::new(Purpose::Segments, 0, 0, 0);
        let mut counts = [0_u32; 6];
        (0..6000).for_each(|_| counts[draws.below(6) as usize] += 1);
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn each_part_of_the_key_matters() {
        let first = |purpose, seed, epoch, item| Draws::new(purpose, seed, epoch, item).below(u32::MAX);
        let all = [
            first(Purpose::Window, 1, 2, 3),
            first(Purpose::Segments, 1, 2, 3),
            first(Purpose::Window, 2, 1, 3),
            first(Purpose::Window, 1, 3, 2),
            first(Purpose::Window, 1, 2, 4),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(!all[..i].contains(a), "{all:?}");
        }
    }
}
