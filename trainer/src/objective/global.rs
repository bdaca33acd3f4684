//! SogCLR and FastCLIP-v0, -v1, -v3: global contrastive losses with one temperature.
//!
//! ```text
//! loss    c/B Σᵢ [ g₁ᵢ/(u₁ᵢ+ε) + g₂ᵢ/(u₂ᵢ+ε) ]                  surrogate, u constant; c = τ in v3, 1 in the others
//!         + ρτ + τM                                             in v3
//! d/dxᵢ   c/2Bτ [ Σⱼ P₁ᵢⱼ(tⱼ−tᵢ) + Σₐ P₂ₐᵢ tₐ − tᵢ Σⱼ P₂ᵢⱼ ]    and d/dtᵢ with the roles exchanged
//! S       1/B Σᵢ Σⱼ [ P₁ᵢⱼ d₁ᵢⱼ/τ + P₂ᵢⱼ d₂ᵢⱼ/τ ]
//! M       1/2B Σᵢ [ ln u₁ᵢ + ln u₂ᵢ ],   M_ε the same with ln(ε+u)
//!
//! d/ds    reference            objective
//! SogCLR  0                    0
//! v0      S                    S/2
//! v1      0                    0
//! v3      −τ (ρ + M − S)       −τ (ρ + M_ε − S/2)
//! ```
//!
//! The values are those of half of the objective, as InfoNCE is half of a sum over two directions. v0 and v1 leave out the
//! factor τ of GCL, as the published code does; AdamW does not see it, gradient clipping does.

use tch::{Kind, Tensor};

use super::contrast::{Contrast, ContrastOptions, Temperature};
use super::gamma::updated;
use super::{GammaSchedule, GradientRule, Local, Objective, ObjectiveError, Share, Values, World};
use crate::distributed::Communicator;
use crate::estimator::{EstimatorTable, UNSEEN};

/// Which of the losses with one temperature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobalVariant {
    /// GCL with constant γ; the temperature stays.
    SogClr,
    /// GCL without its factor τ; the temperature follows its gradient.
    V0,
    /// GCL; the temperature stays.
    V1,
    /// RGCL-g: the temperature follows its gradient and is held up by ρ.
    V3,
}

/// Settings of a global contrastive loss with one temperature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GlobalOptions {
    /// Which of them.
    pub variant: GlobalVariant,
    /// γ by epoch.
    pub gamma: GammaSchedule,
    /// ρ; v3 alone has it.
    pub rho: f64,
    /// ε
    pub epsilon: f64,
    /// Which derivative the temperature follows.
    pub gradients: GradientRule,
    /// How similarities are computed.
    pub contrast: ContrastOptions,
}

/// A global contrastive loss with one temperature, and its estimators.
#[derive(Debug)]
pub struct Global {
    options: GlobalOptions,
    log_u: EstimatorTable,
}

impl Global {
    /// What a sample's row of the table begins with: ln u₁ and ln u₂.
    pub const INITIAL_ROW: [f64; 2] = [UNSEEN; 2];

    /// Starts with the given table, whose rows are [`Global::INITIAL_ROW`].
    pub fn new(options: GlobalOptions, log_u: EstimatorTable) -> Self {
        Self { options, log_u }
    }

    /// Returns the settings.
    pub fn options(&self) -> GlobalOptions {
        self.options
    }

    /// Sends l of this rank's anchors to all ranks together with the old rows of the table, lets the owners update them, and
    /// returns l and the new λ of the global batch, `[B, 2]` each.
    ///
    /// One all-reduce carries both: each number has one rank that knows it, the others add zero.
    fn exchange(
        &mut self,
        world: &World,
        log_inner: &Tensor,
        gamma: f64,
        comm: &dyn Communicator,
    ) -> Result<(Tensor, Tensor), ObjectiveError> {
        let offered = self.log_u.offer(world.ids()).to_kind(log_inner.kind());
        let parcel = Tensor::cat(&[offered, world.placed(log_inner)], 1); // [B, 4]
        comm.all_reduce_sum(&parcel).map_err(ObjectiveError::exchanging("estimators"))?;
        let (old, log_inner) = (parcel.narrow(1, 0, 2), parcel.narrow(1, 2, 2)); // [B, 2]
        let log_u = updated(&old, &log_inner, gamma);
        self.log_u.store(world.ids(), &log_u);
        Ok((log_inner, log_u))
    }

