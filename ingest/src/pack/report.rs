use std::fmt;

use fastclip_schemas::Manifest;

use super::settings::count_of;
use crate::REJECTED_FILE;
use crate::rejection::RejectionCounts;

/// What became of all rows. `num_rows` is the sum of samples, rejected rows and rows of other splits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackReport {
    /// Where the dataset lies, without credentials.
    pub location: String,
    /// Rows of the input.
    pub num_rows: u64,
    /// Rows that became samples.
    pub num_samples: u64,
    /// Rows that a chosen split left out.
    pub num_other_split: u64,
    /// Rows that could not become samples.
    pub num_rejected: u64,
    /// Shards of the dataset.
    pub num_shards: usize,
    /// Bytes of all shards.
    pub num_bytes: u64,
    /// Rejected rows by reason. `None` if the dataset was complete before, and they were not counted again.
    pub rejections: Option<RejectionCounts>,
}

impl PackReport {
    pub(super) fn new(location: String, manifest: &Manifest, rejections: RejectionCounts) -> Self {
        Self { rejections: Some(rejections), ..Self::of_finished(location, manifest) }
    }

    pub(crate) fn of_finished(location: String, manifest: &Manifest) -> Self {
        Self {
            location,
            num_rows: count_of(manifest, "num_rows"),
            num_samples: manifest.num_samples,
            num_other_split: count_of(manifest, "num_other_split"),
            num_rejected: count_of(manifest, "num_rejected"),
            num_shards: manifest.shards.len(),
            num_bytes: manifest.shards.iter().map(|shard| shard.num_bytes).sum(),
            rejections: None,
        }
    }
}

impl fmt::Display for PackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { location, num_rows, num_samples, num_shards, num_rejected, .. } = self;
        let megabytes = self.num_bytes as f64 / 1e6;
        let verb = if self.rejections.is_some() { "packed" } else { "already complete:" };
        let shards = if *num_shards == 1 { "shard" } else { "shards" };
        write!(
            f,
            "{verb} {num_samples} of {num_rows} rows in {num_shards} {shards}, {megabytes:.1} MB, in `{location}`"
        )?;
        if self.num_other_split > 0 {
            write!(f, "\nleft out {} rows of other splits", self.num_other_split)?;
        }
        if *num_rejected > 0 {
            let percent = *num_rejected as f64 * 100.0 / (num_rows - self.num_other_split).max(1) as f64;
            write!(f, "\nrejected {num_rejected} rows ({percent:.2} %), listed in `{REJECTED_FILE}`")?;
        }
        match &self.rejections {
            Some(rejections) if *num_rejected > 0 => write!(f, "\n{rejections}"),
            _ => Ok(()),
        }
    }
}
