use std::collections::BTreeMap;
use std::fmt;

use fastclip_schemas::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Part;
use super::outcome::{Report, Status};
use super::records::ShardRecords;
use super::retry::num_transient;

/// Key of the counts in the manifest's facts about the source.
const COUNTS: &str = "counts";

/// What became of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DownloadCounts {
    /// Rows that became samples.
    pub successes: u64,
    /// Rows whose host gave nothing that could be used.
    pub failed_to_download: u64,
    /// Rows whose image could not become one of the dataset.
    pub failed_to_resize: u64,
    /// Rows that no host was asked for, by a rule for rows.
    pub filtered: u64,
    /// Rows that are what an earlier one is.
    #[serde(default)]
    pub duplicates: u64,
    /// Rows by identifier of the failure.
    pub failures: BTreeMap<String, u64>,
}

impl DownloadCounts {
    /// All rows.
    pub fn num_rows(&self) -> u64 {
        self.successes + self.failed_to_download + self.failed_to_resize + self.filtered + self.duplicates
    }

    /// One line: `12 http_404, 3 dns_failure`, the most frequent first.
    pub fn summary(&self) -> String {
        let failures = self.by_frequency().map(|(failure, count)| format!("{count} {failure}"));
        failures.collect::<Vec<_>>().join(", ")
    }

    /// Failures, the most frequent first.
    fn by_frequency(&self) -> impl Iterator<Item = (&str, u64)> {
        let mut failures: Vec<_> =
            self.failures.iter().map(|(failure, count)| (failure.as_str(), *count)).collect();
        failures.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        failures.into_iter()
    }

    pub(super) fn add_row(&mut self, report: &Report) {
        self.add_ended(report.status, report.failure.as_ref().map(|(reason, _)| reason.as_str()));
    }

    pub(super) fn add_ended(&mut self, status: Status, reason: Option<&str>) {
        match status {
            Status::Success => self.successes += 1,
            Status::FailedToDownload => self.failed_to_download += 1,
            Status::FailedToResize => self.failed_to_resize += 1,
            Status::Filtered => self.filtered += 1,
            Status::Duplicate => self.duplicates += 1,
        }
        if let Some(reason) = reason {
            *self.failures.entry(reason.to_owned()).or_default() += 1;
        }
    }

    /// The other rows, if these are among them.
    pub(super) fn without(&self, these: &Self) -> Option<Self> {
        let mut failures = self.failures.clone();
        for (failure, count) in &these.failures {
            let left = failures.remove(failure)?.checked_sub(*count)?;
            if left > 0 {
                failures.insert(failure.clone(), left);
            }
        }
        Some(Self {
            successes: self.successes.checked_sub(these.successes)?,
            failed_to_download: self.failed_to_download.checked_sub(these.failed_to_download)?,
            failed_to_resize: self.failed_to_resize.checked_sub(these.failed_to_resize)?,
            filtered: self.filtered.checked_sub(these.filtered)?,
            duplicates: self.duplicates.checked_sub(these.duplicates)?,
            failures,
        })
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.successes += other.successes;
        self.failed_to_download += other.failed_to_download;
        self.failed_to_resize += other.failed_to_resize;
        self.filtered += other.filtered;
        self.duplicates += other.duplicates;
        for (failure, count) in &other.failures {
            *self.failures.entry(failure.clone()).or_default() += count;
        }
    }

    /// For the manifest.
    pub(super) fn to_fact(&self) -> (String, Value) {
        (COUNTS.to_owned(), serde_json::to_value(self).expect("counts are text and numbers"))
    }

    pub(super) fn of_manifest(manifest: &Manifest) -> Self {
        let counts = manifest.source.get(COUNTS).cloned().unwrap_or_default();
        serde_json::from_value(counts).unwrap_or_default()
    }
}

/// A dataset that was fetched, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DownloadReport {
    /// Where the dataset lies, without credentials.
    pub location: String,
    /// What became of the rows.
    pub counts: DownloadCounts,
    /// Shards of the dataset.
    pub num_shards: usize,
    /// Bytes of all shards.
    pub num_bytes: u64,
    /// Whether it was complete before.
    pub was_complete: bool,
    /// The part that this is about, if there is no dataset yet.
    pub part: Option<Part>,
}

impl DownloadReport {
    pub(super) fn new(location: String, manifest: &Manifest) -> Self {
        Self {
            location,
            counts: DownloadCounts::of_manifest(manifest),
            num_shards: manifest.shards.len(),
            num_bytes: manifest.shards.iter().map(|shard| shard.num_bytes).sum(),
            was_complete: false,
            part: None,
        }
    }

    pub(super) fn of_part(location: String, part: Part, records: &ShardRecords, was_complete: bool) -> Self {
        let mut counts = DownloadCounts::default();
        records.values().for_each(|record| counts.add(&record.counts));
        let shards = || records.values().filter_map(|record| record.shard.as_ref());
        let (num_shards, num_bytes) = (shards().count(), shards().map(|shard| shard.num_bytes).sum());
        Self { location, counts, num_shards, num_bytes, was_complete, part: Some(part) }
    }

    pub(super) fn of_finished(location: String, manifest: &Manifest) -> Self {
        Self { was_complete: true, ..Self::new(location, manifest) }
    }
}

impl fmt::Display for DownloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { location, counts, num_shards, num_bytes, was_complete, part } = self;
        if let Some(part) = part {
            write!(f, "part {part}: ")?;
        }
        let verb = if *was_complete { "already complete:" } else { "fetched" };
        let shards = if *num_shards == 1 { "shard" } else { "shards" };
        let (num_rows, megabytes) = (counts.num_rows(), *num_bytes as f64 / 1e6);
        let percent = counts.successes as f64 * 100.0 / num_rows.max(1) as f64;
        write!(
            f,
            "{verb} {} of {num_rows} rows ({percent:.1} %) in {num_shards} {shards}, {megabytes:.1} MB, in `{location}`",
            counts.successes
        )?;
        if !counts.failures.is_empty() {
            write!(f, "\n\n  {:<22} {:>12} {:>9}", "outcome", "rows", "share")?;
            let outcomes = std::iter::once(("success", counts.successes)).chain(counts.by_frequency());
            for (outcome, count) in outcomes {
                let percent = count as f64 * 100.0 / num_rows.max(1) as f64;
                write!(f, "\n  {outcome:<22} {count:>12} {percent:>7.1} %")?;
            }
            write!(
                f,
                "\n\n{} failed to download, {} to be resized, {} filtered",
                counts.failed_to_download, counts.failed_to_resize, counts.filtered,
            )?;
            if counts.duplicates > 0 {
                write!(f, ", {} duplicates", counts.duplicates)?;
            }
            write!(f, "; the tables beside the shards have every row")?;
        }
        if part.is_some() {
            return write!(f, "\nwhen all parts are done: ingest finish {location}");
        }
        match num_transient(counts) {
            0 => Ok(()),
            num_rows => write!(f, "\n{num_rows} of them may succeed another day: ingest retry {location}"),
        }
    }
}
