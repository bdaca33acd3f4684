//! How the parts of a dataset get into memory.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fastclip_schemas::{Digest, ShardEntry};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use crate::cache::{BLOCK_BYTES, Cache, EntryKey, PartlyRead};
use crate::compression::Compression;
use crate::dataset::Dataset;
use crate::error::ReadError;
use crate::index::{IndexError, RunIndex, ShardIndex, encoded_bytes};
use crate::run::SampleRun;
use crate::store::{Store, StoreError, StoreErrorKind};

/// What is read of a file in the place of an index, so that its digest tells which one it is.
const MAX_UNEXPECTED_BYTES: u64 = 1 << 20;

/// How often an answer of the wrong length is asked for again, which clients of stores take for a good one. The size of the
/// shard was compared with the manifest before, so it is the answer that is at fault.
const TRIES_FOR_LENGTH: u32 = 3;

impl Dataset {
    /// Reads the index of a shard, and checks index and size of the tar against the manifest. An index in the cache was
    /// checked before.
    ///
    /// # Errors
    /// When either is missing or not what the manifest says.
    ///
    /// # Panics
    /// When the manifest has no such shard.
    pub async fn index(&self, shard: usize) -> Result<Arc<ShardIndex>, ReadError> {
        let (_, entry) = self.stored_shard(shard);
        let key = EntryKey { digest: entry.index_digest, number: 0 };
        let cached = match &self.cache {
            Some(cache) => cache.get(key, encoded_bytes(entry.num_samples)).await,
            None => None,
        };
        let cached = cached.and_then(|bytes| checked_index(self.shown(shard), entry, &bytes).ok());
        let mut index = match cached {
            Some(index) => index,
            None => {
                let bytes = self.stored_index(shard).await?;
                let index = checked_index(self.shown(shard), entry, &bytes)?;
                if let Some(cache) = &self.cache {
                    cache.put(key, bytes.into()).await;
                }
                index
            }
        };
        index.shift_ids(self.first_id(shard));
        Ok(Arc::new(index))
    }

    /// The bytes of an index, when the tar beside it has its size.
    async fn stored_index(&self, shard: usize) -> Result<Bytes, ReadError> {
        let (store, entry) = self.stored_shard(shard);
        let (index, found) = futures::join!(store.ask(&entry.index), store.num_bytes(&entry.name));
        let unreadable_index = |source| unreadable(store, &entry.index, source);
        let index = index.map_err(unreadable_index)?;
        if index.num_bytes() > encoded_bytes(entry.num_samples).max(MAX_UNEXPECTED_BYTES) {
            let (shard, name) = (self.shown(shard).to_owned(), entry.index.clone());
            let (found, num_samples) = (index.num_bytes(), entry.num_samples);
            let source = IndexError::Length { found, num_samples, needed: encoded_bytes(num_samples) };
            return Err(ReadError::Index { shard, index: name, source });
        }
        let bytes = index.bytes().await.map_err(unreadable_index)?;
        let found = found.map_err(|source| unreadable(store, &entry.name, source))?;
        if found != entry.num_bytes {
            let (shard, expected) = (self.shown(shard).to_owned(), entry.num_bytes);
            return Err(ReadError::ShardSize { shard, found, expected });
        }
        Ok(bytes)
    }

    /// Reads a run of neighbouring samples with one request. A compressed shard is read and decompressed from its start to the
    /// end of the run. With a [cache](Self::with_cache), what it holds is not asked for, and the ends of what is asked for are
    /// those of its blocks.
    ///
    /// # Errors
    /// When the store fails, or gives fewer bytes than the index says three times over. Damage inside a sample is found by
    /// [`SampleRun::sample`].
    ///
    /// # Panics
    /// When manifest or index have no such shard or samples.
    pub async fn fetch(
        &self,
        shard: usize,
        index: &ShardIndex,
        samples: Range<u32>,
    ) -> Result<SampleRun, ReadError> {
        self.fetch_run(shard, index.run(samples)).await
    }

