//! Anchors against candidates: what all objectives with a softmax-like weight have in common.
//!
//! Two passes over the similarities of this rank's samples with all samples, `[b, B]` for each modality. The first sums
//! each anchor's row up to l and D. In between, ranks learn what every anchor is divided by. The second turns
//! similarities into d loss / d similarity and those into gradients of the features. A row of images serves twice: the image
//! is the anchor of all texts in it, and a candidate of all text anchors.
//!
//! ```text
//! Q₁ᵢⱼ    exp(d₁ᵢⱼ/τ₁ᵢ − w₁ᵢ)/(B−1)                      Q₂ the same with d₂, τ₂, w₂
//! d/dxᵢ   Σⱼ Q₁ᵢⱼ(tⱼ−tᵢ) + Σₐ Q₂ₐᵢ tₐ − tᵢ Σⱼ Q₂ᵢⱼ       d/dtᵢ with the roles exchanged
//! ```
//!
//! The caller chooses w; for FastCLIP, w = ln(ε+u) + ln(2Bτ) gives half of the linearised objective's gradient. Nothing
//! overflows: in the first pass each row is shifted by its largest entry, and in the second Q is bounded by 1/γ times its
//! scale, since u holds γ times the very sum that the exponential is a part of.
//!
//! Similarities that exceed [`ContrastOptions::block_bytes`] are computed in blocks of rows, and again in the second pass,
//! instead of being kept.

use tch::{Kind, Tensor};

use super::World;
use super::world::FeaturePrecision;

/// Stands for −∞ at a sample's own pair. Finite, because it is multiplied with weights that are 0.
const NEVER: f64 = -1e30;

/// How similarities are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContrastOptions {
    /// Bytes of one block of similarities. Up to five blocks exist at a time.
    pub block_bytes: usize,
    /// How exactly features enter.
    pub precision: FeaturePrecision,
}

impl Default for ContrastOptions {
    fn default() -> Self {
        Self { block_bytes: 256 << 20, precision: FeaturePrecision::Full }
    }
}

/// The temperatures of anchors.
#[derive(Debug)]
pub(super) enum Temperature {
    /// One for all, `[]`.
    One(Tensor),
    /// One of each sample and modality, `[B, 2]`.
    Each(Tensor),
}

impl Temperature {
    /// Returns the temperatures of all anchors in a form that broadcasts against `[B, 2]`.
    pub(super) fn of_world(&self) -> &Tensor {
        match self {
            Self::One(tau) | Self::Each(tau) => tau,
        }
    }

    /// Returns those of this rank's anchors in a form that broadcasts against `[b, 2]`.
    pub(super) fn of_local(&self, world: &World) -> Tensor {
        match self {
            Self::One(tau) => tau.shallow_clone(),
            Self::Each(tau) => world.mine(tau),
        }
    }
}

/// What an anchor's row comes to.
#[derive(Debug)]
pub(super) struct Rows {
    /// l = ln g, `[b, 2]`.
    pub(super) log_inner: Tensor,
    /// D, `[b, 2]`.
    pub(super) mean_logit: Tensor,
}

impl Rows {
    /// Returns this rank's summand of InfoNCE over a batch of so many samples.
    pub(super) fn info_nce(&self, batch: f64) -> Tensor {
        // ln(1 + (B−1)g)
        let log_sum = (&self.log_inner + (batch - 1.0).ln()).softplus();
        log_sum.sum(None::<Kind>) / (2.0 * batch)
    }

    /// Returns this rank's summand of the mean of ln g.
    pub(super) fn log_mean(&self, batch: f64) -> Tensor {
        self.log_inner.sum(None::<Kind>) / (2.0 * batch)
    }
}

/// Gradients of this rank's features, `[b, d]` each.
#[derive(Debug)]
pub(super) struct FeatureGradients {
    pub(super) image: Tensor,
    pub(super) text: Tensor,
}

/// A block of rows of one modality.
#[derive(Debug)]
struct Block {
    /// Local row of its first.
    start: i64,
    /// s/τ of the row's anchor, [`NEVER`] at its own pair, `[rows, B]`.
    logits: Tensor,
    /// exp(logits − largest of the row), `[rows, B]`.
    weights: Tensor,
    /// `[rows, 1]`
    largest: Tensor,
    /// Sums of the weights' rows, `[rows, 1]`.
    sums: Tensor,
}

/// The similarities of this rank's samples, block by block.
#[derive(Debug)]
struct Similarities<'a> {
    world: &'a World,
    temperature: Temperature,
    rows_per_block: i64,
}

