//! `train embed`: a dataset as embeddings.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use fastclip_trainer::embed::{EmbedFormat, embed};
use fastclip_trainer::eval::EncodeOptions;
use fastclip_trainer::run::{RunError, open_dataset};
use indicatif::HumanCount;

use super::encoder::{CaptionArgs, EncoderArgs};
use super::together::TogetherArgs;
use super::{Failure, print};

/// Writes the embeddings of a dataset's images and captions, with the keys of the samples
///
/// Rows have length one and stand in the order of the dataset, whatever the number of ranks.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EmbedArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// Dataset to encode: a folder with a manifest, or its URL
    #[arg(long, value_name = "LOCATION")]
    data: String,
    /// Folder to write into
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// What to write; several are separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "npy")]
    format: Vec<EmbedFormat>,
    #[command(flatten)]
    captions: CaptionArgs,
    /// Samples that a rank encodes at once
    #[arg(long, value_name = "N", default_value = "64", alias = "batch_size")]
    batch_size: NonZeroUsize,
    /// Decoding threads of each rank
    #[arg(long, value_name = "N", default_value = "4")]
    workers: NonZeroUsize,
    #[command(flatten)]
    together: TogetherArgs,
}

const EXAMPLES: &str = "\
Examples:
  train embed --checkpoint logs/my-run/checkpoints/step_00000500 --data data/held-out --out embeddings
  train embed --checkpoint laion-model/ --data s3://bucket/coco --out embeddings --format npy,parquet --ranks 8";

impl EmbedArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let captions = self.captions.parsed()?;
        if let Some(code) = self.together.launch()? {
            return Ok(code);
        }
        let member = self.together.join(format!("{self:?}"))?;
        let num_samples = member.work(|comm| {
            let model = self.encoder.load(member.device)?;
            let dataset = open_dataset(&self.data)?;
            let options = EncodeOptions::of(
                model.config(),
                captions,
                self.batch_size,
                self.workers,
                member.progress.clone(),
            );
            embed(&model, &dataset, comm, &options, &self.out, &self.format).map_err(RunError::Embed)
        })?;
        if member.comm.rank() > 0 {
            return Ok(ExitCode::SUCCESS);
        }
        print(&format!("{} samples in {}\n", HumanCount(num_samples), self.out.display()))
    }
}
