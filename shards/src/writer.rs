use std::collections::BTreeMap;
use std::num::NonZeroU32;

use bytes::Bytes;
use fastclip_schemas::{Digest, MANIFEST_FILE, MANIFEST_FORMAT_VERSION, Manifest, SampleId, ShardEntry};

use crate::error::WriteError;
use crate::index::IndexBuilder;
use crate::store::{Store, StoreError, Upload};
use crate::tar;

/// Keys have at least this many digits for the shard, and file names have as many.
const MIN_SHARD_DIGITS: usize = 5;

/// Keys have at least this many digits for the position in the shard.
const MIN_POSITION_DIGITS: usize = 4;

/// How a [`DatasetWriter`] cuts and names what it is given.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Samples in each shard but the last.
    pub samples_per_shard: NonZeroU32,
    /// Number of the first shard, for a dataset that is written in parts.
    pub first_shard: u32,
    /// Id of the first sample.
    pub first_sample_id: SampleId,
    /// Program and version, for the manifest.
    pub created_by: String,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            samples_per_shard: NonZeroU32::new(10_000).expect("ten thousand is not zero"),
            first_shard: 0,
            first_sample_id: SampleId(0),
            created_by: concat!("fastclip-shards ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Writes shards one after another, each with its index, and the manifest last.
///
/// A shard appears under its name when it is complete, its index after it. Until [`finish`](Self::finish) returns there
/// is no manifest, so nobody takes a part for the whole. A dropped writer leaves the complete shards; handing their
/// entries to [`resume`](Self::resume) goes on after them.
#[derive(Debug)]
pub struct DatasetWriter {
    store: Store,
    options: WriterOptions,
    done: Vec<ShardEntry>,
    open: Option<OpenShard>,
    next_id: SampleId,
}

/// What [`DatasetWriter::append`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Id that the sample got.
    pub sample_id: SampleId,
    /// The shard that this sample filled. It is stored when this is returned.
    pub completed: Option<ShardEntry>,
}

impl DatasetWriter {
    /// Starts a dataset. Whether something else lies there already is for the caller to find out.
    pub fn new(store: Store, options: WriterOptions) -> Self {
        Self::resume(store, options, Vec::new())
    }

    /// Goes on after complete shards that a writer with the same options left.
    pub fn resume(store: Store, options: WriterOptions, done: Vec<ShardEntry>) -> Self {
        let num_done: u64 = done.iter().map(|shard| u64::from(shard.num_samples)).sum();
        let next_id = SampleId(options.first_sample_id.0 + num_done);
        Self { store, options, done, open: None, next_id }
    }

    /// Key that the next sample will get: number of the shard, then position in it.
    pub fn next_key(&self) -> String {
        let per_shard = self.options.samples_per_shard.get();
        let position_digits = (per_shard - 1).max(1).ilog10() as usize + 1;
        let position = self.open.as_ref().map_or(0, |shard| shard.index.len());
        let width = position_digits.max(MIN_POSITION_DIGITS);
        format!("{:0MIN_SHARD_DIGITS$}{position:0width$}", self.shard_number())
    }

    fn shard_number(&self) -> u64 {
        u64::from(self.options.first_shard) + self.done.len() as u64
    }

    /// Appends a sample: extension and data of each member.
    ///
    /// # Errors
    /// When the store refuses, or the sample cannot be a tar member. After an error the writer must be dropped.
    pub async fn append(&mut self, members: &[(&str, &[u8])]) -> Result<Appended, WriteError> {
        let key = self.next_key();
        let mut bytes = Vec::with_capacity(members.iter().map(|(_, data)| data.len() + 1024).sum());
        for (extension, data) in members {
            tar::append_member(&mut bytes, &format!("{key}.{extension}"), data)
                .map_err(|source| WriteError::Member { key: key.clone(), source })?;
        }
        let mut shard = match self.open.take() {
            Some(shard) => shard,
            None => OpenShard::start(&self.store, self.shard_number(), self.next_id)?,
        };
        let sample_id = self.next_id;
        shard.append(&self.store, sample_id, &key, bytes).await?;
        self.next_id.0 += 1;
        let is_full = shard.index.len() == self.options.samples_per_shard.get();
        self.open = Some(shard);
        let completed = if is_full { self.close_shard().await? } else { None };
        Ok(Appended { sample_id, completed })
    }

