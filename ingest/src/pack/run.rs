use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use fastclip_shards::{DatasetWriter, WriterOptions};

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
    pub(crate) job: Job<'a>,
    pub(crate) on_existing: OnExisting,
    pub(crate) samples_per_shard: NonZeroU32,
    pub(crate) max_shard_bytes: Option<u64>,
    pub(crate) created_by: &'a str,
    pub(crate) duplicates: DuplicateOptions,
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

    /// Paths or URLs of the files that rows are read from, as far as a dataset has files of such names.
    fn inputs(&self) -> Vec<PathBuf>;

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
    let job = packing.job;
    let output = job.output;
    let runtime = runtime(IO_THREADS)
        .map_err(|error| PackError::Start { what: "a runtime", reason: error.to_string() })?;
    let state = RunState::new(output, job.command);
    state.refuse_input(rows.inputs())?;
    match runtime.block_on(state.start(&job.settings, packing.on_existing))? {
        Start::Here => {}
        Start::Finished(manifest) => {
            return Ok(PackReport::of_finished(output.location().to_owned(), &manifest));
        }
    }
    let mut seen = Duplicates::new(packing.duplicates);
    let records = runtime.block_on(records::read(&state, &mut seen))?;
    let side_files = rows.side_files()?;
    let done = records.iter().map(|record| record.shard.clone()).collect();
    let options = WriterOptions {
        samples_per_shard: packing.samples_per_shard,
        max_shard_bytes: packing.max_shard_bytes,
        created_by: packing.created_by.to_owned(),
        ..WriterOptions::default()
    };
    let writer = DatasetWriter::resume(output.clone(), options, done);
    if let Some(num_rows) = job.num_rows {
        progress.set_total(num_rows);
    }
    let mut packer = Packer::new(job, state, writer, records, seen);
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
