//! Parameter gradients, summed over ranks.
//!
//! Gradients lie in buckets, and each bucket is summed while backward still computes the next ([`Gradients`]). One small
//! all-reduce follows with what ranks must agree on anyway ([`Contribution`]): the reported values, whose gradients are not
//! finite, and whether somebody was asked to stop. That is a few bytes, where collectives of their own would cost their
//! latency in every step.
//!
//! What comes of it stays on the device ([`Reckoning`]): the norm that gradients are clipped by, and whether the step may
//! change anything. The host gets a copy when it comes ([`Agreement`]). Once gradients were not finite, no later step
//! changes anything either, so that the parameters are still those of the last good step whenever the host finds out.

use std::num::NonZeroUsize;
use std::sync::Arc;

use fastclip_torch_ext::{BucketEntry, GradientBuckets, TorchError, foreach_norms};
use tch::{Kind, Tensor, no_grad};

use crate::distributed::{CommError, Communicator};
use crate::model::{LOG_SCALE, LOGIT_BIAS, Parameters};
use crate::objective::{NUM_VALUES, Values};
use crate::optimizer::Gradient;

/// Parameters whose gradient the objective returns; all others get theirs from backward through the encoders.
const GIVEN: [&str; 2] = [LOG_SCALE, LOGIT_BIAS];

/// The gradients of a model's parameters, as long as it is trained.
#[derive(Debug)]
pub struct Gradients {
    buckets: GradientBuckets,
    /// Names of the parameters, in their order.
    names: Arc<[String]>,
    /// 1 once gradients were not finite, `[]`.
    is_over: Tensor,
}

/// What is known on the device after gradients were summed.
#[derive(Debug)]
pub struct Reckoning {
    /// Euclidean norm over all gradients, `[]`.
    norm: Tensor,
    /// 1 if this step and those after it must change nothing, `[]` in fp32.
    is_over: Tensor,
    /// All that the host wants to know, in one vector.
    numbers: Tensor,
}

impl Reckoning {
    /// Returns the vector that [`Agreement::of`] reads.
    pub fn numbers(&self) -> &Tensor {
        &self.numbers
    }

    /// Returns what the optimizer follows.
    pub fn gradient<'a>(&'a self, gradients: &'a Gradients) -> Gradient<'a> {
        Gradient { in_order: gradients.in_order(), norm: &self.norm, skip: Some(&self.is_over) }
    }
}

impl Gradients {
    /// Gives every parameter's gradient its place in buckets of about so many bytes.
    ///
    /// # Errors
    /// When libtorch refuses a parameter, such as one that already has a place.
    pub fn new(parameters: &Parameters, bucket_bytes: NonZeroUsize) -> Result<Self, TorchError> {
        let entries: Vec<BucketEntry<'_>> = parameters
            .iter()
            .map(|parameter| BucketEntry {
                parameter: &parameter.tensor,
                leaf: (!is_given(&parameter.name)).then(|| parameter.leaf()),
            })
            .collect();
        let buckets = GradientBuckets::new(&entries, bucket_bytes)?;
        let device = buckets.largest().device();
        Ok(Self {
            buckets,
            names: parameters.iter().map(|parameter| parameter.name.clone()).collect(),
            is_over: Tensor::zeros([] as [i64; 0], (Kind::Float, device)),
        })
    }

    /// Returns the names of the parameters, in their order.
    pub fn names(&self) -> &Arc<[String]> {
        &self.names
    }

    /// Returns how many numbers a step sends to the host.
    pub fn num_numbers(world_size: usize) -> usize {
        2 + NUM_VALUES + NUM_STOPS + world_size
    }

    /// Returns the gradients in the order of the model's parameters.
    pub fn in_order(&self) -> &[Tensor] {
        self.buckets.gradients()
    }

    /// Returns the number of buckets, each of which is one all-reduce in a step.
    pub fn num_buckets(&self) -> usize {
        self.buckets.flats().len()
    }

    /// Begins a step: from here on backward passes add up.
    pub fn clear(&mut self) {
        self.buckets.clear();
    }

