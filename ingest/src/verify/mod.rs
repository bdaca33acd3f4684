//! Whether a dataset is what its manifest says: `ingest verify`.

mod images;
mod rebuild;
mod repetition;
mod report;
mod shard;
mod side_files;

use std::num::NonZeroUsize;

use fastclip_schemas::ShardEntry;
use fastclip_shards::{Dataset, ShardIndex};
use futures::{StreamExt, stream};
use roaring::RoaringTreemap;

pub use images::DecodeCheck;
pub use report::{ShardVerdict, VerifyError, VerifyReport};

use crate::progress::Progress;
use crate::runtime::runtime;
use crate::stop::Stop;
use crate::tables::names_beside;
use repetition::{Place, RepetitionFinder, Repetitions};
use shard::{Examined, examine};

/// How closely to look.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Which images are decoded.
    pub decode: DecodeCheck,
    /// Shards read at the same time.
    pub threads: NonZeroUsize,
}

/// Reads a whole dataset and compares it with its manifest: digests and sizes of tars and indexes, place and key of every
/// sample, ids; `sizes.json` and the tables beside the shards. Decodes images, and finds keys and images that several samples have.
///
/// Memory does not grow with the size of shards; ids take a bit for each sample where they are dense, and hashes of keys and
/// images go to temporary files beyond a million.
///
/// # Errors
/// Only when it cannot be done; what is wrong with the dataset is in the report.
///
/// # Panics
/// When it is called from asynchronous code: it brings a runtime of its own.
pub fn verify(
    dataset: &Dataset,
    options: &VerifyOptions,
    progress: &Progress,
    stop: &Stop,
) -> Result<VerifyReport, VerifyError> {
    let runtime = runtime(options.threads).map_err(VerifyError::Start)?;
    let report = runtime.block_on(verify_all(dataset, options, progress, stop));
    progress.finish();
    report
}

async fn verify_all(
    dataset: &Dataset,
    options: &VerifyOptions,
    progress: &Progress,
    stop: &Stop,
) -> Result<VerifyReport, VerifyError> {
    let manifest = dataset.manifest();
    progress.set_total(manifest.shards.len() as u64);
    let side_files = side_files::examine(dataset).await?;
    let has_table = |shard: usize| {
        let (store, entry) = dataset.stored_shard(shard);
        let there = side_files.there.get(store.location());
        there.is_some_and(|there| there.contains(&names_beside(&entry.name).0))
    };
    let mut examined = stream::iter(0..manifest.shards.len())
        .map(|shard| {
            let (dataset, decode, has_table) = (dataset.clone(), options.decode, has_table(shard));
            async move {
                let examining = async move { examine(&dataset, shard, decode, has_table).await };
                tokio::spawn(examining).await.expect("examining neither panics nor is cancelled")
            }
        })
        .buffered(options.threads.get());
    let mut shards: Vec<ShardVerdict> = Vec::new();
    let mut ids = RoaringTreemap::new();
    let (mut keys, mut images) = (RepetitionFinder::default(), RepetitionFinder::default());
    while let Some(examined) = examined.next().await {
        let Examined { mut verdict, num_bytes, index, keys: its_keys, images: its_images } = examined?;
        if stop.is_requested() && shards.iter().all(|shard| shard.problems.is_empty()) {
            return Err(VerifyError::Stopped { num_shards: shards.len() });
        }
        progress.advance(1, num_bytes);
        if let Some(index) = index {
            let entry = &manifest.shards[shards.len()];
            verdict.problems.extend(id_problem(entry, &index, manifest.num_sample_ids, &mut ids));
        }
        keys.add(shards.len() as u32, its_keys).map_err(VerifyError::Sort)?;
        images.add(shards.len() as u32, its_images).map_err(VerifyError::Sort)?;
        shards.push(verdict);
    }
    drop(examined);
    let keys = keys.finish().map_err(VerifyError::Sort)?;
    let images = images.finish().map_err(VerifyError::Sort)?;
    Ok(VerifyReport {
        location: dataset.location().to_owned(),
        num_samples: manifest.num_samples,
        problems: side_files.problems,
        num_repeated_keys: keys.num_repeated,
        repeated_keys: describe_all(dataset, &keys).await,
        num_repeated_images: images.num_repeated,
        repeated_images: describe_all(dataset, &images).await,
        unknown_files: side_files.unknown,
        shards,
    })
}

async fn describe_all(dataset: &Dataset, repetitions: &Repetitions) -> Vec<String> {
    let mut described = Vec::new();
    for (first, again) in &repetitions.examples {
        described.push(describe_repeated(dataset, *first, *again).await);
    }
    described
}

/// Names what is repeated by the samples that have it, and the key of the first, which is read again: only its hash was kept.
async fn describe_repeated(dataset: &Dataset, first: Place, again: Place) -> String {
    let name = |place: Place| &dataset.manifest().shards[place.shard as usize].name;
    let places = format!(
        "sample {} of {} and sample {} of {}",
        first.position,
        name(first),
        again.position,
        name(again)
    );
    let shard = first.shard as usize;
    let Ok(index) = dataset.index(shard).await else { return places };
    if first.position >= index.len() {
        return places;
    }
    let run = dataset.fetch(shard, &index, first.position..first.position + 1).await;
    let key = run.ok().and_then(|run| run.sample(first.position).ok().map(|sample| sample.key().to_owned()));
    key.map_or_else(|| places.clone(), |key| format!("`{key}`: {places}"))
}

/// The first id that cannot be.
fn id_problem(
    entry: &ShardEntry,
    index: &ShardIndex,
    num_sample_ids: u64,
    ids: &mut RoaringTreemap,
) -> Option<String> {
    if let Some(id) = index.sample_ids().find(|id| id.0 >= num_sample_ids) {
        return Some(format!(
            "has a sample with id {id}, the manifest says num_sample_ids = {num_sample_ids}"
        ));
    }
    if let Some(id) = index.sample_ids().find(|id| !ids.insert(id.0)) {
        return Some(format!("has a sample with id {id}, as another sample has"));
    }
    let least = index.sample_ids().min().filter(|least| *least != entry.first_sample_id)?;
    Some(format!("has least id {least}, the manifest says {}", entry.first_sample_id))
}
