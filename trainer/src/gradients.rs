//! Parameter gradients, summed over ranks.
//!
//! Gradients lie in buckets, and each bucket is summed while backward still computes the next ([`Gradients`]). One small
//! all-reduce follows with what ranks must agree on anyway ([`Contribution`]): the reported values, whose gradients are not
//! finite, whether somebody was asked to stop, and whose part of a checkpoint is written. That is a few bytes, where
//! collectives of their own would cost their latency in every step.
//!
//! What comes of it stays on the device ([`Reckoning`]): whether the step may change anything, and all that the host wants to
//! know, which it reads when it comes to that ([`Agreement`]). A host that waited here would leave a GPU without work.

use std::num::NonZeroUsize;
use std::sync::Arc;

use fastclip_torch_ext::{BucketEntry, GradientBuckets, TorchError, foreach_largest, foreach_norm};
use tch::{Kind, Tensor, no_grad};

use crate::distributed::{CommError, Communicator};
use crate::model::{LOG_SCALE, LOGIT_BIAS, Parameters};
use crate::objective::{NUM_VALUES, Values};

/// Parameters whose gradient the objective returns; all others get theirs from backward through the encoders.
const GIVEN: [&str; 2] = [LOG_SCALE, LOGIT_BIAS];

/// The gradients of a model's parameters, as long as it is trained.
#[derive(Debug)]
pub struct Gradients {
    buckets: GradientBuckets,
    /// Names of the parameters, in their order.
    names: Arc<[String]>,
}

/// What is known on the device after gradients were summed.
#[derive(Debug)]
pub struct Reckoning {
    /// 1 if the step must change nothing, since loss or gradients are not finite, else 0; `[]` in fp32.
    pub is_lost: Tensor,
    /// What [`Agreement::of`] reads, one dimension.
    pub numbers: Tensor,
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
        Ok(Self {
            buckets: GradientBuckets::new(&entries, bucket_bytes)?,
            names: parameters.iter().map(|parameter| parameter.name.clone()).collect(),
        })
    }

    /// Returns the names of the parameters, in their order.
    pub fn names(&self) -> &Arc<[String]> {
        &self.names
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
    pub fn agree(&self, contribution: Contribution, comm: &dyn Communicator) -> Result<Reckoning, CommError> {
        let Contribution { values, stop, part } = contribution;
        let largest = self.buckets.largest();
        let options = (largest.kind(), largest.device());
        let values = Tensor::stack(&values.into_array().map(|value| value.to_kind(options.0)), 0);
        let is_finite = largest.isfinite().all().logical_and(&values.isfinite().all());
        let num_ranks = comm.world_size() as i64;
        let marks = Tensor::zeros([NUM_STOPS as i64 + num_ranks], options);
        if let Some(stop) = stop {
            let _ = marks.get(stop as i64).fill_(1.0);
        }
        // No other rank writes here, so that sums of powers of two tell as many things.
        let mut own = marks.get((NUM_STOPS + comm.rank()) as i64);
        own.copy_(&is_finite.logical_not());
        let _ = own.g_add_scalar_(f64::from(part as u8));
        let shared = Tensor::cat(&[values, marks], 0);
        comm.all_reduce_sum(&shared)?;

        let of_one_kind = "buckets have one kind, and there is at least one";
        let norm = foreach_norm(self.buckets.flats()).expect(of_one_kind);
        let ranks = shared.narrow(0, shared.size()[0] - num_ranks, num_ranks);
        let is_lost = ranks.remainder(2.0).any().logical_or(&norm.isfinite().logical_not());
        // The place of the first one that is largest: of zeros and ones, of the first one.
        let are_bad = foreach_largest(self.in_order()).expect(of_one_kind).isfinite().logical_not();
        let first = are_bad.to_kind(Kind::Int64).argmax(0, false);
        let first = first.where_self(&are_bad.any(), &first.full_like(NO_PLACE)).to_kind(options.0);
        Ok(Reckoning {
            is_lost: is_lost.to_kind(Kind::Float),
            numbers: Tensor::cat(&[norm.reshape([1]), first.reshape([1]), shared], 0),
        })
    }
}

/// In the place of the first parameter whose gradient is not finite, if all are.
const NO_PLACE: i64 = -1;

fn is_given(name: &str) -> bool {
    GIVEN.contains(&name)
}

/// A request to stop after the current step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// From a scheduler or a launcher, SIGTERM.
    Terminate,
    /// From the keyboard, SIGINT.
    Interrupt,
    /// From a scheduler that warns before the end of a job, SIGUSR1.
    Warning,
    /// The session has taken as long as it may.
    TimeLimit,
}

impl Stop {
    /// All, the strongest first: that is the one that ranks agree on.
    pub const ALL: [Self; NUM_STOPS] = [Self::Terminate, Self::Interrupt, Self::Warning, Self::TimeLimit];
}

pub(crate) const NUM_STOPS: usize = 4;

/// What a rank says about its part of the checkpoint that is being written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    /// There is none, or it is not written yet.
    #[default]
    Nothing = 0,
    /// It is written.
    Written = 2,
    /// It could not be written.
    Failed = 4,
}

