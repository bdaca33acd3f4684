//! Failed rows once more: `ingest retry`.
//!
//! Hosts that were down come back, and names that did not resolve do later. The tables beside the shards say of every row how it
//! ended and what it needs, so a dataset is all that has to be given. Rows that are chosen by their failure go through the same
//! pipeline as before, in the order of the list, into shards behind the existing ones, which stay as they are; so does every id. A row
//! keeps its key: since it was no sample before, nothing else has it, and it still says where the row stands in the list.
//!
//! The table of such a shard has one row for each that was tried again. What counts of a row is its newest outcome, so the next
//! pass reads the tables of the list and those of earlier passes side by side, all in the order of the list, with one of each in memory.
//!
//! The dataset has its manifest all the time; the new one, with more shards, takes its place at the end.

mod passes;
mod report;
mod selection;
mod tables;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastclip_schemas::{MANIFEST_FILE, Manifest, SampleId};
use fastclip_shards::Store;
use tokio::runtime::Runtime;

pub use report::RetryReport;

pub(crate) use passes::pass_of;

use super::pipeline::{ShardRow, Work};
use super::records::ShardRecords;
use super::report::DownloadCounts;
use super::rows::UrlRow;
use super::settings::Settings;
use super::shards::{ShardPlan, ShardSequence};
use super::{DownloadError, fill, resume};
use crate::duplicates::DuplicateOptions;
use crate::fetch::FetchOptions;
use crate::progress::Progress;
use crate::run_state::RunState;
use crate::runtime::{IO_THREADS, runtime};
use crate::stop::Stop;
use passes::{Downloaded, Pass, PassSettings};
use selection::Selection;
use tables::{TableRow, Tables, newest};

/// The subcommand.
const COMMAND: &str = "retry";

/// Which rows to try again, and how.
#[derive(Debug, Clone)]
pub struct RetryOptions {
    /// A dataset that was downloaded.
    pub output: Store,
    /// Failures by their identifiers, `http_5xx` for all of a kind, `all` for all; those that may pass if there are none.
    pub only: Vec<String>,
    /// How images are asked for.
    pub fetch: FetchOptions,
    /// Threads that decode, resize and encode.
    pub threads: NonZeroUsize,
}

/// Fetches rows of a finished download that failed, and adds what comes in shards of their own.
///
/// Columns, sizes and formats are those of the download. Existing shards and ids stay; the manifest is replaced at the end. A pass that was
/// interrupted is continued by the same call.
///
/// # Errors
/// When the output is no finished download, an unfinished pass chose other failures, a table cannot be read, or the store refuses.
///
/// # Panics
/// When it is called from asynchronous code: it brings a runtime of its own.
///
/// # Threads
/// As [`download`](super::download()).
pub fn retry(options: &RetryOptions, progress: &Progress, stop: &Stop) -> Result<RetryReport, DownloadError> {
    let runtime = runtime(IO_THREADS).map_err(DownloadError::Runtime)?;
    let state = RunState::shared(&options.output, COMMAND);
    let location = options.output.location().to_owned();
    // Read twice: should another take its place in between, nothing is published.
    let dataset = runtime.block_on(state.manifest_digest())?;
    let (Some(dataset), Some(manifest)) = (dataset, runtime.block_on(state.manifest())?) else {
        return Err(DownloadError::NotFinished { location });
    };
    let state = state.beside(dataset);
    let downloaded = Downloaded::of(&manifest)
        .map_err(|problem| DownloadError::NotDownloaded { location: location.clone(), problem })?;
    let selection = Selection::new(&options.only);
    let report = |retried: &DownloadCounts, num_new_shards, counts: &DownloadCounts| RetryReport {
        location: location.clone(),
        only: selection.to_string(),
        retried: retried.clone(),
        num_new_shards,
        counts: counts.clone(),
    };
    let settings =
        PassSettings { pass: downloaded.passes.len() + 1, only: selection.names().to_vec(), dataset };
    match runtime.block_on(begin(&state, &settings, &downloaded, &selection))? {
        Begin::Here => {}
        Begin::Nothing => return Ok(report(&DownloadCounts::default(), 0, &downloaded.counts)),
        Begin::Finished(pass) => {
            return Ok(report(&pass.counts, pass.num_tars(&manifest), &downloaded.counts));
        }
    }

    let plan = ShardPlan {
        layout: downloaded.layout,
        additional: downloaded.additional.clone(),
        hash: downloaded.hash,
        settings: Settings::digest(&settings.to_json()),
        first_shard: downloaded.next_shard(),
        first_id: SampleId(manifest.num_sample_ids),
    };
    let done = runtime.block_on(resume(&state, &plan, plan.first_shard..u64::MAX))?;
    let chosen = Arc::<Mutex<Chosen>>::default();
    let is_done: BTreeSet<u64> = done.keys().copied().collect();
    let rows = rows_again(options, &runtime, &downloaded, selection.clone(), &chosen);
    let rows = rows.filter(move |row| !row.as_ref().is_ok_and(|row| is_done.contains(&row.shard)));
    let work = Work {
        picture: downloaded.picture.clone(),
        // What the other rows are is known only to the run that fetched them.
        duplicates: DuplicateOptions::default(),
        hash: downloaded.hash,
        fetch: options.fetch.clone(),
        threads: options.threads,
    };
    let expected = || lock(&chosen).all();
    progress.set_total(selection.most_rows(&downloaded.counts));
    let sequence = ShardSequence::new(plan, &state, done, DuplicateOptions::default());
    let records = fill(&work, &runtime, Box::new(rows), (sequence, expected), progress, stop)?;

    let before = std::mem::take(&mut lock(&chosen).before);
    let (manifest, retried) =
        runtime.block_on(complete(&state, manifest, downloaded, &settings, (&before, records)))?;
    let counts = DownloadCounts::of_manifest(&manifest);
    Ok(report(&retried.counts, retried.num_tars(&manifest), &counts))
}

