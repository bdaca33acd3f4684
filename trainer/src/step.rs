//! One step of training.
//!
//! A batch whose encoders do not fit into memory at once is encoded in micro-batches, twice: first without gradient, for
//! the features that the objective contrasts with each other, then again, one micro-batch after the other, to propagate the
//! gradient of its features. The objective sees the whole batch once, so that neither its loss nor its estimators know of
//! micro-batches. Adding up gradients of losses within micro-batches would cost one pass less and be another objective.
//!
//! On a GPU a step only joins a queue: nothing in it makes the host wait, so that the GPU always has the next step to go on
//! with. What it finds is [`Pending`] until somebody wants to know. Steps after one whose gradients were not finite change
//! no parameter, so that nothing is lost by hearing of it late.

use std::num::NonZeroUsize;
use std::sync::Arc;

use fastclip_schemas::SampleId;
use fastclip_torch_ext::TorchError;
use tch::{Kind, Tensor, no_grad};

use crate::distributed::{CommCounters, CommError, Communicator};
use crate::gradients::{Agreement, Contribution, Gradients, Stop};
use crate::graphs::StepGraphs;
use crate::model::{Clip, LOG_SCALE, LOGIT_BIAS, Pass};
use crate::objective::{Local, Objective, ObjectiveError, Values};
use crate::optimizer::{Optimizer, OptimizerError};
use crate::readback::{Readback, Ring};
use crate::schedule::{Rates, Schedule};

/// One rank's part of a global batch, on the model's device.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Bytes of pixels, `[b, 3, size, size]`.
    pub images: Tensor,
    /// Token ids, `[b, length of the longest caption]`.
    pub tokens: Tensor,
    /// Which samples they are.
    pub ids: &'a [SampleId],
    /// The same on the model's device, `[b]`, if they have been brought there already.
    pub ids_on_device: Option<Tensor>,
    /// Passes over the data already finished.
    pub epoch: u64,
}

/// What a step found; equal on all ranks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Epoch of the batch.
    pub epoch: u64,
    /// What the objective reports, over the global batch.
    pub values: Values<f64>,
    /// Euclidean norm of the gradient over all parameters, before it was clipped.
    pub grad_norm: f64,
    /// τ that the loss was computed with.
    pub tau: f64,
    /// γ of the epoch, if the objective has one.
    pub gamma: Option<f64>,
    /// Learning rates of the step.
    pub rates: Rates,
    /// What this rank's collectives moved.
    pub communication: CommCounters,
    /// Whether a rank was asked to stop after this step.
    pub stop: Option<Stop>,
}

/// A step that could not be taken. The parameters are as they were before it, estimators may not be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The objective could not be differentiated.
    #[error("could not differentiate the objective in step {step}")]
    Objective {
        /// Steps taken before.
        step: u64,
        /// Why.
        #[source]
        source: ObjectiveError,
    },
    /// Gradients could not be summed.
    #[error("could not sum gradients over ranks in step {step}")]
    Sum {
        /// Steps taken before.
        step: u64,
        /// Why.
        #[source]
        source: CommError,
    },
    /// The optimizer refused.
    #[error("could not update the parameters in step {step}")]
    Update {
        /// Steps taken before.
        step: u64,
        /// Why.
        #[source]
        source: OptimizerError,
    },
    /// What a step found did not come back from the device.
    #[error("could not read what step {step} found")]
    Read {
        /// Steps taken before.
        step: u64,
        /// Why.
        #[source]
        source: TorchError,
    },
    /// Loss or gradients are infinite or not a number. The optimizer has not moved since.
    #[error(
        "loss or gradients are not finite in step {step} on {}; {}",
        ranks(not_finite_on),
        culprit(first)
    )]
    NotFinite {
        /// Steps taken before.
        step: u64,
        /// Ranks whose samples caused it; empty if only their sum overflows.
        not_finite_on: Vec<usize>,
        /// The first parameter whose gradient, summed over ranks, is not finite.
        first: Option<String>,
    },
}

