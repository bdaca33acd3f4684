//! What is minimised, and its exact gradients.
//!
//! # Legend
//!
//! Single letters are those of the FastCLIP paper. K ranks hold b samples each; B = K·b is the global batch, d the dimension
//! of the features. *Local* tensors belong to this rank's samples, *world* tensors to all samples in the order of ranks.
//! Where a tensor has two columns, the first is of images as anchors, the second of texts.
//!
//! | symbol | name here | shape | is |
//! |---|---|---|---|
//! | xᵢ, tᵢ | `image`, `text` | `[b, d]` local, `[B, d]` world | unit features of pair i |
//! | sᵢⱼ | | blocks of `[b, B]` | xᵢ·tⱼ |
//! | s | `log_scale` | `[]` | the trained scalar ln(1/τ) |
//! | τ, τ₁ᵢ, τ₂ᵢ | `tau` | `[]`, or `[b, 2]` local, `[B, 2]` world | temperature e⁻ˢ; or one of each sample and modality |
//! | d₁ᵢⱼ, d₂ᵢⱼ | | blocks of `[b, B]` | sᵢⱼ−sᵢᵢ and sⱼᵢ−sᵢᵢ |
//! | g₁ᵢ, g₂ᵢ | as l = ln g, `log_inner` | `[b, 2]` local, `[B, 2]` world | (B−1)⁻¹ Σ_{j≠i} exp(dᵢⱼ/τ): the inner loss |
//! | D₁ᵢ, D₂ᵢ | `mean_logit` | `[b, 2]` local | mean of dᵢⱼ/τ over j≠i, weighted by exp(dᵢⱼ/τ) |
//! | u₁ᵢ, u₂ᵢ | as λ = ln u, `log_u` | `[B, 2]` world, rows of a table | running estimate of g: u ← (1−γ)u + γg |
//! | ln(ε+u) | `log_weight` | `[b, 2]` local, `[B, 2]` world | what g is divided by in the gradient |
//! | γ | `gamma` | number | weight of the newest g; 1 in epoch 0, then by a schedule |
//! | ε | `epsilon` | number | added to u where it divides, and inside the logarithm of the objective |
//! | ρ | `rho` | number | weight of the temperature in the objective |
//! | P₁ᵢⱼ, P₂ᵢⱼ | | blocks of `[b, B]` | exp(dᵢⱼ/τ) / ((B−1)(uᵢ+ε)) for j ≠ i, 0 for j = i |
//!
//! # The family
//!
//! | name | minimises | temperature | γ | file |
//! |---|---|---|---|---|
//! | `openclip` | InfoNCE of the batch | one, learned | – | `openclip` |
//! | `siglip` | sigmoid loss of the batch | one, learned, and a bias | – | `siglip` |
//! | `sogclr` | GCL | one, constant | constant | `global` |
//! | `isogclr` | RGCL | per sample and modality, learned | constant | `individual` |
//! | `fastclip-v0` | GCL without its factor τ | one, learned | cosine | `global` |
//! | `fastclip-v1` | GCL | one, constant | cosine | `global` |
//! | `fastclip-v2` | RGCL | per sample and modality, learned | cosine | `individual` |
//! | `fastclip-v3` | RGCL-g | one, learned | cosine | `global` |
//!
//! ```text
//! GCL     τ/n Σᵢ [ ln(ε+G₁ᵢ) + ln(ε+G₂ᵢ) ]                        G: the inner losses over the whole dataset
//! RGCL    1/n Σᵢ [ τ₁ᵢ(ln(ε+G₁ᵢ)+ρ) + τ₂ᵢ(ln(ε+G₂ᵢ)+ρ) ]          τ ≥ 0.01
//! RGCL-g  τ/n Σᵢ [ ln(ε+G₁ᵢ) + ln(ε+G₂ᵢ) ] + 2ρτ                  τ ≥ 0.01
//! ```
//!
//! # Shares
//!
//! Objectives are differentiated in closed form with respect to the features, which costs two matrix products per tower
//! and keeps no graph; `contrast` holds what they have in common. The encoders then propagate those gradients. What a rank
//! returns is a [`Share`]: the rows of the *global* gradient that belong to its samples, and its summand of every scalar.
//! Parameter gradients are therefore **summed** over ranks, not averaged, and the result is the same for every number of
//! ranks.
//!
//! Features travel once, as constants. All that a rank then lacks to differentiate the terms of other ranks' anchors with
//! respect to its own features is one number for each anchor and modality. So no gradient travels back: the
//! reduce-scatter that a loss over gathered features usually needs does not exist here, not even for InfoNCE.

mod contrast;
mod gamma;
mod global;
mod individual;
mod openclip;
mod siglip;
mod world;

#[cfg(test)]
mod tests;

use fastclip_schemas::SampleId;
use tch::Tensor;

pub use contrast::ContrastOptions;
pub use gamma::{GammaDecay, GammaSchedule};
pub use global::{Global, GlobalOptions, GlobalVariant};
pub use individual::{Individual, IndividualOptions, IndividualVariant};
pub use openclip::OpenClip;
pub use siglip::{INITIAL_BIAS, INITIAL_TEMPERATURE as SIGLIP_TEMPERATURE, SigLip};
pub use world::FeaturePrecision;
pub(crate) use world::id_tensor;

use self::world::World;
use crate::distributed::{CommError, Communicator};
use crate::estimator::{EstimatorError, EstimatorTable};

