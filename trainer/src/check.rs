//! What a run will take, before it takes anything: size, memory, operations, traffic and time.

use serde::Serialize;

use crate::config::{ObjectiveChoice, OptimizerChoice, Precision, RunConfig};
use crate::gradients::NUM_STOPS;
use crate::model::{Clip, ModelCost, Role, TowerCost};
use crate::objective::{FeaturePrecision, Global, NUM_VALUES};

/// Bytes of a number in fp32, which parameters, gradients, estimators and, unless rounded, activations are.
const NUMBER_BYTES: u64 = 4;

/// Bytes of an id.
const ID_BYTES: u64 = 8;

/// What the objectives with one temperature remember of a sample: an estimate for each modality.
const NUM_ESTIMATES: u64 = Global::INITIAL_ROW.len() as u64;

/// The size of a training set, counted in three ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingSetSize {
    /// Its pairs.
    pub num_pairs: u64,
    /// One more than the largest id of a pair: the rows of a table over them.
    pub num_sample_ids: u64,
    /// Positions of an epoch: its pairs, unless several sets are mixed by factors.
    pub samples_per_epoch: u64,
}

impl TrainingSetSize {
    /// One whose ids have no holes, and of which an epoch has every pair once.
    pub fn dense(num_pairs: u64) -> Self {
        Self { num_pairs, num_sample_ids: num_pairs, samples_per_epoch: num_pairs }
    }
}

/// What a run over so many ranks and samples will take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Number of ranks.
    pub num_ranks: u64,
    /// Pairs of the training set.
    pub num_samples: u64,
    /// Trained numbers.
    pub parameters: u64,
    /// Those of the image tower.
    pub image_parameters: u64,
    /// Samples of all ranks in a step.
    pub global_batch: u64,
    /// Steps of an epoch; what does not fill a last one is left out.
    pub steps_per_epoch: u64,
    /// Steps of the run.
    pub total_steps: u64,
    /// Samples of all steps.
    pub samples_seen: u64,
    /// Floating point operations of training on one pair, with a caption of full length.
    pub flops_per_sample: u64,
    /// Memory of a rank, in bytes.
    pub memory: Memory,
    /// What a rank receives in a step, by the ring algorithm.
    pub traffic: StepTraffic,
    /// Hours of training at the rate that was given.
    pub hours: Option<f64>,
}

/// Bytes that a rank receives in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StepTraffic {
    /// Features, ids and what individual temperatures need: (K−1) times what a rank has.
    pub all_gather: u64,
    /// Gradients, estimators and what ranks agree on: 2(K−1)/K of all that.
    pub all_reduce: u64,
}

/// Memory of a rank, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The parameters, and what towers compute with where that is rounded.
    pub parameters: u64,
    /// Their gradients.
    pub gradients: u64,
    /// What the optimizer remembers.
    pub optimizer: u64,
    /// This rank's part of what is remembered of samples.
    pub estimators: u64,
    /// What forward keeps for backward of a micro-batch, or what of it `grad_checkpointing` leaves; an estimate.
    pub activations: u64,
    /// Features of all ranks.
    pub features: u64,
    /// Similarities, at most: what the objective computes with at once.
    pub similarities: u64,
}

impl Memory {
    /// Returns the sum.
    pub fn total(&self) -> u64 {
        let Self { parameters, gradients, optimizer, estimators, activations, features, similarities } = self;
        parameters + gradients + optimizer + estimators + activations + features + similarities
    }
}