    /// [`fetch`](Self::fetch) for callers who do not keep the index of the shard until the bytes are there.
    ///
    /// # Errors
    /// Those of [`fetch`](Self::fetch).
    ///
    /// # Panics
    /// When the manifest has no such shard.
    pub async fn fetch_run(&self, shard: usize, index: RunIndex) -> Result<SampleRun, ReadError> {
        let (store, ShardEntry { name, digest, .. }) = self.stored_shard(shard);
        let shown = self.shown(shard);
        let Range { start, end } = index.byte_range();
        if start == end {
            // Stores refuse an empty range.
            return Ok(SampleRun::new(shown, index, Bytes::new()));
        }
        let compression = Compression::of(name);
        let (digest, num_bytes) = (*digest, index.index().shard_bytes());
        let decompressions = &self.shared.decompressions;
        let tar = Tar { store, name, compression, digest, num_bytes, decompressions };
        let mut tries_left = TRIES_FOR_LENGTH;
        let bytes = loop {
            tries_left -= 1;
            let bytes =
                tar.read(start..end, self.cache.as_ref()).await.map_err(|source| match source.kind() {
                    StoreErrorKind::NotFound => unreadable(store, name, source),
                    _ => ReadError::Fetch { shard: shown.to_owned(), start, end, source },
                })?;
            let (found, expected) = (bytes.len() as u64, end - start);
            if found == expected {
                break bytes;
            }
            if tries_left == 0 {
                return Err(ReadError::Short { shard: shown.to_owned(), start, found, expected });
            }
        };
        Ok(SampleRun::new(shown, index, bytes))
    }

    /// Reads a file that lies beside the manifest, such as the class names of a zero-shot set. `None` if there is none. Of
    /// joined datasets the first one is asked.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub async fn side_file(&self, name: &str) -> Result<Option<Bytes>, ReadError> {
        let store = &self.shared.members[0].store;
        store.get_if_there(name).await.map_err(|source| unreadable(store, name, source))
    }

    /// What a shard is called in messages: with its location where datasets are joined.
    fn shown(&self, shard: usize) -> &str {
        &self.manifest().shards[shard].name
    }
}

fn unreadable(store: &Store, name: &str, source: StoreError) -> ReadError {
    let (location, name) = (store.location().to_owned(), name.to_owned());
    match source.kind() {
        StoreErrorKind::NotFound => ReadError::Missing { location, name },
        _ => ReadError::File { location, name, source },
    }
}

/// Decodes an index and compares it with what the manifest says about it.
fn checked_index(shown: &str, entry: &ShardEntry, bytes: &[u8]) -> Result<ShardIndex, ReadError> {
    let (shard, index) = (shown.to_owned(), entry.index.clone());
    let (found, expected) = (Digest(*blake3::hash(bytes).as_bytes()), entry.index_digest);
    if found != expected {
        return Err(ReadError::IndexDigest { shard, index, found, expected });
    }
    let decoded = match ShardIndex::decode(bytes) {
        Ok(decoded) => decoded,
        Err(source) => return Err(ReadError::Index { shard, index, source }),
    };
    // The manifest has the size of the file, the index that of the tar.
    let tar_bytes = match Compression::of(&entry.name) {
        None => entry.num_bytes,
        Some(_) => decoded.shard_bytes(),
    };
    let fields = [
        ("num_samples", u64::from(decoded.len()), u64::from(entry.num_samples)),
        ("num_bytes", decoded.shard_bytes(), tar_bytes),
    ];
    match fields.into_iter().find(|(_, found, expected)| found != expected) {
        Some((field, found, expected)) => Err(ReadError::IndexField { shard, index, field, found, expected }),
        None => Ok(decoded),
    }
}

/// The tar in a shard, compressed or not.
#[derive(Debug, Clone, Copy)]
struct Tar<'a> {
    store: &'a Store,
    /// Name of the shard there.
    name: &'a str,
    compression: Option<Compression>,
    /// Digest of the shard.
    digest: Digest,
    num_bytes: u64,
    decompressions: &'a Arc<Semaphore>,
}