fn ranks(not_finite_on: &[usize]) -> String {
    match not_finite_on {
        [] => "no rank, but in their sum".to_owned(),
        [rank] => format!("rank {rank}"),
        ranks => format!("ranks {}", ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn culprit(first: &Option<String>) -> String {
    match first {
        Some(name) => format!("first in the gradient of `{name}`"),
        None => "all gradients are finite".to_owned(),
    }
}

/// Everything that training changes.
#[derive(Debug)]
pub struct Trainer {
    /// The model.
    pub model: Clip,
    /// What is minimised, with its estimators.
    pub objective: Box<dyn Objective>,
    /// The optimizer, with what it remembers.
    pub optimizer: Optimizer,
    /// The learning rates.
    pub schedule: Schedule,
    /// Where the gradients of the model's parameters lie.
    pub gradients: Gradients,
    /// Parts of a rank's batch that are encoded one after another; 1 to encode it at once.
    pub num_micro_batches: NonZeroUsize,
    /// Steps taken.
    pub step: u64,
    /// Where what steps find comes back, see [`Trainer::readback`].
    pub readback: Ring,
    /// Recorded steps, if steps are to be recorded.
    pub graphs: Option<StepGraphs>,
}

impl Trainer {
    /// Takes one step. Collective: all ranks take it together, each with its part of the global batch.
    ///
    /// # Errors
    /// When ranks cannot reach each other. That loss or gradients are not finite is found by reading what comes back. In
    /// both cases the run is over.
    pub fn step(
        &mut self,
        batch: &Inputs<'_>,
        stop: Option<Stop>,
        comm: &dyn Communicator,
    ) -> Result<Pending, StepError> {
        let step = self.step;
        let rates = self.schedule.at(step);
        self.optimizer.set_rates(&rates);
        let Launched { numbers, communication } = match self.graphs.take() {
            Some(mut graphs) => {
                let launched = graphs.launch(self, batch, &rates, stop, comm);
                self.graphs = Some(graphs);
                launched?
            }
            None => self.launch(batch, &rates, stop, comm)?,
        };
        let numbers = self.readback.send(&numbers).map_err(|source| StepError::Read { step, source })?;
        self.step += 1;
        Ok(Pending {
            numbers,
            names: Arc::clone(self.gradients.names()),
            step,
            epoch: batch.epoch,
            gamma: self.objective.gamma(batch.epoch),
            rates,
            communication,
            // Alone, nobody else need hear of it, and a recorded step could not tell.
            stop: stop.filter(|_| comm.world_size() == 1),
        })
    }

    /// Puts a step on the device's queue.
    pub(crate) fn launch(
        &mut self,
        batch: &Inputs<'_>,
        rates: &Rates,
        stop: Option<Stop>,
        comm: &dyn Communicator,
    ) -> Result<Launched, StepError> {
        let step = self.step;
        let before = comm.counters();
        let parts = batch.parts(self.num_micro_batches);
        let (mut kept, features) = match &parts[..] {
            [whole] => {
                let features = Features::encode(&self.model, whole, Pass::Training);
                let constant = features.detached();
                (Some(features), constant)
            }
            parts => (None, no_grad(|| Features::encode_all(&self.model, parts))),
        };
        let share = self
            .objective
            .differentiate(&features.local(&self.model, batch), comm)
            .map_err(|source| StepError::Objective { step, source })?;

        self.gradients.clear();
        self.gradients.give(LOG_SCALE, &share.log_scale);
        if let (Some(bias), true) = (&share.bias, self.model.logit_bias().is_some()) {
            self.gradients.give(LOGIT_BIAS, bias);
        }
        let model = &self.model;
        let mut backward = |part: &Part| {
            let repeated = || Features::encode(model, part, Pass::Repetition);
            let features = kept.take().unwrap_or_else(repeated);
            features.backward(&part.of(&share.image), &part.of(&share.text));
        };
        let (last, others) = parts.split_last().expect("a batch has at least one part");
        others.iter().for_each(&mut backward);
        self.gradients
            .sum_during(comm, &mut || backward(last))
            .map_err(|source| StepError::Sum { step, source })?;

        let contribution = Contribution { values: share.values, stop };
        let reckoning =
            self.gradients.agree(contribution, comm).map_err(|source| StepError::Sum { step, source })?;
        self.optimizer
            .step(&reckoning.gradient(&self.gradients), rates)
            .map_err(|source| StepError::Update { step, source })?;
        self.model.clamp_temperature();
        self.model.round();
        Ok(Launched {
            numbers: reckoning.numbers().shallow_clone(),
            communication: comm.counters().since(&before),
        })
    }

    /// Makes room for what steps find on its way from the model's device.
    pub fn readback(model: &Clip, world_size: usize) -> Ring {
        // Reports are read at the latest when the next one has been sent; one place more than those two, to be safe.
        Ring::new(model.device(), 3, Gradients::num_numbers(world_size) as i64)
    }
}

/// A step on the device's queue.
#[derive(Debug)]
pub(crate) struct Launched {
    /// What it finds, there.
    pub(crate) numbers: Tensor,
    /// What its collectives move.
    pub(crate) communication: CommCounters,
}

/// A step that has been put on the device's queue, and may not be done.
#[derive(Debug)]
pub struct Pending {
    numbers: Readback,
    names: Arc<[String]>,
    step: u64,
    epoch: u64,
    gamma: Option<f64>,
    rates: Rates,
    communication: CommCounters,
    stop: Option<Stop>,
}

impl Pending {
    /// Waits until the step is done, and returns what it found.
    ///
    /// # Errors
    /// When loss or gradients were not finite, or the device failed; the run is over then.
    pub fn read(self) -> Result<StepReport, StepError> {
        let step = self.step;
        let numbers = self.numbers.read().map_err(|source| StepError::Read { step, source })?;
        let agreement = Agreement::of(&numbers);
        if !agreement.is_finite() {
            let first = agreement.first_not_finite.map(|place| self.names[place].clone());
            return Err(StepError::NotFinite { step, not_finite_on: agreement.not_finite_on, first });
        }
        Ok(StepReport {
            epoch: self.epoch,
            values: agreement.values,
            grad_norm: agreement.norm,
            tau: agreement.values.tau,
            gamma: self.gamma,
            rates: self.rates,
            communication: self.communication,
            stop: agreement.stop.or(self.stop),
        })
    }
}

/// Reports that are waited for: each is read when the next step is on the queue, so that the device always has work, or at
/// once where somebody wants to know. All ranks read the same reports after the same steps, whatever their devices' pace.
#[derive(Debug, Default)]
pub struct InFlight {
    previous: Option<Pending>,
}

/// What has been read after a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrived {
    /// What the step itself found, if that was wanted.
    pub report: Option<StepReport>,
    /// Whether a rank was asked to stop in a step that has been read about.
    pub stop: Option<Stop>,
}

impl InFlight {
    /// Takes over a step, and reads about the one before it; about this one, too, if that is wanted now, or if it is the
    /// last because somebody asked to stop.
    ///
    /// # Errors
    /// What [`Pending::read`] says of either.
    pub fn push(&mut self, pending: Pending, is_wanted: bool) -> Result<Arrived, StepError> {
        let previous = self.previous.take().map(Pending::read).transpose()?;
        let has_stop = previous.is_some_and(|report| report.stop.is_some());
        let report = if is_wanted || has_stop {
            Some(pending.read()?)
        } else {
            self.previous = Some(pending);
            None
        };
        let stop = [previous, report].into_iter().flatten().find_map(|report| report.stop);
        Ok(Arrived { report, stop })
    }
}

impl Trainer {
    /// Replaces what batch norms gathered by its mean over ranks, so that all evaluate and save the same model. Collective.
    /// What is gathered is linear in the statistics of batches, and no training pass reads it: when this is done, and how
    /// often, changes no step and only the rounding of its own result.
    ///
    /// # Errors
    /// When ranks cannot reach each other.
    pub fn average_statistics(&self, comm: &dyn Communicator) -> Result<(), CommError> {
        let statistics: Vec<&Tensor> = self
            .model
            .parameters()
            .buffers()
            .iter()
            .map(|buffer| &buffer.tensor)
            .filter(|tensor| tensor.is_floating_point())
            .collect();
        if statistics.is_empty() || comm.world_size() == 1 {
            return Ok(());
        }
        let flat: Vec<Tensor> = statistics.iter().map(|tensor| tensor.flatten(0, -1)).collect();
        let mean = Tensor::cat(&flat, 0);
        comm.all_reduce_sum(&mean)?;
        let mean = mean / comm.world_size() as f64;
        let mut start = 0;
        for statistic in statistics {
            let length = statistic.numel() as i64;
            no_grad(|| statistic.shallow_clone().copy_(&mean.narrow(0, start, length)));
            start += length;
        }
        Ok(())
    }
}

/// Some consecutive samples of a batch.
#[derive(Debug)]
struct Part {
    /// The first of them in the batch.
    first: i64,
    images: Tensor,
    tokens: Tensor,
}

impl Inputs<'_> {
    /// Cuts the batch into parts of equal size, up to a smaller last one.
    fn parts(&self, num_parts: NonZeroUsize) -> Vec<Part> {
        let num_samples = self.ids.len();
        let size = num_samples.div_ceil(num_parts.get()).max(1);
        let part = |first: usize| {
            let rows = |tensor: &Tensor| tensor.narrow(0, first as i64, size.min(num_samples - first) as i64);
            Part { first: first as i64, images: rows(&self.images), tokens: rows(&self.tokens) }
        };
        (0..num_samples.max(1)).step_by(size).map(part).collect()
    }
}

impl Part {
    /// Returns the rows of a tensor that belong to these samples.
    fn of(&self, rows: &Tensor) -> Tensor {
        rows.narrow(0, self.first, self.images.size()[0])
    }
}

/// Features of images and their texts.
struct Features {
    image: Tensor, // [b, d]
    text: Tensor,  // [b, d]
}

impl Features {
    fn encode(model: &Clip, part: &Part, pass: Pass) -> Self {
        Self { image: model.encode_image(&part.images, pass), text: model.encode_trimmed_text(&part.tokens) }
    }

    fn encode_all(model: &Clip, parts: &[Part]) -> Self {
        let (image, text): (Vec<Tensor>, Vec<Tensor>) = parts
            .iter()
            .map(|part| Self::encode(model, part, Pass::Training))
            .map(|Self { image, text }| (image, text))
            .unzip();
        Self { image: Tensor::cat(&image, 0), text: Tensor::cat(&text, 0) }
    }

    fn detached(&self) -> Self {
        Self { image: self.image.detach(), text: self.text.detach() }
    }

    fn local<'a>(&'a self, model: &'a Clip, batch: &'a Inputs<'a>) -> Local<'a> {
        Local {
            image: &self.image,
            text: &self.text,
            ids: batch.ids,
            ids_on_device: batch.ids_on_device.as_ref(),
            log_scale: model.log_scale(),
            bias: model.logit_bias(),
            epoch: batch.epoch,
        }
    }

    /// Propagates the gradients of the features to all parameters of the encoders.
    fn backward(&self, image: &Tensor, text: &Tensor) {
        // The derivative of Σ f·c with respect to f is c: the way to hand libtorch a gradient to start from.
        let root = (&self.image * image).sum(None::<Kind>) + (&self.text * text).sum(None::<Kind>);
        root.backward();
    }
}
