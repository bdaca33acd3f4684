use std::path::PathBuf;

use bytes::Bytes;
use fastclip_schemas::{SampleId, ShardEntry};
use fastclip_shards::{DatasetWriter, Store};
use serde_json::{Map, Value};

use super::prepare::{JSON_MEMBER, Outcome, Prepared};
use super::records::ShardRecord;
use super::report::PackReport;
use super::settings::manifest_source;
use super::{PackError, SideFile};
use crate::REJECTED_FILE;
use crate::duplicates::{Duplicate, Duplicates};
use crate::rejection::{Reason, Rejection, RejectionCounts};
use crate::run_state::RunState;
use crate::source::SourceError;

/// Takes outcomes in the order of the rows, writes samples and keeps the books.
#[derive(Debug)]
pub(super) struct Packer<'a> {
    job: Job<'a>,
    state: RunState<'a>,
    writer: DatasetWriter,
    seen: Duplicates,
    rejections: RejectionCounts,
    num_other_split: u64,
    next_row: u64,
    /// Rows since the last complete shard.
    open: OpenRows,
}

/// What a packer must know of the command that it works for.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) output: &'a Store,
    /// The input, for messages.
    pub(crate) input: PathBuf,
    /// Name of the input for the manifest.
    pub(crate) name: String,
    pub(crate) command: &'static str,
    pub(crate) settings: Value,
    /// Rows of the input, if they were counted.
    pub(crate) num_rows: Option<u64>,
    /// Fraction of the rows that may be unusable.
    pub(crate) max_bad_fraction: f64,
}

#[derive(Debug, Default)]
struct OpenRows {
    start: u64,
    num_other_split: u64,
    rejected: Vec<Rejection>,
}

impl<'a> Packer<'a> {
    /// Goes on after the shards of `records`, which `writer` knows too.
    pub(super) fn new(
        job: Job<'a>,
        state: RunState<'a>,
        writer: DatasetWriter,
        records: Vec<ShardRecord>,
        seen: Duplicates,
    ) -> Self {
        let mut rejections = RejectionCounts::default();
        records.iter().flat_map(|record| &record.rejected).for_each(|rejection| rejections.add(rejection));
        let num_other_split = records.iter().map(|record| record.num_other_split).sum();
        let next_row = records.last().map_or(0, |record| record.rows.end);
        let open = OpenRows { start: next_row, ..OpenRows::default() };
        Self { job, state, writer, seen, rejections, num_other_split, next_row, open }
    }

    /// Number of the row whose outcome comes next.
    pub(super) fn next_row(&self) -> u64 {
        self.next_row
    }

    /// Takes the outcome of the next row, and returns the bytes of its image.
    pub(super) async fn take(&mut self, outcome: Outcome) -> Result<u64, PackError> {
        self.next_row += 1;
        match outcome {
            Outcome::Sample(sample) => {
                if let Some(rejection) = self.duplicate(&sample) {
                    self.reject(rejection)?;
                    return Ok(0);
                }
                let num_bytes = sample.image_bytes;
                self.append(*sample).await?;
                return Ok(num_bytes);
            }
            Outcome::Rejected(rejection) => self.reject(rejection)?,
            Outcome::OtherSplit => {
                self.num_other_split += 1;
                self.open.num_other_split += 1;
            }
        }
        Ok(0)
    }

    fn reject(&mut self, rejection: Rejection) -> Result<(), PackError> {
        self.rejections.add(&rejection);
        self.open.rejected.push(rejection);
        // Judged against all rows, not those so far: a bad start says nothing about the rest.
        self.job.num_rows.map_or(Ok(()), |num_rows| self.check_budget(num_rows))
    }

    /// Refuses a sample whose image is that of an earlier one, and remembers it otherwise.
    fn duplicate(&mut self, sample: &Prepared) -> Option<Rejection> {
        let (reason, message) = match self.seen.check(sample.fingerprint?, self.writer.next_sample_id().0)? {
            Duplicate::Exact { first } => {
                (Reason::Duplicate, format!("the bytes of `{}`", self.writer.key_of(SampleId(first))))
            }
            Duplicate::Near { first, distance } => {
                let first = self.writer.key_of(SampleId(first));
                (Reason::NearDuplicate, format!("differs from `{first}` in {distance} of 64 bits"))
            }
        };
        Some(Rejection { row: self.next_row - 1, image: sample.name.clone(), reason, message })
    }

    async fn append(&mut self, sample: Prepared) -> Result<(), PackError> {
        let Prepared { mut members, columns, .. } = sample;
        let json = members.iter().position(|(extension, _)| extension == JSON_MEMBER);
        let write_json = |members: &mut Vec<(String, Vec<u8>)>, key: String| {
            if let (Some(at), Some(columns)) = (json, &columns) {
                let mut object = Map::with_capacity(columns.len() + 1);
                object.insert("key".to_owned(), key.into());
                object.extend(columns.iter().map(|(name, value)| (name.clone(), value.clone())));
                members[at].1 = Value::Object(object).to_string().into_bytes();
            }
        };
        write_json(&mut members, self.writer.next_key());
        let sizes: Vec<_> = members.iter().map(|(_, data)| data.len() as u64).collect();
        if let Some(shard) = self.writer.make_room(sizes).await? {
            self.record(shard, self.next_row - 1).await?;
            write_json(&mut members, self.writer.next_key());
        }
        let members: Vec<_> =
            members.iter().map(|(extension, data)| (extension.as_str(), data.as_slice())).collect();
        if let Some(shard) = self.writer.append(&members).await?.completed {
            self.record(shard, self.next_row).await?;
        }
        Ok(())
    }

