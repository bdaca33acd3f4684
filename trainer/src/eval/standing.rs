//! Where the right answer stands among all candidates, exactly.
//!
//! Similarities are compared for equality here: two equal captions must tie, whatever their columns. A plain `f32`
//! product does not promise that. It sums in an order that depends on the shape of the matrix and on the position in
//! it, so equal captions differ in the last bit, and the winner depends on the number of ranks. Rounding features to
//! multiples of 2⁻²⁴ first makes every product a multiple of 2⁻⁴⁸, and as rows have length one, every partial sum is
//! below 2: it fits the 53 bits of an `f64`, nothing is rounded, and no order of summation matters. The rounding moves
//! a similarity by about 10⁻⁷, which is what `f32` features are worth anyway.
//!
//! Ties are shared: the right answer counts as if it stood at a random place among those it ties with. Python tools
//! leave the order of ties to the sort, which comes to the same on average, but here it is the same every time; a model
//! that maps everything to one point scores chance. Counting ties as lost would punish a pool that holds a
//! caption twice, counting them as won would reward a collapsed model.

use tch::{Kind, Tensor};

/// Elements of the largest score matrix that is held at once: 32 MiB of `f64`.
const MAX_SCORES: i64 = 1 << 22;

/// Where the right answer of one query stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Candidates that score higher.
    pub(super) ahead: i64,
    /// Other candidates that score the same.
    pub(super) tied: i64,
}

impl Standing {
    /// Probability that the right answer is among the first `k`, over the order of ties.
    pub(super) fn within(&self, k: i64) -> f64 {
        ((k - self.ahead) as f64 / (self.tied + 1) as f64).clamp(0.0, 1.0)
    }

    /// Mean place over the order of ties, from 1.
    pub(super) fn rank(&self) -> f64 {
        self.ahead as f64 + self.tied as f64 / 2.0 + 1.0
    }

    /// Reads the rows that [`standings`] returns.
    pub(super) fn from_rows(rows: &Tensor) -> Result<Vec<Self>, tch::TchError> {
        let flat = Vec::<i64>::try_from(rows.reshape([-1]))?;
        Ok(flat.chunks_exact(2).map(|pair| Self { ahead: pair[0], tied: pair[1] }).collect())
    }
}

/// Rounds unit rows such that products of any two are exact.
pub(super) fn exact(features: &Tensor) -> Tensor {
    const STEPS: f64 = (1 << 24) as f64;
    (features.to_kind(Kind::Double) * STEPS).round() / STEPS
}