/// Which derivatives are applied where the published code departs from the published objective.
///
/// | | `reference` | `objective` |
/// |---|---|---|
/// | v0, temperature | the part through exp(·/τ) doubled | as derived |
/// | v3, temperature | the same, and ln u without ε | as derived |
/// | v2 and iSogCLR, features | without the factor τᵢ | with it |
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum GradientRule {
    /// What the published code applies, and what the published recipes were tuned with.
    #[default]
    Reference,
    /// The derivative of the objective as published.
    Objective,
}

/// One rank's part of a global batch, as an objective sees it. All ranks have the same number of samples.
#[derive(Debug, Clone, Copy)]
pub struct Local<'a> {
    /// Unit features of the images, `[b, d]`; no gradient flows through it.
    pub image: &'a Tensor,
    /// Unit features of the texts, `[b, d]`; likewise.
    pub text: &'a Tensor,
    /// Which samples they are.
    pub ids: &'a [SampleId],
    /// The same where the features are, `[b]`, if they have been brought there already.
    pub ids_on_device: Option<&'a Tensor>,
    /// The trained scalar s = ln(1/τ), `[]`.
    pub log_scale: &'a Tensor,
    /// What the sigmoid loss adds to every logit, `[]`; models for it have one.
    pub bias: Option<&'a Tensor>,
    /// Passes over the data already finished.
    pub epoch: u64,
}

/// A rank's summand of loss and gradients; see the module's text. Everything stays on the device.
#[derive(Debug)]
pub struct Share {
    /// d loss / d image features of this rank, `[b, d]`.
    pub image: Tensor,
    /// d loss / d text features of this rank, `[b, d]`.
    pub text: Tensor,
    /// This rank's summand of d loss / ds, `[]`.
    pub log_scale: Tensor,
    /// This rank's summand of d loss / d bias, `[]`, if the objective has a bias.
    pub bias: Option<Tensor>,
    /// This rank's summands of what is reported.
    pub values: Values<Tensor>,
}

/// Number of [`Values`].
pub const NUM_VALUES: usize = 5;

/// What an objective reports about a batch: summands of ranks while they are tensors, the whole when they are numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Values<T> {
    /// The loss that the gradients belong to. With estimators it is a surrogate: it may be negative, and falling is not
    /// what shows progress.
    pub loss: T,
    /// Mean of g₁ᵢ/(u₁ᵢ+ε) + g₂ᵢ/(u₂ᵢ+ε): 2 where the estimates have caught up with the batch. Equals the loss for
    /// objectives without estimators.
    pub surrogate: T,
    /// InfoNCE of the batch at the current temperature: comparable over objectives of the same global batch.
    pub contrastive_loss: T,
    /// Mean of ln(ε+u) over the batch and both modalities: FastCLIP's progress. Equals the same with u = g, ε = 0 for
    /// objectives without estimators.
    pub log_mean: T,
    /// The temperature that the loss was computed with; the mean over the batch where each sample has its own.
    pub tau: T,
}

impl<T> Values<T> {
    /// Returns the values in the order of their fields.
    pub fn into_array(self) -> [T; NUM_VALUES] {
        [self.loss, self.surrogate, self.contrastive_loss, self.log_mean, self.tau]
    }

    /// The inverse of [`Values::into_array`].
    pub fn from_array([loss, surrogate, contrastive_loss, log_mean, tau]: [T; NUM_VALUES]) -> Self {
        Self { loss, surrogate, contrastive_loss, log_mean, tau }
    }
}

/// Something to be minimised over pairs of features.
pub trait Objective: std::fmt::Debug + Send {
    /// Returns the name by which users choose it.
    fn name(&self) -> &'static str;

    /// Returns this rank's share of the gradients, and lets estimators learn from the batch.
    ///
    /// All ranks must call it together: it gathers features. It never waits for the device, unless estimators lie in
    /// another memory than the features.
    ///
    /// # Errors
    /// When ranks cannot reach each other, the global batch has fewer than two samples, or an id has no row.
    fn differentiate(&mut self, local: &Local<'_>, comm: &dyn Communicator) -> Result<Share, ObjectiveError>;

    /// Returns γ of an epoch, if the objective has one.
    fn gamma(&self, epoch: u64) -> Option<f64>;

    /// Returns what must survive a restart beyond model and optimizer.
    fn estimators(&self) -> Option<&EstimatorTable>;

    /// The same, to restore it.
    fn estimators_mut(&mut self) -> Option<&mut EstimatorTable>;
}

/// An objective that could not be differentiated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectiveError {
    /// Ranks could not exchange what they needed.
    #[error("could not exchange {what} between ranks")]
    Exchange {
        /// What was on its way.
        what: &'static str,
        /// Why.
        #[source]
        source: CommError,
    },
    /// There is nothing to contrast with.
    #[error("a contrastive objective needs a global batch of at least 2 samples, this one has {num_samples}")]
    Batch {
        /// Samples of the global batch.
        num_samples: i64,
    },
    /// The sigmoid loss adds a bias to its logits, and the model has none.
    #[error("the sigmoid loss needs a model with `init_logit_bias` in its config")]
    NoBias,
    /// A sample that the estimators do not know.
    #[error(transparent)]
    Estimator(#[from] EstimatorError),
}

impl ObjectiveError {
    /// Names what was on its way when ranks could not reach each other.
    fn exchanging(what: &'static str) -> impl Fn(CommError) -> Self {
        move |source| Self::Exchange { what, source }
    }
}
