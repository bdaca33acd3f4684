use bytes::Bytes;
use fastclip_shards::DatasetWriter;
use serde_json::{Map, Value};

use super::prepare::{Outcome, Prepared};
use super::records::ShardRecord;
use super::report::PackReport;
use super::settings::{Settings, manifest_source};
use super::{PackError, PackOptions, SideFile};
use crate::REJECTED_FILE;
use crate::rejection::{Rejection, RejectionCounts};
use crate::run_state::RunState;
use crate::source::{Source, SourceError};

/// Takes outcomes in the order of the rows, writes samples and keeps the books.
#[derive(Debug)]
pub(super) struct Packer<'a> {
    options: &'a PackOptions,
    source: &'a Source,
    state: RunState<'a>,
    writer: DatasetWriter,
    rejections: RejectionCounts,
    num_other_split: u64,
    next_row: u64,
    /// Rows since the last complete shard.
    open: OpenRows,
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
        options: &'a PackOptions,
        source: &'a Source,
        state: RunState<'a>,
        writer: DatasetWriter,
        records: Vec<ShardRecord>,
    ) -> Self {
        let mut rejections = RejectionCounts::default();
        records.iter().flat_map(|record| &record.rejected).for_each(|rejection| rejections.add(rejection));
        let num_other_split = records.iter().map(|record| record.num_other_split).sum();
        let next_row = records.last().map_or(0, |record| record.rows.end);
        let open = OpenRows { start: next_row, ..OpenRows::default() };
        Self { options, source, state, writer, rejections, num_other_split, next_row, open }
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
                let num_bytes = sample.image.len() as u64;
                self.append(*sample).await?;
                return Ok(num_bytes);
            }
            Outcome::Rejected(rejection) => {
                self.rejections.add(&rejection);
                self.open.rejected.push(rejection);
                // Judged against all rows, not those so far: a bad start says nothing about the rest.
                self.check_budget(self.source.num_rows())?;
            }
            Outcome::OtherSplit => {
                self.num_other_split += 1;
                self.open.num_other_split += 1;
            }
        }
        Ok(0)
    }

    async fn append(&mut self, sample: Prepared) -> Result<(), PackError> {
        let Prepared { extension, image, caption, class, columns } = sample;
        let mut json = Map::with_capacity(columns.len() + 1);
        json.insert("key".to_owned(), self.writer.next_key().into());
        json.extend(columns.into_iter().filter(|(name, _)| name != "key"));
        let json = Value::Object(json).to_string();
        let mut members = vec![(extension, image.as_slice()), ("txt", caption.as_bytes())];
        if let Some(class) = &class {
            members.push(("cls", class.as_bytes()));
        }
        members.push(("json", json.as_bytes()));
        if let Some(shard) = self.writer.append(&members).await?.completed {
            self.record(shard).await?;
        }
        Ok(())
    }

    async fn record(&mut self, shard: fastclip_schemas::ShardEntry) -> Result<(), PackError> {
        let next = OpenRows { start: self.next_row, ..OpenRows::default() };
        let OpenRows { start, num_other_split, rejected } = std::mem::replace(&mut self.open, next);
        let record = ShardRecord { shard, rows: start..self.next_row, num_other_split, rejected };
        Ok(self.state.add(self.writer.shards().len() as u64 - 1, &record).await?)
    }

    fn check_budget(&self, num_rows: u64) -> Result<(), PackError> {
        let max_bad_fraction = self.options.max_bad_fraction;
        if self.rejections.total() as f64 <= max_bad_fraction * num_rows as f64 {
            return Ok(());
        }
        Err(PackError::Budget {
            location: self.options.output.location().to_owned(),
            num_rows,
            max_bad_fraction,
            rejections: self.rejections.clone(),
        })
    }

    /// Writes what comes after the last row: last shard, files beside the shards, manifest.
    pub(super) async fn finish(
        mut self,
        settings: &Settings,
        side_files: Vec<SideFile>,
    ) -> Result<PackReport, PackError> {
        if let Err(error) = self.check_rows() {
            return Err(self.give_up(error).await);
        }
        if let Some(shard) = self.writer.close_shard().await? {
            self.record(shard).await?;
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
        let source = manifest_source(self.source.name(), settings, &counts);
        let manifest = self.writer.finish(source).await?;
        self.state.end().await?;
        let location = self.options.output.location().to_owned();
        Ok(PackReport::new(location, &manifest, self.rejections))
    }

    fn check_rows(&self) -> Result<(), PackError> {
        let (found, num_rows) = (self.next_row, self.source.num_rows());
        if found != num_rows {
            let path = self.options.input.clone();
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
        let mut upload = self.options.output.upload(REJECTED_FILE).map_err(failed())?;
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
