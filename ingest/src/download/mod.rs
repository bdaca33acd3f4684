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
//! Shards do not depend on each other but for the ids of their samples. So any number of processes may fetch some of them each, on any
//! number of machines, without a word to each other: a [`Part`] is some shards in a row, each complete one has a record, and whoever
//! comes skips what is recorded. [`finish()`] gives final ids, which is a matter of the indexes alone, and writes the manifest; a run
//! without parts ends in the same way.
//!
//! | file | holds |
//! |---|---|
//! | `rows` | from the list to what is to be fetched |
//! | `layout`, `part` | which row goes to which shard, and which shard to which process |
//! | `pipeline` | requests, threads, and the way back into order |
//! | `outcome`, `spool` | what became of a row, in memory and on disk |
//! | `shards` | from outcomes to shards and tables |
//! | `metadata` | the table beside each shard |
//! | `records`, `facts`, `settings` | what is remembered: of a shard, of the list, of what decides the bytes |
//! | `finish` | from shards to a dataset |
//! | `retry` | failed rows once more |

mod error;
mod facts;
mod finish;
mod layout;
mod metadata;
mod numbers;
mod outcome;
mod part;
mod pipeline;
mod records;
mod report;
mod retry;
mod rows;
mod settings;
mod shards;
mod spool;

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::Range;

use fastclip_schemas::SampleId;
use fastclip_shards::Store;
use tokio::runtime::Runtime;

pub use error::DownloadError;
pub use finish::finish;
pub use part::{Part, PartError};
pub use report::{DownloadCounts, DownloadReport};
pub use retry::{RetryOptions, RetryReport, retry};
pub use rows::UrlColumns;

pub(crate) use retry::pass_of;

use crate::duplicates::DuplicateOptions;
use crate::fetch::FetchOptions;
use crate::filters::RowFilters;
use crate::hash::HashKind;
use crate::picture::PictureOptions;
use crate::progress::{Progress, SUCCESS};
use crate::run_state::{OnExisting, RunState, Start};
use crate::runtime::{IO_THREADS, runtime};
use crate::source::Inputs;
use crate::stop::Stop;
use facts::Facts;
use layout::Layout;
use pipeline::{ShardRow, ShardRows, Work};
use records::ShardRecords;
use rows::UrlList;
use settings::{COMMAND, Settings};
use shards::{ShardPlan, ShardSequence};

/// What to fetch, and how.
#[derive(Debug, Clone)]
pub struct DownloadOptions {
    /// Tables with a column of URLs, or plain lists of them.
    pub input: Inputs,
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
    /// The part of the shards to fetch, where other processes fetch the others. The manifest is then left to [`finish()`].
    pub part: Option<Part>,
    /// What was typed, less which part: named to those who have to fetch a part that is missing.
    pub command: Option<String>,
    /// What becomes of an image.
    pub picture: PictureOptions,
    /// Leaves out rows whose URL an earlier one has.
    pub drop_duplicate_urls: bool,
    /// Which images are left out because of earlier ones.
    pub duplicates: DuplicateOptions,
    /// Which hash of the bytes that came is kept beside each image.
    pub compute_hash: Option<HashKind>,
    /// How images are asked for.
    pub fetch: FetchOptions,
    /// Threads that decode, resize and encode. Their number has no influence on the dataset.
    pub threads: NonZeroUsize,
    /// Program and version, for the manifest.
    pub created_by: String,
}

