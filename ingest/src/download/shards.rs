use std::ops::Range;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fastclip_schemas::{MANIFEST_FILE, Manifest, SampleId, ShardEntry};
use fastclip_shards::ShardWriter;
use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::metadata::{MetadataTable, fields};
use super::outcome::Outcome;
use super::report::{DownloadCounts, DownloadReport};
use super::settings::{COMMAND, Settings};
use super::{DownloadError, DownloadOptions};
use crate::run_state::RunState;

/// Digits of a key for the shard, as img2dataset's `oom_shard_count`.
const SHARD_DIGITS: usize = 5;

/// What became of the rows of a shard; written when all of it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DownloadRecord {
    rows: Range<u64>,
    /// Nothing where no row became a sample.
    shard: Option<ShardEntry>,
    counts: DownloadCounts,
}

/// Takes outcomes in the order of the rows, and writes shard after shard.
pub(super) struct ShardSequence<'a> {
    options: &'a DownloadOptions,
    state: RunState<'a>,
    done: Vec<ShardEntry>,
    counts: DownloadCounts,
    next_row: u64,
    open: Option<OpenShard>,
}

/// A shard whose rows are coming.
struct OpenShard {
    number: u64,
    rows: Range<u64>,
    /// Made for the first sample: there are no shards without samples.
    writer: Option<ShardWriter>,
    table: MetadataTable,
    counts: DownloadCounts,
    started: (SystemTime, Instant),
}

impl<'a> ShardSequence<'a> {
    /// Goes on after the complete shards that are remembered. The newest, which was being written closest to whatever ended
    /// the run before, is read and compared with its digest; of the others the size and the index are.
    pub(super) async fn resume(
        options: &'a DownloadOptions,
        state: RunState<'a>,
    ) -> Result<Self, DownloadError> {
        let mut sequence = Self {
            options,
            state,
            done: Vec::new(),
            counts: DownloadCounts::default(),
            next_row: 0,
            open: None,
        };
        for number in 0.. {
            let Some(record) = sequence.state.record::<DownloadRecord>(number).await? else { break };
            sequence.state.check_start(number, record.rows.start, sequence.next_row)?;
            sequence.next_row = record.rows.end;
            sequence.counts.add(&record.counts);
            if let Some(shard) = record.shard {
                sequence.state.check_shard(&shard).await?;
                sequence.done.push(shard);
            }
        }
        if let Some(shard) = sequence.done.last() {
            sequence.state.check_digest(&shard.name, shard.digest).await?;
        }
        Ok(sequence)
    }

    /// Number of the row whose outcome comes next.
    pub(super) fn next_row(&self) -> u64 {
        self.next_row
    }

