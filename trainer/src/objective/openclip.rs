//! OpenCLIP's baseline: InfoNCE over the global batch.
//!
//! ```text
//! loss    -1/(2B) Σᵢ [ log softmaxⱼ(sᵢⱼ/τ) + log softmaxⱼ(sⱼᵢ/τ) ] at j = i
//!         = 1/(2B) Σᵢ [ ln(1 + (B−1)g₁ᵢ) + ln(1 + (B−1)g₂ᵢ) ]
//! d/ds    1/(2B) Σᵢ [ D₁ᵢ (B−1)g₁ᵢ/(1 + (B−1)g₁ᵢ) + the same of texts ]
//! ```
//!
//! These are the gradients of OpenCLIP's `--local-loss --gather-with-grad`: of all ranks' losses with respect to this rank's
//! features. OpenCLIP sends them back by a reduce-scatter; here ranks exchange one number for each anchor, 1 + (B−1)g,
//! and compute them in place. OpenCLIP lets users have one flag without the other, which trains on wrong gradients; here
//! there is no such choice.

use tch::Kind;

use super::contrast::{Contrast, ContrastOptions, Temperature};
use super::{Local, Objective, ObjectiveError, Share, Values, World};
use crate::distributed::Communicator;
use crate::estimator::EstimatorTable;

/// InfoNCE with a learned temperature.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenClip {
    options: ContrastOptions,
}

impl OpenClip {
    /// Makes the objective.
    pub fn new(options: ContrastOptions) -> Self {
        Self { options }
    }
}

impl Objective for OpenClip {
    fn name(&self) -> &'static str {
        "openclip"
    }

    fn differentiate(&mut self, local: &Local<'_>, comm: &dyn Communicator) -> Result<Share, ObjectiveError> {
        let tau = (-local.log_scale.detach()).exp(); // []
        let world = World::gather(local, self.options.precision, false, comm)?;
        let batch = world.num_samples() as f64;
        let (contrast, rows) = Contrast::new(&world, Temperature::One(tau.shallow_clone()), self.options);

        // FastCLIP with γ = 1 and ε = 1/(B−1): ln(ε+g), so that 1 + (B−1)g = (B−1)(ε+g).
        let epsilon = rows.log_inner.full_like(-(batch - 1.0).ln());
        let log_weight = rows.log_inner.logaddexp(&epsilon); // [b, 2]
        let all = comm.all_gather(&log_weight).map_err(ObjectiveError::exchanging("normalizers"))?; // [B, 2]
        let gradients = contrast.gradients(&rows, &(all + (&tau * (2.0 * batch)).log()));

        let pulled = (&rows.log_inner - &log_weight).exp() * &rows.mean_logit; // [b, 2]
        let loss = rows.info_nce(batch);
        Ok(Share {
            image: gradients.image,
            text: gradients.text,
            log_scale: pulled.sum(None::<Kind>) / (2.0 * batch),
            bias: None,
            values: Values {
                loss: loss.shallow_clone(),
                surrogate: loss.shallow_clone(),
                contrastive_loss: loss,
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
