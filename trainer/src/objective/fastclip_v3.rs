//! FastCLIP-v3: the robust global contrastive loss with one learned temperature.
//!
//! ```text
//! objective  τ/n Σᵢ [ log(ε+G₁ᵢ) + log(ε+G₂ᵢ) ] + 2ρτ            over the whole dataset, τ ≥ 0.01
//! loss       τ/B Σᵢ [ g₁ᵢ/(u₁ᵢ+ε) + g₂ᵢ/(u₂ᵢ+ε) ] + ρτ + τM      surrogate of half of it, u constant
//! d/dxᵢ      1/2B [ Σⱼ P₁ᵢⱼ(tⱼ−tᵢ) + Σₐ P₂ₐᵢ tₐ − tᵢ Σⱼ P₂ᵢⱼ ]    and d/dtᵢ with the roles exchanged
//! d/ds       −τ (ρ + M − S)                                      reference; with M_ε and S/2 for `objective`
//! S          1/B Σᵢ Σⱼ [ P₁ᵢⱼ(sᵢⱼ−sᵢᵢ)/τ + P₂ᵢⱼ(sⱼᵢ−sᵢᵢ)/τ ]
//! M          1/2B Σᵢ [ ln u₁ᵢ + ln u₂ᵢ ],   M_ε the same with ln(ε+u)
//! ```
//!
//! A rank lacks nothing but the u of other ranks' anchors to differentiate their terms with respect to its own features. So
//! features are gathered once, as constants, and no gradient travels back: that is the reduce-scatter which the baseline
//! needs and this does not.
//!
//! Estimators are kept as λ = ln u. In linear space exp((sᵢⱼ−sᵢᵢ)/τ) overflows fp32 from a difference of 0.89 at τ = 0.01;
//! here the weights P never exceed 1/γ.

use tch::{Kind, Tensor};

use super::{GammaSchedule, Local, Objective, ObjectiveError, Share, Values, World};
use crate::distributed::Communicator;
use crate::estimator::{EstimatorTable, UNSEEN};

/// Which derivative the temperature follows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum TemperatureGradient {
    /// What the published code applies, and what published values of ρ were tuned with: the part through exp(·/τ) has
    /// twice its weight, and the logarithm has no ε.
    #[default]
    Reference,
    /// The derivative of the objective as published.
    Objective,
}

/// Settings of FastCLIP-v3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FastClipV3Options {
    /// γ by epoch.
    pub gamma: GammaSchedule,
    /// ρ
    pub rho: f64,
    /// ε
    pub epsilon: f64,
    /// Which derivative the temperature follows.
    pub gradient: TemperatureGradient,
}

/// FastCLIP-v3 and its estimators.
#[derive(Debug)]
pub struct FastClipV3 {
    options: FastClipV3Options,
    log_u: EstimatorTable,
}

impl FastClipV3 {
    /// Number of columns of the table: ln u₁ and ln u₂.
    pub const NUM_COLUMNS: i64 = 2;

    /// Starts with the given table of [`FastClipV3::NUM_COLUMNS`] columns.
    pub fn new(options: FastClipV3Options, log_u: EstimatorTable) -> Self {
        Self { options, log_u }
    }

    /// Sends ln g of this rank's anchors to all ranks together with the old rows of the table, lets the owners update
    /// them, and returns ln g and the new ln u of the global batch, `[B, 2]` each.
    ///
    /// One all-reduce carries both: each number has one rank that knows it, the others add zero.
    fn exchange(
        &mut self,
        local: &Local<'_>,
        world: &World,
        log_inner: &Tensor,
        comm: &dyn Communicator,
    ) -> Result<(Tensor, Tensor), ObjectiveError> {
        let failed = |source| ObjectiveError::Exchange { what: "estimators", source };
        let ids: Vec<i64> = local.ids.iter().map(|id| id.0 as i64).collect();
        let ids = comm.all_gather(&Tensor::from_slice(&ids).to_device(log_inner.device())).map_err(failed)?; // [B]
        let placed = log_inner.new_zeros([world.num_samples, 2], (log_inner.kind(), log_inner.device()));
        placed.narrow(0, world.first, log_inner.size()[0]).copy_(log_inner);
        let parcel = Tensor::cat(&[self.log_u.offer(&ids).to_kind(log_inner.kind()), placed], 1); // [B, 4]
        comm.all_reduce_sum(&parcel).map_err(failed)?;
        let (old, log_inner) = (parcel.narrow(1, 0, 2), parcel.narrow(1, 2, 2)); // [B, 2]
        let new = updated(&old, &log_inner, self.options.gamma.at(local.epoch));
        self.log_u.store(&ids, &new);
        Ok((log_inner, new))
    }
}

