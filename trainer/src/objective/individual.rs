//! iSogCLR and FastCLIP-v2: the robust global contrastive loss with a temperature of each sample and modality.
//!
//! ```text
//! loss    1/B Σᵢ [ c₁ᵢ g₁ᵢ/(u₁ᵢ+ε) + c₂ᵢ g₂ᵢ/(u₂ᵢ+ε) ]           surrogate, u constant; c = 1, or τ with `objective`
//! d/dxᵢ   1/2B [ Σⱼ P₁ᵢⱼ(tⱼ−tᵢ) c₁ᵢ/τ₁ᵢ + Σₐ P₂ₐᵢ tₐ c₂ₐ/τ₂ₐ − tᵢ Σⱼ P₂ᵢⱼ c₂ᵢ/τ₂ᵢ ]
//! q₁ᵢ     ln(ε+u₁ᵢ) + ρ − Σⱼ P₁ᵢⱼ d₁ᵢⱼ/τ₁ᵢ, clamped to ±5        d RGCL / dτ₁ᵢ, not divided by n
//! m ← β₁m + (1−β₁)q      v ← β₂v + (1−β₂)q²                     β₁ = β₂ = 0 in epoch 0
//! τ ← τ − η · m/(1−β₁ᴱ⁺¹) / (√(v/(1−β₂ᴱ⁺¹)) + ε_Adam)           clamped to [0.01, 1]; E counts epochs from 0
//! ```
//!
//! All of a step is computed with the old temperatures. The update is Adam of one step an epoch, since a sample is met once
//! an epoch; that it corrects by the epoch, though epoch 0 had no memory, is the published code's and its recipes' choice.
//! The published code keeps u shifted by a bound on its exponent and adds ε to the shifted value; in log space no
//! bound is needed and ε is what it says.

use tch::{Kind, Tensor};

use super::contrast::{Contrast, ContrastOptions, Rows, Temperature};
use super::gamma::updated;
use super::{GammaSchedule, GradientRule, Local, Objective, ObjectiveError, Share, Values, World};
use crate::distributed::Communicator;
use crate::estimator::{EstimatorTable, UNSEEN};

/// How far a temperature's gradient is believed.
const LARGEST_GRADIENT: f64 = 5.0;

/// The range of a sample's temperature.
const TAU_RANGE: std::ops::RangeInclusive<f64> = 0.01..=1.0;

/// Which of the losses with individual temperatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndividualVariant {
    /// With constant γ.
    ISogClr,
    /// With γ along a cosine.
    V2,
}

/// Settings of the loss with individual temperatures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IndividualOptions {
    /// Which of them; they differ in γ alone.
    pub variant: IndividualVariant,
    /// γ by epoch.
    pub gamma: GammaSchedule,
    /// ρ
    pub rho: f64,
    /// ε
    pub epsilon: f64,
    /// Learning rate η of the temperatures, constant.
    pub lr_tau: f64,
    /// β₁ of the temperatures, from epoch 1 on.
    pub beta1: f64,
    /// β₂ of the temperatures, from epoch 1 on.
    pub beta2: f64,
    /// What Adam adds to its denominator.
    pub adam_epsilon: f64,
    /// Which derivatives the features follow.
    pub gradients: GradientRule,
    /// How similarities are computed.
    pub contrast: ContrastOptions,
}

/// The robust global contrastive loss with individual temperatures, and what it remembers of each sample.
#[derive(Debug)]
pub struct Individual {
    options: IndividualOptions,
    table: EstimatorTable,
}

/// What is remembered of samples: two columns of each, for the image and the text as anchor.
#[derive(Debug)]
struct Memory {
    log_u: Tensor,
    tau: Tensor,
    /// Adam's running mean of q.
    mean: Tensor,
    /// Adam's running mean of q².
    mean_square: Tensor,
}

impl Memory {
    /// Takes table rows apart, `[n, 8]` into `[n, 2]` each.
    fn from_rows(rows: &Tensor) -> Self {
        let columns = |first| rows.narrow(1, first, 2);
        Self { log_u: columns(0), tau: columns(2), mean: columns(4), mean_square: columns(6) }
    }

    fn into_rows(self) -> Tensor {
        Tensor::cat(&[self.log_u, self.tau, self.mean, self.mean_square], 1)
    }
}

impl Individual {
    /// What a sample's row of the table begins with: ln u, τ, m and v, each for the image and the text as anchor.
    pub const fn initial_row(tau: f64) -> [f64; 8] {
        [UNSEEN, UNSEEN, tau, tau, 0.0, 0.0, 0.0, 0.0]
    }