/// Fetches images and writes them into shards.
///
/// Every row of the list has a row in the table beside its shard, whatever became of it. The manifest is written last, but not by a
/// part.
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
    let location = || options.output.location().to_owned();
    if options.part.is_some() && options.on_existing == OnExisting::Overwrite {
        return Err(DownloadError::OverwritePart { location: location() });
    }
    let mut list = UrlList::open(&options.input, &options.columns, &options.filters)?;
    let settings = Settings::new(options, list.digest()).to_json();
    let runtime = runtime(IO_THREADS).map_err(DownloadError::Runtime)?;
    let state = RunState::shared(&options.output, COMMAND);
    state.refuse_input(list.paths())?;
    match runtime.block_on(state.start(&settings, options.on_existing))? {
        Start::Here => {}
        Start::Finished(manifest) => return Ok(DownloadReport::of_finished(location(), &manifest)),
    }
    let facts = Facts::new(options, list.num_rows());
    let layout = facts.layout();
    if options.drop_duplicate_urls {
        list = list.with_unique_urls(layout);
    }
    let shards = options.part.map_or(0..layout.num_shards(), |part| part.shards(layout.num_shards()));
    let plan = ShardPlan {
        layout,
        additional: options.columns.additional.clone(),
        hash: options.compute_hash,
        settings: Settings::digest(&settings),
        first_shard: 0,
        first_id: SampleId(0),
    };
    let done = runtime.block_on(async {
        facts.write(&state).await?;
        resume(&state, &plan, shards.clone()).await
    })?;

    let was_complete = shards.clone().all(|shard| done.contains_key(&shard));
    let rows = rows_of_missing(&list, layout, shards.clone(), &done)?;
    let num_rows = layout.rows_of(shards).count() as u64;
    let sequence = ShardSequence::new(plan, &state, done, options.duplicates);
    let work = Work {
        picture: options.picture.clone(),
        duplicates: options.duplicates,
        hash: options.compute_hash,
        fetch: options.fetch.clone(),
        threads: options.threads,
    };
    progress.set_total(num_rows);
    let records = fill(&work, &runtime, rows, (sequence, || Some(num_rows)), progress, stop)?;
    if let Some(part) = options.part {
        return Ok(DownloadReport::of_part(location(), part, &records, was_complete));
    }
    let manifest = runtime.block_on(finish::merge(&state, records, facts, &settings, &options.created_by))?;
    Ok(DownloadReport::new(location(), &manifest))
}

/// Reads which of these shards are complete. The newest one is read and compared with its digest, of the others the size and the index are.
async fn resume(
    state: &RunState<'_>,
    plan: &ShardPlan,
    shards: Range<u64>,
) -> Result<ShardRecords, DownloadError> {
    let number_of = |name: &str| name.split(['.', '_']).next().and_then(|number| number.parse::<u64>().ok());
    // Only of these shards: other processes may be writing others just now.
    state.remove_broken_uploads("", |name| number_of(name).is_some_and(|number| shards.contains(&number)))?;
    let first_row = |shard| plan.first_row(shard);
    let found = records::read(state, shards.clone(), plan.settings, first_row, || ()).await?;
    for shard in found.mixed {
        state.forget(shard).await?;
    }
    if let Some(shard) = found.complete.values().rev().find_map(|record| record.shard.as_ref()) {
        state.check_digest(&shard.name, shard.digest).await?;
    }
    Ok(found.complete)
}

/// Reads the rows of the shards that are not done.
fn rows_of_missing<'a>(
    list: &UrlList,
    layout: Layout,
    shards: Range<u64>,
    done: &ShardRecords,
) -> Result<ShardRows<'a>, DownloadError> {
    let missing: BTreeSet<u64> = shards.filter(|shard| !done.contains_key(shard)).collect();
    let (Some(&first), Some(&last)) = (missing.first(), missing.last()) else {
        return Ok(Box::new(std::iter::empty()));
    };
    let (start, end) = (layout.rows(first).start, layout.rows(last).end);
    let rows = list.rows(start).take_while(move |row| row.as_ref().map_or(true, |row| row.number < end));
    let rows = rows.filter_map(move |row| match row {
        Ok(row) => {
            let shard = layout.shard_of(row.number);
            missing.contains(&shard).then_some(Ok(ShardRow { shard, row }))
        }
        Err(error) => Some(Err(error.into())),
    });
    Ok(Box::new(rows))
}

/// Fetches rows until `sequence` has as many as it should, which is known at their end and includes those it begins with. Gives the
/// records of its shards.
fn fill(
    work: &Work,
    runtime: &Runtime,
    rows: ShardRows<'_>,
    (mut sequence, num_rows): (ShardSequence<'_>, impl FnOnce() -> Option<u64>),
    progress: &Progress,
    stop: &Stop,
) -> Result<ShardRecords, DownloadError> {
    progress.resume_at(sequence.num_rows());
    let ended = pipeline::run(work, runtime, rows, (progress, stop), |outcome| {
        if let Some(reason) = runtime.block_on(sequence.take(outcome))? {
            progress.recount(SUCCESS, reason);
        }
        Ok(())
    });
    progress.finish();
    let found = sequence.num_rows();
    let ended = match ended {
        Err(DownloadError::Offline(_)) if stop.is_requested() => Ok(()),
        ended => ended,
    };
    let ended = ended.and_then(|()| match num_rows() {
        Some(expected) if found == expected => Ok(()),
        _ if stop.is_requested() => Err(DownloadError::Stopped { num_rows: found }),
        Some(expected) => Err(DownloadError::Rows { found, expected }),
        None => Err(DownloadError::Rows { found, expected: found }),
    });
    runtime.block_on(async {
        match ended {
            Ok(()) => sequence.finish().await,
            Err(error) => Err(sequence.give_up(error).await),
        }
    })
}