impl Check {
    /// Works out what a run over so many ranks and samples takes; `samples_per_second` is of all ranks together.
    pub fn of(
        config: &RunConfig,
        num_ranks: u64,
        training_set: TrainingSetSize,
        samples_per_second: Option<f64>,
    ) -> Self {
        let TrainingSetSize { num_pairs, num_sample_ids, samples_per_epoch } = training_set;
        let micro_batch = config.data.batch_size.get() as u64;
        let local_batch = micro_batch * config.data.accum_freq.get() as u64;
        let global_batch = local_batch * num_ranks;
        let steps_per_epoch = samples_per_epoch / global_batch;
        let total_steps = steps_per_epoch * config.rates.epochs;
        let samples_seen = total_steps * global_batch;
        let cost = ModelCost::of(&config.model);
        let bytes = cost.parameters * NUMBER_BYTES;
        let trained_bytes = num_trained(config) * NUMBER_BYTES;
        let kept = |tower: TowerCost| match config.settings.grad_checkpointing {
            true => tower.kept_recomputing,
            false => tower.kept,
        };
        let (rounded_bytes, activation_bytes) = match config.settings.precision {
            Precision::Fp32 => (0, NUMBER_BYTES),
            Precision::AmpBf16 => (NUMBER_BYTES / 2, NUMBER_BYTES / 2),
        };
        Self {
            num_ranks,
            num_samples: num_pairs,
            parameters: cost.parameters,
            image_parameters: cost.image_parameters,
            global_batch,
            steps_per_epoch,
            total_steps,
            samples_seen,
            flops_per_sample: cost.training_flops(),
            memory: Memory {
                parameters: bytes + cost.parameters * rounded_bytes,
                gradients: trained_bytes,
                optimizer: trained_bytes * optimizer_moments(config),
                estimators: num_sample_ids.div_ceil(num_ranks)
                    * config.objective.numbers_per_sample() as u64
                    * NUMBER_BYTES,
                activations: micro_batch * (kept(cost.image) + kept(cost.text)) * activation_bytes,
                features: 2 * global_batch * config.model.embed_dim as u64 * NUMBER_BYTES,
                similarities: similarities(config, local_batch, global_batch),
            },
            traffic: traffic(config, num_ranks, local_batch, num_trained(config)),
            hours: samples_per_second.map(|rate| samples_seen as f64 / rate / 3600.0),
        }
    }
}

/// Bytes of the blocks of similarities that exist at once, see `objective/contrast.rs`.
fn similarities(config: &RunConfig, local_batch: u64, global_batch: u64) -> u64 {
    let is_siglip = config.settings.objective == ObjectiveChoice::SigLip;
    let row_bytes = global_batch * NUMBER_BYTES;
    let rows_of_block = (((config.settings.loss_block_mib.get() as u64) << 20) / row_bytes).max(1);
    let (rows, num_blocks) = if rows_of_block >= local_batch {
        // Logits and weights of both modalities are kept. The first pass multiplies those of one; the second turns them into
        // gradients where they are, or for SigLIP in three blocks more.
        (local_batch, if is_siglip { 7 } else { 5 })
    } else {
        (rows_of_block, if is_siglip { 5 } else { 3 })
    };
    num_blocks * rows * row_bytes
}

/// Numbers that are trained: all but those of locked parts.
fn num_trained(config: &RunConfig) -> u64 {
    let specs = Clip::layout(&config.model);
    let trained = specs.iter().filter(|spec| spec.role == Role::Parameter);
    let trained = trained.filter(|spec| !config.locks.covers(&spec.name, &config.model));
    trained.map(|spec| spec.numel() as u64).sum()
}

/// Numbers that batch norms gather.
fn statistics(config: &RunConfig) -> u64 {
    let specs = Clip::layout(&config.model);
    let gathered = specs.iter().filter(|spec| spec.role == Role::Statistic);
    gathered.map(|spec| spec.numel() as u64).sum()
}

/// Numbers that the optimizer keeps of each parameter.
fn optimizer_moments(config: &RunConfig) -> u64 {
    match config.settings.optimizer {
        OptimizerChoice::AdamW | OptimizerChoice::Lamb => 2,
        OptimizerChoice::Lion | OptimizerChoice::Sgd => 1,
    }
}

/// The formulas of the FastCLIP paper for this implementation: features and ids in one all-gather, estimators in one
/// all-reduce, nothing scattered.
fn traffic(config: &RunConfig, num_ranks: u64, local_batch: u64, parameters: u64) -> StepTraffic {
    let feature_bytes = match config.settings.feature_precision {
        FeaturePrecision::Full => NUMBER_BYTES,
        FeaturePrecision::Bf16 => NUMBER_BYTES / 2,
    };
    let features = 2 * config.model.embed_dim as u64 * feature_bytes;
    // Bytes of a sample that go to all ranks, and numbers of a sample that come from the owner of its row.
    let (gathered, table) = match (config.objective.numbers_per_sample() as u64, config.settings.objective) {
        (0, ObjectiveChoice::OpenClip) => (features + 2 * NUMBER_BYTES, 0),
        (0, _) => (features, 0),
        (NUM_ESTIMATES, _) => (features + ID_BYTES, 2 * NUM_ESTIMATES),
        (row, _) => (features + ID_BYTES + row * NUMBER_BYTES, row),
    };
    let agreement = (NUM_VALUES + NUM_STOPS) as u64 + num_ranks;
    let reduced = parameters + statistics(config) + table * local_batch * num_ranks + agreement;
    StepTraffic {
        all_gather: (num_ranks - 1) * local_batch * gathered,
        all_reduce: 2 * (num_ranks - 1) * reduced * NUMBER_BYTES / num_ranks,
    }
}
