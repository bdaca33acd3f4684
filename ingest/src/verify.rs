use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroUsize;

use fastclip_schemas::{SampleId, ShardEntry};
use fastclip_shards::{Dataset, ReadError, ShardIndex};
use futures::{StreamExt, stream};

use crate::progress::Progress;
use crate::runtime::runtime;
use crate::scan::{ScannedShard, scan};
use crate::stop::Stop;

/// What was found in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardVerdict {
    /// Name of the shard.
    pub name: String,
    /// What is wrong with it; nothing if it is as the manifest says.
    pub problems: Vec<String>,
    /// Samples without an image member.
    pub num_without_image: u64,
    /// Samples with neither caption nor class.
    pub num_without_text: u64,
}

/// What was found in a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Where it lies, without credentials.
    pub location: String,
    /// Samples that the manifest counts.
    pub num_samples: u64,
    /// One for each shard, in the order of the manifest.
    pub shards: Vec<ShardVerdict>,
}

impl VerifyReport {
    /// Shards to rebuild.
    pub fn broken(&self) -> impl Iterator<Item = &ShardVerdict> {
        self.shards.iter().filter(|shard| !shard.problems.is_empty())
    }

    /// Turns broken shards into an error.
    ///
    /// # Errors
    /// When a shard has to be rebuilt.
    pub fn check(&self) -> Result<(), VerifyError> {
        match self.broken().count() {
            0 => Ok(()),
            num_broken => Err(VerifyError::Broken {
                location: self.location.clone(),
                num_broken,
                num_shards: self.shards.len(),
            }),
        }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ShardVerdict { name, problems, .. } in self.broken() {
            for problem in problems {
                writeln!(f, "{name}: {problem}")?;
            }
        }
        let without_image: u64 = self.shards.iter().map(|shard| shard.num_without_image).sum();
        if without_image > 0 {
            writeln!(f, "{without_image} samples have no image")?;
        }
        let without_text: u64 = self.shards.iter().map(|shard| shard.num_without_text).sum();
        if without_text > 0 {
            writeln!(f, "{without_text} samples have neither caption nor class")?;
        }
        let num_whole = self.shards.len() - self.broken().count();
        let (num_shards, num_samples) = (self.shards.len(), self.num_samples);
        write!(f, "{num_whole} of {num_shards} shards are whole; the manifest counts {num_samples} samples")
    }
}

/// Why a dataset is not, or could not be found, sound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Some shards are not what the manifest says.
    #[error("{num_broken} of {num_shards} shards of `{location}` must be rebuilt")]
    Broken {
        /// The location without credentials.
        location: String,
        /// Shards to rebuild.
        num_broken: usize,
        /// All shards.
        num_shards: usize,
    },
    /// No runtime could be started.
    #[error("could not start a runtime")]
    Start(#[source] std::io::Error),
    /// Somebody asked to stop.
    #[error("stopped after {num_shards} shards, all of which are whole")]
    Stopped {
        /// Shards that were verified by then.
        num_shards: usize,
    },
}

impl VerifyError {
    /// Whether the dataset is at fault, rather than the machine.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Broken { .. })
    }
}

/// Reads a whole dataset and compares it with its manifest: digests and sizes of tars and indexes, place and key of every
/// sample, ids.
///
/// # Errors
/// Only when it cannot be done; what is wrong with the dataset is in the report.
///
/// # Panics
/// When it is called from asynchronous code: it brings a runtime of its own.
pub fn verify(
    dataset: &Dataset,
    threads: NonZeroUsize,
    progress: &Progress,
    stop: &Stop,
) -> Result<VerifyReport, VerifyError> {
    let runtime = runtime(threads).map_err(VerifyError::Start)?;
    let report = runtime.block_on(verify_all(dataset, threads, progress, stop));
    progress.finish();
    report
}

async fn verify_all(
    dataset: &Dataset,
    threads: NonZeroUsize,
    progress: &Progress,
    stop: &Stop,
) -> Result<VerifyReport, VerifyError> {
    let manifest = dataset.manifest();
    progress.set_total(manifest.shards.len() as u64);
    let mut examined = stream::iter(0..manifest.shards.len())
        .map(|shard| {
            let dataset = dataset.clone();
            async move {
                let examined = tokio::spawn(async move { examine(&dataset, shard).await }).await;
                examined.expect("examining neither panics nor is cancelled")
            }
        })
        .buffered(threads.get());
    let mut shards: Vec<ShardVerdict> = Vec::new();
    let mut ids = HashSet::new();
    while let Some((mut verdict, num_bytes, index)) = examined.next().await {
        if stop.is_requested() && shards.iter().all(|shard| shard.problems.is_empty()) {
            return Err(VerifyError::Stopped { num_shards: shards.len() });
        }
        progress.advance(1, num_bytes);
        if let Some(index) = index {
            let entry = &manifest.shards[shards.len()];
            verdict.problems.extend(id_problem(entry, &index, manifest.num_sample_ids, &mut ids));
        }
        shards.push(verdict);
    }
    Ok(VerifyReport { location: dataset.location().to_owned(), num_samples: manifest.num_samples, shards })
}

/// Compares one shard with manifest and index. Its index is returned if it is the right one.
async fn examine(dataset: &Dataset, shard: usize) -> (ShardVerdict, u64, Option<std::sync::Arc<ShardIndex>>) {
    let entry = &dataset.manifest().shards[shard];
    let mut verdict = ShardVerdict {
        name: entry.name.clone(),
        problems: Vec::new(),
        num_without_image: 0,
        num_without_text: 0,
    };
    let index = match dataset.index(shard).await {
        Ok(index) => Some(index),
        Err(error) => {
            verdict.problems.push(chain(&error));
            None
        }
    };
    let (store, stored) = dataset.stored_shard(shard);
    let scanned = match scan(store.clone(), stored.name.clone()).await {
        Ok(scanned) => scanned,
        Err(error) => {
            // A missing tar was reported with the index already.
            if verdict.problems.is_empty() {
                verdict.problems.push(format!("could not be read: {error}"));
            }
            return (verdict, 0, index);
        }
    };
    if scanned.digest != entry.digest {
        verdict.problems.push(format!("has digest {}, the manifest says {}", scanned.digest, entry.digest));
    }
    if let Some(index) = &index {
        verdict.problems.extend(span_problem(index, &scanned));
    }
    verdict.num_without_image = scanned.samples.iter().filter(|sample| !sample.has_image()).count() as u64;
    verdict.num_without_text =
        scanned.samples.iter().filter(|sample| !sample.has_text_or_class()).count() as u64;
    (verdict, scanned.num_bytes, index)
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

/// The first id that cannot be.
fn id_problem(
    entry: &ShardEntry,
    index: &ShardIndex,
    num_sample_ids: u64,
    ids: &mut HashSet<SampleId>,
) -> Option<String> {
    if let Some(id) = index.sample_ids().find(|id| id.0 >= num_sample_ids) {
        return Some(format!(
            "has a sample with id {id}, the manifest says num_sample_ids = {num_sample_ids}"
        ));
    }
    if let Some(id) = index.sample_ids().find(|id| !ids.insert(*id)) {
        return Some(format!("has a sample with id {id}, as another sample has"));
    }
    let least = index.sample_ids().min().filter(|least| *least != entry.first_sample_id)?;
    Some(format!("has least id {least}, the manifest says {}", entry.first_sample_id))
}

fn chain(error: &ReadError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
