//! OpenCLIP's baseline: InfoNCE over the global batch.
//!
//! ```text
//! loss = -1/(2B) Σᵢ [ log softmaxⱼ(sᵢⱼ/τ) + log softmaxⱼ(sⱼᵢ/τ) ] at j = i
//! ```
//!
//! Each rank computes the rows of its own anchors (OpenCLIP's `--local-loss`). Their gradient reaches the features of all
//! ranks, and a reduce-scatter brings every rank the sum for its own (`--gather-with-grad`). OpenCLIP lets users have one
//! without the other, which trains on wrong gradients; here there is no such choice.

use tch::{Kind, Tensor};

use super::{Local, Objective, ObjectiveError, Share, Values, World};
use crate::distributed::Communicator;
use crate::estimator::EstimatorTable;

/// InfoNCE with a learned temperature.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenClip;

/// One direction: local anchors against the candidates of all ranks.
struct Direction {
    loss: Tensor,          // [], summand
    log_mean: Tensor,      // [], summand
    to_anchors: Tensor,    // [b, d]
    to_candidates: Tensor, // [B, d]
    to_log_scale: Tensor,  // [], summand
}

impl Direction {
    fn new(anchors: &Tensor, candidates: &Tensor, scale: &Tensor, own: &Tensor) -> Self {
        let batch = candidates.size()[0] as f64;
        let logits = anchors.matmul(&candidates.tr()) * scale; // [b, B]
        let positive = logits.masked_fill(&own.logical_not(), 0.0).sum_dim_intlist(1i64, true, None::<Kind>);
        let log_inner = (&logits - &positive).masked_fill(own, f64::NEG_INFINITY).logsumexp([1i64], false)
            - (batch - 1.0).ln();
        let log_softmax = logits.log_softmax(1, None::<Kind>);
        let pull = (log_softmax.exp() - own.to_kind(logits.kind())) / (2.0 * batch); // d loss / d logits, [b, B]
        let to_log_scale = (&pull * &logits).sum(None::<Kind>);
        let pull = pull * scale; // d loss / d similarity
        Self {
            loss: log_softmax.masked_fill(&own.logical_not(), 0.0).sum(None::<Kind>) / (-2.0 * batch),
            log_mean: log_inner.sum(None::<Kind>) / (2.0 * batch),
            to_anchors: pull.matmul(candidates),
            to_candidates: pull.tr().matmul(anchors),
            to_log_scale,
        }
    }
}

impl Objective for OpenClip {
    fn name(&self) -> &'static str {
        "openclip"
    }

    fn differentiate(&mut self, local: &Local<'_>, comm: &dyn Communicator) -> Result<Share, ObjectiveError> {
        let world = World::gather(local, comm)?;
        let own = world.own_columns(local.image.size()[0]); // [b, B]
        let scale = local.log_scale.detach().exp();
        let image = Direction::new(local.image, &world.text, &scale, &own);
        let text = Direction::new(local.text, &world.image, &scale, &own);

        let to_candidates = Tensor::cat(&[&text.to_candidates, &image.to_candidates], 1); // [B, 2d]
        let from_others = comm
            .reduce_scatter_sum(&to_candidates)
            .map_err(|source| ObjectiveError::Exchange { what: "feature gradients", source })?; // [b, 2d]
        let dim = local.image.size()[1];
        let loss = image.loss + text.loss;
        Ok(Share {
            image: image.to_anchors + from_others.narrow(1, 0, dim),
            text: text.to_anchors + from_others.narrow(1, dim, dim),
            log_scale: image.to_log_scale + text.to_log_scale,
            values: Values {
                contrastive_loss: loss.shallow_clone(),
                loss,
                log_mean: image.log_mean + text.log_mean,
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
