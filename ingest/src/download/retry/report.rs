use std::fmt;

use super::super::report::DownloadCounts;

/// Failed rows that were tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryReport {
    /// Where the dataset lies, without credentials.
    pub location: String,
    /// Failures that were chosen, separated by commas.
    pub only: String,
    /// What became of the rows that were tried again.
    pub retried: DownloadCounts,
    /// Shards that were added to the manifest.
    pub num_new_shards: usize,
    /// What became of all rows by now.
    pub counts: DownloadCounts,
}

impl fmt::Display for RetryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { location, only, retried, num_new_shards, counts } = self;
        let (num_retried, num_rows) = (retried.num_rows(), counts.num_rows());
        let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
        if num_retried == 0 {
            write!(f, "nothing to retry in `{location}`: no row failed of {only}")?;
            return if counts.failures.is_empty() {
                Ok(())
            } else {
                write!(f, "\nrows failed of: {}", counts.summary())
            };
        }
        let successes = retried.successes;
        let shards = if *num_new_shards == 1 { "shard" } else { "shards" };
        write!(
            f,
            "tried {num_retried} rows again, {successes} became samples ({:.1} %) in {num_new_shards} new {shards}",
            percent(successes, num_retried)
        )?;
        if !retried.failures.is_empty() {
            write!(f, "\nof these failed again: {}", retried.summary())?;
        }
        write!(
            f,
            "\n`{location}` has {} of {num_rows} rows now ({:.1} %)",
            counts.successes,
            percent(counts.successes, num_rows)
        )
    }
}