    /// Closes the shard that is being written, full or not, and returns its entry. The next sample starts another.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn close_shard(&mut self) -> Result<Option<ShardEntry>, WriteError> {
        let Some(shard) = self.open.take() else { return Ok(None) };
        let entry = shard.finish(&self.store).await?;
        self.done.push(entry.clone());
        Ok(Some(entry))
    }

    /// Shards that are stored.
    pub fn shards(&self) -> &[ShardEntry] {
        &self.done
    }

    /// Closes the last shard and writes the manifest, with these facts about the source.
    ///
    /// # Errors
    /// When the store refuses, or there are no samples.
    pub async fn finish(
        mut self,
        source: BTreeMap<String, serde_json::Value>,
    ) -> Result<Manifest, WriteError> {
        self.close_shard().await?;
        if self.done.is_empty() {
            return Err(WriteError::Empty { location: self.store.location().to_owned() });
        }
        let manifest = Manifest {
            format_version: MANIFEST_FORMAT_VERSION,
            created_by: self.options.created_by,
            num_samples: self.done.iter().map(|shard| u64::from(shard.num_samples)).sum(),
            num_sample_ids: self.next_id.0,
            shards: self.done,
            source,
        };
        let refused = refused(&self.store, MANIFEST_FILE);
        self.store.put(MANIFEST_FILE, manifest.to_json()).await.map_err(refused)?;
        Ok(manifest)
    }

    /// Gives up: removes what was uploaded of the open shard. Complete shards stay.
    ///
    /// # Errors
    /// When the store refuses to forget.
    pub async fn abort(mut self) -> Result<(), WriteError> {
        match self.open.take() {
            Some(shard) => shard.upload.abort().await.map_err(refused(&self.store, &shard.name)),
            None => Ok(()),
        }
    }
}

/// A shard on its way.
#[derive(Debug)]
struct OpenShard {
    name: String,
    index_name: String,
    first_id: SampleId,
    upload: Upload,
    digest: blake3::Hasher,
    index: IndexBuilder,
    num_bytes: u64,
}

impl OpenShard {
    fn start(store: &Store, number: u64, first_id: SampleId) -> Result<Self, WriteError> {
        let name = format!("{number:0MIN_SHARD_DIGITS$}.tar");
        let index_name = format!("{number:0MIN_SHARD_DIGITS$}.idx");
        let upload = store.upload(&name).map_err(refused(store, &name))?;
        let (digest, index) = (blake3::Hasher::new(), IndexBuilder::default());
        Ok(Self { name, index_name, first_id, upload, digest, index, num_bytes: 0 })
    }

    async fn append(
        &mut self,
        store: &Store,
        id: SampleId,
        key: &str,
        bytes: Vec<u8>,
    ) -> Result<(), WriteError> {
        let start = self.num_bytes;
        let num_bytes = bytes.len() as u64;
        if !self.index.push(id, key, start..start + num_bytes) {
            return Err(WriteError::SampleSize { key: key.to_owned(), num_bytes });
        }
        self.write(store, bytes).await
    }

    async fn write(&mut self, store: &Store, bytes: Vec<u8>) -> Result<(), WriteError> {
        self.digest.update(&bytes);
        self.num_bytes += bytes.len() as u64;
        self.upload.write(Bytes::from(bytes)).await.map_err(refused(store, &self.name))
    }

    async fn finish(mut self, store: &Store) -> Result<ShardEntry, WriteError> {
        let mut end = Vec::new();
        tar::append_end(&mut end, self.num_bytes);
        self.write(store, end).await?;
        self.upload.finish().await.map_err(refused(store, &self.name))?;
        let num_samples = self.index.len();
        let index = self.index.finish(self.num_bytes).encode();
        let index_digest = Digest(*blake3::hash(&index).as_bytes());
        store.put(&self.index_name, index).await.map_err(refused(store, &self.index_name))?;
        Ok(ShardEntry {
            name: self.name,
            index: self.index_name,
            num_samples,
            num_bytes: self.num_bytes,
            digest: Digest(*self.digest.finalize().as_bytes()),
            index_digest,
            first_sample_id: self.first_id,
        })
    }
}

fn refused(store: &Store, name: &str) -> impl FnOnce(StoreError) -> WriteError {
    let (location, name) = (store.location().to_owned(), name.to_owned());
    |source| WriteError::Store { location, name, source }
}
