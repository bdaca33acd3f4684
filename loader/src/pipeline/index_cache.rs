use std::collections::HashMap;
use std::ops::Range;
use std::panic;
use std::sync::{Arc, Mutex, PoisonError};

use fastclip_shards::{Dataset, ReadError, RunIndex, ShardIndex};
use tokio::sync::{OnceCell, Semaphore};

/// Samples whose index entries are kept, at 24 bytes each: 48 MB, or 200 shards of 10,000.
const MAX_SAMPLES: u64 = 2_000_000;

/// Indexes of recently used shards.
#[derive(Debug)]
pub(crate) struct IndexCache {
    dataset: Dataset,
    /// Samples whose entries may be being read.
    reading: Semaphore,
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
        let reading = Semaphore::new(max_samples(&dataset) as usize);
        Self { dataset, reading, entries: Mutex::default() }
    }

    /// Most samples whose entries are kept, and most whose entries are being read.
    pub(crate) fn max_samples(&self) -> u64 {
        max_samples(&self.dataset)
    }

    /// Where samples of a shard lie.
    pub(super) async fn get(
        self: &Arc<Self>,
        shard: usize,
        samples: Range<u32>,
    ) -> Result<RunIndex, ReadError> {
        let cell = self.entry(shard);
        if let Some(index) = cell.get() {
            return Ok(index.run(samples));
        }
        // A task of its own goes on while the caller waits for something else, and others for this index. Until then it keeps
        // no more of the index than is needed, as what is kept is counted.
        let cache = Arc::clone(self);
        let read = tokio::spawn(async move {
            let index = cell.get_or_try_init(|| cache.read(shard)).await?;
            Ok(index.run(samples))
        });
        read.await.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()))
    }

    async fn read(&self, shard: usize) -> Result<Arc<ShardIndex>, ReadError> {
        let num_samples = self.dataset.manifest().shards[shard].num_samples;
        let reading = self.reading.acquire_many(num_samples).await;
        let _reading = reading.expect("nobody closes the semaphore");
        self.dataset.index(shard).await
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

fn max_samples(dataset: &Dataset) -> u64 {
    let shards = &dataset.manifest().shards;
    let largest = shards.iter().map(|shard| u64::from(shard.num_samples)).max().unwrap_or(0);
    MAX_SAMPLES.max(largest).min(dataset.manifest().num_samples)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use fastclip_shards::Store;
    use fastclip_testkit::{Fault, FaultyStore, Gate, RequestKind, TinyDataset};
    use futures::future::join_all;
    use tokio::time::timeout;

    use super::*;

    /// Long enough for anything, and not for ever.
    const DEADLINE: Duration = Duration::from_secs(60);

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(DEADLINE, future).await }).unwrap()
    }

    #[test]
    fn who_asks_and_then_waits_for_something_else_holds_nobody_up() {
        let tiny = TinyDataset::new(9, 3);
        let cache = Arc::new(IndexCache::new(tiny.open()));
        block_on(async {
            let mut asked = pin!(cache.get(1, 0..2));
            assert!(futures::poll!(&mut asked).is_pending(), "a file takes longer than that");
            // Never looked at again while the others read the same and all else.
            for shard in [1, 0, 2] {
                assert_eq!(cache.get(shard, 1..3).await.unwrap().samples(), 1..3);
            }
            assert_eq!(asked.await.unwrap().samples(), 0..2);
        });
    }

    #[test]
    fn no_more_is_read_at_a_time_than_is_counted() {
        let tiny = TinyDataset::new(18, 3);
        let faulty = FaultyStore::over_folder(tiny.path());
        let store = Store::from_object_store(Arc::new(faulty.clone()), "").unwrap();
        let gate = Gate::closed();
        faulty.inject(RequestKind::Get, ".idx", 0, Fault::Wait(gate.clone()));
        block_on(async {
            let dataset = Dataset::from_store(store, "manifest.json").await.unwrap();
            let reading = Semaphore::new(2 * 3);
            let cache = Arc::new(IndexCache { dataset, reading, entries: Mutex::default() });
            let num_asked =
                || faulty.requests().iter().filter(|request| request.path.ends_with(".idx")).count();
            let all = join_all((0..6).map(|shard| cache.get(shard, 0..3)));
            let opening = async {
                gate.reached_by(2).await;
                for _ in 0..1000 {
                    tokio::task::yield_now().await;
                }
                let num_before = num_asked();
                gate.open();
                num_before
            };
            let (read, num_before) = futures::join!(all, opening);
            assert_eq!((num_before, num_asked()), (2, 6));
            assert!(read.iter().all(Result::is_ok));
        });
    }
}
