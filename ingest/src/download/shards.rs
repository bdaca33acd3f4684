use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fastclip_schemas::{Digest, SampleId};
use fastclip_shards::ShardWriter;
use parquet::errors::ParquetError;
use serde_json::{Value, json};

use super::layout::Layout;
use super::metadata::{MetadataTable, fields};
use super::outcome::{Outcome, Report, Status};
use super::records::{self, ShardRecord, ShardRecords, table_file};
use super::report::DownloadCounts;
use super::{DownloadError, numbers};
use crate::duplicates::{Duplicate, DuplicateOptions, Duplicates};
use crate::hash::HashKind;
use crate::run_state::RunState;

/// What all shards of a sequence have in common.
#[derive(Debug)]
pub(super) struct ShardPlan {
    pub(super) layout: Layout,
    /// Columns of the list that are kept.
    pub(super) additional: Vec<String>,
    /// Which hash of the images' bytes is kept.
    pub(super) hash: Option<HashKind>,
    /// Digest of the settings.
    pub(super) settings: Digest,
    /// Number of the first shard.
    pub(super) first_shard: u64,
    /// Id of its first sample.
    pub(super) first_id: SampleId,
}

impl ShardPlan {
    /// Place of a shard's first row among all rows.
    pub(super) fn first_row(&self, shard: u64) -> u64 {
        (shard - self.first_shard) * self.layout.rows_per_shard
    }
}

/// Takes outcomes in the order of the rows, and writes shard after shard, those left out that are complete.
pub(super) struct ShardSequence<'a> {
    plan: ShardPlan,
    state: &'a RunState<'a>,
    done: ShardRecords,
    seen: Duplicates,
    /// The first complete shard whose images are not remembered yet.
    next_seen: u64,
    open: Option<OpenShard>,
}

/// A shard whose rows are coming.
struct OpenShard {
    number: u64,
    num_rows: u64,
    /// Made for the first sample: there are no shards without samples.
    writer: Option<ShardWriter>,
    table: MetadataTable,
    counts: DownloadCounts,
    started: (SystemTime, Instant),
}

impl<'a> ShardSequence<'a> {
    /// Goes on where these shards are complete.
    pub(super) fn new(
        plan: ShardPlan,
        state: &'a RunState<'a>,
        done: ShardRecords,
        duplicates: DuplicateOptions,
    ) -> Self {
        Self { plan, state, done, seen: Duplicates::new(duplicates), next_seen: 0, open: None }
    }

    /// Rows that have an outcome.
    pub(super) fn num_rows(&self) -> u64 {
        let done: u64 = self.done.values().map(|record| record.counts.num_rows()).sum();
        done + self.open.as_ref().map_or(0, |open| open.num_rows)
    }