/// λ ← ln((1−γ)eᵏ + γg) with λ = k; a row met for the first time takes g.
fn updated(old: &Tensor, log_inner: &Tensor, gamma: f64) -> Tensor {
    if gamma >= 1.0 {
        return log_inner.shallow_clone();
    }
    let mixed = (old + (1.0 - gamma).ln()).logaddexp(&(log_inner + gamma.ln()));
    log_inner.where_self(&old.eq(UNSEEN), &mixed)
}

impl Objective for FastClipV3 {
    fn name(&self) -> &'static str {
        "fastclip-v3"
    }

    fn differentiate(&mut self, local: &Local<'_>, comm: &dyn Communicator) -> Result<Share, ObjectiveError> {
        self.log_u.check(local.ids)?;
        let FastClipV3Options { rho, epsilon, gradient, .. } = self.options;
        let world = World::gather(local, comm)?;
        let (num_local, batch) = (local.image.size()[0], world.num_samples as f64);
        let mine = |world_rows: &Tensor| world_rows.narrow(0, world.first, num_local);
        let sum = |tensor: Tensor| tensor.sum(None::<Kind>);
        let row_sums = |tensor: &Tensor| tensor.sum_dim_intlist(1i64, true, None::<Kind>); // [b, 1]
        let own = world.own_columns(num_local); // [b, B]
        let tau = (-local.log_scale.detach()).exp();

        // (s − s of the positive pair)/τ. In `image`, rows are images: of image anchors if the row's pair is
        // subtracted, of image candidates for text anchors if the column's is. `text` likewise.
        let positive = row_sums(&(&world.image * &world.text)); // [B, 1]
        let image = local.image.matmul(&world.text.tr()); // [b, B]
        let text = local.text.matmul(&world.image.tr()); // [b, B]
        let image_anchors = (&image - mine(&positive)) / &tau;
        let text_anchors = (&text - mine(&positive)) / &tau;
        let image_candidates = (image - positive.tr()) / &tau;
        let text_candidates = (text - positive.tr()) / &tau;

        let log_inner = |logits: &Tensor| {
            logits.masked_fill(&own, f64::NEG_INFINITY).logsumexp([1i64], false) - (batch - 1.0).ln()
        };
        let log_inner = Tensor::stack(&[log_inner(&image_anchors), log_inner(&text_anchors)], 1); // [b, 2]
        let (log_inner, log_u) = self.exchange(local, &world, &log_inner, comm)?; // [B, 2] each
        let log_weight = log_u.logaddexp(&log_u.full_like(epsilon.ln())); // ln(ε+u), [B, 2]

        // P, with the diagonal at 0.
        let pull = |logits: &Tensor, log_weight: Tensor| {
            (logits - log_weight).masked_fill(&own, f64::NEG_INFINITY).exp() / (batch - 1.0)
        };
        let of = |modality: i64| log_weight.narrow(1, modality, 1); // [B, 1]
        let image_pull = pull(&image_anchors, mine(&of(0))); // P₁ᵢⱼ, i local
        let text_pull = pull(&text_anchors, mine(&of(1))); // P₂ᵢⱼ, i local
        let pull_on_image = pull(&image_candidates, of(1).tr()); // P₂ₐᵢ, i local
        let pull_on_text = pull(&text_candidates, of(0).tr()); // P₁ₐᵢ, i local
        let own_pull = row_sums(&image_pull) + row_sums(&text_pull); // [b, 1]

        let s = sum(&image_pull * image_anchors + &text_pull * text_anchors) / batch; // summand of S
        let half_mean = |world_values: &Tensor| sum(mine(world_values)) / (2.0 * batch);
        let (m, m_epsilon) = (half_mean(&log_u), half_mean(&log_weight)); // summands of M and M_ε
        let rho = rho * num_local as f64 / batch; // summand of ρ
        let surrogate = sum(mine(&(&log_inner - &log_weight)).exp()) / batch;
        let info_nce = log_inner.logaddexp(&log_inner.full_like(-(batch - 1.0).ln())) + (batch - 1.0).ln();
        Ok(Share {
            image: ((image_pull + pull_on_image).matmul(&world.text) - local.text * &own_pull)
                / (2.0 * batch),
            text: ((text_pull + pull_on_text).matmul(&world.image) - local.image * &own_pull) / (2.0 * batch),
            log_scale: match gradient {
                TemperatureGradient::Reference => -&tau * (&m + rho - &s),
                TemperatureGradient::Objective => -&tau * (&m_epsilon + rho - &s / 2.0),
            },
            values: Values {
                loss: tau * (surrogate + rho + m),
                contrastive_loss: half_mean(&info_nce),
                log_mean: m_epsilon,
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
