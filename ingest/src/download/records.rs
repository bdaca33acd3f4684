use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use fastclip_schemas::{Digest, ShardEntry};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::report::DownloadCounts;
use crate::run_state::{REQUESTS_AT_A_TIME, RunState, RunStateError};

/// What became of the rows of a shard; written when all of it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShardRecord {
    /// Of the list or, where failed rows are tried again, of those.
    pub(super) rows: Range<u64>,
    /// Of the settings. Two parts that begin at the same time with different ones may not see each other.
    pub(super) settings: Digest,
    /// Nothing where no row became a sample.
    pub(super) shard: Option<ShardEntry>,
    /// Of the table.
    pub(super) table: Digest,
    pub(super) counts: DownloadCounts,
}

/// Shards in order of their numbers.
pub(super) type ShardRecords = BTreeMap<u64, ShardRecord>;

/// Name of the table beside a shard.
pub(super) fn table_file(shard: u64) -> String {
    format!("{shard:05}.parquet")
}

/// What is remembered of some shards.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Shards that are complete, with the ids that they have by now.
    pub(super) complete: ShardRecords,
    /// Shards whose files are not what was recorded, because several processes wrote them at once.
    pub(super) mixed: Vec<u64>,
}

/// Reads what is remembered of these shards, and compares it with their files.
///
/// Of files that nobody but the process that recorded them can have written, the size and the index are enough; the others are read
/// whole.
pub(super) async fn read(
    state: &RunState<'_>,
    shards: Range<u64>,
    settings: Digest,
    row_of: impl Fn(u64) -> u64,
    checked: impl Fn(),
) -> Result<Found, RunStateError> {
    let remembered = state.remembered().await?;
    let shards = remembered.recorded.range(shards).copied();
    read_these(state, shards, &remembered.claimed, (settings, row_of), checked).await
}

/// Reads once more what is remembered of those of these shards that other processes have claimed. They may have written them after this one
/// did, and what was recorded last is what counts.
pub(super) async fn read_claimed(
    state: &RunState<'_>,
    mut known: ShardRecords,
    settings: Digest,
    row_of: impl Fn(u64) -> u64,
) -> Result<Found, RunStateError> {
    let claimed = state.remembered().await?.claimed;
    let shards: Vec<u64> = known.keys().copied().filter(|shard| claimed.contains(shard)).collect();
    let mut found = read_these(state, shards.iter().copied(), &claimed, (settings, row_of), || ()).await?;
    known.retain(|shard, _| !claimed.contains(shard));
    found.complete.append(&mut known);
    Ok(found)
}

async fn read_these(
    state: &RunState<'_>,
    shards: impl Iterator<Item = u64>,
    claimed: &BTreeSet<u64>,
    (settings, row_of): (Digest, impl Fn(u64) -> u64),
    checked: impl Fn(),
) -> Result<Found, RunStateError> {
    let checks = shards.map(|number| {
        let (is_claimed, first_row) = (claimed.contains(&number), row_of(number));
        async move {
            let Some(record) = state.record::<ShardRecord>(number).await? else { return Ok((number, None)) };
            state.check_made_with(number, record.settings, settings)?;
            state.check_start(number, record.rows.start, first_row)?;
            match check(state, number, record, is_claimed).await {
                Ok(record) => Ok((number, Some(record))),
                Err(RunStateError::Changed { .. }) if is_claimed => Ok((number, None)),
                Err(error) => Err(error),
            }
        }
    });
    let mut checks = stream::iter(checks).buffered(REQUESTS_AT_A_TIME);
    let mut found = Found::default();
    while let Some((number, record)) = checks.try_next().await? {
        checked();
        match record {
            Some(record) => drop(found.complete.insert(number, record)),
            None => found.mixed.push(number),
        }
    }
    Ok(found)
}

async fn check(
    state: &RunState<'_>,
    number: u64,
    mut record: ShardRecord,
    is_claimed: bool,
) -> Result<ShardRecord, RunStateError> {
    if let Some(shard) = &mut record.shard {
        *shard = state.check_but_for_ids(shard).await?;
        if is_claimed {
            state.check_digest(&shard.name, shard.digest).await?;
        }
    }
    if is_claimed {
        state.check_digest(&table_file(number), record.table).await?;
    }
    Ok(record)
}
