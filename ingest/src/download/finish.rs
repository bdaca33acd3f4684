use fastclip_schemas::{MANIFEST_FILE, Manifest, SampleId, ShardEntry};
use fastclip_shards::Store;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::facts::Facts;
use super::layout::Layout;
use super::part::Part;
use super::records::{self, ShardRecords};
use super::report::{DownloadCounts, DownloadReport};
use super::settings::{COMMAND, Settings};
use super::{DownloadError, numbers};
use crate::progress::Progress;
use crate::run_state::{REQUESTS_AT_A_TIME, RunState, RunStateError};
use crate::runtime::{IO_THREADS, runtime};

/// Parts that an error names; of more it gives the number.
const MAX_NAMED_PARTS: usize = 8;

/// Makes one dataset of the parts that [`download`](super::download()) has fetched: gives dense ids to all samples, in the order of the
/// list, and writes the manifest, which is the one that a run without parts writes.
///
/// It may be cut off anywhere and called again. No part may still be running.
///
/// # Errors
/// When shards are missing, which names them and the parts that make them; when a file is not what was recorded; or the store refuses.
///
/// # Panics
/// When it is called from asynchronous code: it brings a runtime of its own.
pub fn finish(
    output: &Store,
    created_by: &str,
    progress: &Progress,
) -> Result<DownloadReport, DownloadError> {
    let runtime = runtime(IO_THREADS).map_err(DownloadError::Runtime)?;
    let report = runtime.block_on(finish_parts(output, created_by, progress));
    progress.finish();
    report
}

async fn finish_parts(
    output: &Store,
    created_by: &str,
    progress: &Progress,
) -> Result<DownloadReport, DownloadError> {
    let (state, location) = (RunState::shared(output, COMMAND), output.location().to_owned());
    if let Some(manifest) = state.manifest().await? {
        if !manifest.source.contains_key(COMMAND) {
            let what = "a dataset that `ingest download` did not make".to_owned();
            return Err(RunStateError::Occupied { location, what, is_resumable: false }.into());
        }
        state.end().await?;
        return Ok(DownloadReport::of_finished(location, &manifest));
    }
    let (Some(settings), Some(facts)) = (state.settings().await?, Facts::read(&state).await?) else {
        return Err(DownloadError::NotBegun { location });
    };
    let layout = facts.layout();
    progress.set_total(layout.num_shards());
    let (digest, first_row) = (Settings::digest(&settings), |shard| layout.rows(shard).start);
    let checked = || progress.advance(1, 0);
    let found = records::read(&state, 0..layout.num_shards(), digest, first_row, checked).await?;
    let missing: Vec<u64> =
        (0..layout.num_shards()).filter(|shard| !found.complete.contains_key(shard)).collect();
    if !missing.is_empty() {
        return Err(DownloadError::Incomplete {
            location,
            num_missing: missing.len(),
            num_shards: layout.num_shards(),
            remedy: remedy(&facts, layout, &missing),
            missing: numbers::ranges(&missing),
        });
    }
    let manifest = merge(&state, found.complete, facts, &settings, created_by).await?;
    Ok(DownloadReport::new(location, &manifest))
}

/// Writes what comes after the last shard: indexes with final ids, sizes, manifest. Forgets all that was remembered.
pub(super) async fn merge(
    state: &RunState<'_>,
    records: ShardRecords,
    facts: Facts,
    settings: &Value,
    created_by: &str,
) -> Result<Manifest, DownloadError> {
    let mut counts = DownloadCounts::default();
    records.values().for_each(|record| counts.add(&record.counts));
    let shards: Vec<ShardEntry> = records.into_values().filter_map(|record| record.shard).collect();
    if shards.is_empty() {
        return Err(DownloadError::NoSamples { num_rows: facts.num_rows, failures: counts.summary() });
    }
    let mut next = 0;
    let renumbered = shards.into_iter().map(|shard| {
        let first = SampleId(next);
        next += u64::from(shard.num_samples);
        state.renumber(shard, first)
    });
    let shards: Vec<ShardEntry> = stream::iter(renumbered).buffered(REQUESTS_AT_A_TIME).try_collect().await?;
    state.write_sizes(&shards).await?;
    let facts =
        [("input".to_owned(), facts.input.into()), (COMMAND.to_owned(), settings.clone()), counts.to_fact()];
    let manifest = Manifest::of_shards(created_by.to_owned(), shards, facts.into_iter().collect());
    state.write(MANIFEST_FILE, manifest.to_json()).await?;
    state.end().await?;
    Ok(manifest)
}

/// What makes the shards that are missing.
fn remedy(facts: &Facts, layout: Layout, missing: &[u64]) -> String {
    let command = facts.command.as_deref().unwrap_or("ingest download");
    let Some(num_parts) = facts.num_parts else { return format!("run `{command}`") };
    let part_of = |shard: &u64| Part::of_shard(*shard, layout.num_shards(), num_parts);
    let mut parts: Vec<Part> = missing.iter().map(part_of).collect();
    parts.dedup();
    let mut text = format!("run `{command} --part {}`", parts[0]);
    let others: Vec<String> = parts[1..].iter().take(MAX_NAMED_PARTS).map(Part::to_string).collect();
    if !others.is_empty() {
        text += &format!(", and the same with {}", others.join(", "));
    }
    let num_unnamed = parts.len() - 1 - others.len();
    if num_unnamed > 0 {
        text += &format!(" and {num_unnamed} more");
    }
    text
}
