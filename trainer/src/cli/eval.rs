//! `train eval`: how good a checkpoint is.

use std::num::{NonZeroU64, NonZeroUsize};
use std::process::ExitCode;

use clap::Args;
use fastclip_trainer::eval::{EncodeOptions, EvalOptions, evaluate};
use fastclip_trainer::run::open_dataset;
use serde_json::json;

use super::encoder::{CaptionArgs, EncoderArgs};
use super::together::TogetherArgs;
use super::{Failure, print};

/// Evaluates a checkpoint: zero-shot classification and retrieval; prints JSON
///
/// `metrics` holds the figures under the names of CLIP_benchmark. The result is the same for every number of ranks.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// Dataset to evaluate on: a folder with a manifest, or its URL
    #[arg(long, value_name = "LOCATION", alias = "val_data")]
    val_data: String,
    #[command(flatten)]
    captions: CaptionArgs,
    /// Samples that a rank encodes at once
    #[arg(long, value_name = "N", default_value = "64", alias = "batch_size")]
    batch_size: NonZeroUsize,
    /// Decoding threads of each rank
    #[arg(long, value_name = "N", default_value = "4")]
    workers: NonZeroUsize,
    /// Pairs that retrieval chooses among [default: all]
    #[arg(long, value_name = "N")]
    val_retrieval_pool: Option<NonZeroU64>,
    #[command(flatten)]
    together: TogetherArgs,
}

const EXAMPLES: &str = "\
Examples:
  train eval --checkpoint logs/my-run/checkpoints/step_00000500 --val-data data/held-out
  train eval --checkpoint ViT-B-32.safetensors --model ViT-B-32-quickgelu --val-data data/held-out --ranks 8";

impl EvalArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let captions = self.captions.parsed()?;
        if let Some(code) = self.together.launch()? {
            return Ok(code);
        }
        let member = self.together.join(format!("{self:?}"))?;
        let report = member.work(|comm| {
            let model = self.encoder.load(member.device)?;
            let dataset = open_dataset(&self.val_data)?;
            let options = EvalOptions {
                encode: EncodeOptions::of(
                    model.config(),
                    captions,
                    self.batch_size,
                    self.workers,
                    member.progress.clone(),
                ),
                retrieval_pool: self.val_retrieval_pool,
                num_predictions: 0,
            };
            Ok(evaluate(&model, &dataset, comm, &options)?)
        })?;
        if member.comm.rank() > 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let json = json!({
            "checkpoint": self.encoder.checkpoint,
            "dataset": self.val_data,
            "metrics": report.benchmark(),
            "zero_shot": report.zero_shot,
            "retrieval": report.retrieval,
        });
        print(&format!("{json:#}\n"))
    }
}
