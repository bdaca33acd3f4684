//! One step of training.

use fastclip_schemas::SampleId;
use tch::{Kind, Tensor, no_grad};

use crate::distributed::{CommError, Communicator};
use crate::gradients::{GradientShare, Stop};
use crate::model::{Clip, LOG_SCALE};
use crate::objective::{Local, Objective, ObjectiveError, Share, Values};
use crate::optimizer::{Optimizer, OptimizerError};
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
    /// Bytes that this rank handed to collectives.
    pub communication_bytes: u64,
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
    /// Loss or gradients are infinite or not a number. Found before the optimizer moved.
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
        /// The first parameter of this rank whose own gradient is not finite.
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
        Some(name) => format!("here first in the gradient of `{name}`"),
        None => "all gradients of this rank are finite".to_owned(),
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
    /// Steps taken.
    pub step: u64,
}

impl Trainer {
    /// Takes one step. Collective: all ranks take it together, each with its part of the global batch.
    ///
    /// # Errors
    /// When ranks cannot reach each other, or loss or gradients are not finite; the run is over then.
    pub fn step(
        &mut self,
        batch: &Inputs<'_>,
        stop: Option<Stop>,
        comm: &dyn Communicator,
    ) -> Result<StepReport, StepError> {
        let step = self.step;
        let sent_before = comm.counters().total().num_bytes;
        let features = Features::encode(&self.model, batch);
        let share = self
            .objective
            .differentiate(&features.local(&self.model, batch), comm)
            .map_err(|source| StepError::Objective { step, source })?;
        let gradients = features.backward(&self.model, &share);
        let sum = GradientShare {
            gradients: &gradients,
            values: share.values,
            log_scale: self.model.log_scale(),
            stop,
        }
        .sum_over_ranks(comm)
        .map_err(|source| StepError::Sum { step, source })?;
        if !(sum.not_finite_on.is_empty() && sum.norm.is_finite()) {
            let first = self.first_not_finite(&gradients);
            return Err(StepError::NotFinite { step, not_finite_on: sum.not_finite_on, first });
        }
        let rates = self.schedule.at(step);
        self.optimizer.step(&sum.gradients, &rates).map_err(|source| StepError::Update { step, source })?;
        self.model.clamp_temperature();
        self.step += 1;
        Ok(StepReport {
            epoch: batch.epoch,
            values: sum.values,
            grad_norm: sum.norm,
            tau: sum.tau,
            gamma: self.objective.gamma(batch.epoch),
            rates,
            communication_bytes: comm.counters().total().num_bytes - sent_before,
            stop: sum.stop,
        })
    }

    fn first_not_finite(&self, gradients: &[Tensor]) -> Option<String> {
        let is_finite = |tensor: &Tensor| tensor.isfinite().all().int64_value(&[]) != 0;
        let mut named = self.model.parameters().iter().zip(gradients);
        named.find(|(_, gradient)| !is_finite(gradient)).map(|(parameter, _)| parameter.name.clone())
    }
}

/// Features of a batch: with the graph that led to them, and without.
struct Features {
    image: Tensor,
    text: Tensor,
    image_constant: Tensor,
    text_constant: Tensor,
}

impl Features {
    fn encode(model: &Clip, batch: &Inputs<'_>) -> Self {
        let image = model.encode_image(&batch.images); // [b, d]
        let text = model.encode_trimmed_text(&batch.tokens); // [b, d]
        Self { image_constant: image.detach(), text_constant: text.detach(), image, text }
    }

    fn local<'a>(&'a self, model: &'a Clip, batch: &Inputs<'a>) -> Local<'a> {
        Local {
            image: &self.image_constant,
            text: &self.text_constant,
            ids: batch.ids,
            log_scale: model.log_scale(),
            epoch: batch.epoch,
        }
    }

    /// Propagates the gradients of the features to all parameters, in their order.
    fn backward(&self, model: &Clip, share: &Share) -> Vec<Tensor> {
        // The derivative of Σ f·c with respect to f is c: the way to hand libtorch a gradient to start from.
        let root =
            (&self.image * &share.image).sum(None::<Kind>) + (&self.text * &share.text).sum(None::<Kind>);
        let encoders = model.parameters().iter().filter(|parameter| parameter.name != LOG_SCALE);
        let tensors: Vec<&Tensor> = encoders.map(|parameter| &parameter.tensor).collect();
        let mut gradients = Tensor::run_backward(&[root], &tensors, false, false).into_iter();
        let in_order = model.parameters().iter().map(|parameter| {
            if parameter.name == LOG_SCALE {
                share.log_scale.to_kind(parameter.tensor.kind())
            } else {
                gradients.next().expect("one gradient was asked for each encoder parameter")
            }
        });
        no_grad(|| in_order.collect())
    }
}
