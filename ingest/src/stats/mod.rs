//! What a dataset is like, before a run is paid for: `ingest stats`.

mod error;
mod histogram;
mod report;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use fastclip_schemas::Manifest;
use fastclip_shards::{Compression, Dataset, ShardIndex};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use instant_clip_tokenizer::Tokenizer;
use roaring::RoaringTreemap;

pub use error::SurveyError;
pub use histogram::Histogram;
pub use report::{SampleStats, StatsReport};

pub(crate) use report::SampleReader;

use crate::download::pass_of;
use crate::progress::Progress;
use crate::runtime::runtime;
use crate::stop::Stop;
use crate::tables::{RowCounter, StoredTable, TableError, TableRow, find_tables, read_table};

/// Bytes of a shard that are asked for at once; a larger sample is read whole.
const READ_BYTES: u64 = 32 << 20;

/// What to look at.
#[derive(Debug, Clone)]
pub struct StatsOptions {
    /// Shards to read; all of them unless set.
    pub num_shards: Option<NonZeroUsize>,
    /// Which shards are read where not all are.
    pub seed: u64,
    /// Shards read at the same time.
    pub threads: NonZeroUsize,
}

/// Counts samples and the sizes of images and captions.
///
/// Every thread holds one piece of a shard, of 32 MiB or one sample, and a shard that is compressed as a whole; the counters take the same memory for any
/// number of samples. The result does not depend on `threads`.
///
/// # Errors
/// When a shard is missing or not what the manifest says, or when it was stopped.
///
/// # Panics
/// When it is called from asynchronous code: it brings a runtime of its own.
pub fn stats(
    dataset: &Dataset,
    options: &StatsOptions,
    progress: &Progress,
    stop: &Stop,
) -> Result<StatsReport, SurveyError> {
    let runtime = runtime(options.threads).map_err(SurveyError::Start)?;
    let report = runtime.block_on(stats_all(dataset, options, progress, stop));
    progress.finish();
    report
}

async fn stats_all(
    dataset: &Dataset,
    options: &StatsOptions,
    progress: &Progress,
    stop: &Stop,
) -> Result<StatsReport, SurveyError> {
    let shards = &dataset.manifest().shards;
    let chosen = choose(shards.len(), options.num_shards, options.seed);
    progress.set_total(chosen.len() as u64);
    let tokenizer = Arc::new(Tokenizer::new());
    let mut read = stream::iter(chosen.clone())
        .map(|shard| {
            let (dataset, tokenizer) = (dataset.clone(), Arc::clone(&tokenizer));
            async move {
                let read = tokio::spawn(async move { read_shard(&dataset, shard, tokenizer).await }).await;
                read.expect("reading neither panics nor is cancelled")
            }
        })
        .buffered(options.threads.get());
    let mut samples = SampleStats::new();
    let mut num_read = 0;
    while let Some(shard) = read.try_next().await? {
        samples.merge(&shard);
        num_read += 1;
        progress.advance(1, shard.num_bytes);
        if stop.is_requested() && num_read < chosen.len() {
            return Err(SurveyError::Stopped { num_read, num_shards: chosen.len() });
        }
    }
    let tables = find_tables(dataset, &chosen).await;
    let rows = count_rows(dataset.manifest(), tables, options.threads).await?.finish();
    let sampled = (chosen.len() < shards.len())
        .then(|| chosen.iter().map(|shard| shards[*shard].name.clone()).collect());
    Ok(StatsReport {
        location: dataset.location().to_owned(),
        num_shards: shards.len(),
        sampled_shards: sampled,
        samples,
        rows,
    })
}

/// Numbers of the shards to read, rising. The same for the same seed, whatever the machine.
pub(crate) fn choose(num_shards: usize, wanted: Option<NonZeroUsize>, seed: u64) -> Vec<usize> {
    let mut shards: Vec<usize> = (0..num_shards).collect();
    if let Some(wanted) = wanted {
        shards.sort_by_cached_key(|shard| {
            let place = [seed.to_le_bytes(), (*shard as u64).to_le_bytes()].concat();
            *blake3::hash(&place).as_bytes()
        });
        shards.truncate(wanted.get());
        shards.sort_unstable();
    }
    shards
}

