//! One step of training.
//!
//! A batch whose encoders do not fit into memory at once is encoded in micro-batches, twice: first without gradient, for
//! the features that the objective contrasts with each other, then again, one micro-batch after the other, to propagate the
//! gradient of its features. The objective sees the whole batch once, so that neither its loss nor its estimators know of
//! micro-batches. Adding up gradients of losses within micro-batches would cost one pass less and be another objective.
//!
//! On a GPU a step only joins a queue: nothing in it makes the host wait, so that the GPU always has a next step to go on with
//! ([`Trainer::launch`]). What it finds is [`Pending`] until somebody wants to know. Whether loss and gradients are finite is
//! decided on the device, where the optimizer looks at it before it changes anything.

use std::num::NonZeroUsize;

use fastclip_schemas::SampleId;
use fastclip_torch_ext::{Download, TorchError, upload};
use tch::{Kind, Tensor, no_grad};

use crate::distributed::{CommCounters, CommError, Communicator};
use crate::gradients::{Contribution, Gradients, Part as CheckpointPart, Parts, Reckoning, Stop};
use crate::model::{Clip, LOG_SCALE, LOGIT_BIAS, Pass};
use crate::objective::{Local, Objective, ObjectiveError, Values, id_tensor};
use crate::optimizer::{Optimizer, OptimizerError};
use crate::pending::{Known, Pending};
use crate::schedule::{Rates, Schedule};
use crate::statistics::Statistics;

/// One rank's part of a global batch, on the model's device.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Bytes of pixels, `[b, 3, size, size]`.
    pub images: Tensor,
    /// Token ids, `[b, length of the longest caption]`.
    pub tokens: Tensor,
    /// Which samples they are.
    pub ids: &'a [SampleId],
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
    /// What became of the parts of the checkpoint that is being written.
    pub parts: Parts,
}

/// What a rank tells the others with a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Message {
    /// Whether it was asked to stop.
    pub stop: Option<Stop>,
    /// What became of its part of the checkpoint that is being written.
    pub part: CheckpointPart,
}