    /// Remembers a complete shard, which was made of the rows before `end`.
    async fn record(&mut self, shard: ShardEntry, end: u64) -> Result<(), PackError> {
        let next = OpenRows { start: end, ..OpenRows::default() };
        let OpenRows { start, num_other_split, rejected } = std::mem::replace(&mut self.open, next);
        let record = ShardRecord { shard, rows: start..end, num_other_split, rejected };
        let number = self.writer.shards().len() as u64 - 1;
        if self.seen.is_active() {
            let end = record.shard.first_sample_id.0 + u64::from(record.shard.num_samples);
            self.state.add_seen(number, self.seen.take_open(end)).await?;
        }
        Ok(self.state.add(number, &record).await?)
    }

    fn check_budget(&self, num_rows: u64) -> Result<(), PackError> {
        let max_bad_fraction = self.job.max_bad_fraction;
        if self.rejections.num_bad() as f64 <= max_bad_fraction * num_rows as f64 {
            return Ok(());
        }
        Err(PackError::Budget {
            location: self.job.output.location().to_owned(),
            num_rows,
            max_bad_fraction,
            rejections: self.rejections.clone(),
        })
    }

    /// Writes what comes after the last row: last shard, files beside the shards, manifest.
    pub(super) async fn finish(mut self, side_files: Vec<SideFile>) -> Result<PackReport, PackError> {
        if let Err(error) = self.check_rows() {
            return Err(self.give_up(error).await);
        }
        if let Some(shard) = self.writer.close_shard().await? {
            self.record(shard, self.next_row).await?;
        }
        self.write_rejected().await?;
        for (name, bytes) in side_files {
            self.state.write(&name, bytes).await?;
        }
        self.state.write_sizes(self.writer.shards()).await?;
        let counts = [
            ("num_rows", self.next_row),
            ("num_rejected", self.rejections.total()),
            ("num_other_split", self.num_other_split),
        ];
        let source = manifest_source(self.job.name, (self.job.command, self.job.settings), &counts);
        let manifest = self.writer.finish(source).await?;
        self.state.end().await?;
        let location = self.job.output.location().to_owned();
        Ok(PackReport::new(location, &manifest, self.rejections))
    }

    fn check_rows(&self) -> Result<(), PackError> {
        let (found, num_rows) = (self.next_row, self.job.num_rows.unwrap_or(self.next_row));
        if found != num_rows {
            let path = self.job.input.clone();
            return Err(SourceError::Changed { path, found, expected: num_rows }.into());
        }
        let num_chosen = num_rows - self.num_other_split;
        if num_chosen == 0 {
            return Err(PackError::NoSamples { num_rows, reasons: "all belong to other splits".to_owned() });
        }
        self.check_budget(num_chosen)?;
        if num_chosen == self.rejections.total() {
            return Err(PackError::NoSamples { num_rows, reasons: self.rejections.summary() });
        }
        Ok(())
    }

    /// Ends without a manifest, in a state that can be resumed. Returns `error`, the first cause, whatever else fails.
    pub(super) async fn give_up(self, error: PackError) -> PackError {
        if matches!(error, PackError::Budget { .. } | PackError::NoSamples { .. }) {
            // The list is there to find out what is wrong, so it is written before there is a dataset. If that fails,
            // the counts in the error still say most of it.
            let _ = self.write_rejected().await;
        }
        // An object store keeps what was uploaded of the open shard until it is told, or forgets it by its own rule.
        let _ = self.writer.abort().await;
        error
    }

    /// Writes the list of rejected rows, shard by shard, so that it need not fit into memory.
    async fn write_rejected(&self) -> Result<(), PackError> {
        if self.rejections.total() == 0 {
            // An earlier session may have left one, and its rows may have been mended since.
            return Ok(self.state.delete(REJECTED_FILE).await?);
        }
        let failed = || self.state.failed(&format!("write `{REJECTED_FILE}`"));
        let mut upload = self.job.output.upload(REJECTED_FILE).map_err(failed())?;
        for number in 0..self.writer.shards().len() {
            let record = self.state.record::<ShardRecord>(number as u64).await?;
            let rejected = record.map(|record| record.rejected).unwrap_or_default();
            upload.write(lines(&rejected)).await.map_err(failed())?;
        }
        upload.write(lines(&self.open.rejected)).await.map_err(failed())?;
        Ok(upload.finish().await.map_err(failed())?)
    }
}

fn lines(rejected: &[Rejection]) -> Bytes {
    let mut text = Vec::new();
    for rejection in rejected {
        serde_json::to_writer(&mut text, rejection).expect("a rejection is text and numbers");
        text.push(b'\n');
    }
    text.into()
}
