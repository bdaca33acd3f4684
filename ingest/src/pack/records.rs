use std::ops::Range;

use fastclip_schemas::ShardEntry;
use serde::{Deserialize, Serialize};

use crate::duplicates::Duplicates;
use crate::rejection::Rejection;
use crate::run_state::{RunState, RunStateError};

/// What a shard was made of; written when the shard is complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShardRecord {
    pub(super) shard: ShardEntry,
    /// Rows that ended in this shard or were passed over on the way.
    pub(super) rows: Range<u64>,
    pub(super) num_other_split: u64,
    pub(super) rejected: Vec<Rejection>,
}

/// Reads everything that was remembered, seen images included, and checks it against the shards.
///
/// Sizes and indexes of all shards are checked, and the whole of the newest, which was being written closest to
/// whatever ended the run. Reading the others again would take as long as packing them; `ingest verify` does it.
pub(super) async fn read(
    state: &RunState<'_>,
    seen: &mut Duplicates,
) -> Result<Vec<ShardRecord>, RunStateError> {
    let mut records: Vec<ShardRecord> = Vec::new();
    while let Some(record) = state.record::<ShardRecord>(records.len() as u64).await? {
        let expected_start = records.last().map_or(0, |last| last.rows.end);
        state.check_start(records.len() as u64, record.rows.start, expected_start)?;
        state.check_shard(&record.shard).await?;
        if seen.is_active() {
            state.restore_seen(records.len() as u64, seen).await?;
        }
        records.push(record);
    }
    if let Some(ShardRecord { shard, .. }) = records.last() {
        state.check_digest(&shard.name, shard.digest).await?;
    }
    Ok(records)
}
