//! The model that a command encodes with, and what of the samples.

use clap::Args;
use fastclip_loader::Captions;
use fastclip_trainer::config::{CaptionChoice, ConfigError, captions};
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

/// Which captions are encoded.
#[derive(Debug, Args)]
pub(super) struct CaptionArgs {
    /// Where captions are found: extensions of members, or fields of a JSON member as in json:alt; several are separated by commas, and may have weights as in txt=2,json:alt=1
    #[arg(long, value_name = "SOURCES", default_value = "txt")]
    captions: String,
    /// Which caption is taken where a sample has several, unless sources have weights
    #[arg(long, value_enum, default_value = "first")]
    caption_choice: CaptionChoice,
}

impl CaptionArgs {
    pub(super) fn parsed(&self) -> Result<Captions, ConfigError> {
        captions(&self.captions, self.caption_choice)
    }
}
