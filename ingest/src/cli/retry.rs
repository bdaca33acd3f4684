use std::num::NonZeroUsize;

use fastclip_ingest::{RetryOptions, retry};

use super::progress::ProgressArgs;
use super::requests::RequestArgs;
use super::{open_store, print, stop_on_signals, threads};

/// Fetches rows of a download that failed once more.
///
/// Everything but the requests is as it was in the download. What comes goes into further shards; existing shards and ids
/// stay as they are, and the manifest is replaced at the end. Samples keep the keys of their rows.
///
/// The same command goes on after an interruption, and afterwards tries what still fails.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ingest retry s3://bucket/laion
  ingest retry data/cc3m --only dns_failure,timeout,http_5xx --retries 5 --timeout 30
  ingest retry data/cc3m --only all")]
pub(crate) struct RetryArgs {
    /// Folder or URL of the dataset
    #[arg(value_name = "LOCATION")]
    output: String,
    /// Failures to try again, by the names that tables and reports have for them, separated by commas: timeout, http_404; http_4xx
    /// for all of a kind; all [default: those that may pass]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,

    #[command(flatten)]
    requests: RequestArgs,

    /// Threads that decode, resize and encode [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<NonZeroUsize>,
}

impl RetryArgs {
    pub(super) fn run(self, progress: &ProgressArgs) -> anyhow::Result<()> {
        let stop = stop_on_signals()?;
        let options = RetryOptions {
            output: open_store(&self.output)?,
            only: self.only,
            fetch: self.requests.resolve()?,
            threads: threads(self.threads),
        };
        print(retry(&options, &progress.start("fetching", "rows", &stop)?, &stop)?)
    }
}
