//! Parameter gradients, summed over ranks.
//!
//! All gradients of a step travel in one buffer and one all-reduce. A short tail behind them carries what ranks must
//! agree on anyway: the reported values, whose gradients are not finite, and whether somebody was asked to stop. That
//! costs a few bytes, where collectives of their own would cost their latency in every step.

use tch::{Kind, Tensor};

use crate::distributed::{CommError, Communicator};
use crate::objective::{NUM_VALUES, Values};

/// A request to stop after the current step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// From the keyboard, SIGINT.
    Interrupt,
    /// From a scheduler or a launcher, SIGTERM.
    Terminate,
}

/// What all ranks know after the gradients were summed.
#[derive(Debug)]
pub struct GradientSum {
    /// Gradients in the order of the model's parameters; views into one buffer.
    pub gradients: Vec<Tensor>,
    /// What the objective reports, over the global batch.
    pub values: Values<f64>,
    /// Euclidean norm over all gradients.
    pub norm: f64,
    /// Ranks whose own gradients or loss were not finite.
    pub not_finite_on: Vec<usize>,
    /// Whether a rank was asked to stop; SIGTERM wins.
    pub stop: Option<Stop>,
}

/// One rank's summand.
#[derive(Debug)]
pub struct GradientShare<'a> {
    /// Gradients in the order of the model's parameters.
    pub gradients: &'a [Tensor],
    /// Summands of what is reported.
    pub values: Values<Tensor>,
    /// Whether this rank was asked to stop.
    pub stop: Option<Stop>,
}

const NUM_STOPS: usize = 2;

impl GradientShare<'_> {
    /// Sums over all ranks. Collective.
    ///
    /// # Errors
    /// When ranks cannot reach each other.
    pub fn sum_over_ranks(self, comm: &dyn Communicator) -> Result<GradientSum, CommError> {
        let kind = self.gradients[0].kind();
        let flattened = self.gradients.iter().map(|gradient| gradient.reshape([-1]));
        let values = self.values.into_array().map(|value| value.reshape([1]).to_kind(kind));
        let (rank, world_size) = (comm.rank(), comm.world_size());

        let mut parts: Vec<Tensor> = flattened.chain(values).collect();
        let num_gradients: i64 = self.gradients.iter().map(|gradient| gradient.numel() as i64).sum();
        let flags = Tensor::zeros([(NUM_STOPS + world_size) as i64], (kind, parts[0].device()));
        if let Some(stop) = self.stop {
            let _ = flags.get(stop as i64).fill_(1.0);
        }
        parts.push(flags);
        let buffer = Tensor::cat(&parts, 0);
        let is_bad = buffer.isfinite().all().logical_not();
        buffer.narrow(0, -((world_size - rank) as i64), 1).copy_(&is_bad.to_kind(kind));
        comm.all_reduce_sum(&buffer)?;

        let gradients = buffer.narrow(0, 0, num_gradients);
        let norm = gradients.norm().reshape([1]);
        let tail = buffer.narrow(0, num_gradients, (NUM_VALUES + NUM_STOPS + world_size) as i64);
        // Host–device sync: the only one of a step. Everything the host wants to know comes with it.
        let numbers = Tensor::cat(&[norm, tail], 0).to_kind(Kind::Double);
        let numbers = Vec::<f64>::try_from(numbers).expect("a vector of doubles converts");
        let Some((norm, tail)) = numbers.split_first() else { unreachable!("the norm is the first number") };
        let Some((values, [interrupts, terminations, bad @ ..])) = tail.split_first_chunk() else {
            unreachable!("the tail has {NUM_VALUES} values, {NUM_STOPS} requests and a flag for each rank");
        };
        let stop = if *terminations > 0.0 {
            Some(Stop::Terminate)
        } else {
            (*interrupts > 0.0).then_some(Stop::Interrupt)
        };
        Ok(GradientSum {
            gradients: Tensor::unflatten_dense_tensors(&gradients, self.gradients),
            values: Values::from_array(*values),
            norm: *norm,
            not_finite_on: (0..world_size).filter(|&rank| bad[rank] != 0.0).collect(),
            stop,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::Alone;

    const VALUES: [f64; NUM_VALUES] = [1.0, 2.0, 3.0, 4.0, 5.0];

    fn sum(gradients: &[Tensor], stop: Option<Stop>) -> GradientSum {
        let values = VALUES.map(|value| Tensor::from(value as f32));
        let share = GradientShare { gradients, values: Values::from_array(values), stop };
        share.sum_over_ranks(&Alone::new()).unwrap()
    }

    #[test]
    fn gradients_and_values_arrive_in_their_shapes() {
        let gradients = [Tensor::from_slice2(&[[3.0f32, 0.0], [0.0, 0.0]]), Tensor::from(4.0f32)];
        let sum = sum(&gradients, None);
        for (found, expected) in sum.gradients.iter().zip(&gradients) {
            assert!(found.equal(expected));
        }
        assert_eq!(sum.norm, 5.0);
        assert_eq!(sum.values.into_array(), VALUES);
        assert_eq!((sum.not_finite_on, sum.stop), (vec![], None));
    }

    #[test]
    fn gradients_that_are_not_finite_name_their_rank() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(sum(&[Tensor::from_slice(&[1.0, bad])], None).not_finite_on, [0]);
        }
    }

    #[test]
    fn a_request_to_stop_reaches_all() {
        let gradients = [Tensor::from_slice(&[1.0f32])];
        for stop in [Stop::Interrupt, Stop::Terminate] {
            assert_eq!(sum(&gradients, Some(stop)).stop, Some(stop));
        }
    }
}