    /// Starts with the given table, whose rows are [`Individual::initial_row`].
    pub fn new(options: IndividualOptions, table: EstimatorTable) -> Self {
        Self { options, table }
    }

    /// Returns ln(ε+u).
    fn log_weight(&self, log_u: &Tensor) -> Tensor {
        log_u.logaddexp(&log_u.full_like(self.options.epsilon.ln()))
    }

    /// Returns what is remembered of this rank's samples after the step.
    fn learned(&self, old: &Memory, rows: &Rows, epoch: u64) -> Memory {
        let IndividualOptions { gamma, rho, lr_tau, beta1, beta2, adam_epsilon, .. } = self.options;
        let log_u = updated(&old.log_u, &rows.log_inner, gamma.at(epoch));
        let log_weight = self.log_weight(&log_u);
        let through_exp = (&rows.log_inner - &log_weight).exp() * &rows.mean_logit; // Σⱼ Pᵢⱼ dᵢⱼ/τᵢ
        let q = (log_weight + rho - through_exp).clamp(-LARGEST_GRADIENT, LARGEST_GRADIENT);

        let [beta1, beta2] = if epoch == 0 { [0.0; 2] } else { [beta1, beta2] };
        let corrected = |beta: f64| 1.0 - beta.powf(epoch as f64 + 1.0);
        let mean = &old.mean * beta1 + &q * (1.0 - beta1);
        let mean_square = &old.mean_square * beta2 + &q * &q * (1.0 - beta2);
        let step = (&mean / corrected(beta1)) / ((&mean_square / corrected(beta2)).sqrt() + adam_epsilon);
        let tau = (&old.tau - step * lr_tau).clamp(*TAU_RANGE.start(), *TAU_RANGE.end());
        Memory { log_u, tau, mean, mean_square }
    }
}

impl Objective for Individual {
    fn name(&self) -> &'static str {
        match self.options.variant {
            IndividualVariant::ISogClr => "isogclr",
            IndividualVariant::V2 => "fastclip-v2",
        }
    }

    fn differentiate(&mut self, local: &Local<'_>, comm: &dyn Communicator) -> Result<Share, ObjectiveError> {
        self.table.check(local.ids)?;
        let IndividualOptions { gradients, contrast: options, .. } = self.options;
        let world = World::gather(local, options.precision, true, comm)?;
        let batch = world.num_samples() as f64;
        let old = self.table.offer(world.ids()).to_kind(local.image.kind()); // [B, 8]
        comm.all_reduce_sum(&old).map_err(ObjectiveError::exchanging("estimators"))?;
        let tau = Memory::from_rows(&old).tau; // [B, 2]
        let (contrast, rows) = Contrast::new(&world, Temperature::Each(tau.shallow_clone()), options);

        // A rank knows all it takes to update its own samples; their rows may belong to any other.
        let new = self.learned(&Memory::from_rows(&world.mine(&old)), &rows, local.epoch).into_rows(); // [b, 8]
        let new = comm.all_gather(&new).map_err(ObjectiveError::exchanging("estimators"))?; // [B, 8]
        self.table.store(world.ids(), &new);
        let log_weight = self.log_weight(&Memory::from_rows(&new).log_u); // [B, 2]

        let c = match gradients {
            GradientRule::Reference => tau.ones_like(),
            GradientRule::Objective => tau.shallow_clone(),
        }; // [B, 2]
        let feature_gradients = contrast.gradients(&rows, &(&log_weight + (2.0 * batch * &tau / &c).log()));

        let sum = |tensor: Tensor| tensor.sum(None::<Kind>);
        let ratio = (&rows.log_inner - world.mine(&log_weight)).exp(); // g/(u+ε), [b, 2]
        Ok(Share {
            image: feature_gradients.image,
            text: feature_gradients.text,
            log_scale: local.log_scale.detach().zeros_like(),
            bias: None,
            values: Values {
                loss: sum(&ratio * world.mine(&c)) / batch,
                surrogate: sum(ratio) / batch,
                contrastive_loss: rows.info_nce(batch),
                log_mean: sum(world.mine(&log_weight)) / (2.0 * batch),
                tau: sum(world.mine(&tau)) / (2.0 * batch),
            },
        })
    }

    fn gamma(&self, epoch: u64) -> Option<f64> {
        Some(self.options.gamma.at(epoch))
    }

    fn estimators(&self) -> Option<&EstimatorTable> {
        Some(&self.table)
    }

    fn estimators_mut(&mut self) -> Option<&mut EstimatorTable> {
        Some(&mut self.table)
    }
}
