use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use fastclip_ingest::{StatsOptions, stats};
use fastclip_shards::Dataset;

use super::progress::ProgressArgs;
use super::{print, stop_on_signals, threads};

/// Tells what a dataset is like: samples, bytes, sizes of images and captions.
///
/// Reads the shards, and of JPEGs only the headers. With --sample a choice of the shards is read.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ingest stats data/shards/train
  ingest stats s3://bucket/pairs --sample 20 --json stats.json")]
pub(crate) struct StatsArgs {
    /// Folder, URL or manifest of the dataset
    location: String,

    /// Shards to read [default: all]
    #[arg(long, value_name = "N", help_heading = "Samples")]
    sample: Option<NonZeroUsize>,
    /// Which shards --sample takes
    #[arg(long, value_name = "SEED", default_value_t = 0, help_heading = "Samples")]
    seed: u64,

    /// Write the counts to a file too
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    json: Option<PathBuf>,

    /// Shards read at the same time [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<NonZeroUsize>,
}

impl StatsArgs {
    pub(super) fn run(self, progress: &ProgressArgs) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let dataset = runtime.block_on(Dataset::open(&self.location))?;
        let options =
            StatsOptions { num_shards: self.sample, seed: self.seed, threads: threads(self.threads) };
        let stop = stop_on_signals()?;
        let report = stats(&dataset, &options, &progress.start("reading", "shards", &stop)?, &stop)?;
        if let Some(path) = &self.json {
            std::fs::write(path, report.to_json())
                .with_context(|| format!("could not write `{}`", path.display()))?;
        }
        print(&report)
    }
}
