use bytes::Bytes;
use fastclip_schemas::{Digest, SampleId, ShardEntry};

use crate::error::WriteError;
use crate::index::IndexBuilder;
use crate::store::{Store, StoreError, Upload};
use crate::tar;

/// File names have at least this many digits.
pub(crate) const MIN_SHARD_DIGITS: usize = 5;

/// Writes one shard and its index: for those who number shards and name samples themselves.
///
/// Samples get ids one after another. The shard appears under its name when it is finished, its index after it; dropped before,
/// it leaves nothing that a reader could find.
#[derive(Debug)]
pub struct ShardWriter {
    store: Store,
    name: String,
    index_name: String,
    first_id: SampleId,
    upload: Upload,
    digest: blake3::Hasher,
    index: IndexBuilder,
    num_bytes: u64,
}

impl ShardWriter {
    /// Starts the shard of this number; its first sample will have this id.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn new(store: &Store, number: u64, first_id: SampleId) -> Result<Self, WriteError> {
        let name = format!("{number:0MIN_SHARD_DIGITS$}.tar");
        let index_name = format!("{number:0MIN_SHARD_DIGITS$}.idx");
        let upload = store.upload(&name).map_err(refused(store, &name))?;
        let (digest, index) = (blake3::Hasher::new(), IndexBuilder::default());
        Ok(Self { store: store.clone(), name, index_name, first_id, upload, digest, index, num_bytes: 0 })
    }

    /// Samples that were appended.
    pub fn num_samples(&self) -> u32 {
        self.index.len()
    }

    /// Bytes that were appended.
    pub fn num_bytes(&self) -> u64 {
        self.num_bytes
    }

    /// Appends a sample: extension and data of each member. Returns its id.
    ///
    /// # Errors
    /// When the store refuses, or the sample cannot be a tar member. After an error the writer must be dropped.
    pub async fn append(&mut self, key: &str, members: &[(&str, &[u8])]) -> Result<SampleId, WriteError> {
        let mut bytes = Vec::with_capacity(members.iter().map(|(_, data)| data.len() + 1024).sum());
        for (extension, data) in members {
            tar::append_member(&mut bytes, &format!("{key}.{extension}"), data)
                .map_err(|source| WriteError::Member { key: key.to_owned(), source })?;
        }
        let id = SampleId(self.first_id.0 + u64::from(self.index.len()));
        let num_bytes = bytes.len() as u64;
        if !self.index.push(id, key, self.num_bytes..self.num_bytes + num_bytes) {
            return Err(WriteError::SampleSize { key: key.to_owned(), num_bytes });
        }
        self.write(bytes).await?;
        Ok(id)
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), WriteError> {
        self.digest.update(&bytes);
        self.num_bytes += bytes.len() as u64;
        self.upload.write(Bytes::from(bytes)).await.map_err(refused(&self.store, &self.name))
    }

    /// Completes the shard and writes its index.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn finish(mut self) -> Result<ShardEntry, WriteError> {
        let mut end = Vec::new();
        tar::append_end(&mut end, self.num_bytes);
        self.write(end).await?;
        self.upload.finish().await.map_err(refused(&self.store, &self.name))?;
        let num_samples = self.index.len();
        let index = self.index.finish(self.num_bytes).encode();
        let index_digest = Digest(*blake3::hash(&index).as_bytes());
        self.store.put(&self.index_name, index).await.map_err(refused(&self.store, &self.index_name))?;
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

    /// Gives up, and removes what was uploaded.
    ///
    /// # Errors
    /// When the store refuses to forget.
    pub async fn abort(self) -> Result<(), WriteError> {
        self.upload.abort().await.map_err(refused(&self.store, &self.name))
    }
}

pub(crate) fn refused(store: &Store, name: &str) -> impl FnOnce(StoreError) -> WriteError {
    let (location, name) = (store.location().to_owned(), name.to_owned());
    |source| WriteError::Store { location, name, source }
}
