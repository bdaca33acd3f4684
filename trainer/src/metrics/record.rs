//! The records of a run.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use super::{MetricsError, RUN_INFO_FILE};
use crate::distributed::CommCounters;
use crate::eval::{Retrieval, ZeroShot};

/// One line of `metrics.jsonl`.
///
/// Two runs of the same settings and seed, interrupted or not, write equal records but for what stands under `timing`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Record {
    /// A training step that was logged.
    Train(TrainRecord),
    /// An evaluation.
    Eval(EvalRecord),
}

impl Record {
    /// Returns how many training steps had been taken.
    pub fn step(&self) -> u64 {
        match self {
            Self::Train(record) => record.step,
            Self::Eval(record) => record.step,
        }
    }
}

/// One training step. All figures are those of this step alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainRecord {
    /// Steps taken, this one included.
    pub step: u64,
    /// Epoch that its batch belongs to.
    pub epoch: u64,
    /// Samples used by all ranks so far, those of this step included.
    pub samples_seen: u64,
    /// Loss over the global batch.
    #[serde(deserialize_with = "null_as_nan")]
    pub loss: f64,
    /// InfoNCE of the global batch, comparable over objectives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contrastive_loss: Option<f64>,
    /// Mean logarithm of the estimated inner losses: FastCLIP's progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_mean: Option<f64>,
    /// Learning rate of the weights.
    #[serde(deserialize_with = "null_as_nan")]
    pub lr: f64,
    /// Learning rate of the temperature, where it has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr_tau: Option<f64>,
    /// Temperature; the mean, where each sample has its own.
    #[serde(deserialize_with = "null_as_nan")]
    pub tau: f64,
    /// How much the newest batch counts in the moving averages; absent in objectives without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    /// Norm of the gradient over all parameters, before clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Bytes that rank 0 received in collectives in this step.
    pub communication_bytes: u64,
    /// Calls of each collective in this step, and the bytes of each that rank 0 received.
    #[serde(default)]
    pub collectives: CommCounters,
    /// What depends on the clock.
    pub timing: TrainTiming,
}

/// How long a training step took, on rank 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainTiming {
    /// Seconds spent in training steps so far, over all sessions of the run.
    pub seconds: f64,
    /// Seconds of a step, a mean since the last record.
    pub step_seconds: f64,
    /// Seconds of those that the step waited for data.
    pub data_seconds: f64,
    /// Samples of all ranks per second, a mean since the last record.
    pub images_per_second: f64,
    /// Memory of the GPU, on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<GpuMemory>,
    /// What has come of checkpoints, once one was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<CheckpointTiming>,
}

/// Most bytes that a session has taken so far of the GPU of rank 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuMemory {
    /// For tensors.
    pub allocated_bytes: u64,
    /// From the driver: what tensors take, have taken, and what lies between them.
    pub reserved_bytes: u64,
}

/// What has come of the checkpoints of a session, on rank 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointTiming {
    /// Complete ones.
    #[serde(rename = "written")]
    pub num_written: u64,
    /// Those that could not be written.
    #[serde(rename = "failed")]
    pub num_failed: u64,
    /// Seconds that training stood still to copy the last one's state.
    pub copy_seconds: f64,
    /// Seconds that training stood still, the last time it did, because the one before was still being written.
    pub wait_seconds: f64,
    /// Seconds in which the last one's part was written, while training went on.
    pub write_seconds: f64,
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Training steps taken.
    pub step: u64,
    /// Epoch of the last of them.
    pub epoch: u64,
    /// Samples used by all ranks so far.
    pub samples_seen: u64,
    /// Classification by prompts, where the dataset has classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_shot: Option<ZeroShot>,
    /// Finding each image's caption and each caption's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<Retrieval>,
    /// What depends on the clock.
    pub timing: EvalTiming,
}

/// How long an evaluation took, on rank 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EvalTiming {
    /// Seconds from start to end.
    pub seconds: f64,
}

/// What stays the same over a run, for readers of its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Name of the run.
    pub name: String,
    /// Name of the training objective, for example `fastclip-v3`.
    pub objective: String,
    /// The command that started it, as a person would type it.
    pub command: String,
    /// Program and version, with commit and libtorch.
    pub version: String,
    /// Processes that train together.
    pub num_ranks: usize,
    /// Samples of all ranks in one step.
    pub global_batch: u64,
    /// Samples that one epoch uses: a multiple of the global batch.
    pub samples_per_epoch: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
}

impl RunInfo {
    /// Reads the file that [`MetricsWriter`](super::MetricsWriter) leaves in a run's folder.
    ///
    /// # Errors
    /// When it cannot be read or is something else.
    pub fn read(run_dir: &Path) -> Result<Self, MetricsError> {
        let path = run_dir.join(RUN_INFO_FILE);
        let text = std::fs::read(&path).map_err(|source| MetricsError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| MetricsError::Json { path, source })
    }
}

// JSON has no NaN, and serde_json writes `null` for it. Reading it back keeps a run with a bad step readable.
fn null_as_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