impl Similarities<'_> {
    /// Calls `map` for each block of a modality and joins what it returns, `[rows, …]`, to `[b, …]`. Blocks that were kept
    /// are not computed again.
    fn map_blocks(&self, modality: usize, kept: Vec<Block>, map: impl FnMut(Block) -> Tensor) -> Tensor {
        let starts = (0..self.world.num_local()).step_by(self.rows_per_block as usize);
        let mut kept = kept.into_iter();
        let blocks = starts.map(|start| kept.next().unwrap_or_else(|| self.block(modality, start)));
        Tensor::cat(&blocks.map(map).collect::<Vec<_>>(), 0)
    }

    fn block(&self, modality: usize, start: i64) -> Block {
        let num_rows = self.rows_per_block.min(self.world.num_local() - start);
        let anchors = self.world.anchors(modality).narrow(0, start, num_rows);
        let logits =
            (anchors / self.tau(modality, start, num_rows)).matmul(&self.world.candidates(modality).tr());
        let _ = self.world.own_pairs(&logits, start).fill_(NEVER);
        let largest = logits.amax([1i64], true);
        let weights = (&logits - &largest).exp_();
        let sums = row_sums(&weights);
        Block { start, logits, weights, largest, sums }
    }

    /// Returns τ of local rows of a modality, `[rows, 1]` or `[]`.
    fn tau(&self, modality: usize, start: i64, num_rows: i64) -> Tensor {
        match &self.temperature {
            Temperature::One(tau) => tau.shallow_clone(),
            Temperature::Each(tau) => {
                self.world.mine(tau).narrow(0, start, num_rows).narrow(1, modality as i64, 1)
            }
        }
    }

    /// Returns s/τ of this rank's own pairs, `[b, 1]` or `[b, 2]`.
    fn own_logits(&self) -> Tensor {
        self.world.mine(self.world.positive()).unsqueeze(1) / self.temperature.of_local(self.world)
    }

    /// Turns a block into d loss / d similarity, in the memory of its logits: Q of its rows as anchors, and of its rows as
    /// candidates of the other modality's anchors.
    fn to_similarity(&self, modality: usize, block: Block, pull: &Tensor, shift: &Tensor) -> Tensor {
        let Block { start, mut logits, mut weights, sums, .. } = block;
        let num_rows = logits.size()[0];
        let (this, other) = (modality as i64, 1 - modality as i64);
        if let Temperature::Each(tau) = &self.temperature {
            // The rows were divided by the temperatures of their own anchors; now the columns' count.
            logits *= self.tau(modality, start, num_rows);
            logits /= tau.select(1, other).unsqueeze(0);
        }
        logits -= shift.select(1, other).unsqueeze(0);
        let mut to_similarity = logits.exp_();
        weights *= pull.narrow(0, start, num_rows).narrow(1, this, 1) / sums;
        to_similarity += weights;
        to_similarity
    }
}

/// Similarities between the first pass and the second.
#[derive(Debug)]
pub(super) struct Contrast<'a> {
    similarities: Similarities<'a>,
    /// The blocks of images and of texts, where each is a single one.
    kept: [Vec<Block>; 2],
}

impl<'a> Contrast<'a> {
    /// Makes the first pass.
    pub(super) fn new(world: &'a World, temperature: Temperature, options: ContrastOptions) -> (Self, Rows) {
        let row_bytes = world.num_samples() as usize * world.positive().kind().elt_size_in_bytes();
        let rows_per_block = (options.block_bytes / row_bytes).max(1) as i64;
        let keeps = rows_per_block >= world.num_local();
        let similarities = Similarities { world, temperature, rows_per_block };
        let mut kept = [vec![], vec![]];
        let sums = [0, 1].map(|modality| {
            similarities.map_blocks(modality, vec![], |block| {
                let mean = row_sums(&(&block.weights * &block.logits)) / &block.sums;
                let sums = Tensor::cat(&[block.sums.log() + &block.largest, mean], 1);
                if keeps {
                    kept[modality].push(block);
                }
                sums
            })
        }); // of each modality [b, 2]: ln Σ exp(s/τ), and the mean of s/τ that these weigh
        let own = similarities.own_logits();
        let side_by_side = |column| Tensor::stack(&sums.each_ref().map(|sums| sums.select(1, column)), 1); // [b, 2]
        let rows = Rows {
            log_inner: side_by_side(0) - &own - (world.num_samples() as f64 - 1.0).ln(),
            mean_logit: side_by_side(1) - own,
        };
        (Self { similarities, kept }, rows)
    }

    /// Makes the second pass: `weight` is w, `[B, 2]`, of the anchors of all ranks.
    pub(super) fn gradients(self, rows: &Rows, weight: &Tensor) -> FeatureGradients {
        let Self { similarities, kept: [images, texts] } = self;
        let world = similarities.world;
        let pull = (&rows.log_inner - world.mine(weight)).exp(); // Σⱼ Qᵢⱼ, [b, 2]
        let both = row_sums(&pull); // [b, 1]
        // What text anchors subtract from the logits of image candidates, and the other way round: [B, 2].
        let tau = similarities.temperature.of_world();
        let shift = world.positive().unsqueeze(1) / tau + weight + (world.num_samples() as f64 - 1.0).ln();
        let [image, text] = [(0, images), (1, texts)].map(|(modality, kept)| {
            let pulled = similarities.map_blocks(modality, kept, |block| {
                similarities.to_similarity(modality, block, &pull, &shift).matmul(world.candidates(modality))
            });
            pulled - world.anchors(1 - modality) * &both
        });
        FeatureGradients { image, text }
    }

    /// Makes a second pass of another kind: `map` turns s/τ of the rows of a modality from a local row on, `[rows, B]`, into
    /// gradients of their features, `[rows, d]`.
    pub(super) fn map_logits(self, mut map: impl FnMut(usize, i64, &Tensor) -> Tensor) -> FeatureGradients {
        let Self { similarities, kept: [images, texts] } = self;
        let own = similarities.own_logits(); // [b, 1]
        let [image, text] = [(0, images), (1, texts)].map(|(modality, kept)| {
            similarities.map_blocks(modality, kept, |Block { start, logits, .. }| {
                let own = own.narrow(0, start, logits.size()[0]).squeeze_dim(1);
                similarities.world.own_pairs(&logits, start).copy_(&own);
                map(modality, start, &logits)
            })
        });
        FeatureGradients { image, text }
    }
}

fn row_sums(block: &Tensor) -> Tensor {
    block.sum_dim_intlist(1i64, true, None::<Kind>)
}
