//! From a list of URLs to a dataset: `ingest download`.
//!
//! ```text
//! rows ─► requests ─► threads: decode, resize, encode ─► spool ─► in order of the rows ─► shards ─► manifest
//! ```
//!
//! Shard `i` holds rows `i·n` to `(i+1)·n - 1` of the list, less those that failed, as img2dataset's do. It is written in the order of
//! the rows, so that a dataset is a function of the list, the settings and the answers of the hosts: an interruption does not
//! show in it. Some rows take a second and others a minute; what is ready too early waits in a file without a name
//! ([`spool`]), so that one slow host neither holds up the others nor fills the memory. img2dataset writes in order of completion,
//! and a shard that was cut short has to be fetched again in another order.
//!
//! | file | holds |
//! |---|---|
//! | `rows` | from the list to what is to be fetched |
//! | `filters` | which rows are not |
//! | `pipeline` | requests, threads, and the way back into order |
//! | `outcome`, `spool` | what became of a row, in memory and on disk |
//! | `shards` | from outcomes to shards, tables and records |
//! | `metadata` | the table beside each shard |
//! | `settings` | what decides the bytes |

mod error;
mod filters;
mod metadata;
mod outcome;
mod pipeline;
mod report;
mod rows;
mod settings;
mod shards;
mod spool;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use fastclip_shards::Store;

pub use error::DownloadError;
pub use filters::{HostList, HostListError, RowFilters};
pub use report::{DownloadCounts, DownloadReport};
pub use rows::UrlColumns;

use crate::fetch::{FetchOptions, Fetcher};
use crate::picture::PictureOptions;
use crate::progress::Progress;
use crate::run_state::{OnExisting, RunState, Start};
use crate::runtime::{IO_THREADS, runtime};
use crate::source::digest_of;
use crate::stop::Stop;
use rows::UrlList;
use settings::{COMMAND, Settings};
use shards::ShardSequence;

/// What to fetch, and how.
#[derive(Debug, Clone)]
pub struct DownloadOptions {
    /// A table with a column of URLs, or a plain list of them.
    pub input: PathBuf,
    /// Where the dataset goes.
    pub output: Store,
    /// What to do if something is there already.
    pub on_existing: OnExisting,
    /// Meaning of the columns.
    pub columns: UrlColumns,
    /// Which rows are worth a request.
    pub filters: RowFilters,
    /// Rows of the input in each shard but the last.
    pub rows_per_shard: NonZeroU32,
    /// What becomes of an image.
    pub picture: PictureOptions,
    /// How images are asked for.
    pub fetch: FetchOptions,
    /// Threads that decode, resize and encode. Their number has no influence on the dataset.
    pub threads: NonZeroUsize,
    /// Program and version, for the manifest.
    pub created_by: String,
}

/// Fetches images and writes them into shards.
///
/// Every row of the list has a row in the table beside its shard, whatever became of it. The manifest is written last.
///
/// # Errors
/// When the list cannot be read, the output is occupied or cannot be written, or no image could be had. Complete shards stay,
/// and the same call goes on after them.
///
/// # Panics
/// When it is called from asynchronous code: it brings a runtime of its own.
///
/// # Threads
/// Starts `options.threads` threads, one that reads the list, and a few for the network; joins them before it returns.
pub fn download(
    options: &DownloadOptions,
    progress: &Progress,
    stop: &Stop,
) -> Result<DownloadReport, DownloadError> {
    let list = UrlList::open(&options.input, &options.columns, &options.filters)?;
    let settings = Settings::new(options, digest_of(&options.input)?);
    let runtime = runtime(IO_THREADS).map_err(DownloadError::Runtime)?;
    let state = RunState::new(&options.output, COMMAND);
    match runtime.block_on(state.start(&settings.to_json(), options.on_existing))? {
        Start::Here => {}
        Start::Finished(manifest) => {
            return Ok(DownloadReport::of_finished(options.output.location().to_owned(), &manifest));
        }
    }
    let fetcher = Fetcher::new(options.fetch.clone(), progress.clone(), stop.clone());
    let fetcher = fetcher.map_err(DownloadError::Client)?;
    let mut shards = runtime.block_on(ShardSequence::resume(options, state))?;
    progress.set_total(list.num_rows());
    let first = shards.next_row();
    progress.resume_at(first);
    let ended =
        pipeline::run(options, &runtime, (first, list.rows(first)?), fetcher, (progress, stop), |outcome| {
            runtime.block_on(shards.take(outcome))
        });
    progress.finish();
    runtime.block_on(async {
        match ended {
            Ok(()) if shards.next_row() < list.num_rows() && stop.is_requested() => {
                Err(DownloadError::Stopped { num_rows: shards.next_row() })
            }
            Err(DownloadError::Offline(_)) if stop.is_requested() => {
                let stopped = DownloadError::Stopped { num_rows: shards.next_row() };
                Err(shards.give_up(stopped).await)
            }
            Ok(()) => shards.finish(&settings, list.num_rows()).await,
            Err(error) => Err(shards.give_up(error).await),
        }
    })
}
