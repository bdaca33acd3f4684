/// Bits of a band that choose its bucket, at most.
const BUCKET_BITS: u32 = 16;

/// Hashes of 64 bits, found by others that differ in few bits.
///
/// The bits are cut into one band more than they may differ in, so that two hashes that are near agree in all of some band: each band
/// has buckets by its bits, and only the hashes in one bucket of each are compared. At distance 3 among ten million that is
/// six hundred of them. A hash takes 16 bytes and 4 to 8 for each band.
#[derive(Debug)]
pub(super) struct NearSet {
    distance: u32,
    /// Hash and number, in the order of their coming.
    seen: Vec<(u64, u64)>,
    bands: Vec<Band>,
}

#[derive(Debug)]
struct Band {
    first_bit: u32,
    num_bits: u32,
    /// Positions in `seen`.
    buckets: Vec<Vec<u32>>,
}

impl Band {
    fn bucket(&self, hash: u64) -> usize {
        (hash >> self.first_bit) as usize & ((1 << self.num_bits) - 1)
    }
}

impl NearSet {
    /// Finds what differs in at most so many bits.
    pub(super) fn new(distance: u32) -> Self {
        let num_bands = distance + 1;
        let band = |number: u32| {
            let (first_bit, end) = (64 * number / num_bands, 64 * (number + 1) / num_bands);
            let num_bits = (end - first_bit).min(BUCKET_BITS);
            Band { first_bit, num_bits, buckets: vec![Vec::new(); 1 << num_bits] }
        };
        Self { distance, seen: Vec::new(), bands: (0..num_bands).map(band).collect() }
    }

    /// Number and distance of the first that came of those that are near.
    pub(super) fn find(&self, hash: u64) -> Option<(u64, u32)> {
        let candidates = self.bands.iter().flat_map(|band| &band.buckets[band.bucket(hash)]);
        let near = candidates.filter(|at| (self.seen[**at as usize].0 ^ hash).count_ones() <= self.distance);
        let (found, number) = self.seen[*near.min()? as usize];
        Some((number, (found ^ hash).count_ones()))
    }

    pub(super) fn insert(&mut self, hash: u64, number: u64) {
        // Beyond four billion pictures, nothing more is found near.
        let Ok(at) = u32::try_from(self.seen.len()) else { return };
        self.seen.push((hash, number));
        for band in &mut self.bands {
            let bucket = band.bucket(hash);
            band.buckets[bucket].push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn buckets_find_what_comparing_with_all_finds(
            distance in 0..=7_u32,
            hashes in prop::collection::vec(any::<u64>(), 1..60),
            queries in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(0..64_u32, 0..9)), 1..60),
        ) {
            let mut set = NearSet::new(distance);
            for (number, hash) in (100..).zip(&hashes) {
                set.insert(*hash, number);
            }
            for (index, bits) in queries {
                let query = bits.iter().fold(*index.get(&hashes), |hash, bit| hash ^ (1 << bit));
                let far = |hash: &u64| (hash ^ query).count_ones();
                let expected = (100..).zip(&hashes).find(|(_, hash)| far(hash) <= distance);
                prop_assert_eq!(set.find(query), expected.map(|(number, hash)| (number, far(hash))));
            }
        }
    }
}
