//! From shards to other shards: `ingest reshard`.
//!
//! ```text
//! shards ─► samples ─► threads: filter, resize, encode ─► in order of the samples ─► shards ─► manifest
//! ```
//!
//! What comes out is a function of what goes in and of the settings, as with `pack`, whose machinery this uses: samples keep
//! their order, complete shards leave records, and a resumed run goes on after them. Members that nobody asks to change keep
//! their bytes. Keys are given anew, since shards of other programs may repeat them.
//!
//! | file | holds |
//! |---|---|
//! | `input` | shards with a manifest or without, and their samples in order |
//! | `unindexed` | samples of tars that nobody has made an index for |
//! | `remake` | from a sample to another one, or to the reason why not |
//! | `settings` | what decides the bytes |

mod input;
mod remake;
mod settings;
mod unindexed;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use fastclip_shards::{DatasetWriter, Store, StoreOptions, WriterOptions};

use crate::duplicates::{DuplicateOptions, Duplicates};
use crate::filters::RowFilters;
use crate::pack::packer::{Job, Packer};
use crate::pack::{PackError, PackReport, ordered, records};
use crate::picture::PictureOptions;
use crate::progress::Progress;
use crate::run_state::{OnExisting, RunState, Start};
use crate::runtime::{IO_THREADS, runtime};
use crate::stop::Stop;
use input::Shards;
use remake::Remaker;
use settings::{COMMAND, Settings};

/// Which shards to make others of, and how.
#[derive(Debug, Clone)]
pub struct ReshardOptions {
    /// Folder, URL or manifest of a dataset, or several, as `Dataset::open` takes them; or a folder of tars without a manifest.
    pub input: String,
    /// How the input's store is reached.
    pub store: StoreOptions,
    /// Where the dataset goes.
    pub output: Store,
    /// What to do if something is there already.
    pub on_existing: OnExisting,
    /// Which samples are taken.
    pub filters: RowFilters,
    /// Which images are left out because of earlier ones.
    pub duplicates: DuplicateOptions,
    /// Which images are taken, and what becomes of them.
    pub picture: PictureOptions,
    /// Samples in each shard but the last.
    pub samples_per_shard: NonZeroU32,
    /// Bytes of a shard, if it is to be closed before they are exceeded.
    pub max_shard_bytes: Option<u64>,
    /// Threads that decode and encode. Their number has no influence on the dataset.
    pub threads: NonZeroUsize,
    /// Program and version, for the manifest.
    pub created_by: String,
}

/// Makes other shards of shards.
///
/// Samples that break a rule or cannot be used are counted, listed in [`REJECTED_FILE`](crate::REJECTED_FILE) and left out. The
/// manifest is written last.
///
/// # Errors
/// When the input cannot be read, or the output is occupied or cannot be written. Complete shards then stay, and
/// [`OnExisting::Resume`] goes on from them.
///
/// # Panics
/// When it is called from asynchronous code: it brings a runtime of its own.
///
/// # Threads
/// Starts `options.threads` threads, one that reads and a few for the store, and joins them before it returns.
pub fn reshard(options: &ReshardOptions, progress: &Progress, stop: &Stop) -> Result<PackReport, PackError> {
    let shards = Shards::open(&options.input, &options.store)?;
    let settings = Settings::new(options, shards.digest()).to_json();
    let runtime = runtime(IO_THREADS)
        .map_err(|error| PackError::Start { what: "a runtime", reason: error.to_string() })?;
    let state = RunState::new(&options.output, COMMAND);
    match runtime.block_on(state.start(&settings, options.on_existing))? {
        Start::Here => {}
        Start::Finished(manifest) => {
            return Ok(PackReport::of_finished(options.output.location().to_owned(), &manifest));
        }
    }
    let mut seen = Duplicates::new(options.duplicates);
    let records = runtime.block_on(records::read(&state, &mut seen))?;
    let writer_options = WriterOptions {
        samples_per_shard: options.samples_per_shard,
        max_shard_bytes: options.max_shard_bytes,
        created_by: options.created_by.clone(),
        ..WriterOptions::default()
    };
    let done = records.iter().map(|record| record.shard.clone()).collect();
    let writer = DatasetWriter::resume(options.output.clone(), writer_options, done);
    let job = Job {
        output: &options.output,
        input: PathBuf::from(shards.location()),
        name: shards.name(),
        command: COMMAND,
        settings,
        num_rows: shards.num_samples(),
        // What is left out is left out on purpose, and the rest was a sample before.
        max_bad_fraction: 1.0,
    };
    let mut packer = Packer::new(job, state, writer, records, seen);
    if let Some(num_samples) = shards.num_samples() {
        progress.set_total(num_samples);
    }
    progress.resume_at(packer.next_row());
    let samples = shards.samples(packer.next_row());
    let consume = |outcome| {
        if stop.is_requested() {
            return Err(PackError::Stopped { num_rows: packer.next_row() });
        }
        let num_bytes = runtime.block_on(packer.take(outcome))?;
        progress.advance(1, num_bytes);
        Ok(())
    };
    let start_worker = || Remaker::new(options);
    let packed = ordered::map_in_order(samples, options.threads, start_worker, Remaker::remake, consume);
    progress.finish();
    runtime.block_on(async {
        match packed {
            Ok(()) => packer.finish(Vec::new()).await,
            Err(error) => Err(packer.give_up(error).await),
        }
    })
}
