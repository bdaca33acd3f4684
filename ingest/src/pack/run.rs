use std::num::NonZeroUsize;
use std::path::PathBuf;

use fastclip_shards::{DatasetWriter, Store, WriterOptions};
use serde_json::Value;

use super::packer::{Job, Packer};
use super::prepare::Outcome;
use super::{PackError, PackReport, SideFile, ordered, records};
use crate::duplicates::{DuplicateOptions, Duplicates};
use crate::progress::Progress;
use crate::run_state::{OnExisting, RunState, Start};
use crate::runtime::{IO_THREADS, runtime};
use crate::stop::Stop;

/// A dataset to be written row by row.
#[derive(Debug)]
pub(crate) struct Packing<'a> {
    pub(crate) command: &'static str,
    /// What decides the bytes.
    pub(crate) settings: Value,
    /// The input, for messages.
    pub(crate) input: PathBuf,
    /// Name of the input for the manifest.
    pub(crate) name: String,
    /// Rows of the input, if they were counted.
    pub(crate) num_rows: Option<u64>,
    pub(crate) output: &'a Store,
    pub(crate) on_existing: OnExisting,
    pub(crate) writer: WriterOptions,
    pub(crate) duplicates: DuplicateOptions,
    /// Fraction of the rows that may be unusable.
    pub(crate) max_bad_fraction: f64,
    pub(crate) threads: NonZeroUsize,
}

/// Where rows come from, and what becomes of each.
pub(crate) trait Rows {
    type Row: Send;
    /// What a thread keeps between rows.
    type Worker;

    /// Files to write beside the shards. Read before the rows, so that one that is missing is noticed at once.
    fn side_files(&self) -> Result<Vec<SideFile>, PackError> {
        Ok(Vec::new())
    }

    /// The rows from this one on.
    fn rows(&self, first: u64) -> Box<dyn Iterator<Item = Result<Self::Row, PackError>> + Send>;

    fn start_worker(&self) -> Result<Self::Worker, PackError>;

    fn prepare(worker: &mut Self::Worker, row: Self::Row) -> Outcome;
}

/// Begins the dataset or goes on with it, and completes it.
pub(crate) fn run<R: Rows + Sync>(
    packing: Packing<'_>,
    rows: &R,
    progress: &Progress,
    stop: &Stop,
) -> Result<PackReport, PackError> {
    let Packing { command, settings, output, .. } = packing;
    let runtime = runtime(IO_THREADS)
        .map_err(|error| PackError::Start { what: "a runtime", reason: error.to_string() })?;
    let state = RunState::new(output, command);
    match runtime.block_on(state.start(&settings, packing.on_existing))? {
        Start::Here => {}
        Start::Finished(manifest) => {
            return Ok(PackReport::of_finished(output.location().to_owned(), &manifest));
        }
    }
    let mut seen = Duplicates::new(packing.duplicates);
    let records = runtime.block_on(records::read(&state, &mut seen))?;
    let side_files = rows.side_files()?;
    let done = records.iter().map(|record| record.shard.clone()).collect();
    let writer = DatasetWriter::resume(output.clone(), packing.writer, done);
    let job = Job {
        output,
        input: packing.input,
        name: packing.name,
        command,
        settings,
        num_rows: packing.num_rows,
        max_bad_fraction: packing.max_bad_fraction,
    };
    let mut packer = Packer::new(job, state, writer, records, seen);
    packing.num_rows.into_iter().for_each(|num_rows| progress.set_total(num_rows));
    let first = packer.next_row();
    progress.resume_at(first);

    let consume = |outcome| {
        if stop.is_requested() {
            return Err(PackError::Stopped { num_rows: packer.next_row() });
        }
        let num_bytes = runtime.block_on(packer.take(outcome))?;
        progress.advance(1, num_bytes);
        Ok(())
    };
    let start_worker = || rows.start_worker();
    let packed = ordered::map_in_order(rows.rows(first), packing.threads, start_worker, R::prepare, consume);
    progress.finish();
    runtime.block_on(async {
        match packed {
            Ok(()) => packer.finish(side_files).await,
            Err(error) => Err(packer.give_up(error).await),
        }
    })
}
