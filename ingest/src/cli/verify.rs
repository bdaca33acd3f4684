use std::num::NonZeroUsize;

use fastclip_ingest::verify;
use fastclip_shards::Dataset;

use super::progress::ProgressArgs;
use super::{print, stop_on_signals, threads};

/// Compares a dataset with its manifest and names the shards to rebuild.
///
/// Every byte is read: digests and sizes of tars and indexes, place and key of every sample, ids. Samples without image,
/// caption or class are counted. Exits with 1 if a shard is not what the manifest says.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ingest verify data/shards/train
  ingest verify s3://bucket/pairs/manifest.json --threads 16")]
pub(crate) struct VerifyArgs {
    /// Folder, URL or manifest of the dataset
    location: String,

    /// Shards read at the same time [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<NonZeroUsize>,
}

impl VerifyArgs {
    pub(super) fn run(self, progress: &ProgressArgs) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let dataset = runtime.block_on(Dataset::open(&self.location))?;
        let stop = stop_on_signals()?;
        let report =
            verify(&dataset, threads(self.threads), &progress.start("verifying", "shards", &stop)?, &stop)?;
        print(&report)?;
        Ok(report.check()?)
    }
}