    /// Sets the gradient of a parameter that backward does not reach.
    ///
    /// # Panics
    /// When it is not one of those.
    pub fn give(&mut self, name: &str, gradient: &Tensor) {
        let place = self.names.iter().position(|known| known == name && is_given(name));
        let place =
            place.expect("objectives return gradients of the parameters that are known to get them so");
        no_grad(|| self.buckets.gradients()[place].shallow_clone().copy_(gradient));
    }

    /// Runs the last backward pass of a step, and sums over ranks what all passes came to. Collective.
    ///
    /// # Errors
    /// When ranks cannot reach each other.
    pub fn sum_during(
        &mut self,
        comm: &dyn Communicator,
        backward: &mut dyn FnMut(),
    ) -> Result<(), CommError> {
        comm.all_reduce_during(&mut self.buckets, backward)
    }

    /// Tells all ranks what this one contributes beside gradients, after those were summed. Collective. The host waits for
    /// nothing.
    ///
    /// # Errors
    /// When ranks cannot reach each other.
    pub fn agree(
        &mut self,
        contribution: Contribution,
        comm: &dyn Communicator,
    ) -> Result<Reckoning, CommError> {
        let Contribution { values, stop } = contribution;
        let largest = self.buckets.largest();
        let options = (largest.kind(), largest.device());
        let values = Tensor::stack(&values.into_array().map(|value| value.to_kind(options.0)), 0);
        let is_finite = largest.isfinite().all().logical_and(&values.isfinite().all());
        let marks = Tensor::zeros([(NUM_STOPS + comm.world_size()) as i64], options);
        if let Some(stop) = stop {
            let _ = marks.get(stop as i64).fill_(1.0);
        }
        let own = marks.get((NUM_STOPS + comm.rank()) as i64);
        own.shallow_clone().copy_(&is_finite.logical_not());
        let shared = Tensor::cat(&[values, marks], 0);
        comm.all_reduce_sum(&shared)?;

        let norms =
            foreach_norms(self.in_order()).expect("gradients have one kind, and there is at least one");
        let norm = norms.norm();
        let are_bad = norms.isfinite().logical_not();
        // The first of the largest: of zeros and ones, the first one.
        let first = are_bad.to_kind(Kind::Int64).argmax(0, false).to_kind(options.0);
        let first = first.where_self(&are_bad.any(), &first.full_like(-1.0));
        let num_ranks = comm.world_size() as i64;
        let is_bad_anywhere = shared.narrow(0, shared.size()[0] - num_ranks, num_ranks).any();
        let is_bad = is_bad_anywhere.logical_or(&norm.isfinite().logical_not());
        no_grad(|| self.is_over.copy_(&self.is_over.maximum(&is_bad.to_kind(Kind::Float))));
        Ok(Reckoning {
            numbers: Tensor::cat(&[norm.reshape([1]), first.reshape([1]), shared], 0),
            norm,
            is_over: self.is_over.shallow_clone(),
        })
    }
}

fn is_given(name: &str) -> bool {
    GIVEN.contains(&name)
}

/// A request to stop after the current step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// From the keyboard, SIGINT.
    Interrupt,
    /// From a scheduler or a launcher, SIGTERM.
    Terminate,
}

pub(crate) const NUM_STOPS: usize = 2;

/// What one rank contributes to a step beside gradients.
#[derive(Debug)]
pub struct Contribution {
    /// Summands of what is reported.
    pub values: Values<Tensor>,
    /// Whether this rank was asked to stop.
    pub stop: Option<Stop>,
}

/// What all ranks know after a step's gradients were summed.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// What the objective reports, over the global batch.
    pub values: Values<f64>,
    /// Euclidean norm over all gradients.
    pub norm: f64,
    /// Ranks whose own gradients or loss were not finite.
    pub not_finite_on: Vec<usize>,
    /// Place of the first parameter whose gradient, summed over ranks, is not finite.
    pub first_not_finite: Option<usize>,
    /// Whether a rank was asked to stop; SIGTERM wins.
    pub stop: Option<Stop>,
}