const NOT_FINITE: u8 = 1;

/// Whether a rank's mark, a sum of powers of two, has this one.
fn has(mark: f64, bit: u8) -> bool {
    mark as u8 & bit != 0
}

/// What all ranks know about the parts of a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts {
    /// Ranks whose part is written or failed.
    pub num_reported: usize,
    /// The first rank whose part failed.
    pub first_failed: Option<usize>,
}

impl Parts {
    /// What the only rank knows.
    pub fn of_one(part: Part) -> Self {
        Self {
            num_reported: usize::from(part != Part::Nothing),
            first_failed: (part == Part::Failed).then_some(0),
        }
    }
}

/// What one rank contributes to a step beside gradients.
#[derive(Debug)]
pub struct Contribution {
    /// Summands of what is reported.
    pub values: Values<Tensor>,
    /// Whether this rank was asked to stop.
    pub stop: Option<Stop>,
    /// What became of this rank's part of a checkpoint.
    pub part: Part,
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
    /// Whether a rank was asked to stop; of several requests the strongest.
    pub stop: Option<Stop>,
    /// What became of all ranks' parts of a checkpoint.
    pub parts: Parts,
}

impl Agreement {
    /// Returns how many numbers there are in a world of so many ranks.
    pub fn num_numbers(world_size: usize) -> usize {
        2 + NUM_VALUES + NUM_STOPS + world_size
    }

    /// Reads the numbers of a [`Reckoning`].
    ///
    /// # Panics
    /// When they are not.
    pub fn of(numbers: &[f64]) -> Self {
        let [norm, first, shared @ ..] = numbers else { panic!("a reckoning begins with norm and place") };
        let (values, marks) = shared.split_at(NUM_VALUES);
        let (stops, ranks) = marks.split_at(NUM_STOPS);
        let asked = |stop: Stop| (stops[stop as usize] > 0.0).then_some(stop);
        Self {
            values: Values::from_array(values.try_into().expect("it was cut to this length")),
            norm: *norm,
            not_finite_on: (0..ranks.len()).filter(|&rank| has(ranks[rank], NOT_FINITE)).collect(),
            first_not_finite: usize::try_from(*first as i64).ok(),
            stop: Stop::ALL.into_iter().find_map(asked),
            parts: Parts {
                num_reported: ranks
                    .iter()
                    .filter(|&&mark| has(mark, Part::Written as u8) || has(mark, Part::Failed as u8))
                    .count(),
                first_failed: ranks.iter().position(|&mark| has(mark, Part::Failed as u8)),
            },
        }
    }

    /// Whether the step changes parameters.
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
    fn step(first: f32, last: f32, stop: Option<Stop>, part: Part) -> (Gradients, Agreement) {
        let parameters = parameters();
        let mut gradients = Gradients::new(&parameters, NonZeroUsize::new(16).unwrap()).unwrap();
        let comm = Alone::new();
        gradients.give(LOG_SCALE, &Tensor::from(2.0f64));
        let of = |name| parameters.get(name).unwrap();
        let mut backward =
            || (of("first") * f64::from(first) + of("last") * f64::from(last)).get(0).get(0).backward();
        gradients.sum_during(&comm, &mut backward).unwrap();
        let values = Values::from_array(VALUES.map(|value| Tensor::from(value as f32)));
        let contribution = Contribution { values, stop, part };
        let Reckoning { is_lost, numbers } = gradients.agree(contribution, &comm).unwrap();
        let numbers = Vec::<f64>::try_from(numbers.to_kind(Kind::Double)).unwrap();
        assert_eq!(numbers.len(), Agreement::num_numbers(1));
        let agreement = Agreement::of(&numbers);
        assert_eq!(is_lost.double_value(&[]) == 0.0, agreement.is_finite(), "device and host agree");
        (gradients, agreement)
    }

    #[test]
    fn gradients_and_values_arrive_in_their_shapes() {
        let (gradients, agreement) = step(4.0, -4.0, None, Part::Nothing);
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
            for part in [Part::Nothing, Part::Written, Part::Failed] {
                let (gradients, agreement) = step(0.0, bad, None, part);
                let name = agreement.first_not_finite.map(|place| gradients.names()[place].as_str());
                assert_eq!((agreement.not_finite_on, name), (vec![0], Some("last")));
            }
        }
    }

    #[test]
    fn a_request_to_stop_reaches_all() {
        for stop in Stop::ALL {
            assert_eq!(step(1.0, 1.0, Some(stop), Part::Nothing).1.stop, Some(stop));
        }
    }

    #[test]
    fn what_became_of_a_part_of_a_checkpoint_reaches_all() {
        for (part, num_reported, first_failed) in
            [(Part::Nothing, 0, None), (Part::Written, 1, None), (Part::Failed, 1, Some(0))]
        {
            let agreement = step(1.0, 1.0, None, part).1;
            assert_eq!(agreement.parts, Parts { num_reported, first_failed });
            assert!(agreement.not_finite_on.is_empty());
        }
    }
}
