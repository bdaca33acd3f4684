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

use fastclip_shards::{Store, StoreOptions};

use crate::duplicates::DuplicateOptions;
use crate::filters::RowFilters;
use crate::pack::packer::Job;
use crate::pack::prepare::Outcome;
use crate::pack::run::{Packing, Rows, run};
use crate::pack::{PackError, PackReport};
use crate::picture::PictureOptions;
use crate::progress::Progress;
use crate::run_state::OnExisting;
use crate::stop::Stop;
use input::{Shards, StoredSample};
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
    let packing = Packing {
        job: Job {
            output: &options.output,
            input: PathBuf::from(shards.location()),
            name: shards.name(),
            command: COMMAND,
            settings: Settings::new(options, shards.digest()).to_json(),
            num_rows: shards.num_samples(),
            // What is left out is left out on purpose, and the rest was a sample before.
            max_bad_fraction: 1.0,
        },
        on_existing: options.on_existing,
        samples_per_shard: options.samples_per_shard,
        max_shard_bytes: options.max_shard_bytes,
        created_by: &options.created_by,
        duplicates: options.duplicates,
        threads: options.threads,
    };
    run(packing, &ShardSamples { shards, options }, progress, stop)
}

/// Samples of shards.
struct ShardSamples<'a> {
    shards: Shards,
    options: &'a ReshardOptions,
}

impl Rows for ShardSamples<'_> {
    type Row = StoredSample;
    type Worker = Remaker;

    fn inputs(&self) -> Vec<PathBuf> {
        self.shards.paths()
    }

    fn rows(&self, first: u64) -> Box<dyn Iterator<Item = Result<StoredSample, PackError>> + Send> {
        self.shards.samples(first)
    }

    fn start_worker(&self) -> Result<Remaker, PackError> {
        Remaker::new(self.options)
    }

    fn prepare(worker: &mut Remaker, sample: StoredSample) -> Outcome {
        worker.remake(sample)
    }
}