/// A step that could not be taken. Parameters and statistics are as they were before it, estimators may not be.
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
    /// Ranks could not agree on what batch norms gathered.
    #[error("could not average the statistics of batch norms over ranks in step {step}")]
    Statistics {
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
    /// What the host and the device tell each other did not get through.
    #[error("could not {action} step {step}")]
    Device {
        /// Steps taken before.
        step: u64,
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: TorchError,
    },
    /// Loss or gradients are infinite or not a number. The optimizer has changed nothing.
    #[error(
        "loss or gradients are not finite in step {step} on {}; {}{}",
        ranks(not_finite_on),
        culprit(first),
        of_samples(samples)
    )]
    NotFinite {
        /// Steps taken before.
        step: u64,
        /// Ranks whose samples caused it; empty if only their sum overflows.
        not_finite_on: Vec<usize>,
        /// The first parameter whose gradient, summed over ranks, is not finite.
        first: Option<String>,
        /// This rank's samples whose features are not finite; none if it arose in backward, or on other ranks.
        samples: Vec<SampleId>,
        /// Whether a rank was asked to stop after this step.
        stop: Option<Stop>,
        /// What became of the parts of the checkpoint that is being written.
        parts: Parts,
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

fn of_samples(samples: &[SampleId]) -> String {
    /// Names that a line has room for.
    const NUM_LISTED: usize = 8;
    if samples.is_empty() {
        return String::new();
    }
    let listed: Vec<String> = samples.iter().take(NUM_LISTED).map(ToString::to_string).collect();
    let more = match samples.len().saturating_sub(NUM_LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; features of this rank's samples {}{more} are not finite", listed.join(", "))
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
}

/// A batch where the model computes, and what is drawn for it.
#[derive(Debug)]
pub(crate) struct Placed {
    /// See [`Inputs`].
    pub(crate) images: Tensor,
    pub(crate) tokens: Tensor,
    /// `[b]`
    pub(crate) ids: Tensor,
    /// Patches of the images that take part; all if absent.
    pub(crate) patches: Option<Tensor>,
}

/// What a step will have found when the device comes to it.
#[derive(Debug)]
pub(crate) struct Enqueued {
    /// Those of the reckoning, then 1 for each sample of the rank whose features are not finite; in one vector.
    pub(crate) numbers: Tensor,
    /// What its collectives move.
    pub(crate) communication: CommCounters,
}

impl Trainer {
    /// Takes one step, and waits for what it found. Collective: all ranks take it together, each with its part of the global
    /// batch.
    ///
    /// # Errors
    /// When ranks cannot reach each other; the run is over then. When loss or gradients are not finite, all ranks know it,
    /// and may go on: the step has changed nothing but the estimators of samples that were fine, and is not counted.
    pub fn step(
        &mut self,
        batch: &Inputs<'_>,
        message: Message,
        comm: &dyn Communicator,
    ) -> Result<StepReport, StepError> {
        let step = self.step;
        self.launch(batch, message, comm)?.read().inspect_err(|_| self.step = step)
    }

    /// Puts one step on the device's queue: on a CPU, takes it. Collective, like [`Trainer::step`]. Schedules go on, also if
    /// it turns out to change nothing.
    ///
    /// # Errors
    /// When ranks cannot reach each other; the run is over then.
    pub fn launch(
        &mut self,
        batch: &Inputs<'_>,
        message: Message,
        comm: &dyn Communicator,
    ) -> Result<Pending, StepError> {
        self.launch_by(batch, message, comm, |trainer, placed, rates| {
            trainer.enqueue(placed, batch.ids, batch.epoch, rates, message, comm)
        })
    }

    /// The same, with the work put on the queue by `enqueue`.
    pub(crate) fn launch_by(
        &mut self,
        batch: &Inputs<'_>,
        message: Message,
        comm: &dyn Communicator,
        enqueue: impl FnOnce(&mut Self, &Placed, &Rates) -> Result<Enqueued, StepError>,
    ) -> Result<Pending, StepError> {
        let placed = self.place(batch)?;
        let rates = self.schedule.at(self.step);
        self.optimizer.set_rates(&rates);
        let enqueued = enqueue(self, &placed, &rates)?;
        self.pending(enqueued, batch, rates, message, comm)
    }

    /// Brings to the device what is not there yet.
    fn place(&self, batch: &Inputs<'_>) -> Result<Placed, StepError> {
        let device = self.model.device();
        let upload = |tensor: &Tensor| {
            upload(tensor, device).map_err(|source| StepError::Device {
                step: self.step,
                action: "bring samples to the device for",
                source,
            })
        };
        let patches = self.model.draw_patches(self.step, batch.ids);
        Ok(Placed {
            images: batch.images.shallow_clone(),
            tokens: batch.tokens.shallow_clone(),
            ids: upload(&id_tensor(batch.ids))?,
            patches: patches.as_ref().map(upload).transpose()?,
        })
    }

    /// Sends what a step finds on its way to the host, and counts the step.
    fn pending(
        &mut self,
        enqueued: Enqueued,
        batch: &Inputs<'_>,
        rates: Rates,
        message: Message,
        comm: &dyn Communicator,
    ) -> Result<Pending, StepError> {
        let step = self.step;
        let Enqueued { numbers, communication } = enqueued;
        let numbers = Download::start(&numbers).map_err(|source| StepError::Device {
            step,
            action: "ask what was found in",
            source,
        })?;
        self.step += 1;
        let known = Known {
            step,
            epoch: batch.epoch,
            gamma: self.objective.gamma(batch.epoch),
            rates,
            communication,
            num_ranks: comm.world_size(),
            message,
            ids: batch.ids.to_vec(),
            names: self.gradients.names().clone(),
        };
        Ok(Pending::new(numbers, known))
    }

    /// Puts the work of a step on the device's queue.
    pub(crate) fn enqueue(
        &mut self,
        placed: &Placed,
        ids: &[SampleId],
        epoch: u64,
        rates: &Rates,
        message: Message,
        comm: &dyn Communicator,
    ) -> Result<Enqueued, StepError> {
        let step = self.step;
        let before = comm.counters();
        let statistics = Statistics::of(self.model.parameters());
        let parts = placed.parts(self.num_micro_batches);
        let (mut kept, features) = match &parts[..] {
            [whole] => {
                let features = Features::encode(&self.model, whole, Pass::Training);
                let constant = features.detached();
                (Some(features), constant)
            }
            parts => (None, no_grad(|| Features::encode_all(&self.model, parts))),
        };
        let local = Local {
            image: &features.image,
            text: &features.text,
            ids,
            ids_on_device: Some(&placed.ids),
            log_scale: self.model.log_scale(),
            bias: self.model.logit_bias(),
            epoch,
        };
        let share = self
            .objective
            .differentiate(&local, comm)
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

        let Message { stop, part } = message;
        let contribution = Contribution { values: share.values, stop, part };
        let Reckoning { is_lost, numbers } =
            self.gradients.agree(contribution, comm).map_err(|source| StepError::Sum { step, source })?;
        statistics.restore_where(&is_lost, self.model.parameters());
        // In every step, so that none depends on where a session ended or what was evaluated.
        statistics
            .average_since(self.model.parameters(), comm)
            .map_err(|source| StepError::Statistics { step, source })?;
        self.optimizer
            .step(self.gradients.in_order(), rates, Some(&is_lost))
            .map_err(|source| StepError::Update { step, source })?;
        self.model.clamp_temperature();
        self.model.round();
        Ok(Enqueued {
            numbers: Tensor::cat(&[numbers.to_kind(Kind::Double), features.are_lost()], 0),
            communication: comm.counters().since(&before),
        })
    }
}

/// Some consecutive samples of a batch.
#[derive(Debug)]
struct Part {
    /// The first of them in the batch.
    first: i64,
    images: Tensor,
    /// Patches of the images that take part; all if absent.
    patches: Option<Tensor>,
    tokens: Tensor,
}

impl Placed {
    /// Cuts the batch into parts of equal size, up to a smaller last one.
    fn parts(&self, num_parts: NonZeroUsize) -> Vec<Part> {
        let num_samples = self.ids.size()[0] as usize;
        let size = num_samples.div_ceil(num_parts.get()).max(1);
        let part = |first: usize| {
            let rows = |tensor: &Tensor| tensor.narrow(0, first as i64, size.min(num_samples - first) as i64);
            Part {
                first: first as i64,
                images: rows(&self.images),
                patches: self.patches.as_ref().map(rows),
                tokens: rows(&self.tokens),
            }
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
        Self {
            image: model.encode_image_patches(&part.images, part.patches.as_ref(), pass),
            text: model.encode_trimmed_text(&part.tokens),
        }
    }

    fn encode_all(model: &Clip, parts: &[Part]) -> Self {
        let (image, text): (Vec<Tensor>, Vec<Tensor>) = parts
            .iter()
            .map(|part| Self::encode(model, part, Pass::Training))
            .map(|Self { image, text }| (image, text))
            .unzip();
        Self { image: Tensor::cat(&image, 0), text: Tensor::cat(&text, 0) }
    }

    /// Returns 1 for each sample whose features are not finite, and 0 for the others, `[b]` in fp64.
    fn are_lost(&self) -> Tensor {
        let are_finite = |rows: &Tensor| rows.isfinite().all_dim(1, false);
        let are_finite = are_finite(&self.image).logical_and(&are_finite(&self.text));
        are_finite.logical_not().to_kind(Kind::Double)
    }

    fn detached(&self) -> Self {
        Self { image: self.image.detach(), text: self.text.detach() }
    }

    /// Propagates the gradients of the features to all parameters of the encoders.
    fn backward(&self, image: &Tensor, text: &Tensor) {
        // The derivative of Σ f·c with respect to f is c: the way to hand libtorch a gradient to start from.
        let root = (&self.image * image).sum(None::<Kind>) + (&self.text * text).sum(None::<Kind>);
        // With both towers locked there is nothing to propagate them to.
        if root.requires_grad() {
            root.backward();
        }
    }
}
