use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fastclip_shards::{Dataset, ReadError, ShardIndex};
use tokio::sync::OnceCell;

/// Samples whose index entries are kept, at 24 bytes each: 48 MB, or 200 shards of 10,000.
const MAX_SAMPLES: u64 = 2_000_000;

/// Indexes of recently used shards.
#[derive(Debug)]
pub(crate) struct IndexCache {
    dataset: Dataset,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    shards: HashMap<usize, Entry>,
    num_samples: u64,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    /// Filled by the first who asks; others who ask meanwhile wait for it instead of reading it again.
    index: Arc<OnceCell<Arc<ShardIndex>>>,
    num_samples: u64,
    used: u64,
}

impl IndexCache {
    pub(crate) fn new(dataset: Dataset) -> Self {
        Self { dataset, entries: Mutex::default() }
    }

    /// Most samples whose entries are kept.
    pub(crate) fn max_samples(&self) -> u64 {
        let shards = &self.dataset.manifest().shards;
        let largest = shards.iter().map(|shard| u64::from(shard.num_samples)).max().unwrap_or(0);
        MAX_SAMPLES.max(largest).min(self.dataset.manifest().num_samples)
    }

    pub(super) async fn get(&self, shard: usize) -> Result<Arc<ShardIndex>, ReadError> {
        let cell = self.entry(shard);
        cell.get_or_try_init(|| self.dataset.index(shard)).await.cloned()
    }

    fn entry(&self, shard: usize) -> Arc<OnceCell<Arc<ShardIndex>>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.clock += 1;
        let used = entries.clock;
        if let Some(entry) = entries.shards.get_mut(&shard) {
            entry.used = used;
            return Arc::clone(&entry.index);
        }
        let num_samples = u64::from(self.dataset.manifest().shards[shard].num_samples);
        // A scan, because it is rare against the reads that it saves. The newest entry stays however large it is.
        while entries.num_samples + num_samples > MAX_SAMPLES && !entries.shards.is_empty() {
            let oldest = entries.shards.iter().min_by_key(|(_, entry)| entry.used).map(|(&shard, _)| shard);
            let removed = oldest.and_then(|shard| entries.shards.remove(&shard));
            entries.num_samples -= removed.map_or(0, |entry| entry.num_samples);
        }
        let index = Arc::new(OnceCell::new());
        entries.num_samples += num_samples;
        entries.shards.insert(shard, Entry { index: Arc::clone(&index), num_samples, used });
        index
    }
}
