//! SigLIP's baseline: a sigmoid for every pair of an image and a text.
//!
//! ```text
//! lᵢⱼ      sᵢⱼ/τ + bias
//! loss     -1/B Σᵢⱼ ln σ(zᵢⱼ lᵢⱼ),   z = 1 at i = j, else −1       = 1/B [ Σᵢⱼ softplus(lᵢⱼ) − Σᵢ lᵢᵢ ]
//! d/dlᵢⱼ   Hᵢⱼ = [ σ(lᵢⱼ) − (i = j) ] / B
//! d/dxᵢ    Σⱼ Hᵢⱼ tⱼ / τ           d/dtⱼ   Σᵢ Hᵢⱼ xᵢ / τ
//! d/ds     Σᵢⱼ Hᵢⱼ sᵢⱼ / τ         d/dbias   Σᵢⱼ Hᵢⱼ
//! ```
//!
//! Each rank takes the rows of its images and those of its texts, so that no gradient travels.
//!
//! Zhai et al., Sigmoid Loss for Language Image Pre-Training (2023).

use tch::{Kind, Tensor};

use super::contrast::{Contrast, ContrastOptions, FeatureGradients, Temperature};
use super::{Local, Objective, ObjectiveError, Share, Values, World};
use crate::distributed::Communicator;
use crate::estimator::EstimatorTable;

/// The temperature that the paper begins with.
pub const INITIAL_TEMPERATURE: f64 = 0.1;

/// The bias that the paper begins with: all pairs but one of each row are negative.
pub const INITIAL_BIAS: f64 = -10.0;

/// The sigmoid loss with a learned temperature and bias.
#[derive(Debug, Clone, Copy, Default)]
pub struct SigLip {
    options: ContrastOptions,
}

impl SigLip {
    /// Makes the objective.
    pub fn new(options: ContrastOptions) -> Self {
        Self { options }
    }
}

impl Objective for SigLip {
    fn name(&self) -> &'static str {
        "siglip"
    }

    fn differentiate(&mut self, local: &Local<'_>, comm: &dyn Communicator) -> Result<Share, ObjectiveError> {
        let bias = local.bias.ok_or(ObjectiveError::NoBias)?.detach(); // []
        let scale = local.log_scale.detach().exp(); // []
        let tau = scale.reciprocal();
        let world = World::gather(local, self.options.precision, false, comm)?;
        let batch = world.num_samples() as f64;
        // The rows are for what is comparable over objectives; this loss itself needs none of it.
        let (contrast, rows) = Contrast::new(&world, Temperature::One(tau.shallow_clone()), self.options);

        let sum = |tensor: &Tensor| tensor.sum(None::<Kind>);
        let [mut loss, mut by_log_scale, mut by_bias] = [(); 3].map(|()| bias.zeros_like());
        let FeatureGradients { image, text } = contrast.map_logits(|modality, start, scaled| {
            let logits = scaled + &bias; // l, [rows, B]
            let to_logits = logits.sigmoid() / batch; // H
            let mut own = world.own_pairs(&to_logits, start);
            own -= 1.0 / batch;
            if modality == 0 {
                // Each pair is met twice, in the row of its image and in that of its text. It counts once.
                loss += (sum(&logits.softplus()) - sum(&world.own_pairs(&logits, start))) / batch;
                by_log_scale += sum(&(&to_logits * scaled));
                by_bias += sum(&to_logits);
            }
            to_logits.matmul(world.candidates(modality)) * &scale
        });
        Ok(Share {
            image,
            text,
            log_scale: by_log_scale,
            bias: Some(by_bias),
            values: Values {
                loss: loss.shallow_clone(),
                surrogate: loss,
                contrastive_loss: rows.info_nce(batch),
                log_mean: rows.log_mean(batch),
                tau: tau * (world.num_local() as f64 / batch),
            },
        })
    }

    fn gamma(&self, _epoch: u64) -> Option<f64> {
        None
    }

    fn estimators(&self) -> Option<&EstimatorTable> {
        None
    }

    fn estimators_mut(&mut self) -> Option<&mut EstimatorTable> {
        None
    }
}
