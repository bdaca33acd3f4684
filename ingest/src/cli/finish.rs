use fastclip_ingest::{Stop, finish};

use super::progress::ProgressArgs;
use super::{CREATED_BY, open_store, print};

/// Makes one dataset of the parts that `ingest download --part` has fetched.
///
/// Checks that all shards are there and as they were recorded, numbers their samples through, and writes the manifest: the
/// one that a run without parts writes. Names the parts that are missing, and the command that fetches them. Does nothing
/// where it is done already.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ingest finish s3://bucket/laion")]
pub(crate) struct FinishArgs {
    /// Folder or URL that the parts were written to
    #[arg(value_name = "LOCATION")]
    output: String,
}

impl FinishArgs {
    pub(super) fn run(self, progress: &ProgressArgs) -> anyhow::Result<()> {
        let progress = progress.start("checking", "shards", &Stop::default())?;
        print(finish(&open_store(&self.output)?, CREATED_BY, &progress)?)
    }
}
