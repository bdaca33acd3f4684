//! The model that a command encodes with.

use clap::Args;
use fastclip_trainer::model::{Clip, ModelConfig};
use fastclip_trainer::run::RunError;
use tch::Device;

/// Where a model lies.
#[derive(Debug, Args)]
pub(super) struct EncoderArgs {
    /// Model: a checkpoint's folder, a folder or safetensors file of OpenCLIP's or OpenAI's, or the URL of either
    #[arg(long, value_name = "PATH|URL", alias = "pretrained")]
    pub(super) checkpoint: String,
    /// What the model consists of, where no open_clip_config.json lies beside the weights: a name of OpenCLIP's plain models or a JSON file of its form
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
}

impl EncoderArgs {
    pub(super) fn load(&self, device: Device) -> Result<Clip, RunError> {
        let config = self.model.as_deref().map(ModelConfig::load).transpose().map_err(RunError::Model)?;
        Clip::from_pretrained(&self.checkpoint, config.as_ref(), device).map_err(RunError::Weights)
    }
}