    /// Takes the outcome of the next row. Gives the reason if it is an image that turns out to be an earlier one.
    pub(super) async fn take(&mut self, outcome: Outcome) -> Result<Option<&'static str>, DownloadError> {
        let Outcome { ordinal: _, shard, mut report, image } = outcome;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                self.restore_seen(shard).await?;
                self.start_shard(shard)?
            }
        };
        let refused = |source: ParquetError| DownloadError::Metadata { shard, source };
        let key = self.plan.layout.key(report.row);
        let duplicate = self.refuse_duplicate(&mut report);
        let fields = fields(&report, &key, self.plan.hash);
        open.table.push(&fields).map_err(refused)?;
        open.counts.add_row(&report);
        if let Some(facts) = report.image.as_ref().filter(|_| report.status == Status::Success) {
            let writer = match &mut open.writer {
                Some(writer) => writer,
                None => {
                    open.writer.insert(ShardWriter::new(self.state.store(), shard, self.first_id(shard))?)
                }
            };
            let json = Value::Object(fields).to_string();
            let mut members = vec![(facts.extension.as_str(), image.as_slice()), ("json", json.as_bytes())];
            if let Some(caption) = &report.caption {
                members.push(("txt", caption.as_bytes()));
            }
            writer.append(&key, &members).await?;
        }
        open.num_rows += 1;
        if open.num_rows == self.plan.layout.rows_per_shard {
            self.close_shard(open).await?;
        } else {
            self.open = Some(open);
        }
        Ok(duplicate)
    }

    /// Makes a duplicate of a row whose image is an earlier one's, and gives the reason. What is known about the image stays known.
    fn refuse_duplicate(&mut self, report: &mut Report) -> Option<&'static str> {
        let (reason, message) = match self.seen.check(report.fingerprint?, report.row)? {
            Duplicate::Exact { first } => {
                ("duplicate", format!("the bytes of `{}`", self.plan.layout.key(first)))
            }
            Duplicate::Near { first, distance } => {
                let first = self.plan.layout.key(first);
                ("near_duplicate", format!("differs from `{first}` in {distance} of 64 bits"))
            }
        };
        report.status = Status::Duplicate;
        report.failure = Some((reason.to_owned(), message));
        Some(reason)
    }

    /// Remembers the images of the complete shards before this one.
    async fn restore_seen(&mut self, shard: u64) -> Result<(), DownloadError> {
        if self.seen.is_active() {
            for number in self.done.range(self.next_seen..shard).map(|(number, _)| *number) {
                self.state.restore_seen(number, &mut self.seen).await?;
            }
            self.next_seen = shard + 1;
        }
        Ok(())
    }

    /// Id of a shard's first sample, as far as the shards before it are known. Merging parts corrects it.
    fn first_id(&self, shard: u64) -> SampleId {
        let before = self.done.range(..shard).filter_map(|(_, record)| record.shard.as_ref());
        SampleId(self.plan.first_id.0 + before.map(|shard| u64::from(shard.num_samples)).sum::<u64>())
    }

    fn start_shard(&self, number: u64) -> Result<OpenShard, DownloadError> {
        let table = MetadataTable::new(&self.plan.additional, self.plan.hash)
            .map_err(|source| DownloadError::Metadata { shard: number, source })?;
        Ok(OpenShard {
            number,
            num_rows: 0,
            writer: None,
            table,
            counts: DownloadCounts::default(),
            started: (SystemTime::now(), Instant::now()),
        })
    }

    async fn close_shard(&mut self, open: OpenShard) -> Result<(), DownloadError> {
        let OpenShard { number, num_rows, writer, table, counts, started } = open;
        let Some(claim) = self.state.claim(number).await? else {
            if let Some(writer) = writer {
                let _ = writer.abort().await;
            }
            return Err(DownloadError::Taken {
                location: self.state.store().location().to_owned(),
                shard: number,
            });
        };
        let shard = match writer {
            Some(writer) => Some(writer.finish().await?),
            None => None,
        };
        let table = table.finish().map_err(|source| DownloadError::Metadata { shard: number, source })?;
        let table_digest = Digest(*blake3::hash(&table).as_bytes());
        self.state.write(&table_file(number), table).await?;
        let stats = serde_json::to_vec_pretty(&stats(&counts, started)).expect("stats are text and numbers");
        self.state.write(&format!("{number:05}_stats.json"), stats).await?;
        let first_row = self.plan.first_row(number);
        let record = ShardRecord {
            rows: first_row..first_row + num_rows,
            settings: self.plan.settings,
            shard,
            table: table_digest,
            counts,
        };
        if self.seen.is_active() {
            self.state.add_seen(number, self.seen.take_open(u64::MAX)).await?;
        }
        // Last: what is recorded is complete, and never fetched again.
        self.state.add(number, &record).await?;
        self.state.release(claim).await?;
        self.done.insert(number, record);
        Ok(())
    }

    /// Closes the shard that is open, after the last row, and gives what is complete.
    pub(super) async fn finish(mut self) -> Result<ShardRecords, DownloadError> {
        if let Some(open) = self.open.take() {
            self.close_shard(open).await?;
        }
        let (done, first_row) = (std::mem::take(&mut self.done), |shard| self.plan.first_row(shard));
        let found = records::read_claimed(self.state, done, self.plan.settings, first_row).await?;
        if found.mixed.is_empty() {
            return Ok(found.complete);
        }
        for shard in &found.mixed {
            self.state.forget(*shard).await?;
        }
        let (location, shards) = (self.state.store().location().to_owned(), numbers::ranges(&found.mixed));
        Err(DownloadError::Mixed { location, shards })
    }

    /// Ends without the shard that is open, in a state that can be resumed. Returns `error`, the first cause, whatever else fails.
    pub(super) async fn give_up(self, error: DownloadError) -> DownloadError {
        if let Some(writer) = self.open.and_then(|open| open.writer) {
            // An object store keeps what was uploaded until it is told, or forgets it by its own rule.
            let _ = writer.abort().await;
        }
        error
    }
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
        "duplicates": counts.duplicates,
        "duration": duration,
        "start_time": start,
        "end_time": start + duration,
        "status_dict": statuses,
    })
}