/// Returns, for each query, how many candidates are ahead of candidate `right` and how many tie with it.
///
/// Both sets of rows come from [`exact`]. `right` holds one row number of `candidates` per query. A query or candidate
/// that is not a number counts as ahead of the right answer: a broken model must not look perfect. At most
/// 2²² scores are held at once, or one row if that is longer.
pub(super) fn standings(queries: &Tensor, candidates: &Tensor, right: &Tensor) -> Tensor {
    let (num_queries, num_candidates) = (queries.size()[0], candidates.size()[0]);
    let chunk = (MAX_SCORES / num_candidates.max(1)).max(1);
    let candidates = candidates.tr(); // [dim, candidates]
    let mut rows = vec![Tensor::zeros([0, 2], (Kind::Int64, queries.device()))];
    for start in (0..num_queries).step_by(chunk as usize) {
        let len = chunk.min(num_queries - start);
        let scores = queries.narrow(0, start, len).matmul(&candidates); // [len, candidates]
        let own = scores.gather(1, &right.narrow(0, start, len).unsqueeze(1), false); // [len, 1]
        let behind_or_tied = scores.le_tensor(&own).sum_dim_intlist(1, false, Kind::Int64);
        let tied = scores.eq_tensor(&own).sum_dim_intlist(1, false, Kind::Int64);
        // The right answer ties with itself, unless it is not a number.
        rows.push(Tensor::stack(&[num_candidates - behind_or_tied, (tied - 1).clamp_min(0)], 1));
    }
    Tensor::cat(&rows, 0)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::eval::Recall;

    /// Unit rows, several of them equal.
    fn features(num: i64, dim: i64, num_distinct: i64) -> Tensor {
        let rows = Tensor::randn([num_distinct, dim], (Kind::Float, Device::Cpu));
        let rows = &rows / rows.norm_scalaropt_dim(2, [1], true);
        rows.index_select(0, &Tensor::arange(num, (Kind::Int64, Device::Cpu)).remainder(num_distinct))
    }

    /// The definition, one pair at a time, with sums in 128-bit integers.
    fn brute_force(queries: &Tensor, candidates: &Tensor, right: &[i64]) -> Vec<Standing> {
        let whole = |rows: &Tensor| -> Vec<Vec<i128>> {
            let rows = Vec::<Vec<f64>>::try_from(rows.to_kind(Kind::Double)).unwrap();
            let whole = |value: &f64| (value * (1 << 24) as f64).round_ties_even() as i128;
            rows.iter().map(|row| row.iter().map(whole).collect()).collect()
        };
        let (queries, candidates) = (whole(queries), whole(candidates));
        let dot = |a: &[i128], b: &[i128]| a.iter().zip(b).map(|(a, b)| a * b).sum::<i128>();
        queries
            .iter()
            .zip(right)
            .map(|(query, &right)| {
                let own = dot(query, &candidates[right as usize]);
                let scores = candidates.iter().map(|candidate| dot(query, candidate));
                let ahead = scores.clone().filter(|&score| score > own).count() as i64;
                Standing { ahead, tied: scores.filter(|&score| score == own).count() as i64 - 1 }
            })
            .collect()
    }

    #[test]
    fn standings_are_those_of_integer_arithmetic_with_ties() {
        tch::manual_seed(7);
        for (num, dim, num_distinct) in [(1, 8, 1), (37, 96, 5), (150, 64, 150), (128, 512, 60)] {
            let queries = features(num, dim, num);
            let candidates = features(num, dim, num_distinct);
            let right: Vec<i64> = (0..num).collect();
            let found = standings(&exact(&queries), &exact(&candidates), &Tensor::from_slice(&right));
            let expected = brute_force(&queries, &candidates, &right);
            assert_eq!(Standing::from_rows(&found).unwrap(), expected, "{num} × {dim}");
            if num_distinct < num {
                assert!(expected.iter().all(|standing| standing.tied > 0), "equal rows tie");
            }
        }
    }

    #[test]
    fn the_score_of_a_pair_does_not_depend_on_its_place_or_on_the_shape_of_the_matrix() {
        tch::manual_seed(11);
        let (queries, candidates) = (exact(&features(61, 384, 61)), exact(&features(307, 384, 307)));
        let whole = queries.matmul(&candidates.tr());
        for row in 0..61 {
            let alone = queries.narrow(0, row, 1).matmul(&candidates.flip([0]).tr()).flip([1]);
            assert!(alone.equal(&whole.narrow(0, row, 1)), "row {row}");
        }
    }

    #[test]
    fn a_collapsed_model_scores_chance() {
        let features = exact(&features(40, 16, 1));
        let right = Tensor::arange(40, (Kind::Int64, Device::Cpu));
        let found = Standing::from_rows(&standings(&features, &features, &right)).unwrap();
        let recall = Recall::of(&found);
        for (found, k) in [(recall.r1, 1.0), (recall.r5, 5.0), (recall.r10, 10.0)] {
            assert!((found - k / 40.0).abs() < 1e-15, "{found} among the first {k}");
        }
        assert_eq!(recall.mean_rank, 20.5);
    }

    #[test]
    fn a_model_that_returns_no_numbers_finds_nothing() {
        let features = Tensor::full([6, 4], f64::NAN, (Kind::Double, Device::Cpu));
        let right = Tensor::arange(6, (Kind::Int64, Device::Cpu));
        let found = Standing::from_rows(&standings(&features, &features, &right)).unwrap();
        assert_eq!(found, [Standing { ahead: 6, tied: 0 }; 6]);
        assert_eq!(Recall::of(&found).r1, 0.0);
    }

    #[test]
    fn recall_summarises_places_as_openclip_does() {
        let standings = [0, 3, 4, 12].map(|ahead| Standing { ahead, tied: 0 });
        let recall = Recall::of(&standings);
        assert_eq!(recall, Recall { r1: 0.25, r5: 0.75, r10: 0.75, mean_rank: 5.75, median_rank: 4.0 });
    }

    #[test]
    fn ties_share_the_places_that_they_hold() {
        let standing = Standing { ahead: 3, tied: 3 };
        let within: Vec<_> = [1, 3, 4, 5, 7, 10].map(|k| standing.within(k)).to_vec();
        assert_eq!(within, [0.0, 0.0, 0.25, 0.5, 1.0, 1.0]);
        assert_eq!(standing.rank(), 5.5);
    }
}