    /// Takes the outcome of the next row.
    pub(super) async fn take(&mut self, outcome: Outcome) -> Result<(), DownloadError> {
        let rows_per_shard = u64::from(self.options.rows_per_shard.get());
        let number = self.next_row / rows_per_shard;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.start_shard(number)?,
        };
        let refused = |source: ParquetError| DownloadError::Metadata { shard: number, source };
        let Outcome { report, image } = outcome;
        let key = key(number, report.row - open.rows.start, rows_per_shard);
        let fields = fields(&report, &key);
        open.table.push(&fields).map_err(refused)?;
        open.counts.add_row(&report);
        if let Some(facts) = &report.image {
            let writer = match &mut open.writer {
                Some(writer) => writer,
                None => {
                    let first_id = SampleId(self.done.iter().map(|shard| u64::from(shard.num_samples)).sum());
                    open.writer.insert(ShardWriter::new(&self.options.output, number, first_id)?)
                }
            };
            let json = Value::Object(fields).to_string();
            let mut members = vec![(facts.extension.as_str(), image.as_slice()), ("json", json.as_bytes())];
            if let Some(caption) = &report.caption {
                members.push(("txt", caption.as_bytes()));
            }
            writer.append(&key, &members).await?;
        }
        self.next_row += 1;
        if self.next_row == open.rows.end {
            return self.close_shard(open).await;
        }
        self.open = Some(open);
        Ok(())
    }

    fn start_shard(&self, number: u64) -> Result<OpenShard, DownloadError> {
        let rows_per_shard = u64::from(self.options.rows_per_shard.get());
        let table = MetadataTable::new(&self.options.columns.additional)
            .map_err(|source| DownloadError::Metadata { shard: number, source })?;
        Ok(OpenShard {
            number,
            rows: self.next_row..(number + 1) * rows_per_shard,
            writer: None,
            table,
            counts: DownloadCounts::default(),
            started: (SystemTime::now(), Instant::now()),
        })
    }

    async fn close_shard(&mut self, open: OpenShard) -> Result<(), DownloadError> {
        let OpenShard { number, rows, writer, table, counts, started } = open;
        let shard = match writer {
            Some(writer) => Some(writer.finish().await?),
            None => None,
        };
        let table = table.finish().map_err(|source| DownloadError::Metadata { shard: number, source })?;
        self.state.write(&format!("{number:05}.parquet"), table).await?;
        let stats = serde_json::to_vec_pretty(&stats(&counts, started)).expect("stats are text and numbers");
        self.state.write(&format!("{number:05}_stats.json"), stats).await?;
        let record = DownloadRecord { rows: rows.start..self.next_row, shard, counts };
        // Last: what is recorded is complete, and never fetched again.
        self.state.add(number, &record).await?;
        self.counts.add(&record.counts);
        self.done.extend(record.shard);
        Ok(())
    }

    /// Writes what comes after the last row: last shard, sizes, manifest.
    pub(super) async fn finish(
        mut self,
        settings: &Settings,
        num_rows: u64,
    ) -> Result<DownloadReport, DownloadError> {
        if self.next_row != num_rows {
            let error = DownloadError::Rows { found: self.next_row, expected: num_rows };
            return Err(self.give_up(error).await);
        }
        if let Some(open) = self.open.take() {
            self.close_shard(open).await?;
        }
        if self.done.is_empty() {
            return Err(DownloadError::NoSamples { num_rows, failures: self.counts.summary() });
        }
        self.state.write_sizes(&self.done).await?;
        let input = self.options.input.file_name().unwrap_or(self.options.input.as_os_str());
        let facts = [
            ("input".to_owned(), input.to_string_lossy().into()),
            (COMMAND.to_owned(), settings.to_json()),
            self.counts.to_fact(),
        ];
        let created_by = self.options.created_by.clone();
        let manifest = Manifest::of_shards(created_by, self.done, facts.into_iter().collect());
        self.state.write(MANIFEST_FILE, manifest.to_json()).await?;
        self.state.end().await?;
        Ok(DownloadReport::new(self.options.output.location().to_owned(), &manifest))
    }

    /// Ends without a manifest, in a state that can be resumed. Returns `error`, the first cause, whatever else fails.
    pub(super) async fn give_up(self, error: DownloadError) -> DownloadError {
        if let Some(writer) = self.open.and_then(|open| open.writer) {
            // An object store keeps what was uploaded until it is told, or forgets it by its own rule.
            let _ = writer.abort().await;
        }
        error
    }
}

/// img2dataset's: number of the shard and position in it, side by side.
fn key(shard: u64, position: u64, rows_per_shard: u64) -> String {
    let digits = (rows_per_shard.max(2) - 1).ilog10() as usize + 1;
    format!("{shard:0SHARD_DIGITS$}{position:0digits$}")
}

/// What img2dataset says of a shard.
fn stats(counts: &DownloadCounts, (start, clock): (SystemTime, Instant)) -> Value {
    let start = start.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let duration = clock.elapsed().as_secs_f64();
    let mut statuses = counts.failures.clone();
    if counts.successes > 0 {
        statuses.insert("success".to_owned(), counts.successes);
    }
    json!({
        "count": counts.num_rows(),
        "successes": counts.successes,
        "failed_to_download": counts.failed_to_download,
        "failed_to_resize": counts.failed_to_resize,
        "filtered": counts.filtered,
        "duration": duration,
        "start_time": start,
        "end_time": start + duration,
        "status_dict": statuses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_img2datasets() {
        assert_eq!(key(1, 5, 10_000), "000010005");
        assert_eq!(key(0, 7, 500), "00000007".to_owned());
        assert_eq!(key(3, 0, 1), "000030");
    }
}
