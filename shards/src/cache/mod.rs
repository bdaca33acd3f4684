//! What was read from a slow store, kept on a local disk.
//!
//! Kept are indexes, and tars in blocks of 1 MiB under the digest of their shard and their number. Whole shards would be
//! simpler; but a shuffled epoch takes a few megabytes here and a few there, so the first batch would wait for as many whole
//! shards as it has lanes, and a cache smaller than the dataset would fetch each of them again and again. Runs as they are
//! asked for would be simpler, too; but where a run begins and ends differs from epoch to epoch. Neighbouring blocks that are
//! missing are fetched with one request, so there are as many requests as without a cache, each up to 2 MiB longer.
//!
//! Nothing here is trusted. An entry ends up under its name by being renamed, carries a checksum that covers its name, and is
//! removed and fetched again when it is not what it should be. It is not synced: after a power cut the checksum tells.
//!
//! A cache may be shared by any number of processes. Reading takes no lock. Who adds something locks the file that holds the
//! size of all, for as long as it takes to count the new entry, and now and then to remove old ones. The time of change of an
//! entry is when it was last used: times of access are not kept by most file systems.
//!
//! A cache never makes reading fail. When the disk is full it takes nothing more, and says so once.

mod entry;
mod folder;
mod ledger;
mod sweep;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{fmt, io};

use fastclip_schemas::Digest;

pub(crate) use entry::EntryKey;
use folder::{Folder, Unread};

/// Bytes of a tar that are kept together.
pub(crate) const BLOCK_BYTES: u64 = 1 << 20;
/// Below this the blocks of a few requests in flight would push each other out.
const LEAST_BYTES: u64 = 16 << 20;

/// A folder on a local disk that keeps what was read from a store, up to a size.
///
/// Any number of processes may share it, each with a limit of its own; what was used longest ago makes room. Give it to
/// [`Dataset::with_cache`](crate::Dataset::with_cache). Clones share everything.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: Folder,
    hits: AtomicU64,
    misses: AtomicU64,
    damaged: AtomicU64,
    takes_more: AtomicBool,
}

/// What became of entries that this process looked for in a [`Cache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheStats {
    /// Were there.
    pub hits: u64,
    /// Were not there, or damaged.
    pub misses: u64,
    /// Were there, but not as they were written.
    pub damaged: u64,
}

/// Why there is no cache in a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The folder cannot be made, read, written or locked.
    #[error("could not use the folder `{}` as a cache", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There are files in the folder that are not a cache's. A cache removes files, so it keeps away from others'.
    #[error("`{}` is neither empty nor a cache", folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
    },
    /// The limit is below what makes sense.
    #[error("a cache of {max_bytes} bytes is too small: it needs {least_bytes}")]
    TooSmall {
        /// The limit.
        max_bytes: u64,
        /// The least limit.
        least_bytes: u64,
    },
}

impl Cache {
    /// Uses a folder, which is made if needed, for at most so many bytes.
    ///
    /// # Errors
    /// When the folder cannot be used, holds anything but a cache, or the limit is below 16 MiB.
    pub fn open(folder: &Path, max_bytes: u64) -> Result<Self, CacheError> {
        if max_bytes < LEAST_BYTES {
            return Err(CacheError::TooSmall { max_bytes, least_bytes: LEAST_BYTES });
        }
        let folder = Folder::open(folder, max_bytes)?;
        let (hits, misses, damaged) = Default::default();
        Ok(Self(Arc::new(Shared { folder, hits, misses, damaged, takes_more: AtomicBool::new(true) })))
    }

    /// What this process has found and missed so far.
    pub fn stats(&self) -> CacheStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats { hits: read(&self.0.hits), misses: read(&self.0.misses), damaged: read(&self.0.damaged) }
    }

    /// An entry of so many bytes, if it is there and whole.
    pub(crate) async fn get(&self, key: EntryKey, num_bytes: u64) -> Option<Vec<u8>> {
        let shared = Arc::clone(&self.0);
        on_a_thread(move || shared.get(key, num_bytes)).await.flatten()
    }

    /// Looks for the blocks of a tar that hold some of its bytes.
    pub(crate) async fn get_range(&self, tar: Digest, tar_bytes: u64, range: Range<u64>) -> PartlyRead {
        let shared = Arc::clone(&self.0);
        let (first, last) = (range.start / BLOCK_BYTES, range.end.div_ceil(BLOCK_BYTES));
        let nothing = PartlyRead { missing: (first..last).collect(), ..PartlyRead::new(range.clone()) };
        let work = move || {
            let mut read = PartlyRead::new(range);
            for number in first..last {
                let start = number * BLOCK_BYTES;
                match shared.get(EntryKey { digest: tar, number }, BLOCK_BYTES.min(tar_bytes - start)) {
                    Some(block) => read.take(start, &block),
                    None => read.missing.push(number),
                }
            }
            read
        };
        on_a_thread(work).await.unwrap_or(nothing)
    }

    /// Keeps an entry, if there is room and nobody else is busy with making some.
    pub(crate) async fn put(&self, key: EntryKey, bytes: Vec<u8>) {
        let shared = Arc::clone(&self.0);
        on_a_thread(move || shared.put(key, &bytes)).await;
    }
}

/// Some bytes of a tar, of which some may still be missing.
#[derive(Debug)]
pub(crate) struct PartlyRead {
    /// Which bytes.
    range: Range<u64>,
    bytes: Vec<u8>,
    /// Numbers of the blocks that are missing.
    pub(crate) missing: Vec<u64>,
}

impl PartlyRead {
    pub(crate) fn new(range: Range<u64>) -> Self {
        let bytes = vec![0; (range.end - range.start) as usize];
        Self { range, bytes, missing: Vec::new() }
    }

    /// Takes what is wanted of bytes that start here in the tar.
    pub(crate) fn take(&mut self, start: u64, bytes: &[u8]) {
        let (from, to) = (self.range.start.max(start), self.range.end.min(start + bytes.len() as u64));
        if from < to {
            let place = (from - self.range.start) as usize..(to - self.range.start) as usize;
            self.bytes[place].copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
        }
    }

    /// Whether nothing is wanted from this position of the tar on.
    pub(crate) fn is_complete_at(&self, position: u64) -> bool {
        position >= self.range.end
    }

    /// The bytes up to a position of the tar.
    pub(crate) fn up_to(mut self, end: u64) -> Vec<u8> {
        self.bytes.truncate(end.saturating_sub(self.range.start) as usize);
        self.bytes
    }
}

/// Runs what waits for the disk. Nothing when the event loop is about to end.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Some(result),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}

impl Shared {
    fn get(&self, key: EntryKey, num_bytes: u64) -> Option<Vec<u8>> {
        let result = self.folder.read(key, num_bytes);
        let counter = if result.is_ok() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Err(Unread::Damaged(reason)) = &result
            && self.damaged.fetch_add(1, Ordering::Relaxed) == 0
        {
            let folder = self.folder.path().display();
            tracing::warn!(
                "the cache `{folder}` holds a damaged entry, {reason}; such entries are fetched again"
            );
        }
        result.ok()
    }

    fn put(&self, key: EntryKey, bytes: &[u8]) {
        if !self.takes_more.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.folder.write(key, bytes)
            && self.takes_more.swap(false, Ordering::Relaxed)
        {
            let folder = self.folder.path().display();
            tracing::warn!("the cache `{folder}` takes nothing more: {error}; reading goes on without it");
        }
    }
}

impl fmt::Display for CacheStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hits, misses, damaged } = self;
        write!(f, "{hits} hits, {misses} misses, {damaged} damaged")
    }
}