/// Counts the rows of tables. Of a row that was tried again the newest outcome counts.
pub(crate) async fn count_rows(
    manifest: &Manifest,
    tables: Vec<StoredTable>,
    threads: NonZeroUsize,
) -> Result<RowCounter, TableError> {
    let pass_of = pass_of(manifest);
    let mut passes: BTreeMap<usize, Vec<StoredTable>> = BTreeMap::new();
    for table in tables {
        passes.entry(pass_of(&table.name)).or_default().push(table);
    }
    let mut all = RowCounter::new();
    let mut tried_later = Arc::new(RoaringTreemap::new());
    for (pass, tables) in passes.into_iter().rev() {
        let mut counted = stream::iter(tables)
            .map(|table| {
                let counting = tokio::spawn(count_table(table, Arc::clone(&tried_later), pass > 0));
                counting.map(|counted| counted.expect("counting neither panics nor is cancelled"))
            })
            .buffered(threads.get());
        let mut tried_here = RoaringTreemap::new();
        while let Some((counter, rows)) = counted.try_next().await? {
            all.merge(counter);
            tried_here |= rows;
        }
        drop(counted);
        tried_later = Arc::new(&*tried_later | tried_here);
    }
    Ok(all)
}

/// Counts the rows of a table that were not tried again later, and gives all of them where they were `tried_again` here.
async fn count_table(
    table: StoredTable,
    tried_later: Arc<RoaringTreemap>,
    tried_again: bool,
) -> Result<(RowCounter, RoaringTreemap), TableError> {
    let (mut counter, mut rows) = (RowCounter::new(), RoaringTreemap::new());
    counter.begin(&table.name);
    let visit = |row: TableRow<'_>| {
        // The keys of what can be tried again are numbers.
        let number = row.key.and_then(|key| key.parse().ok());
        if !number.is_some_and(|number| tried_later.contains(number)) {
            counter.add(row);
        }
        rows.extend(number.filter(|_| tried_again));
    };
    read_table(&table, visit).await?;
    Ok((counter, rows))
}

async fn read_shard(
    dataset: &Dataset,
    shard: usize,
    tokenizer: Arc<Tokenizer>,
) -> Result<SampleStats, SurveyError> {
    let index = dataset.index(shard).await?;
    // Each read of a compressed shard starts at its first byte, so there is one.
    let is_compressed = Compression::of(&dataset.manifest().shards[shard].name).is_some();
    let read_bytes = if is_compressed { u64::MAX } else { READ_BYTES };
    let mut reader = SampleReader::new(tokenizer)?;
    let mut stats = SampleStats::new();
    let mut next = 0;
    while next < index.len() {
        let piece = piece(&index, next, read_bytes);
        next = piece.end;
        let run = dataset.fetch(shard, &index, piece).await?;
        stats.num_bytes += run.num_bytes() as u64;
        for position in run.samples() {
            match run.sample(position) {
                Ok(sample) => stats.add(&sample, &mut reader),
                Err(_) => stats.add_damaged(),
            }
        }
    }
    Ok(stats)
}

/// The samples from `first` on that fit into `max_bytes`; one at least.
fn piece(index: &ShardIndex, first: u32, max_bytes: u64) -> Range<u32> {
    let mut end = first + 1;
    while end < index.len() {
        let bytes = index.byte_range(first..end + 1);
        if bytes.end - bytes.start > max_bytes {
            break;
        }
        end += 1;
    }
    first..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_chooses_the_same_shards_again_and_another_seed_others() {
        let wanted = NonZeroUsize::new(10);
        let chosen = choose(1000, wanted, 1);
        assert_eq!(chosen.len(), 10);
        assert!(chosen.is_sorted_by(|left, right| left < right), "{chosen:?}");
        assert_eq!(chosen, choose(1000, wanted, 1));
        assert_ne!(chosen, choose(1000, wanted, 2));
        assert_eq!(choose(3, wanted, 1), [0, 1, 2]);
        assert_eq!(choose(3, None, 1), [0, 1, 2]);
    }
}
