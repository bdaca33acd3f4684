//! From a folder or table to a dataset: `ingest pack`.
//!
//! ```text
//! source ─► rows ─► threads: read, check, decode ─► in order of the rows ─► shards ─► manifest
//! ```
//!
//! The dataset is a function of input and settings: neither the number of threads nor an interruption shows in it.
//! That is why outcomes are put back into the order of the rows before anything is written, and why each complete shard
//! leaves a record of the rows it took: a resumed run starts at the row after the last complete shard and cannot but
//! produce the same bytes. The alternative, writing in order of completion as other packers do, is no faster, since the
//! window of rows in flight is as large as it needs to be to keep every thread busy.
//!
//! | file | holds |
//! |---|---|
//! | `prepare`, `image` | from a row to a sample, or to the reason why not |
//! | `ordered` | threads in between, order at both ends |
//! | `run` | the whole, for `reshard` too |
//! | `packer` | from outcomes to shards, with counts and budget |
//! | `records`, `settings` | what an unfinished dataset remembers |

mod error;
mod image;
mod ordered;
pub(crate) mod packer;
pub(crate) mod prepare;
mod records;
mod report;
pub(crate) mod run;
mod settings;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use fastclip_schemas::zero_shot;
use fastclip_shards::Store;

pub use error::PackError;
pub use report::PackReport;

use crate::duplicates::DuplicateOptions;
use crate::progress::Progress;
use crate::run_state::OnExisting;
use crate::source::{Columns, Inputs, Row, Source};
use crate::stop::Stop;
use packer::Job;
use prepare::{Outcome, Preparer};
use run::{Packing, Rows, run};
use settings::{COMMAND, Settings};

/// What to pack, and how.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// A folder of images, or tables.
    pub input: Inputs,
    /// Where the dataset goes.
    pub output: Store,
    /// What to do if something is there already.
    pub on_existing: OnExisting,
    /// Meaning of a table's columns.
    pub columns: Columns,
    /// Samples in each shard but the last.
    pub samples_per_shard: NonZeroU32,
    /// Bytes of a shard, if it is to be closed before they are exceeded.
    pub max_shard_bytes: Option<u64>,
    /// Which images are left out because of earlier ones.
    pub duplicates: DuplicateOptions,
    /// What is too large to be a picture.
    pub limits: Limits,
    /// Fraction of the rows that may be rejected.
    pub max_bad_fraction: f64,
    /// Files to copy beside the shards, besides those of a zero-shot set that lie beside the input.
    pub side_files: Vec<PathBuf>,
    /// Threads that read and decode. Their number has no influence on the dataset.
    pub threads: NonZeroUsize,
    /// Program and version, for the manifest.
    pub created_by: String,
}

/// Bounds on a single row; a row beyond them is rejected, not the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of an image, as its header says.
    pub max_image_pixels: u64,
    /// Bytes of an image file.
    pub max_file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // The pixels at which Pillow warns of a decompression bomb; what it would warn of in training is kept out here.
        Self { max_image_pixels: 89_478_485, max_file_bytes: 64 << 20 }
    }
}

/// Packs image-text pairs into shards.
///
/// Rows that cannot become samples are counted, listed in [`REJECTED_FILE`](crate::REJECTED_FILE) and left out. The manifest is written last.
///
/// # Errors
/// When the input cannot be read, the output is occupied or cannot be written, or more rows are rejected than allowed.
/// Complete shards then stay, and [`OnExisting::Resume`] goes on from them.
///
/// # Panics
/// When it is called from asynchronous code: it brings a runtime of its own.
///
/// # Threads
/// Starts `options.threads` threads and a few for the store, and joins them before it returns.
pub fn pack(options: &PackOptions, progress: &Progress, stop: &Stop) -> Result<PackReport, PackError> {
    let source = Source::open(&options.input, &options.columns)?;
    let packing = Packing {
        job: Job {
            output: &options.output,
            input: options.input.shown(),
            name: source.name(),
            command: COMMAND,
            settings: Settings::new(options, &source).to_json(),
            num_rows: Some(source.num_rows()),
            max_bad_fraction: options.max_bad_fraction,
        },
        on_existing: options.on_existing,
        samples_per_shard: options.samples_per_shard,
        max_shard_bytes: options.max_shard_bytes,
        created_by: &options.created_by,
        duplicates: options.duplicates,
        threads: options.threads,
    };
    run(packing, &SourceRows { source, options }, progress, stop)
}

/// Rows of a table, or the images of a folder.
struct SourceRows<'a> {
    source: Source,
    options: &'a PackOptions,
}

impl Rows for SourceRows<'_> {
    type Row = Row;
    type Worker = Preparer;

    fn side_files(&self) -> Result<Vec<SideFile>, PackError> {
        read_side_files(self.options, &self.source)
    }

    fn inputs(&self) -> Vec<PathBuf> {
        self.source.tables()
    }

    fn rows(&self, first: u64) -> Box<dyn Iterator<Item = Result<Row, PackError>> + Send> {
        Box::new(self.source.rows(first).map(|row| row.map_err(PackError::from)))
    }

    fn start_worker(&self) -> Result<Preparer, PackError> {
        Preparer::new(self.options)
    }

    fn prepare(worker: &mut Preparer, row: Row) -> Outcome {
        worker.prepare(row)
    }
}

/// Name and content of a file to copy.
pub(crate) type SideFile = (String, Vec<u8>);

fn read_side_files(options: &PackOptions, source: &Source) -> Result<Vec<SideFile>, PackError> {
    let zero_shot = [zero_shot::CLASS_NAMES_FILE, zero_shot::TEMPLATES_FILE];
    let beside = zero_shot
        .into_iter()
        .filter_map(|name| Some(source.folder()?.join(name)))
        .filter(|path| path.is_file());
    let paths = beside.chain(options.side_files.iter().cloned());
    let read = |path: PathBuf| match std::fs::read(&path) {
        Ok(bytes) => {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            Ok((name, bytes))
        }
        Err(source) => Err(PackError::SideFile { path, source }),
    };
    paths.map(read).collect()
}
