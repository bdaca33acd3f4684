use std::collections::HashSet;
use std::sync::Arc;

use fastclip_images::DecoderError;
use fastclip_shards::{Dataset, ShardIndex};

use super::images::{DecodeCheck, ImageOnlooker};
use super::rebuild;
use super::repetition::key_hash;
use super::report::ShardVerdict;
use crate::causes::with_causes;
use crate::index::DAMAGED;
use crate::scan::{JsonKeys, ScannedShard, scan};
use crate::tables::{StoredTable, names_beside, read_table};

/// What was found in a shard.
pub(super) struct Examined {
    pub(super) verdict: ShardVerdict,
    pub(super) num_bytes: u64,
    /// If it is the right one.
    pub(super) index: Option<Arc<ShardIndex>>,
    /// Positions of samples, and hashes of their keys and images.
    pub(super) keys: Vec<(u32, u128)>,
    pub(super) images: Vec<(u32, u128)>,
}

/// Compares one shard with manifest, index and table.
pub(super) async fn examine(
    dataset: &Dataset,
    shard: usize,
    check: DecodeCheck,
    has_table: bool,
) -> Result<Examined, DecoderError> {
    let entry = &dataset.manifest().shards[shard];
    let mut verdict = ShardVerdict {
        name: entry.name.clone(),
        problems: Vec::new(),
        rebuild: None,
        num_without_image: 0,
        num_without_text: 0,
        num_decoded: 0,
        num_undecodable: 0,
        undecodable: Vec::new(),
    };
    let index = match dataset.index(shard).await {
        Ok(index) => Some(index),
        Err(error) => {
            verdict.problems.push(with_causes(&error));
            None
        }
    };
    let (store, stored) = dataset.stored_shard(shard);
    let onlooker = ImageOnlooker::new(check, dataset.manifest().num_samples)?;
    let scanned = scan(store.clone(), stored.name.clone(), JsonKeys::Ignore, onlooker).await;
    let mut num_bytes = 0;
    let (mut keys, mut images) = (Vec::new(), Vec::new());
    let mut is_tar_whole = false;
    match scanned {
        // A missing tar was reported with the index already.
        Err(_) if !verdict.problems.is_empty() => {}
        Err(error) => verdict.problems.push(format!("could not be read: {error}")),
        Ok((scanned, seen)) => {
            is_tar_whole = scanned.digest == entry.digest;
            num_bytes = scanned.num_bytes;
            if !is_tar_whole {
                let (found, said) = (scanned.digest, entry.digest);
                verdict.problems.push(format!("has digest {found}, the manifest says {said}"));
            }
            verdict.problems.extend(index.as_ref().and_then(|index| span_problem(index, &scanned)));
            if has_table {
                let table = StoredTable { store: store.clone(), name: names_beside(&stored.name).0 };
                verdict.problems.extend(table_problem(dataset, &table, &scanned).await);
            }
            let count = |of: &dyn Fn(&crate::scan::ScannedSample) -> bool| {
                scanned.samples.iter().filter(|sample| of(sample)).count() as u64
            };
            verdict.num_without_image = count(&|sample| !sample.has_image());
            verdict.num_without_text = count(&|sample| !sample.has_text_or_class());
            verdict.num_decoded = seen.num_decoded;
            verdict.num_undecodable = seen.num_undecodable;
            verdict.undecodable = seen.undecodable;
            keys = (0..).zip(scanned.samples.iter().map(|sample| key_hash(&sample.span.key))).collect();
            images = placed(&scanned, seen.hashes);
        }
    }
    if !verdict.problems.is_empty() {
        verdict.rebuild = Some(rebuild::command(dataset.manifest(), store.location(), is_tar_whole));
    }
    Ok(Examined { verdict, num_bytes, index, keys, images })
}

/// The positions of the samples whose images start at these bytes, each image of a sample once.
fn placed(scanned: &ScannedShard, hashes: Vec<(u64, u128)>) -> Vec<(u32, u128)> {
    let place = |(start, hash): (u64, u128)| {
        let following = scanned.samples.partition_point(|sample| sample.span.start <= start);
        let position =
            following.checked_sub(1).filter(|position| start < scanned.samples[*position].span.end)?;
        Some((position as u32, hash))
    };
    let mut images: Vec<_> = hashes.into_iter().filter_map(place).collect();
    images.dedup();
    images
}

/// Where the table beside a shard counts other samples than the shard has.
async fn table_problem(dataset: &Dataset, table: &StoredTable, scanned: &ScannedShard) -> Option<String> {
    // Its samples are fewer by decision.
    let is_tolerated = scanned.damage.is_some() && dataset.manifest().source.contains_key(DAMAGED);
    let there: HashSet<&str> = scanned.samples.iter().map(|sample| sample.span.key.as_str()).collect();
    let mut num_successes = 0_usize;
    let mut missing = None;
    let read = read_table(table, |row| {
        if row.is_success() {
            num_successes += 1;
            if let Some(key) = row.key.filter(|key| missing.is_none() && !there.contains(key)) {
                missing = Some(key.to_owned());
            }
        }
    });
    match read.await {
        Err(error) => Some(with_causes(&error)),
        Ok(false) => None,
        Ok(true) if is_tolerated => None,
        Ok(true) if num_successes != there.len() => {
            Some(format!("has {} samples, its table `{}` says {num_successes}", there.len(), table.name))
        }
        Ok(true) => {
            missing.map(|key| format!("has no sample `{key}`, which its table `{}` names", table.name))
        }
    }
}

/// The first sample of which index and tar disagree.
fn span_problem(index: &ShardIndex, scanned: &ScannedShard) -> Option<String> {
    for (position, sample) in (0..index.len()).zip(&scanned.samples) {
        let (said, found) = (index.byte_range(position..position + 1), &sample.span);
        if said != (found.start..found.end) {
            return Some(format!(
                "sample {position}, `{}`, lies at bytes {}..{}, its index says {}..{}",
                found.key, found.start, found.end, said.start, said.end
            ));
        }
        if !index.has_key(position, &found.key) {
            return Some(format!(
                "sample {position} at byte {} is `{}`, its index says otherwise",
                found.start, found.key
            ));
        }
    }
    // A shard that was indexed in spite of damage has the damage still; it counts only if samples are gone.
    let (found, said) = (scanned.samples.len(), index.len());
    if found == said as usize {
        return None;
    }
    let cause = scanned.damage.as_ref().map(|damage| format!(": {}", damage.cause)).unwrap_or_default();
    Some(format!("has {found} whole samples, its index says {said}{cause}"))
}