impl Agreement {
    /// Reads the numbers of a [`Reckoning`].
    ///
    /// # Panics
    /// When they are not.
    pub fn of(numbers: &[f64]) -> Self {
        let [norm, first, shared @ ..] = numbers else { panic!("a reckoning has norm and place") };
        let (values, marks) = shared.split_at(NUM_VALUES);
        let (stops, bad) = marks.split_at(NUM_STOPS);
        let asked = |stop: Stop| (stops[stop as usize] > 0.0).then_some(stop);
        Self {
            values: Values::from_array(values.try_into().expect("as many values come back as were sent")),
            norm: *norm,
            not_finite_on: (0..bad.len()).filter(|&rank| bad[rank] != 0.0).collect(),
            first_not_finite: (*first >= 0.0).then_some(*first as usize),
            stop: asked(Stop::Terminate).or(asked(Stop::Interrupt)),
        }
    }

    /// Whether the step may change parameters.
    pub fn is_finite(&self) -> bool {
        self.not_finite_on.is_empty() && self.norm.is_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::Alone;
    use crate::model::{Init, ParameterSpec};
    use tch::Device;

    const VALUES: [f64; NUM_VALUES] = [1.0, 2.0, 3.0, 4.0, 5.0];

    fn parameters() -> Parameters {
        let spec = |name: &str, shape: &[i64]| ParameterSpec::new(name, shape, Init::Constant(0.0));
        let specs = [spec("first", &[2, 2]), spec(LOG_SCALE, &[]), spec("last", &[1])];
        Parameters::draw(&specs, 0, Kind::Float, Device::Cpu)
    }

    /// A step in which the parameters `first` and `last` have these gradients.
    fn step(first: f32, last: f32, stop: Option<Stop>) -> (Gradients, Agreement) {
        let parameters = parameters();
        let mut gradients = Gradients::new(&parameters, NonZeroUsize::new(16).unwrap()).unwrap();
        let comm = Alone::new();
        gradients.give(LOG_SCALE, &Tensor::from(2.0f64));
        let of = |name| parameters.get(name).unwrap();
        let mut backward =
            || (of("first") * f64::from(first) + of("last") * f64::from(last)).get(0).get(0).backward();
        gradients.sum_during(&comm, &mut backward).unwrap();
        let values = Values::from_array(VALUES.map(|value| Tensor::from(value as f32)));
        let contribution = Contribution { values, stop };
        let reckoning = gradients.agree(contribution, &comm).unwrap();
        let numbers = reckoning.numbers().to_kind(Kind::Double);
        let agreement = Agreement::of(&Vec::<f64>::try_from(numbers).unwrap());
        assert_eq!(reckoning.is_over.double_value(&[]) == 0.0, agreement.is_finite());
        (gradients, agreement)
    }

    #[test]
    fn gradients_and_values_arrive_in_their_shapes() {
        let (gradients, agreement) = step(4.0, -4.0, None);
        let expected = [Tensor::from_slice2(&[[4.0f32, 0.0], [0.0, 0.0]]), Tensor::from(2.0f32)];
        for (found, expected) in gradients.in_order().iter().zip(&expected) {
            assert!(found.equal(expected));
        }
        assert_eq!(agreement.norm, 6.0);
        assert_eq!(agreement.values.into_array(), VALUES);
        assert_eq!((agreement.not_finite_on, agreement.stop), (vec![], None));
        assert_eq!(agreement.first_not_finite, None);
    }

    #[test]
    fn gradients_that_are_not_finite_name_their_rank_and_parameter() {
        for bad in [f32::NAN, f32::INFINITY] {
            let (gradients, agreement) = step(0.0, bad, None);
            let name = agreement.first_not_finite.map(|place| gradients.names()[place].as_str());
            assert_eq!((agreement.not_finite_on, name), (vec![0], Some("last")));
        }
    }

    #[test]
    fn a_request_to_stop_reaches_all() {
        for stop in [Stop::Interrupt, Stop::Terminate] {
            assert_eq!(step(1.0, 1.0, Some(stop)).1.stop, Some(stop));
        }
    }
}