impl Tar<'_> {
    /// Reads some bytes; fewer where the store gives fewer.
    async fn read(self, range: Range<u64>, cache: Option<&Cache>) -> Result<Bytes, StoreError> {
        let end = range.end;
        match (cache, self.compression) {
            (Some(cache), _) => self.read_through(cache, range).await,
            (None, None) => self.store.get_range(self.name, range).await,
            (None, Some(_)) => {
                let mut read = PartlyRead::new(range.clone());
                let reached = self.stream(range, &mut read, None).await?;
                Ok(read.up_to(reached.min(end)).into())
            }
        }
    }

    /// Reads what the cache does not hold, and gives it to the cache.
    async fn read_through(self, cache: &Cache, range: Range<u64>) -> Result<Bytes, StoreError> {
        let mut read = cache.get_range(self.digest, self.num_bytes, range.clone()).await;
        for blocks in self.requests(std::mem::take(&mut read.missing)) {
            let end = (blocks.end * BLOCK_BYTES).min(self.num_bytes);
            let reached = self.stream(blocks.start * BLOCK_BYTES..end, &mut read, Some(cache)).await?;
            if reached < end.min(range.end) {
                return Ok(read.up_to(reached).into());
            }
        }
        Ok(read.up_to(range.end).into())
    }

    /// Which blocks to ask for together.
    fn requests(self, missing: Vec<u64>) -> Vec<Range<u64>> {
        let mut requests: Vec<Range<u64>> = Vec::new();
        for number in missing {
            match requests.last_mut() {
                // A compressed tar is read from its start anyway: once.
                Some(request) if request.end == number || self.compression.is_some() => {
                    request.end = number + 1
                }
                _ => requests.push(number..number + 1),
            }
        }
        requests
    }

    /// Reads piece by piece, gives whole blocks to a cache, and returns where it had to stop. It holds no more than a block and
    /// a piece, whatever the compressed bytes claim.
    async fn stream(
        self,
        span: Range<u64>,
        read: &mut PartlyRead,
        cache: Option<&Cache>,
    ) -> Result<u64, StoreError> {
        let (mut position, mut pieces) = self.open(span.clone()).await?;
        let mut block = Vec::new();
        while position < span.end {
            let piece = match pieces.try_next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                // What comes after the wanted bytes is only for the cache.
                Err(_) if read.is_complete_at(position) => break,
                Err(error) => return Err(error),
            };
            let piece = &piece[..piece.len().min((span.end - position) as usize)];
            read.take(position, piece);
            let Some(cache) = cache else {
                position += piece.len() as u64;
                continue;
            };
            let mut rest = piece;
            while !rest.is_empty() {
                let number = position / BLOCK_BYTES;
                let block_end = ((number + 1) * BLOCK_BYTES).min(self.num_bytes);
                let (start, after) = rest.split_at(rest.len().min((block_end - position) as usize));
                block.extend_from_slice(start);
                position += start.len() as u64;
                rest = after;
                if position == block_end {
                    cache.put(EntryKey { digest: self.digest, number }, std::mem::take(&mut block)).await;
                }
            }
        }
        Ok(position)
    }

    /// Starts to read some bytes, at a position that is not after theirs.
    async fn open(
        self,
        span: Range<u64>,
    ) -> Result<(u64, BoxStream<'static, Result<Bytes, StoreError>>), StoreError> {
        match self.compression {
            None => Ok((span.start, self.store.stream_range(self.name, span).await?.boxed())),
            Some(compression) => {
                let permit = Arc::clone(self.decompressions).acquire_owned().await;
                let permit = permit.expect("nobody closes the semaphore");
                let pieces = compression.decompress(self.store.stream(self.name).await?);
                // Given back with the decoder.
                let pieces = pieces.inspect(move |_| {
                    let _held = &permit;
                });
                Ok((0, pieces.boxed()))
            }
        }
    }
}
