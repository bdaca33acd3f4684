//! What is minimised, and its exact gradients.
//!
//! # Legend
//!
//! Single letters are those of the FastCLIP paper. K ranks hold b samples each; B = K·b is the global batch, d the dimension
//! of the features. *Local* tensors belong to this rank's samples, *world* tensors to all samples in the order of ranks.
//!
//! | symbol | name here | shape | is |
//! |---|---|---|---|
//! | xᵢ, tᵢ | `image`, `text` | `[b, d]` local, `[B, d]` world | unit features of pair i |
//! | sᵢⱼ | `similarity` | `[b, B]` | xᵢ·tⱼ |
//! | s | `log_scale` | `[]` | the trained scalar ln(1/τ) |
//! | τ | `tau` | `[]` | temperature e⁻ˢ |
//! | g₁ᵢ, g₂ᵢ | as l = ln g, `log_inner` | `[b]` local, `[B, 2]` world | (B−1)⁻¹ Σ_{j≠i} exp((sᵢⱼ−sᵢᵢ)/τ), and with sⱼᵢ for texts |
//! | u₁ᵢ, u₂ᵢ | as λ = ln u, `log_u` | `[B, 2]` world, rows of a table | running estimate of g: u ← (1−γ)u + γg |
//! | γ | `gamma` | number | weight of the newest g; 1 in epoch 0, then by a schedule |
//! | ε | `epsilon` | number | added to u where it divides, and inside the logarithm of the objective |
//! | ρ | `rho` | number | weight of the temperature in the objective |
//! | P₁ᵢⱼ, P₂ᵢⱼ | `image_pull`, `text_pull` | `[b, B]` | exp((sᵢⱼ−sᵢᵢ)/τ) / ((B−1)(uᵢ+ε)) for j ≠ i, 0 for j = i |
//!
//! # Shares
//!
//! Objectives are differentiated in closed form with respect to the features, which costs two small matrix products per
//! tower and keeps no graph. The encoders then propagate those gradients. What a rank returns is a [`Share`]: the rows of the
//! *global* gradient that belong to its samples, and its summand of every scalar. Parameter gradients are therefore
//! **summed** over ranks, not averaged, and the result is the same for every number of ranks.

mod fastclip_v3;
mod gamma;
mod openclip;

#[cfg(test)]
mod tests;

use fastclip_schemas::SampleId;
use tch::{Kind, Tensor};

pub use fastclip_v3::{FastClipV3, FastClipV3Options, TemperatureGradient};
pub use gamma::{GammaDecay, GammaSchedule};
pub use openclip::OpenClip;

use crate::distributed::{CommError, Communicator};
use crate::estimator::{EstimatorError, EstimatorTable};

/// One rank's part of a global batch, as an objective sees it. All ranks have the same number of samples.
#[derive(Debug, Clone, Copy)]
pub struct Local<'a> {
    /// Unit features of the images, `[b, d]`; no gradient flows through it.
    pub image: &'a Tensor,
    /// Unit features of the texts, `[b, d]`; likewise.
    pub text: &'a Tensor,
    /// Which samples they are.
    pub ids: &'a [SampleId],
    /// The trained scalar s = ln(1/τ), `[]`.
    pub log_scale: &'a Tensor,
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
    /// This rank's summands of what is reported.
    pub values: Values<Tensor>,
}

/// What an objective reports about a batch: summands of ranks while they are tensors, the whole when they are numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Values<T> {
    /// The loss that the gradients belong to. For FastCLIP it is a surrogate: it may be negative, and falling is not
    /// what shows progress.
    pub loss: T,
    /// InfoNCE of the batch at the current temperature: comparable over objectives of the same global batch.
    pub contrastive_loss: T,
    /// Mean of ln(ε+u) over the batch and both modalities: FastCLIP's progress. Equals the same with u = g, ε = 0 for
    /// objectives without estimators.
    pub log_mean: T,
}

impl<T> Values<T> {
    /// Returns the values in the order of their fields.
    pub fn into_array(self) -> [T; 3] {
        [self.loss, self.contrastive_loss, self.log_mean]
    }

    /// The inverse of [`Values::into_array`].
    pub fn from_array([loss, contrastive_loss, log_mean]: [T; 3]) -> Self {
        Self { loss, contrastive_loss, log_mean }
    }
}

/// Something to be minimised over pairs of features.
pub trait Objective: std::fmt::Debug + Send {
    /// Returns the name by which users choose it.
    fn name(&self) -> &'static str;

    /// Returns this rank's share of the gradients, and lets estimators learn from the batch.
    ///
    /// All ranks must call it together: it gathers features. It never waits for the device.
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
    /// A sample that the estimators do not know.
    #[error(transparent)]
    Estimator(#[from] EstimatorError),
}

/// The features of all ranks, as constants.
#[derive(Debug)]
struct World {
    /// `[B, d]`
    image: Tensor,
    /// `[B, d]`
    text: Tensor,
    /// B
    num_samples: i64,
    /// Row of this rank's first sample.
    first: i64,
}

impl World {
    /// Gathers the features of all ranks in one collective.
    fn gather(local: &Local<'_>, comm: &dyn Communicator) -> Result<Self, ObjectiveError> {
        let packed = Tensor::cat(&[local.image, local.text], 1); // [b, 2d]
        let all = comm
            .all_gather(&packed)
            .map_err(|source| ObjectiveError::Exchange { what: "features", source })?; // [B, 2d]
        let (num_samples, dim) = (all.size()[0], local.image.size()[1]);
        if num_samples < 2 {
            return Err(ObjectiveError::Batch { num_samples });
        }
        Ok(Self {
            image: all.narrow(1, 0, dim).contiguous(),
            text: all.narrow(1, dim, dim).contiguous(),
            num_samples,
            first: comm.rank() as i64 * local.image.size()[0],
        })
    }

    /// Returns where a local row meets its own column, `[b, B]`.
    fn own_columns(&self, num_local: i64) -> Tensor {
        let options = (Kind::Int64, self.image.device());
        let columns = Tensor::arange(self.num_samples, options);
        let own = Tensor::arange_start(self.first, self.first + num_local, options);
        columns.unsqueeze(0).eq_tensor(&own.unsqueeze(1))
    }
}
