//! How values are distributed.

use tch::{Kind, Tensor};

use crate::distributed::{CommError, Communicator};

/// Ranges of equal width.
const NUM_BINS: i64 = 60;

/// How many values lie in each of some ranges.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// How many there are.
    pub num: f64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub sum_squares: f64,
    /// Upper ends of the ranges, ascending.
    pub limits: Vec<f64>,
    /// Values in each.
    pub counts: Vec<f64>,
}

impl Histogram {
    /// Counts the finite values that all ranks have; nothing if there are none. Collective; waits for the device.
    ///
    /// # Errors
    /// When ranks cannot reach each other.
    pub fn of(values: &Tensor, comm: &dyn Communicator) -> Result<Option<Self>, CommError> {
        let values = values.flatten(0, -1);
        let values = values.masked_select(&values.isfinite()).to_kind(Kind::Double);
        let own = if values.numel() == 0 {
            Tensor::from_slice(&[f64::INFINITY, f64::INFINITY]).to_device(values.device())
        } else {
            Tensor::stack(&[values.min(), -values.max()], 0)
        };
        let ends = comm.all_gather(&own.unsqueeze(0))?.min_dim(0, false).0;
        let (min, max) = (ends.double_value(&[0]), -ends.double_value(&[1]));
        if min > max {
            return Ok(None);
        }
        // A single value needs a range around it.
        let width = ((max - min) / NUM_BINS as f64).max(min.abs().max(1.0) * 1e-9);
        let place = ((&values - min) / width).floor().clamp(0.0, (NUM_BINS - 1) as f64).to_kind(Kind::Int64);
        let counts = place.bincount(None::<Tensor>, NUM_BINS).to_kind(Kind::Double);
        let sums = [values.sum(Kind::Double), values.square().sum(Kind::Double)];
        let all = Tensor::cat(&[counts, Tensor::stack(&sums, 0)], 0);
        comm.all_reduce_sum(&all)?;
        let all = Vec::<f64>::try_from(all).expect("a vector of doubles converts");
        let (counts, sums) = all.split_at(NUM_BINS as usize);
        Ok(Some(Self {
            min,
            max,
            num: counts.iter().sum(),
            sum: sums[0],
            sum_squares: sums[1],
            limits: (1..=NUM_BINS).map(|bin| min + bin as f64 * width).collect(),
            counts: counts.to_vec(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::distributed::Alone;

    #[test]
    fn every_finite_value_is_counted_once() {
        let values = Tensor::from_slice(&[0.0, 1.0, 1.0, 6.0, f64::NEG_INFINITY, f64::NAN]);
        let found = Histogram::of(&values, &Alone::new()).unwrap().unwrap();
        assert_eq!(
            (found.min, found.max, found.num, found.sum, found.sum_squares),
            (0.0, 6.0, 4.0, 8.0, 38.0)
        );
        let filled: Vec<(usize, f64)> =
            found.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0.0).collect();
        assert_eq!(filled, [(0, 1.0), (10, 2.0), (59, 1.0)]);
        assert!((found.limits[59] - 6.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_and_one_value_are_no_trouble() {
        let none = Tensor::full([3], f64::NEG_INFINITY, (Kind::Double, Device::Cpu));
        assert_eq!(Histogram::of(&none, &Alone::new()).unwrap(), None);
        let same = Tensor::full([3], 2.0, (Kind::Double, Device::Cpu));
        let found = Histogram::of(&same, &Alone::new()).unwrap().unwrap();
        assert_eq!((found.counts[0], found.num), (3.0, 3.0));
    }
}
