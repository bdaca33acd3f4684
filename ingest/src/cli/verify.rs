use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use fastclip_ingest::{DecodeCheck, VerifyOptions, verify};
use fastclip_shards::Dataset;

use super::progress::ProgressArgs;
use super::{print, shards_at_once, stop_on_signals};

/// Compares a dataset with its manifest and names the shards to rebuild, with the command that does it.
///
/// Every byte is read: digests and sizes of tars and indexes, place and key of every sample, ids; sizes.json and the tables beside
/// the shards are compared with them. Samples without image, caption or class, images that do not decode, keys that
/// occur again and files that belong to nothing are counted. Exits with 1 if a shard is not what the manifest says.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ingest verify data/shards/train
  ingest verify data/cc3m --decode all --json verdict.json
  ingest verify s3://bucket/pairs/manifest.json --threads 16")]
pub(crate) struct VerifyArgs {
    /// Folder, URL or manifest of the dataset
    location: String,

    /// Images to decode: none, all, or sample:N for about N of the dataset
    #[arg(long, value_name = "WHICH", default_value_t = DecodeCheck::Sample(1000), help_heading = "Samples")]
    decode: DecodeCheck,

    /// Write what was found to a file too
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    json: Option<PathBuf>,

    /// Shards read at the same time [default: two a core, so that one is read while another is digested]
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<NonZeroUsize>,
}

impl VerifyArgs {
    pub(super) fn run(self, progress: &ProgressArgs) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let dataset = runtime.block_on(Dataset::open(&self.location))?;
        let stop = stop_on_signals()?;
        let options = VerifyOptions { decode: self.decode, threads: shards_at_once(self.threads) };
        let report = verify(&dataset, &options, &progress.start("verifying", "shards", &stop)?, &stop)?;
        if let Some(path) = &self.json {
            std::fs::write(path, report.to_json())
                .with_context(|| format!("could not write `{}`", path.display()))?;
        }
        print(&report)?;
        Ok(report.check()?)
    }
}