    /// Returns this rank's summand of d loss / ds, from its summands of S, M, M_ε and ρ.
    fn by_log_scale(&self, tau: &Tensor, s: &Tensor, m: &Tensor, m_epsilon: &Tensor, rho: f64) -> Tensor {
        match (self.options.variant, self.options.gradients) {
            (GlobalVariant::SogClr | GlobalVariant::V1, _) => s.zeros_like(),
            (GlobalVariant::V0, GradientRule::Reference) => s.shallow_clone(),
            (GlobalVariant::V0, GradientRule::Objective) => s / 2.0,
            (GlobalVariant::V3, GradientRule::Reference) => -tau * (m - s + rho),
            (GlobalVariant::V3, GradientRule::Objective) => -tau * (m_epsilon - s / 2.0 + rho),
        }
    }
}

impl Objective for Global {
    fn name(&self) -> &'static str {
        match self.options.variant {
            GlobalVariant::SogClr => "sogclr",
            GlobalVariant::V0 => "fastclip-v0",
            GlobalVariant::V1 => "fastclip-v1",
            GlobalVariant::V3 => "fastclip-v3",
        }
    }

    fn differentiate(&mut self, local: &Local<'_>, comm: &dyn Communicator) -> Result<Share, ObjectiveError> {
        self.log_u.check(local.ids)?;
        let GlobalOptions { variant, gamma, rho, epsilon, contrast: options, .. } = self.options;
        let tau = (-local.log_scale.detach()).exp(); // []
        let world = World::gather(local, options.precision, true, comm)?;
        let batch = world.num_samples() as f64;
        let (contrast, rows) = Contrast::new(&world, Temperature::One(tau.shallow_clone()), options);
        let (log_inner, log_u) = self.exchange(&world, &rows.log_inner, gamma.at(local.epoch), comm)?; // [B, 2] each
        let log_weight = log_u.logaddexp(&log_u.full_like(epsilon.ln())); // ln(ε+u), [B, 2]

        let is_scaled = variant == GlobalVariant::V3; // c = τ
        let over_c = if is_scaled { tau.ones_like() } else { tau.shallow_clone() }; // τ/c
        let gradients = contrast.gradients(&rows, &(&log_weight + (over_c * (2.0 * batch)).log()));

        let sum = |tensor: Tensor| tensor.sum(None::<Kind>);
        let mine = |rows: &Tensor| world.mine(rows);
        let ratio = mine(&(log_inner - &log_weight)).exp(); // g/(u+ε), [b, 2]
        let s = sum(&ratio * &rows.mean_logit) / batch;
        let m = sum(mine(&log_u)) / (2.0 * batch);
        let m_epsilon = sum(mine(&log_weight)) / (2.0 * batch);
        let share = world.num_local() as f64 / batch; // what sums up to 1 over ranks
        let surrogate = sum(ratio) / batch;
        let loss = if is_scaled { &tau * (&surrogate + &m + rho * share) } else { surrogate.shallow_clone() };
        Ok(Share {
            image: gradients.image,
            text: gradients.text,
            log_scale: self.by_log_scale(&tau, &s, &m, &m_epsilon, rho * share),
            bias: None,
            values: Values {
                loss,
                surrogate,
                contrastive_loss: rows.info_nce(batch),
                log_mean: m_epsilon,
                tau: tau * share,
            },
        })
    }

    fn gamma(&self, epoch: u64) -> Option<f64> {
        Some(self.options.gamma.at(epoch))
    }

    fn estimators(&self) -> Option<&EstimatorTable> {
        Some(&self.log_u)
    }

    fn estimators_mut(&mut self) -> Option<&mut EstimatorTable> {
        Some(&mut self.log_u)
    }
}
