//! `train eval`: how good a checkpoint is.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use fastclip_trainer::distributed::Alone;
use fastclip_trainer::eval::{EvalOptions, evaluate};
use fastclip_trainer::model::Clip;
use fastclip_trainer::progress::Progress;
use fastclip_trainer::run::open_dataset;
use serde_json::json;
use tch::Device;
use tracing::Level;

use super::{Failure, log, print};

/// Evaluates a checkpoint: zero-shot classification and retrieval; prints JSON
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalArgs {
    /// Folder with open_clip_model.safetensors and open_clip_config.json: a checkpoint, or a model of OpenCLIP
    #[arg(long, value_name = "FOLDER")]
    checkpoint: PathBuf,
    /// Dataset to evaluate on: a folder with a manifest, or its URL
    #[arg(long, value_name = "LOCATION", alias = "val_data")]
    val_data: String,
    /// Samples that are encoded at once
    #[arg(long, value_name = "N", default_value = "64", alias = "batch_size")]
    batch_size: NonZeroUsize,
    /// Decoding threads
    #[arg(long, value_name = "N", default_value = "4")]
    workers: NonZeroUsize,
    /// Pairs that retrieval chooses among [default: all]
    #[arg(long, value_name = "N")]
    val_retrieval_pool: Option<NonZeroU64>,
}

const EXAMPLES: &str = "\
Examples:
  train eval --checkpoint logs/my-run/checkpoints/step_00000500 --val-data data/held-out";

impl EvalArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let progress = Progress::on_terminal();
        log::start(&progress, Level::WARN, None).map_err(Failure::broken)?;
        let model =
            Clip::from_folder(&self.checkpoint, Device::cuda_if_available()).map_err(Failure::refused)?;
        let dataset = open_dataset(&self.val_data)?;
        let config = model.config();
        let positive = "model configs are checked to have positive sizes";
        let options = EvalOptions {
            image_size: u32::try_from(config.vision_cfg.image_size).expect(positive),
            context_length: usize::try_from(config.text_cfg.context_length).expect(positive),
            batch_size: self.batch_size,
            retrieval_pool: self.val_retrieval_pool,
            num_predictions: 0,
            threads: self.workers,
            progress,
        };
        let report = evaluate(&model, &dataset, &Alone::new(), &options)
            .map_err(|error| Failure::from(fastclip_trainer::run::RunError::from(error)))?;
        let json = json!({ "zero_shot": report.zero_shot, "retrieval": report.retrieval });
        print(&format!("{json:#}\n"))
    }
}