/// Rows that another day may end otherwise: those that a retry chooses if nobody else does.
pub(super) fn num_transient(counts: &DownloadCounts) -> u64 {
    Selection::new(&[]).most_rows(counts)
}

/// Where a pass begins.
enum Begin {
    /// After what it remembers, which may be nothing.
    Here,
    /// No row failed like that.
    Nothing,
    /// At the end: only cleaning up was missing.
    Finished(Pass),
}

async fn begin(
    state: &RunState<'_>,
    settings: &PassSettings,
    downloaded: &Downloaded,
    selection: &Selection,
) -> Result<Begin, DownloadError> {
    let there: Option<PassSettings> = state.settings().await?;
    let Some(there) = there else {
        if selection.most_rows(&downloaded.counts) == 0 {
            return Ok(Begin::Nothing);
        }
        state.write_settings(&settings.to_json()).await?;
        return Ok(Begin::Here);
    };
    if let Some(pass) = there.pass.checked_sub(1).and_then(|pass| downloaded.passes.get(pass)) {
        state.end().await?;
        return Ok(Begin::Finished(pass.clone()));
    }
    let location = state.store().location().to_owned();
    if there.only != settings.only {
        return Err(DownloadError::OtherRetry {
            location,
            there: there.only.join(","),
            here: settings.only.join(","),
        });
    }
    if there != *settings {
        let problem = "its manifest has changed since the retry began".to_owned();
        return Err(DownloadError::NotDownloaded { location, problem });
    }
    Ok(Begin::Here)
}

/// Rows that were chosen, counted while they are read.
#[derive(Debug, Default)]
struct Chosen {
    num_rows: u64,
    /// How they ended before.
    before: DownloadCounts,
    /// Whether all tables have been read.
    is_all: bool,
}

impl Chosen {
    /// Number of all rows, once it is known.
    fn all(&self) -> Option<u64> {
        self.is_all.then_some(self.num_rows)
    }
}

/// The newest outcome of each row that was chosen, as a row to be fetched.
fn rows_again(
    options: &RetryOptions,
    runtime: &Runtime,
    downloaded: &Downloaded,
    selection: Selection,
    chosen: &Arc<Mutex<Chosen>>,
) -> impl Iterator<Item = Result<ShardRow, DownloadError>> + Send + use<> {
    let (layout, first_shard) = (downloaded.layout, downloaded.next_shard());
    let tables = Tables {
        store: options.output.clone(),
        runtime: runtime.handle().clone(),
        layout,
        additional: downloaded.additional.clone(),
    };
    let passes = downloaded.passes.iter().map(Pass::shards);
    let mut rows =
        newest(std::iter::once(0..layout.num_shards()).chain(passes).map(|shards| tables.rows(shards)));
    let (chosen, verify_hash) = (Arc::clone(chosen), downloaded.verify_hash.clone());
    std::iter::from_fn(move || {
        loop {
            let row = match rows.next() {
                Some(Ok(row)) => row,
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    lock(&chosen).is_all = true;
                    return None;
                }
            };
            if !selection.has(row.status, &row.reason) {
                continue;
            }
            let TableRow { number, status, reason, url, caption, additional } = row;
            let hash = verify_hash.as_ref().map(|column| column.of(&additional));
            let mut chosen = lock(&chosen);
            let shard = first_shard + layout.shard_of(chosen.num_rows);
            chosen.num_rows += 1;
            chosen.before.add_ended(status, Some(&reason));
            return Some(Ok(ShardRow {
                shard,
                row: UrlRow { number, url, caption, additional, hash, fault: None },
            }));
        }
    })
}

/// Writes the manifest with the new shards, and forgets the pass. A pass without rows leaves nothing.
async fn complete(
    state: &RunState<'_>,
    mut manifest: Manifest,
    downloaded: Downloaded,
    settings: &PassSettings,
    (before, records): (&DownloadCounts, ShardRecords),
) -> Result<(Manifest, Pass), DownloadError> {
    let (first_shard, num_shards) = (downloaded.next_shard(), records.len() as u64);
    let mut pass =
        Pass { only: settings.only.clone(), first_shard, num_shards, counts: DownloadCounts::default() };
    records.values().for_each(|record| pass.counts.add(&record.counts));
    if num_shards > 0 {
        let mut counts = downloaded.counts.without(before).ok_or_else(|| DownloadError::NotDownloaded {
            location: state.store().location().to_owned(),
            problem: "its tables name other failures than its manifest".to_owned(),
        })?;
        counts.add(&pass.counts);
        let (mut shards, num_sample_ids) = (manifest.shards, manifest.num_sample_ids);
        shards.extend(records.into_values().filter_map(|record| record.shard));
        state.write_sizes(&shards).await?;
        manifest = Manifest::of_shards(manifest.created_by, shards, manifest.source);
        manifest.num_sample_ids = manifest.num_sample_ids.max(num_sample_ids);
        let passes = [downloaded.passes, vec![pass.clone()]].concat();
        Downloaded::add(&mut manifest, &passes, &counts);
        state.write(MANIFEST_FILE, manifest.to_json()).await?;
    }
    state.end().await?;
    Ok((manifest, pass))
}

fn lock(chosen: &Mutex<Chosen>) -> MutexGuard<'_, Chosen> {
    // Counts are whole whatever a thread that panics was about to do.
    chosen.lock().unwrap_or_else(PoisonError::into_inner)
}
